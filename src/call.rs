//! The path of a call, from admission to settlement: one function that reads top to bottom, each stage one file.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, RetryRules};
use crate::deadline::Deadline;
use crate::ids::RequestId;
use crate::lifecycle::{Lifecycle, Role, Spent};
use crate::phase::Phase;
use crate::provider::Job;
use crate::tasks::{TaskKind, Tasks};
use crate::tool::place::{Composite, Place};
use crate::tool::{Asked, Dedup, Registry, Tool, Unprepared, Work};

mod asking;
mod attempts;
mod boarding;
mod budget;
pub mod cache;
pub mod caller;
pub mod canonical;
mod children;
pub mod desk;
mod fallback;
pub mod flight;
pub mod flights;
mod invoke;
pub mod key;
pub mod offer;
mod options;
mod origin;
pub mod outcome;
mod parked;
pub mod permits;
pub mod queue;
pub mod reattach;
mod settle;
mod shown;
mod told;
mod views;
pub mod waiter;
pub mod watch;

pub use caller::{Caller, ClientSession, Principal, SessionEnded};
pub use options::{Call, METADATA_BYTES, Options};
pub use outcome::{CallError, Code, Full, Outcome};
pub use parked::Continues;
pub use queue::Priority;
pub use waiter::{Answer, Bounds, CancelHandle, News, Waiter};

use attempts::Progress;
use boarding::Joins;
use cache::OutcomeCache;
use children::Opener;
use desk::Desk;
use fallback::Fallback;
use flight::{About, Boarding, FlightRules, Unread};
use flights::{Flights, RunGuard};
use invoke::InLane;
use key::{CallKey, Digester};
use offer::{DeskRules, Offer, Offers};
use origin::Origin;
use permits::Leases;
use queue::{Pool, Share};
use reattach::{Attached, Attachments};
use settle::settle;
use waiter::Arrival;
use watch::Watch;

/// How long work may take that winds down by itself.
const WINDING_DOWN: Duration = Duration::from_secs(15);

/// What becomes of a call that was handed over.
pub enum Submitted {
    /// It was answered at once.
    Answered(Answer),
    /// It is under way.
    Waiting(Waiter),
}

/// The path of a call, and all it goes through. Clones are the same path.
#[derive(Clone)]
pub struct Calls {
    offers: Arc<Offers>,
    flights: Arc<Flights>,
    watch: Arc<Watch>,
    attachments: Arc<Attachments>,
    path: Arc<Path>,
    digester: Digester,
    rules: FlightRules,
    patience: Duration,
    tasks: Tasks,
}

/// A call on its way in.
struct Came<'a> {
    arrival: Arrival,
    /// What speaks for calls that are written the same; `None`: its arguments do not say all that it asks.
    unread: Option<Unread<'a>>,
    /// It was counted as one of its principal's.
    is_counted: bool,
}

/// What a Run goes through.
struct Path {
    global: Arc<Pool>,
    /// Slots of composites, in the order of [`Composite::ALL`].
    composites: [Arc<Desk>; Composite::ALL.len()],
    leases: Arc<Leases>,
    lifecycle: Arc<Lifecycle>,
    queue_budget: Duration,
    retry: RetryRules,
    max_reply_bytes: usize,
    tasks: Tasks,
    /// Answers those that wait for their turn: the drain has begun. Pools of sessions are not ours to close.
    closing: CancellationToken,
    /// Cancels every Run: the drain took too long.
    halt: CancellationToken,
}

/// One Run, ready to start.
struct Run {
    guard: RunGuard,
    job: Box<dyn Job>,
    place: RunsAt,
    caller: Caller,
}

/// Where a Run does its work.
enum RunsAt {
    /// Under permits of a lane, and in a slot of its session unless its composite is in one of its own.
    Lane(InLane),
    /// In a slot of its own kind, calling others.
    Own(Arc<Desk>, Box<Opener>),
}

impl RunsAt {
    /// What tells the work to wind down, where it does so by itself.
    fn stop(&self) -> Option<CancellationToken> {
        match self {
            Self::Lane(lane) => lane.stop.clone(),
            Self::Own(..) => None,
        }
    }
}

impl Calls {
    /// The path as configured.
    pub fn new(config: &Config, registry: Registry, lifecycle: Arc<Lifecycle>, tasks: Tasks) -> Self {
        let limits = &config.limits;
        let share = if config.principals.len() > 1 { Share::Half } else { Share::HalfOnceSeveral };
        let slots = |kind: Composite| {
            let pool = Pool::new(Arc::from(kind.name()), kind.limit(limits), kind.queue(limits), share);
            Arc::new(Desk::plain(pool.into()))
        };
        let path = Path {
            // As many as there are Executions may wait here: each waits in its provider's bounded queue first.
            global: Arc::new(Pool::new(Arc::from("global"), limits.global, limits.executions, Share::All)),
            composites: Composite::ALL.map(slots),
            leases: Arc::new(Leases::default()),
            lifecycle: Arc::clone(&lifecycle),
            queue_budget: config.ladder.queue,
            retry: config.resilience.retry,
            tasks: tasks.clone(),
            max_reply_bytes: limits.result_bytes,
            closing: CancellationToken::new(),
            halt: CancellationToken::new(),
        };
        let rules = DeskRules { queue: limits.queue, share, resilience: config.resilience };
        Self {
            flights: Arc::new(Flights::new(
                limits.executions,
                OutcomeCache::new(limits.result_cache_bytes, config.guard_window),
            )),
            watch: Arc::new(Watch::new(lifecycle, Arc::clone(&registry.catalog().books().ledger))),
            attachments: Arc::new(Attachments::new(config.reattach)),
            path: Arc::new(path),
            digester: Digester::default(),
            rules: FlightRules { max_waiters: limits.waiters, reattach: config.reattach },
            patience: config.ladder.daemon,
            offers: Arc::new(Offers::new(registry, rules)),
            tasks,
        }
    }

    /// Takes a call in. Whatever happens, it ends exactly once: with the answer returned here, or through the
    /// waiter.
    ///
    /// Must be called inside a tokio runtime.
    pub fn submit(&self, caller: &Caller, call: Call<'_>) -> Submitted {
        self.submit_from(caller, call, Origin::Door(None))
    }

    /// The same for a call that may go on with an earlier one.
    pub fn resubmit(&self, caller: &Caller, call: Call<'_>, continues: Option<Continues<'_>>) -> Submitted {
        self.submit_from(caller, call, Origin::Door(continues))
    }

    fn submit_from(&self, caller: &Caller, call: Call<'_>, origin: Origin<'_>) -> Submitted {
        let received = Instant::now();
        let request = RequestId::mint();
        let principal = &*caller.principal;
        let offer = self.offers.now();
        let tool = origin.find(&offer.registry, principal, &call);
        let taken = match tool {
            // A connection may outlive the token that opened it.
            _ if principal.has_expired(request.minted_ms()) => {
                Err(CallError::Expired { principal: Arc::clone(&principal.name) })
            }
            None => Err(no_such_tool(&offer.registry, principal, call.tool)),
            Some(tool) => {
                let taken = || self.take_in(caller, &offer, tool, call, origin, (request, received));
                std::panic::catch_unwind(AssertUnwindSafe(taken)).unwrap_or_else(|_| {
                    // Whatever it held by then is given back. The other calls of its connection go on.
                    tracing::error!("a call panicked before its work began; it was answered");
                    Err(CallError::Lost)
                })
            }
        };
        taken.unwrap_or_else(|error| {
            let answer = Answer {
                request,
                execution: None,
                role: None,
                provider: None,
                spent: Spent { total: received.elapsed(), ..Spent::default() },
                outcome: Err(Arc::new(error)),
            };
            let name = waiter::recorded_name(tool);
            self.watch.ended(waiter::record(caller.principal.id, name, &answer), None);
            Submitted::Answered(answer)
        })
    }

    /// A call that is written as one before finds its flight or its outcome so; every other is read.
    fn take_in(
        &self,
        caller: &Caller,
        offer: &Offer,
        tool: &Arc<Tool>,
        call: Call<'_>,
        origin: Origin<'_>,
        (request, received): (RequestId, Instant),
    ) -> Result<Submitted, CallError> {
        let arrival = self.arrival(caller, &call, (request, received));
        let says_all = origin.is_plain() && call.extra.is_none();
        let unread = says_all.then(|| Unread {
            principal: caller.principal.id,
            session: caller.session.id,
            tool: tool.id,
            dedup: call.options.dedup,
            offer: offer.generation,
            text: call.arguments,
        });
        let mut is_counted = false;
        if let Some(unread) = &unread
            && !call.options.resume
            && !self.path.lifecycle.draining()
        {
            match self.join_unread(caller, &call, unread, arrival)? {
                Joins::Yes(submitted) => return Ok(submitted),
                Joins::Counted => is_counted = true,
                Joins::No => {}
            }
        }
        self.read(caller, offer, tool, call, origin, Came { arrival, unread, is_counted })
    }

    /// Admission, key and flight; then the Run is polled once, and needs a task only if it is not ready.
    fn read(
        &self,
        caller: &Caller,
        offer: &Offer,
        tool: &Arc<Tool>,
        call: Call<'_>,
        origin: Origin<'_>,
        Came { arrival, unread, is_counted }: Came<'_>,
    ) -> Result<Submitted, CallError> {
        let Arrival { request, principal, received, priority, can, .. } = arrival;
        let arguments = call.document()?;
        tool.check(&arguments)?;
        let tool = tool.asked_for(&arguments);
        if let Work::Builtin(builtin) = tool.work {
            let reply = builtin.answer(&arguments, principal, offer.registry.catalog(), self)?;
            let answer = Answer::at_once(request, received, Role::Leader, None, Ok(Arc::new(reply)));
            return Ok(Submitted::Answered(self.recorded(caller, tool, answer)));
        }
        let (canonical, digest) = self.digester.digest(call.arguments, call.extra)?;
        let attached = Attached::of(caller, call.id);
        if call.options.resume
            && let Some(waiter) = self.resume(attached.as_ref(), tool, &canonical, arrival)?
        {
            self.path.lifecycle.resumed();
            return Ok(waiter.attached(attached).submitted());
        }
        let continues = origin.continues();
        if let Some(continues) = continues
            && let Some(submitted) =
                self.continued(continues, tool, &canonical, arrival, attached.as_ref())?
        {
            return Ok(submitted);
        }
        if self.path.lifecycle.draining() {
            return Err(CallError::ShuttingDown);
        }
        let metadata = call.metadata()?;
        let asked = Asked {
            arguments,
            text: call.arguments,
            principal,
            session: caller.session.id,
            is_child: origin.is_child(),
            continued: continues.map(Continues::owned),
            slots: &*self.path,
        };
        let prepared = match offer.registry.prepare(tool, asked) {
            Ok(Some(prepared)) => prepared,
            Ok(None) => unreachable!("only built-in tools need no work, and they were answered above"),
            Err(Unprepared::Misfit(misfit)) => return Err(misfit.into()),
            Err(Unprepared::Answered(reply)) => {
                let answer = Answer::at_once(request, received, Role::Leader, None, Ok(Arc::from(reply)));
                return Ok(Submitted::Answered(self.recorded(caller, tool, answer)));
            }
        };
        let ordinal = origin.ordinal(tool, prepared.place)?;
        if !origin.is_child() && !is_counted {
            self.count_call(caller, received)?;
        }
        // One that goes on with another is like no other.
        let policy = if continues.is_some() { Dedup::Off } else { call.options.dedup.unwrap_or(tool.dedup) };
        let definition = prepared.definition;
        let key = |session| CallKey { principal, session, tool: tool.id, definition, ordinal, digest };
        let key = match policy {
            Dedup::Principal => Some(key(None)),
            Dedup::Session => Some(key(Some(caller.session.id))),
            Dedup::Off => None,
        };
        let (desk, rung) = self.path.place(offer, tool, &prepared);
        let (fallbacks, timeout) = Fallback::of(&*prepared.job, offer, tool, rung);
        let provider = Arc::clone(desk.name());
        let keep = self.flights.cache().keeps(policy, tool);
        if let Some(outcome) = self.flights.cache().answers(keep, key, &canonical)
            && let Some(answer) = self.kept_answer(tool, &provider, arrival, attached.is_some(), outcome)
        {
            if let (Some(unread), Some(key)) = (unread.filter(|_| prepared.is_settled), key) {
                self.flights.was_kept(&unread, key, &canonical, (tool, &provider));
            }
            return Ok(Submitted::Answered(self.recorded(caller, tool, answer)));
        }
        let boarding = Boarding {
            key,
            arguments: canonical,
            tool: Arc::clone(tool),
            provider,
            rules: self.rules,
            keep,
            about: About { model: prepared.model, timeout, metadata },
            at: received,
            priority,
            until: arrival.until(),
            can,
        };
        let is_settled = prepared.is_settled;
        let (job, place, desk) = (prepared.job, prepared.place, Arc::clone(desk));
        let run = |guard| {
            let stop = job.winds_down().then(CancellationToken::new);
            let place = self.runs_at(place, (desk, rung, fallbacks, stop), caller, origin);
            Run { guard, job, place, caller: caller.clone() }
        };
        let waiter = self.board(boarding, arrival, attached, unread.filter(|_| is_settled), run)?;
        Ok(waiter.submitted())
    }

    fn runs_at(
        &self,
        place: Place,
        (desk, rung, fallbacks, stop): (Arc<Desk>, Duration, Vec<Fallback>, Option<CancellationToken>),
        caller: &Caller,
        origin: Origin<'_>,
    ) -> RunsAt {
        match place {
            Place::Lane(_) => {
                RunsAt::Lane(InLane { desk, rung, fallbacks, is_child: origin.is_child(), stop })
            }
            Place::Composite(_) => {
                RunsAt::Own(desk, Box::new(Opener { calls: self.clone(), caller: caller.clone() }))
            }
        }
    }

    /// Polls the Run once; one that is not ready then gets a task.
    fn start(&self, run: Run) {
        let mut work: BoxFuture<'static, ()> = fly(Arc::clone(&self.path), run).boxed();
        // The task polls again at once with its own waker, so a wake-up for this one is never missed.
        let mut context = TaskContext::from_waker(Waker::noop());
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut context)));
        match polled {
            Ok(Poll::Ready(())) => {}
            Ok(Poll::Pending) => {
                self.tasks.spawn(TaskKind::Run, work);
            }
            // Unwinding dropped the Run's guard, which answered everybody.
            Err(_) => tracing::error!("a tool panicked; its callers were answered"),
        }
    }

    fn recorded(&self, caller: &Caller, tool: &Arc<Tool>, answer: Answer) -> Answer {
        let answer = answer.of_sharer();
        self.watch.shared(answer.role, &answer.outcome);
        self.watch.ended(waiter::record(caller.principal.id, Arc::clone(&tool.name), &answer), None);
        answer
    }

    /// Refuses new calls, and answers those that wait for their turn.
    pub fn start_draining(&self) {
        self.path.lifecycle.start_draining();
        self.offers.close();
        self.path.global.close();
        self.path.composites.iter().for_each(|desk| desk.pool.close());
        self.path.closing.cancel();
    }

    /// Cancels what is still at work: who waits is answered.
    pub fn stop_all(&self) {
        self.path.halt.cancel();
    }
}

/// What calling a tool that is not there for a principal is answered with: it names none that it may not call.
pub fn no_such_tool(registry: &Registry, principal: &Principal, name: &str) -> CallError {
    let near = registry.near(name, |tool| principal.allows(tool));
    CallError::NoSuchTool { name: name.chars().take(64).collect(), near }
}

/// A Run from its start to its landing. Its guard lands it if this future panics or is dropped.
async fn fly(path: Arc<Path>, run: Run) {
    let Run { mut guard, job, place, caller } = run;
    let flight = Arc::clone(guard.flight());
    let mut progress = Progress::default();
    let stop = place.stop();
    let worked = {
        let work = async {
            match place {
                RunsAt::Lane(lane) => path.work(&flight, job, lane, &caller, &mut progress).await,
                // Boxed: plain calls are not to carry its room.
                RunsAt::Own(desk, opener) => {
                    path.compose(&flight, job, &desk.pool, *opener, &mut progress.began).boxed().await
                }
            }
        };
        let mut work = pin!(work);
        // Who listens to what may stop it is made only for work that has to be waited for.
        match futures_util::poll!(work.as_mut()) {
            Poll::Ready(worked) => worked,
            Poll::Pending => {
                let why = tokio::select! {
                    biased;
                    worked = work.as_mut() => Ok(worked),
                    () = flight.stopped() => Err(CallError::Cancelled),
                    () = path.halt.cancelled() => Err(CallError::ShuttingDown),
                };
                if why.is_err()
                    && let Some(stop) = stop
                {
                    // What it started must be gone before its permits are.
                    stop.cancel();
                    let _ = Deadline::after(WINDING_DOWN).limit(work).await;
                }
                why.unwrap_or_else(Err)
            }
        }
    };
    let end = Instant::now();
    if progress.began {
        flight.stages().mark(Phase::ProviderCallEnd, end);
    }
    // Dropping `work` above ended the work and gave back, in this order, lease and slot.
    flight.stages().mark(Phase::SessionReleased, end);
    let outcome = settle(worked, &flight, progress.began, path.max_reply_bytes);
    guard.land(outcome);
}

#[cfg(test)]
pub(crate) mod tests;

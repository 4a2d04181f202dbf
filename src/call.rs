//! The path of a call, from admission to settlement: one function that reads top to bottom, each stage one file.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::deadline::Deadline;
use crate::ids::RequestId;
use crate::lifecycle::{Lifecycle, Role, Spent};
use crate::phase::Phase;
use crate::provider::{Context, Fault, Job, Reply, Tell};
use crate::tasks::{TaskKind, Tasks};
use crate::tool::{Dedup, Effect, Registry, Tool, Work};

pub mod caller;
pub mod canonical;
pub mod flight;
pub mod flights;
pub mod key;
pub mod outcome;
pub mod permits;
pub mod queue;
pub mod reattach;
pub mod waiter;
pub mod watch;

pub use caller::{Caller, ClientSession, Principal};
pub use outcome::{CallError, Code, Full, Outcome};
pub use queue::Priority;
pub use waiter::{Answer, CancelHandle, News, Waiter};

use flight::{Boarding, Flight, FlightRules};
use flights::{Aboard, Flights, RunGuard};
use key::{CallKey, Digester};
use permits::{Holder, Lease, Leases};
use queue::{Permit, Pool, PoolView};
use reattach::{Attachments, Claim};
use waiter::Arrival;
use watch::Watch;

/// What a caller may say about its call beside the arguments.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Its class in every queue.
    pub priority: Priority,
    /// How long the caller waits, if less than the daemon would.
    pub timeout: Option<Duration>,
    /// Who may share its execution, if others than the tool says.
    pub dedup: Option<Dedup>,
    /// Whether the caller wants text as it is made.
    pub wants_text: bool,
    /// Whether it was sent before, over a connection that is lost.
    pub resume: bool,
}

/// A call as a door hands it over.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The client's own id of it, as JSON text: what it goes by when it is sent again.
    pub id: Option<&'a str>,
    /// Which tool.
    pub tool: &'a str,
    /// Its arguments, as JSON text.
    pub arguments: &'a str,
    /// What else distinguishes it, as one JSON object.
    pub extra: Option<&'a str>,
    /// What else the caller says.
    pub options: Options,
}

/// What becomes of a call that was handed over.
pub enum Submitted {
    /// It was answered at once.
    Answered(Answer),
    /// It is under way.
    Waiting(Waiter),
}

/// The path of a call, and all it goes through.
pub struct Calls {
    registry: Registry,
    flights: Arc<Flights>,
    watch: Arc<Watch>,
    attachments: Attachments,
    path: Arc<Path>,
    digester: Digester,
    rules: FlightRules,
    patience: Duration,
    tasks: Tasks,
}

/// What a Run goes through.
struct Path {
    pools: Vec<Arc<Pool>>,
    timeouts: Vec<Duration>,
    global: Arc<Pool>,
    leases: Arc<Leases>,
    lifecycle: Arc<Lifecycle>,
    queue_budget: Duration,
    max_reply_bytes: usize,
    /// Cancels every Run: the drain took too long.
    halt: CancellationToken,
}

/// One Run, ready to start.
struct Run {
    guard: RunGuard,
    job: Box<dyn Job>,
    provider: usize,
    priority: Priority,
    session: Arc<ClientSession>,
}

impl Calls {
    /// The path as configured.
    pub fn new(config: &Config, registry: Registry, lifecycle: Arc<Lifecycle>, tasks: Tasks) -> Self {
        let limits = &config.limits;
        let entries = registry.catalog().entries();
        let pool = |name: &Arc<str>, limit| Arc::new(Pool::new(Arc::clone(name), limit, limits.queue));
        let path = Path {
            pools: entries.iter().map(|entry| pool(&entry.name, entry.max_inflight)).collect(),
            timeouts: entries.iter().map(|entry| entry.timeout).collect(),
            // As many as there are Executions may wait here: each waits in its provider's bounded queue first.
            global: Arc::new(Pool::new(Arc::from("global"), limits.global, limits.executions)),
            leases: Arc::new(Leases::default()),
            lifecycle: Arc::clone(&lifecycle),
            queue_budget: config.ladder.queue,
            max_reply_bytes: limits.result_bytes,
            halt: CancellationToken::new(),
        };
        Self {
            flights: Arc::new(Flights::new(limits.executions)),
            watch: Arc::new(Watch::new(lifecycle)),
            attachments: Attachments::new(config.reattach),
            path: Arc::new(path),
            digester: Digester::default(),
            rules: FlightRules { max_waiters: limits.waiters, reattach: config.reattach },
            patience: config.ladder.daemon,
            registry,
            tasks,
        }
    }

    /// Takes a call in. Whatever happens, it ends exactly once: with the answer returned here, or through the
    /// waiter.
    ///
    /// Must be called inside a tokio runtime.
    pub fn submit(&self, caller: &Caller, call: Call<'_>) -> Submitted {
        let received = Instant::now();
        let request = RequestId::mint();
        let tool = self.registry.find(call.tool);
        let taken = match tool {
            None => Err(self.no_such_tool(call.tool)),
            Some(tool) => self.take_in(caller, tool, call, request, received),
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
            self.watch.ended(waiter::record(caller.principal.id, name, &answer), false);
            Submitted::Answered(answer)
        })
    }

    /// Admission, key and flight; then the Run is polled once, and needs a task only if it is not ready.
    fn take_in(
        &self,
        caller: &Caller,
        tool: &Arc<Tool>,
        call: Call<'_>,
        request: RequestId,
        received: Instant,
    ) -> Result<Submitted, CallError> {
        let arguments = parse(call.arguments)?;
        tool.check(&arguments)?;
        if let Work::Builtin(builtin) = tool.work {
            let reply = builtin.answer(&arguments, caller.principal.id, self.registry.catalog(), self)?;
            return Ok(Submitted::Answered(self.at_once(caller, tool, request, received, reply)));
        }
        let (canonical, digest) = self.digester.digest(call.arguments, call.extra)?;
        let options = call.options;
        let patience = options.timeout.map_or(self.patience, |asked| asked.min(self.patience));
        let principal = caller.principal.id;
        let wants_text = options.wants_text;
        let arrival = Arrival { request, principal, received, patience, wants_text };
        let claim = Claim::of(caller, call.id);
        if options.resume
            && let Some(waiter) = self.resume(claim.as_ref(), tool, &canonical, arrival)?
        {
            self.path.lifecycle.resumed();
            return Ok(waiter.claimed(claim).submitted());
        }
        if self.path.lifecycle.draining() {
            return Err(CallError::ShuttingDown);
        }
        let Some(prepared) = self.registry.prepare(tool, arguments)? else {
            unreachable!("only built-in tools need no work, and they were answered above");
        };
        let key =
            |session| CallKey { principal, session, tool: tool.id, definition: prepared.definition, digest };
        let key = match options.dedup.unwrap_or(tool.dedup) {
            Dedup::Principal => Some(key(None)),
            Dedup::Session => Some(key(Some(caller.session.id))),
            Dedup::Off => None,
        };
        let Some(provider) = self.path.pools.get(prepared.provider).map(|pool| Arc::clone(pool.name()))
        else {
            unreachable!("a call is prepared for a provider of the catalogue, and each has a pool");
        };
        let boarding = Boarding {
            key,
            arguments: canonical,
            tool: Arc::clone(tool),
            provider,
            rules: self.rules,
            at: received,
        };
        let waiter = match self.flights.board(boarding)? {
            Aboard::Joined(flight, seat) => {
                self.path.lifecycle.joined();
                Waiter::new(Arc::clone(&self.watch), flight, seat, Role::Follower, arrival).claimed(claim)
            }
            Aboard::Opened(guard, seat) => {
                self.path.lifecycle.opened();
                let flight = Arc::clone(guard.flight());
                let run = Run {
                    guard,
                    job: prepared.job,
                    provider: prepared.provider,
                    priority: options.priority,
                    session: Arc::clone(&caller.session),
                };
                let waiter = Waiter::new(Arc::clone(&self.watch), flight, seat, Role::Leader, arrival);
                // Before the work begins: whoever knows that it runs can find it.
                let waiter = waiter.claimed(claim);
                self.start(run);
                waiter
            }
        };
        Ok(waiter.submitted())
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

    fn at_once(
        &self,
        caller: &Caller,
        tool: &Arc<Tool>,
        request: RequestId,
        received: Instant,
        reply: Reply,
    ) -> Answer {
        let answer = Answer {
            request,
            execution: None,
            role: Some(Role::Leader),
            provider: None,
            spent: Spent { total: received.elapsed(), ..Spent::default() },
            outcome: Ok(Arc::new(reply)),
        };
        self.watch.ended(waiter::record(caller.principal.id, Arc::clone(&tool.name), &answer), false);
        answer
    }

    fn no_such_tool(&self, name: &str) -> CallError {
        CallError::NoSuchTool { name: name.chars().take(64).collect(), near: self.registry.near(name) }
    }

    /// The tools and providers.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Calls under way and kept.
    pub fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Calls in the air.
    pub fn flights(&self) -> &Arc<Flights> {
        &self.flights
    }

    /// Who holds permits.
    pub fn leases(&self) -> &Arc<Leases> {
        &self.path.leases
    }

    /// The pool that all providers share, and each provider's, with their names.
    pub fn pools(&self) -> (PoolView, Vec<(Arc<str>, PoolView)>) {
        let each = self.path.pools.iter().map(|pool| (Arc::clone(pool.name()), pool.view())).collect();
        (self.path.global.view(), each)
    }

    /// Refuses new calls, and answers those that wait for their turn.
    pub fn start_draining(&self) {
        self.path.lifecycle.start_draining();
        self.path.pools.iter().for_each(|pool| pool.close());
        self.path.global.close();
    }

    /// Cancels what is still at work: who waits is answered.
    pub fn stop_all(&self) {
        self.path.halt.cancel();
    }
}

/// A call's arguments as a document; an absent one is an empty object.
fn parse(arguments: &str) -> Result<Value, CallError> {
    serde_json::from_str(arguments)
        .map_err(|_| CallError::Invalid("arguments are not valid JSON, or nest too deep".into()))
}

/// A Run from its start to its landing. Its guard lands it if this future panics or is dropped.
async fn fly(path: Arc<Path>, run: Run) {
    let Run { mut guard, job, provider, priority, session } = run;
    let flight = Arc::clone(guard.flight());
    let mut began = false;
    let worked = {
        let work = path.work(&flight, job, provider, priority, &session, &mut began);
        tokio::select! {
            biased;
            worked = work => worked,
            () = flight.stopped() => Err(CallError::Cancelled),
            () = path.halt.cancelled() => Err(CallError::Cancelled),
        }
    };
    let end = Instant::now();
    if began {
        flight.stages().mark(Phase::ProviderCallEnd, end);
    }
    // Dropping `work` above ended the work and gave back, in this order, lease and slot.
    flight.stages().mark(Phase::SessionReleased, end);
    let outcome = settle(worked, &flight, began, path.lifecycle.draining(), path.max_reply_bytes);
    path.lifecycle.landed(outcome.is_ok(), end.saturating_duration_since(flight.stages().start()));
    guard.land(outcome);
}

impl Path {
    /// Slot, queue and permits, narrow to wide; then the work, within the Run's deadline.
    async fn work(
        &self,
        flight: &Arc<Flight>,
        job: Box<dyn Job>,
        provider: usize,
        priority: Priority,
        session: &ClientSession,
        began: &mut bool,
    ) -> Result<Reply, CallError> {
        let (Some(pool), Some(provider_timeout)) = (self.pools.get(provider), self.timeouts.get(provider))
        else {
            unreachable!("a call is prepared for a provider of the catalogue");
        };
        let stages = flight.stages();
        let queued = Instant::now();
        stages.mark(Phase::Queued, queued);
        let budget = Budget { until: Deadline::since(queued, self.queue_budget), since: queued, priority };
        let (slot, at) = budget.turn(&session.slots, queued).await?;
        let (permit, at) = budget.turn(pool, at).await?;
        stages.mark(Phase::Dequeued, at);
        let (global, start) = budget.turn(&self.global, at).await?;
        stages.mark(Phase::SessionAllocated, start);
        let limit = flight.tool().timeout.min(*provider_timeout);
        let deadline = Deadline::since(start, limit);
        let lease = self.lease(permit, global, flight, start, deadline);
        stages.mark(Phase::ProviderCallStart, start);
        *began = true;
        let tell: Arc<dyn Tell> = flight.clone();
        let context = Context { deadline, tell, max_reply_bytes: self.max_reply_bytes };
        let worked = deadline.limit(job.run(context)).await;
        pool.observe(start.elapsed());
        drop(lease);
        drop(slot);
        match worked {
            Ok(reply) => reply.map_err(CallError::Provider),
            Err(_) => Err(CallError::ProviderTimeout {
                provider: Arc::clone(pool.name()),
                after: limit,
                execution: flight.execution(),
            }),
        }
    }

    fn lease(
        &self,
        provider: Permit,
        global: Permit,
        flight: &Arc<Flight>,
        since: Instant,
        deadline: Deadline,
    ) -> Lease {
        let holder = Holder { flight: Arc::clone(flight), since, deadline };
        self.leases.grant(provider, global, holder)
    }
}

/// The one budget for waiting: slot, queue and permits share it, and the work has none of it.
struct Budget {
    until: Deadline,
    since: Instant,
    priority: Priority,
}

impl Budget {
    /// A permit of this pool, and when it was had: `now`, where there was no wait.
    async fn turn(&self, pool: &Arc<Pool>, now: Instant) -> Result<(Permit, Instant), CallError> {
        if let Some(permit) = pool.try_take() {
            return Ok((permit, now));
        }
        let waiting = pool.queue(self.priority)?;
        let permit = self.until.limit(waiting).await.unwrap_or_else(|_| {
            Err(CallError::QueueTimeout {
                name: Arc::clone(pool.name()),
                waited: self.since.elapsed(),
                retry_after: pool.retry_after(),
            })
        })?;
        Ok((permit, Instant::now()))
    }
}

/// What the Run's end means for those who wait. A write that may have been done says so.
fn settle(
    worked: Result<Reply, CallError>,
    flight: &Flight,
    began: bool,
    draining: bool,
    max_reply_bytes: usize,
) -> Outcome {
    let write = flight.tool().effect == Effect::Write;
    let unknown =
        |what| Err(Arc::new(CallError::OutcomeUnknown { tool: Arc::clone(&flight.tool().name), what }));
    match worked {
        Ok(reply) if reply.bytes() > max_reply_bytes => {
            Err(Arc::new(CallError::TooLarge { bytes: reply.bytes(), limit: max_reply_bytes }))
        }
        Ok(reply) => Ok(Arc::new(reply)),
        Err(CallError::Provider(fault)) if write && began && !fault.surely_not_done() => {
            unknown(what_failed(&fault))
        }
        Err(CallError::ProviderTimeout { .. }) if write => unknown("ran into its time limit"),
        Err(CallError::Cancelled) if write && began && draining => {
            unknown("was cut off because the daemon went down")
        }
        Err(CallError::Cancelled) if draining => Err(Arc::new(CallError::ShuttingDown)),
        Err(error) => Err(Arc::new(error)),
    }
}

fn what_failed(fault: &Fault) -> &'static str {
    match fault {
        Fault::Refused { .. } => "its provider failed",
        Fault::Unreachable { .. } => "its provider could not be reached",
        Fault::Broken { .. } => "its provider broke off",
        Fault::TooLarge { .. } => "its answer was too large",
    }
}

#[cfg(test)]
mod tests;

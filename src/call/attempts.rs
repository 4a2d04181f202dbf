//! Attempts of one Run's work at one lane: the first, and those after it where a fault may pass, within the Run's
//! deadline and the provider's budget.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::call::Path;
use crate::call::asking::CutShort;
use crate::call::budget::Budget;
use crate::call::caller::Caller;
use crate::call::desk::{Desk, Ended};
use crate::call::flight::Flight;
use crate::call::outcome::CallError;
use crate::call::permits::{Holder, Lease};
use crate::call::queue::Permit;
use crate::deadline::{Deadline, Passed};
use crate::phase::Phase;
use crate::provider::breaker::Pass;
use crate::provider::retry::{self, Next};
use crate::provider::{Context, Fault, Job, Reply, Tell};
use crate::tool::Effect;

/// Who waits longer than this before it tries again gives its permits back meanwhile.
const HOLDS_ON: Duration = Duration::from_secs(1);

/// One Run at one lane.
pub(super) struct Attempts<'a> {
    pub(super) path: &'a Path,
    pub(super) flight: &'a Arc<Flight>,
    pub(super) caller: &'a Caller,
    pub(super) desk: &'a Arc<Desk>,
    /// Since when it waits.
    pub(super) queued: Instant,
    /// How long its work may take here.
    pub(super) rung: Duration,
    /// When its work here started.
    pub(super) started: Option<Instant>,
    /// How far the Run has come.
    pub(super) progress: &'a mut Progress,
    /// Tells work that winds down by itself to do so.
    pub(super) stop: Option<CancellationToken>,
}

/// How far one Run has come, wherever it works.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Whether the work may have begun.
    pub(super) began: bool,
    /// The Run's deadline, from when its work starts.
    pub(super) whole: Option<Deadline>,
    /// When the last attempt ended.
    pub(super) ended: Option<Instant>,
}

/// What it holds while it works.
struct Turn<'a> {
    lease: Lease,
    pass: Option<Pass<'a>>,
    start: Instant,
}

impl<'a> Attempts<'a> {
    /// Its turn, for which it waits from `now` and until then, and the work.
    pub(super) async fn run(
        &mut self,
        job: Box<dyn Job>,
        until: Deadline,
        now: Instant,
    ) -> Result<Reply, CallError> {
        self.desk.look(now)?;
        let (turn, dequeued) = self.turn(until, false, now).await?;
        self.desk.called(turn.start);
        self.flight.stages().mark(Phase::Dequeued, dequeued);
        let again = job.again();
        let (turn, worked) = self.attempt(job, turn).await;
        match (worked, again) {
            (Err(CallError::Provider(fault)), Some(again)) => self.repeat(fault, again, turn).boxed().await,
            (worked, _) => worked,
        }
    }

    /// Permits, narrow to wide, and the breaker's leave; with the instant at which the first of them was had.
    async fn turn(
        &mut self,
        until: Deadline,
        returns: bool,
        now: Instant,
    ) -> Result<(Turn<'a>, Instant), CallError> {
        let (permit, global, dequeued, start) = self.permits(until, returns, now).await?;
        let pass = self.desk.pass(start)?;
        let deadline = self.deadline(start);
        let holder = Holder { flight: Arc::clone(self.flight), since: start, deadline, rests: false };
        let lease = self.path.leases.grant(permit, global, holder);
        Ok((Turn { lease, pass, start }, dequeued))
    }

    /// When the work here must have ended, which starts now unless it has before.
    fn deadline(&mut self, now: Instant) -> Deadline {
        let all = self.flight.about().timeout;
        let whole = *self.progress.whole.get_or_insert_with(|| Deadline::since(now, all));
        Deadline::since(*self.started.get_or_insert(now), self.rung).min(whole)
    }

    async fn permits(
        &self,
        until: Deadline,
        mut returns: bool,
        mut now: Instant,
    ) -> Result<(Permit, Permit, Instant, Instant), CallError> {
        loop {
            let Self { flight, caller, queued: since, .. } = *self;
            let budget = Budget { flight, caller, since, until, closing: &self.path.closing, returns };
            let (permit, at) = budget.turn(&self.desk.pool, now).await?;
            let (global, start) = budget.turn(&self.path.global, at).await?;
            // Whoever waited for the second may have had the first before the provider asked to be left alone.
            if !self.desk.pool.rests() {
                return Ok((permit, global, at, start));
            }
            drop((global, permit));
            (now, returns) = (start, true);
        }
    }

    /// One attempt. What it holds comes back, unless the work is over.
    async fn attempt(
        &mut self,
        job: Box<dyn Job>,
        mut turn: Turn<'a>,
    ) -> (Turn<'a>, Result<Reply, CallError>) {
        let stages = self.flight.stages();
        stages.mark(Phase::SessionAllocated, turn.start);
        stages.mark(Phase::ProviderCallStart, turn.start);
        self.progress.began = true;
        let deadline = self.deadline(turn.start);
        let tell: Arc<dyn Tell> = self.flight.clone();
        let max_reply_bytes = self.path.max_reply_bytes;
        let context =
            Context { deadline, tell, max_reply_bytes, children: None, ask: None, stop: self.stop.clone() };
        let mut cut_short = None;
        let worked = if job.asks() {
            // Boxed: other calls are not to carry its room.
            let worked = self.work_and_ask(job, context, &mut turn.lease).boxed().await;
            worked.map_err(|why| match why {
                CutShort::Late => Passed,
                CutShort::Error(error) => {
                    cut_short = Some(error);
                    Passed
                }
            })
        } else {
            deadline.limit(job.run(context)).await
        };
        let end = Instant::now();
        self.progress.ended = Some(end);
        let took = end.saturating_duration_since(turn.start);
        turn.lease.worked(took);
        let ended = match &worked {
            Ok(worked) => Ended::With(worked),
            Err(_) if took >= self.rung => Ended::TimedOut,
            Err(_) => Ended::CutShort,
        };
        if let Some(pass) = turn.pass.take() {
            ended.tell(pass, end);
        }
        let worked = match worked {
            Ok(reply) => reply.map_err(|fault| {
                if let Some(asked) = fault.pause() {
                    self.desk.pause(asked, &self.path.tasks, &self.path.closing);
                }
                CallError::Provider(fault)
            }),
            Err(Passed) => Err(cut_short.unwrap_or_else(|| CallError::ProviderTimeout {
                provider: Arc::clone(self.desk.name()),
                after: deadline.instant().saturating_duration_since(self.started.unwrap_or(turn.start)),
                execution: self.flight.execution(),
            })),
        };
        (turn, worked)
    }

    /// Further attempts after a fault, as long as there is one to be made.
    async fn repeat(
        &mut self,
        mut fault: Fault,
        mut job: Box<dyn Job>,
        turn: Turn<'a>,
    ) -> Result<Reply, CallError> {
        let mut turn = Some(turn);
        for attempt in 1.. {
            let Some(next) = self.next_turn(&fault, attempt, turn.take()).await else { break };
            // Whoever listens is not to take the next attempt's text for the rest of this one's.
            self.flight.begin_anew(&format!(
                "[{} failed: it is asked again, and what it said so far is void]",
                self.desk.name()
            ));
            self.desk.retried();
            let again = job.again();
            let (held, worked) = self.attempt(job, next).await;
            match (worked, again) {
                (Err(CallError::Provider(next)), Some(again)) => (fault, job) = (next, again),
                (worked, _) => return worked,
            }
            turn = Some(held);
        }
        Err(CallError::Provider(fault))
    }

    /// Waits, and has the turn for the next attempt; `None`: there is none, and the fault stands.
    async fn next_turn(&mut self, fault: &Fault, attempt: u32, held: Option<Turn<'a>>) -> Option<Turn<'a>> {
        let repeatable = match self.flight.tool().effect {
            Effect::Read | Effect::Idempotent => true,
            Effect::Write => false,
        };
        let now = Instant::now();
        let deadline = self.deadline(now);
        let (wait, as_asked) = match retry::after(fault, attempt, repeatable, &self.path.retry) {
            Next::GiveUp => return None,
            Next::Again(wait) => (wait, false),
            Next::AsAsked(wait) => (wait, true),
        };
        if now + wait >= deadline.instant() || (!as_asked && !self.desk.take_retry(now)) {
            return None;
        }
        // What surely was not done has not begun: while it waits, it can be taken back for good.
        self.progress.began &= !fault.surely_not_done();
        if as_asked {
            drop(held);
            return self.first_in_line(deadline).await;
        }
        let held = held.filter(|_| wait <= HOLDS_ON);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.path.closing.cancelled(), if held.is_none() => return None,
        }
        let start = Instant::now();
        match held {
            Some(held) if !self.desk.pool.rests() => {
                Some(Turn { pass: self.desk.pass(start).ok()?, start, ..held })
            }
            held => {
                drop(held);
                self.first_in_line(deadline).await
            }
        }
    }

    /// A new turn, before all who had none yet.
    async fn first_in_line(&mut self, until: Deadline) -> Option<Turn<'a>> {
        self.turn(until, true, Instant::now()).await.ok().map(|(turn, _)| turn)
    }
}

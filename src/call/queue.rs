//! A bounded number of permits, and a bounded queue of those who wait for one.
//!
//! One mutex, held for a handful of instructions, decides and counts at once: a permit that was given back goes
//! straight to the next in line, so nobody overtakes, and a waiter that is dropped between being chosen and being
//! told hands its permit on.
//!
//! The next in line: the highest class first, where every 10 s of waiting raise by one; within a class principals
//! take turns, then each one's sessions, then who came first. That is decided when a permit is given back, from
//! the instants at which they came: waiting needs no timer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::call::outcome::{CallError, Full, Unavailable};
use crate::deadline::Deadline;
use crate::ids::{ClientSessionId, PrincipalId};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

pub(in crate::call) mod class;
mod lane;
mod line;
mod pace;

pub use class::Priority;
use line::{Line, Look, Ticket, Why};
use pace::Pace;

/// Who waits, and as what.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// For whom: within a class, principals take turns.
    pub principal: PrincipalId,
    /// Through which session: a principal's sessions take turns.
    pub session: ClientSessionId,
    /// Its class.
    pub class: Priority,
    /// Since when it waits, here and in queues before this one: it ages by that.
    pub since: Instant,
    /// From when on a permit is of no use to it any more.
    pub until: Deadline,
    /// It had a permit before, and gave it back to come again: it goes first, and no full queue keeps it out.
    pub returns: bool,
}

/// How much of a queue one principal may fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// All of it: one principal's own queue, or one whose bound nobody ever reaches.
    All,
    /// All of it until a second principal has waited here; from then on half of it, rounded up.
    HalfOnceSeveral,
    /// Half of it, rounded up: several principals are known from the start.
    Half,
}

/// Permits of one kind, and the queue before them.
#[derive(Debug)]
pub struct Pool {
    name: Arc<str>,
    limit: usize,
    queue_limit: usize,
    share: Share,
    /// Whether it is paused, for who has its permit already.
    rests: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Permits held, and those of who was chosen and has not taken its own yet.
    in_use: usize,
    closed: bool,
    /// Nobody is chosen before: who gives the permits wants to be left alone.
    paused: Option<Instant>,
    line: Line,
    pace: Pace,
    known: Known,
}

/// Which principals have waited here.
#[derive(Debug, Clone, Copy, Default)]
enum Known {
    #[default]
    Nobody,
    One(PrincipalId),
    Several,
}

/// What a pool looks like at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolView {
    /// Permits held.
    pub in_use: usize,
    /// Permits in all.
    pub limit: usize,
    /// Those who wait.
    pub queued: usize,
}

impl Pool {
    /// A pool of `limit` permits with room for `queue_limit` who wait.
    pub fn new(name: Arc<str>, limit: usize, queue_limit: usize, share: Share) -> Self {
        Self { name, limit, queue_limit, share, rests: AtomicBool::new(false), state: Mutex::default() }
    }

    /// What the permits are for.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its permits in all.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What it looks like now.
    pub fn view(&self) -> PoolView {
        let state = self.state.lock();
        PoolView { in_use: state.in_use, limit: self.limit, queued: state.line.waiting() }
    }

    /// Whether neither a permit nor room in the queue is left.
    pub fn is_full(&self) -> bool {
        let state = self.state.lock();
        !self.has_free(&state) && state.line.waiting() >= self.queue_limit
    }

    /// Takes a permit at once, if one is free and nobody waits for it.
    pub fn try_take(self: &Arc<Self>) -> Option<Permit> {
        let mut state = self.state.lock();
        if state.closed || !self.has_free(&state) {
            return None;
        }
        state.in_use += 1;
        Some(Permit { pool: Arc::clone(self), worked: None })
    }

    fn has_free(&self, state: &State) -> bool {
        state.in_use < self.limit && state.line.waiting() == 0 && state.paused.is_none()
    }

    /// Chooses nobody before `until`, and refuses those who cannot wait so long. Says whether this is a new pause, after
    /// which [`Pool::resume`] must be called; a shorter one than goes on already changes nothing.
    pub fn pause(&self, until: Instant) -> bool {
        let mut state = self.state.lock();
        if state.closed || state.paused.is_some_and(|paused| paused >= until) {
            return false;
        }
        let is_new = state.paused.replace(until).is_none();
        self.rests.store(true, Ordering::Release);
        let refused = state.line.refuse_before(until);
        drop(state);
        refused.into_iter().for_each(Waker::wake);
        is_new
    }

    /// Ends a pause that is over: permits go to the next in line. Says when it is over where it is not yet.
    pub fn resume(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if let Some(until) = state.paused.filter(|until| *until > now) {
            return Some(until);
        }
        state.paused = None;
        self.rests.store(false, Ordering::Release);
        let mut chosen = Vec::new();
        while state.in_use < self.limit && state.line.waiting() > 0 {
            state.in_use += 1;
            chosen.extend(state.line.choose(now));
        }
        drop(state);
        chosen.into_iter().for_each(Waker::wake);
        None
    }

    /// Whether nobody is chosen: one atomic load.
    pub fn rests(&self) -> bool {
        self.rests.load(Ordering::Acquire)
    }

    /// Until when nobody is chosen.
    pub fn paused(&self) -> Option<Instant> {
        self.state.lock().paused
    }

    /// Gets in line for a permit.
    ///
    /// # Errors
    /// The queue or the principal's share of it is full, its turn would surely come too late, or the daemon is
    /// going down: at once.
    pub fn queue(self: &Arc<Self>, claim: &Claim) -> Result<Waiting, CallError> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.closed {
            return Err(CallError::ShuttingDown);
        }
        state.known = state.known.and(claim.principal);
        let ticket = if self.has_free(&state) {
            state.in_use += 1;
            state.line.pass(claim)
        } else {
            if let Some(until) = state.paused.filter(|until| *until > claim.until.instant()) {
                return Err(self.resting(until));
            }
            if !claim.returns
                && let Some(full) = self.refusal(&mut state, claim, now)
            {
                let retry_after = Some(self.next_turn(&mut state, claim, now));
                return Err(CallError::Full { full, retry_after });
            }
            state.line.join(claim, now)
        };
        drop(state);
        Ok(Waiting { pool: Arc::clone(self), ticket: Some(ticket) })
    }

    fn resting(&self, until: Instant) -> CallError {
        let (provider, retry_after) =
            (Arc::clone(&self.name), until.saturating_duration_since(Instant::now()));
        CallError::Unavailable { provider, why: Unavailable::Resting, retry_after }
    }

    /// Why this one cannot get in line.
    fn refusal(&self, state: &mut State, claim: &Claim, now: Instant) -> Option<Full> {
        let name = || Arc::clone(&self.name);
        let waiting = state.line.waiting();
        if waiting >= self.queue_limit {
            return Some(Full::Queue { name: name(), limit: self.queue_limit });
        }
        let share = self.share(state.known);
        if share < self.queue_limit && state.line.waiting_of(claim.principal) >= share {
            return Some(Full::Share { name: name(), share, limit: self.queue_limit });
        }
        let left = claim.until.instant().saturating_duration_since(now);
        let too_long = |wait: &Duration| *wait > left.saturating_mul(2);
        // Nobody has more in front than wait: mostly that says enough, and nothing needs to be counted.
        state.pace.least_wait(waiting, self.limit).filter(too_long)?;
        let before = state.line.before(claim, now);
        let wait = state.pace.least_wait(before, self.limit).filter(too_long)?;
        Some(Full::Late { name: name(), before, wait, left })
    }

    /// How many of one principal may wait.
    fn share(&self, known: Known) -> usize {
        match (self.share, known) {
            (Share::All, _) | (Share::HalfOnceSeveral, Known::Nobody | Known::One(_)) => self.queue_limit,
            (Share::Half, _) | (Share::HalfOnceSeveral, Known::Several) => self.queue_limit.div_ceil(2),
        }
    }

    /// When this one would have its turn if it came now, from how long recent work took. Between 100 ms and a
    /// minute.
    pub fn retry_after(&self, claim: &Claim) -> Duration {
        self.next_turn(&mut self.state.lock(), claim, Instant::now())
    }

    fn next_turn(&self, state: &mut State, claim: &Claim, now: Instant) -> Duration {
        let before = state.line.before(claim, now);
        state.pace.turn(before, self.limit)
    }

    /// Notes how long a permit was held for work.
    pub fn observe(&self, service: Duration) {
        self.state.lock().pace.note(service);
    }

    /// Refuses everybody who waits and who comes; permits in use stay good.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let refused = state.line.refuse_all();
        drop(state);
        refused.into_iter().for_each(Waker::wake);
    }

    /// Gives one permit back: to the next in line, else to the pool.
    fn release(&self, worked: Option<Duration>) {
        let mut state = self.state.lock();
        if let Some(worked) = worked {
            state.pace.note(worked);
        }
        if state.line.waiting() == 0 || state.paused.is_some() {
            state.in_use -= 1;
            return;
        }
        let chosen = state.line.choose(Instant::now());
        drop(state);
        if let Some(waker) = chosen {
            waker.wake();
        }
    }
}

impl Known {
    fn and(self, principal: PrincipalId) -> Self {
        match self {
            Self::Nobody => Self::One(principal),
            Self::One(known) if known == principal => self,
            Self::One(_) | Self::Several => Self::Several,
        }
    }
}

/// A permit. Dropping it gives it back; it cannot be cloned or released twice.
#[must_use = "a permit that is not held bounds nothing"]
#[derive(Debug)]
pub struct Permit {
    pool: Arc<Pool>,
    worked: Option<Duration>,
}

impl Permit {
    /// Notes how long it was held for work: the pool learns of it when it is given back.
    pub fn worked(&mut self, worked: Duration) {
        self.worked = Some(worked);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.pool.release(self.worked);
    }
}

/// A wait in line. Dropping it leaves the line; if its turn had come, the permit goes to the next.
///
/// Cancel safe.
#[must_use = "who does not wait gets no permit"]
#[derive(Debug)]
pub struct Waiting {
    pool: Arc<Pool>,
    ticket: Option<Ticket>,
}

impl Waiting {
    /// Where it waits; `None` once it is over.
    pub fn place(&self) -> Option<PlaceInLine> {
        self.ticket.map(|ticket| PlaceInLine { pool: Arc::clone(&self.pool), ticket })
    }
}

impl Future for Waiting {
    type Output = Result<Permit, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(ticket) = self.ticket else { unreachable!("polled again after it was ready") };
        let (seen, paused) = {
            let mut state = self.pool.state.lock();
            (state.line.look(ticket, cx.waker()), state.paused)
        };
        let end = match seen {
            Look::Waits => return Poll::Pending,
            Look::Chosen => Ok(Permit { pool: Arc::clone(&self.pool), worked: None }),
            Look::Refused(Why::Closed) => Err(CallError::ShuttingDown),
            Look::Refused(Why::Rests) => Err(self.pool.resting(paused.unwrap_or_else(Instant::now))),
        };
        self.ticket = None;
        Poll::Ready(end)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let left = self.pool.state.lock().line.leave(ticket);
        match left {
            Look::Chosen => self.pool.release(None),
            Look::Waits | Look::Refused(_) => {}
        }
    }
}

/// Where somebody waits, for who may give it another class. It outlives the wait, and does nothing then.
#[derive(Debug, Clone)]
pub struct PlaceInLine {
    pool: Arc<Pool>,
    ticket: Ticket,
}

impl PlaceInLine {
    /// Gives the one who waits there another class. What it has waited counts on.
    pub fn reclass(&self, class: Priority) {
        self.pool.state.lock().line.reclass(self.ticket, class, Instant::now());
    }
}

#[cfg(test)]
mod tests;

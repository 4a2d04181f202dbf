//! Keeps calls from a provider that fails most of them: it is given time to recover, and callers an answer at once.
//!
//! Closed, everything passes. It opens when of the calls of a stretch of time, if they are enough, too many failed by
//! the provider's fault; then nothing passes. After a while it is half-open: exactly one call passes, as a probe. Its
//! success closes it, its failure opens it again, and one that was taken back leaves the probe to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::BreakerRules;
use crate::provider::recent::Recent;

/// What a caller that would be the second probe is told: how long a probe takes nobody knows.
const WHILE_PROBING: Duration = Duration::from_secs(1);

/// The gate that everything passes.
const CLOSED: u8 = 0;
/// The gate at which somebody must look.
const LOOK: u8 = 1;

/// One provider's breaker.
#[derive(Debug)]
pub struct Breaker {
    name: Arc<str>,
    rules: BreakerRules,
    /// [`CLOSED`] or [`LOOK`]: all that a call looks at while the provider is well.
    gate: AtomicU8,
    successes: Recent,
    failures: Recent,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    now: Now,
    /// How often it has opened.
    openings: u64,
    refused: u64,
}

#[derive(Debug, Default, Clone, Copy)]
enum Now {
    #[default]
    Closed,
    /// Until a probe may pass.
    Open(Instant),
    /// A probe is under way.
    Probing,
}

/// What a breaker looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything passes.
    Closed,
    /// Nothing passes for so long.
    Open(Duration),
    /// One call passes, or is under way.
    HalfOpen,
}

impl BreakerState {
    /// Its name in statistics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open(_) => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl Breaker {
    /// One that is closed; `name` is the provider's.
    pub fn new(name: Arc<str>, rules: BreakerRules) -> Self {
        Self {
            name,
            rules,
            gate: AtomicU8::new(CLOSED),
            successes: Recent::over(rules.window),
            failures: Recent::over(rules.window),
            state: Mutex::default(),
        }
    }

    /// Whether a call would be refused now; it takes no probe.
    ///
    /// # Errors
    /// How long until it may pass.
    pub fn look(&self, now: Instant) -> Result<(), Duration> {
        if self.gate.load(Ordering::Acquire) == CLOSED {
            return Ok(());
        }
        let mut state = self.state.lock();
        state.wait(now).map_or(Ok(()), |wait| {
            state.refused += 1;
            Err(wait)
        })
    }

    /// Lets a call pass, perhaps as the probe. What became of it is told to the pass.
    ///
    /// # Errors
    /// How long until it may pass.
    pub fn pass(&self, now: Instant) -> Result<Pass<'_>, Duration> {
        if self.gate.load(Ordering::Acquire) == CLOSED {
            return Ok(Pass { breaker: self, kind: Kind::Plain });
        }
        let mut state = self.state.lock();
        if let Some(wait) = state.wait(now) {
            state.refused += 1;
            return Err(wait);
        }
        let kind = match state.now {
            Now::Closed => Kind::Plain,
            Now::Open(_) | Now::Probing => {
                state.now = Now::Probing;
                Kind::Probe
            }
        };
        Ok(Pass { breaker: self, kind })
    }

    /// What it looks like.
    pub fn state(&self, now: Instant) -> BreakerState {
        match self.state.lock().now {
            Now::Closed => BreakerState::Closed,
            Now::Open(until) if until > now => BreakerState::Open(until.saturating_duration_since(now)),
            Now::Open(_) | Now::Probing => BreakerState::HalfOpen,
        }
    }

    /// How often it has opened, and how many calls it has refused.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.openings, state.refused)
    }

    fn succeeded(&self, now: Instant) {
        // What passed before it opened does not close it: only the probe is sent to find that out.
        self.successes.add(now);
    }

    fn failed(&self, now: Instant) {
        let mut state = self.state.lock();
        if !matches!(state.now, Now::Closed) {
            return;
        }
        self.failures.add(now);
        let failures = self.failures.count(now);
        let calls = failures + self.successes.count(now);
        let percent = u64::from(self.rules.failure_percent);
        if calls >= u64::from(self.rules.min_calls) && failures * 100 >= calls * percent {
            self.open(&mut state, now);
        }
    }

    fn open(&self, state: &mut State, now: Instant) {
        state.now = Now::Open(now + self.rules.open_for);
        state.openings += 1;
        tracing::warn!(
            provider = &*self.name,
            "the breaker of {} is open for {}s: most of its last calls failed",
            self.name,
            self.rules.open_for.as_secs_f64()
        );
        self.gate.store(LOOK, Ordering::Release);
    }

    fn close(&self, state: &mut State) {
        self.successes.forget();
        self.failures.forget();
        state.now = Now::Closed;
        tracing::info!(
            provider = &*self.name,
            "the breaker of {} is closed: its probe was answered",
            self.name
        );
        self.gate.store(CLOSED, Ordering::Release);
    }
}

impl State {
    /// How long a call must wait; `None`: it may pass.
    fn wait(&self, now: Instant) -> Option<Duration> {
        match self.now {
            Now::Closed => None,
            Now::Open(until) => Some(until.saturating_duration_since(now)).filter(|wait| !wait.is_zero()),
            Now::Probing => Some(WHILE_PROBING),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Probe,
}

/// What a call that has passed holds until it is known what became of it. Dropped without a word, it was taken back:
/// that says nothing of the provider, and the next call may be the probe.
#[must_use = "the breaker learns from it what became of the call"]
#[derive(Debug)]
pub struct Pass<'a> {
    breaker: &'a Breaker,
    kind: Kind,
}

impl Pass<'_> {
    /// The provider has answered, be it with a refusal that is the caller's fault.
    pub fn succeeded(mut self, now: Instant) {
        match std::mem::replace(&mut self.kind, Kind::Plain) {
            Kind::Plain => self.breaker.succeeded(now),
            Kind::Probe => self.breaker.close(&mut self.breaker.state.lock()),
        }
    }

    /// It has failed, and that was its own fault.
    pub fn failed(mut self, now: Instant) {
        match std::mem::replace(&mut self.kind, Kind::Plain) {
            Kind::Plain => self.breaker.failed(now),
            Kind::Probe => self.breaker.open(&mut self.breaker.state.lock(), now),
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.kind == Kind::Probe {
            self.breaker.state.lock().now = Now::Open(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> (Breaker, Instant) {
        let rules = BreakerRules { window: secs(60), min_calls: 4, failure_percent: 50, open_for: secs(15) };
        let breaker = Breaker::new(Arc::from("kimi"), rules);
        (breaker, Instant::now())
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn fail(breaker: &Breaker, now: Instant, times: u32) {
        (0..times).for_each(|_| breaker.pass(now).unwrap().failed(now));
    }

    fn succeed(breaker: &Breaker, now: Instant, times: u32) {
        (0..times).for_each(|_| breaker.pass(now).unwrap().succeeded(now));
    }

    #[test]
    fn it_opens_when_enough_calls_were_made_and_too_many_of_them_failed() {
        let (breaker, now) = breaker();
        fail(&breaker, now, 3);
        assert_eq!(breaker.state(now), BreakerState::Closed, "three calls are too few to judge");
        fail(&breaker, now, 1);
        assert_eq!(breaker.state(now), BreakerState::Open(secs(15)));
        assert_eq!(breaker.look(now + secs(5)), Err(secs(10)));
        assert_eq!(breaker.pass(now + secs(5)).unwrap_err(), secs(10));
        assert_eq!(breaker.counts(), (1, 2));
    }

    #[test]
    fn failures_below_the_ratio_or_long_ago_open_nothing() {
        let (breaker, now) = breaker();
        succeed(&breaker, now, 10);
        fail(&breaker, now, 9);
        assert_eq!(breaker.state(now), BreakerState::Closed, "9 of 19");
        fail(&breaker, now + secs(70), 3);
        assert_eq!(breaker.state(now + secs(70)), BreakerState::Closed, "three since");
        fail(&breaker, now + secs(70), 1);
        assert_eq!(breaker.state(now + secs(70)), BreakerState::Open(secs(15)));
    }

    #[test]
    fn half_open_lets_exactly_one_probe_pass() {
        let (breaker, now) = breaker();
        fail(&breaker, now, 4);
        let later = now + secs(15);
        assert_eq!(breaker.state(later), BreakerState::HalfOpen);
        assert_eq!((breaker.look(later), breaker.look(later)), (Ok(()), Ok(())), "looking takes no probe");
        let probe = breaker.pass(later).unwrap();
        assert_eq!(breaker.pass(later).unwrap_err(), WHILE_PROBING);
        assert_eq!(breaker.look(later), Err(WHILE_PROBING));
        probe.succeeded(later);
        assert_eq!(breaker.state(later), BreakerState::Closed);
        fail(&breaker, later, 3);
        assert_eq!(breaker.state(later), BreakerState::Closed, "what was before is forgotten");
    }

    #[test]
    fn a_probe_that_fails_opens_it_again() {
        let (breaker, now) = breaker();
        fail(&breaker, now, 4);
        let later = now + secs(16);
        breaker.pass(later).unwrap().failed(later);
        assert_eq!(breaker.state(later), BreakerState::Open(secs(15)));
        assert_eq!(breaker.counts().0, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_taken_back_leaves_it_to_the_next() {
        let (breaker, now) = breaker();
        fail(&breaker, now, 4);
        tokio::time::advance(secs(15)).await;
        let probe = breaker.pass(Instant::now()).unwrap();
        drop(probe);
        assert_eq!(breaker.state(Instant::now()), BreakerState::HalfOpen);
        let next = breaker.pass(Instant::now()).unwrap();
        assert!(breaker.pass(Instant::now()).is_err(), "still one at a time");
        next.succeeded(Instant::now());
        assert_eq!(breaker.state(Instant::now()), BreakerState::Closed);
    }

    #[test]
    fn what_passed_before_it_opened_neither_closes_it_nor_counts_later() {
        let (breaker, now) = breaker();
        let [slow, other] = [breaker.pass(now).unwrap(), breaker.pass(now).unwrap()];
        fail(&breaker, now, 4);
        slow.succeeded(now);
        other.failed(now);
        assert_eq!(breaker.state(now), BreakerState::Open(secs(15)));
        assert_eq!(breaker.counts().0, 1);
    }
}

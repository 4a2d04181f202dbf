//! Where the calls of one lane come to: its queue and permits, and, where that is a model provider's, what keeps calls
//! from it while it fails or wants to be left alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::call::outcome::{CallError, Unavailable};
use crate::call::queue::Pool;
use crate::config::Resilience;
use crate::provider::breaker::{Breaker, BreakerState, Pass};
use crate::provider::retry::RetryBudget;
use crate::provider::{Blame, Fault, Reply};
use crate::tasks::{TaskKind, Tasks};

/// One lane's.
#[derive(Debug)]
pub struct Desk {
    /// Its queue and permits.
    pub pool: Arc<Pool>,
    care: Option<Care>,
}

/// What a model provider's has beside its queue.
#[derive(Debug)]
struct Care {
    breaker: Breaker,
    budget: RetryBudget,
    retries: AtomicU64,
    denied: AtomicU64,
    pauses: AtomicU64,
    fallbacks: AtomicU64,
}

/// What became of calls at a provider, and how it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CareView {
    /// Its breaker.
    pub breaker: BreakerState,
    /// How often that has opened.
    pub openings: u64,
    /// Calls that it kept away.
    pub refused: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Attempts that the budget did not allow.
    pub denied: u64,
    /// How often it asked to be left alone.
    pub pauses: u64,
    /// Calls that were handed on to another where it failed.
    pub fallbacks: u64,
    /// For how long it wants to be left alone now.
    pub paused: Option<Duration>,
}

impl Desk {
    /// A lane's that is no provider's: its work fails for reasons of its own, which say nothing of the next one's.
    pub fn plain(pool: Arc<Pool>) -> Self {
        Self { pool, care: None }
    }

    /// A provider's.
    pub fn of_provider(pool: Arc<Pool>, rules: &Resilience) -> Self {
        let care = Care {
            breaker: Breaker::new(Arc::clone(pool.name()), rules.breaker),
            budget: RetryBudget::default(),
            retries: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            pauses: AtomicU64::new(0),
            fallbacks: AtomicU64::new(0),
        };
        Self { pool, care: Some(care) }
    }

    /// What it is called.
    pub fn name(&self) -> &Arc<str> {
        self.pool.name()
    }

    /// What became of calls at it; none where it is no provider's.
    pub fn view(&self) -> Option<CareView> {
        let care = self.care.as_ref()?;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let now = Instant::now();
        let (openings, refused) = care.breaker.counts();
        Some(CareView {
            breaker: care.breaker.state(now),
            openings,
            refused,
            retries: read(&care.retries),
            denied: read(&care.denied),
            pauses: read(&care.pauses),
            fallbacks: read(&care.fallbacks),
            paused: self.pool.paused().map(|until| until.saturating_duration_since(now)),
        })
    }

    /// Whether a call that comes now would be kept away: one atomic load while the provider is well.
    ///
    /// # Errors
    /// It is to be left alone.
    pub(super) fn look(&self, now: Instant) -> Result<(), CallError> {
        match &self.care {
            Some(care) => care.breaker.look(now).map_err(|wait| self.unavailable(Unavailable::Failing, wait)),
            None => Ok(()),
        }
    }

    /// Lets a call pass that has its permits.
    ///
    /// # Errors
    /// It is to be left alone.
    pub(super) fn pass(&self, now: Instant) -> Result<Option<Pass<'_>>, CallError> {
        let Some(care) = &self.care else { return Ok(None) };
        let pass = care.breaker.pass(now).map_err(|wait| self.unavailable(Unavailable::Failing, wait))?;
        Ok(Some(pass))
    }

    fn unavailable(&self, why: Unavailable, retry_after: Duration) -> CallError {
        CallError::Unavailable { provider: Arc::clone(self.name()), why, retry_after }
    }

    /// A call is made for the first time.
    pub(super) fn called(&self, now: Instant) {
        if let Some(care) = &self.care {
            care.budget.called(now);
        }
    }

    /// Takes another attempt out of its budget, if there is one.
    pub(super) fn take_retry(&self, now: Instant) -> bool {
        let Some(care) = &self.care else { return false };
        let taken = care.budget.take(now);
        if !taken {
            care.denied.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Another attempt begins.
    pub(super) fn retried(&self) {
        if let Some(care) = &self.care {
            care.retries.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Another one is asked instead.
    pub(super) fn gave_up(&self) {
        if let Some(care) = &self.care {
            care.fallbacks.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The provider wants to be left alone for so long: nobody is sent meanwhile, and who cannot wait so long is
    /// answered at once.
    pub(super) fn pause(self: &Arc<Self>, asked: Duration, tasks: &Tasks, closing: &CancellationToken) {
        let Some(care) = &self.care else { return };
        let until = Instant::now() + asked;
        if self.pool.pause(until) {
            care.pauses.fetch_add(1, Ordering::Relaxed);
            let (pool, closing) = (Arc::clone(&self.pool), closing.clone());
            tracing::warn!(
                "{} asked to be left alone for {}s: its calls wait",
                self.name(),
                asked.as_secs_f64()
            );
            tasks.spawn(TaskKind::Pause, async move {
                let mut next = Some(until);
                while let Some(until) = next {
                    tokio::select! {
                        () = tokio::time::sleep_until(until) => {}
                        // Everybody who waited was answered, and nobody comes any more.
                        () = closing.cancelled() => return,
                    }
                    next = pool.resume();
                }
            });
        }
    }
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum Ended<'a> {
    /// With this.
    With(&'a Result<Reply, Fault>),
    /// It took as long as the provider may.
    TimedOut,
    /// It would have had more time, had it not come late.
    CutShort,
}

impl Ended<'_> {
    /// Tells the breaker that let it pass.
    pub(super) fn tell(&self, pass: Pass<'_>, now: Instant) {
        match self {
            Self::With(Err(fault)) if fault.blame() == Blame::Provider => pass.failed(now),
            // Whom nobody asked has shown nothing.
            Self::With(Err(Fault::NotAsked(_))) | Self::CutShort => drop(pass),
            Self::With(_) => pass.succeeded(now),
            Self::TimedOut => pass.failed(now),
        }
    }
}

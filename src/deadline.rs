//! One absolute point in time, passed by value: no layer below starts a clock of its own.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

/// When something must have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

/// The deadline came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline passed")]
pub struct Passed;

impl Deadline {
    /// The deadline `after` from now. A span too long for the clock is cut to 30 years.
    pub fn after(after: Duration) -> Self {
        Self::since(Instant::now(), after)
    }

    /// The deadline `after` from `start`.
    pub fn since(start: Instant, after: Duration) -> Self {
        const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
        Self(start.checked_add(after).unwrap_or_else(|| start + FAR))
    }

    /// The instant itself.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// What is left of it; zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// How long ago it passed; zero before.
    pub fn overdue(self, now: Instant) -> Duration {
        now.saturating_duration_since(self.0)
    }

    /// Runs `work` until it ends or the deadline comes, whichever is first; work that is ready at its first
    /// poll costs no timer.
    ///
    /// Cancel safe: dropping it drops `work`.
    ///
    /// # Errors
    /// [`Passed`], and `work` is dropped.
    pub async fn limit<T>(self, work: impl Future<Output = T>) -> Result<T, Passed> {
        let mut work = pin!(work);
        // The timer is made only for work that has to be waited for.
        if let Poll::Ready(done) = futures_util::poll!(work.as_mut()) {
            return Ok(done);
        }
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = tokio::time::sleep_until(self.0) => Err(Passed),
        }
    }
}

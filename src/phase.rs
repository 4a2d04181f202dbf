//! The life of a call, as a closed set of phases: their text is for labels, and is never compared.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Where a call is. Each is entered at most once, in this order, then exactly one [`Terminal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The daemon has read it.
    Received,
    /// It waits for its session's slot or its provider's permit.
    Queued,
    /// It waits no longer.
    Dequeued,
    /// Its Execution is set up: deadline fixed, lease held.
    SessionAllocated,
    /// The provider was asked.
    ProviderCallStart,
    /// The provider has answered, failed, or was cut off.
    ProviderCallEnd,
    /// Permits and slot are free again.
    SessionReleased,
}

impl Phase {
    /// All, in order.
    pub const ALL: [Self; 7] = [
        Self::Received,
        Self::Queued,
        Self::Dequeued,
        Self::SessionAllocated,
        Self::ProviderCallStart,
        Self::ProviderCallEnd,
        Self::SessionReleased,
    ];

    /// Its name on the wire and in log lines.
    pub fn label(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Queued => "queued",
            Self::Dequeued => "dequeued",
            Self::SessionAllocated => "session_allocated",
            Self::ProviderCallStart => "provider_call_start",
            Self::ProviderCallEnd => "provider_call_end",
            Self::SessionReleased => "session_released",
        }
    }

    /// Its place in [`Phase::ALL`].
    fn index(self) -> usize {
        match self {
            Self::Received => 0,
            Self::Queued => 1,
            Self::Dequeued => 2,
            Self::SessionAllocated => 3,
            Self::ProviderCallStart => 4,
            Self::ProviderCallEnd => 5,
            Self::SessionReleased => 6,
        }
    }
}

/// How a call ended, for one waiter: exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// It has its answer.
    Completed,
    /// A deadline came first.
    Timeout,
    /// The work failed.
    Error,
    /// The caller took it back, or its connection went.
    Cancelled,
    /// It was refused before any work began.
    Rejected,
}

impl Terminal {
    /// Its name on the wire and in log lines.
    pub fn label(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Timeout => "timeout",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
        }
    }
}

/// When each phase of one Execution was entered, readable while it runs.
///
/// An array of instants: nothing is formatted before somebody asks.
#[derive(Debug)]
pub struct Stages {
    start: Instant,
    /// Microseconds after `start`, plus one; zero means not yet.
    marks: [AtomicU64; Phase::ALL.len()],
}

impl Stages {
    /// Stages of an Execution that was received at `start`.
    pub fn new(start: Instant) -> Self {
        let stages = Self { start, marks: Default::default() };
        stages.mark(Phase::Received, start);
        stages
    }

    /// Notes that `phase` was entered at `at`; only the first note counts.
    pub fn mark(&self, phase: Phase, at: Instant) {
        let micros =
            u64::try_from(at.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX - 1);
        if let Some(mark) = self.marks.get(phase.index())
            && mark.load(Ordering::Relaxed) == 0
        {
            mark.store(micros + 1, Ordering::Relaxed);
        }
    }

    /// When the Execution began.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// How long after the start `phase` was entered.
    pub fn at(&self, phase: Phase) -> Option<Duration> {
        let micros = self.marks.get(phase.index())?.load(Ordering::Relaxed);
        micros.checked_sub(1).map(Duration::from_micros)
    }

    /// The last phase entered.
    pub fn current(&self) -> Phase {
        Phase::ALL.into_iter().rev().find(|phase| self.at(*phase).is_some()).unwrap_or(Phase::Received)
    }

    /// The time from one phase to a later one; zero where either is missing.
    pub fn between(&self, from: Phase, to: Phase) -> Duration {
        match (self.at(from), self.at(to)) {
            (Some(from), Some(to)) => to.saturating_sub(from),
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_keeps_its_first_mark() {
        let start = Instant::now();
        let stages = Stages::new(start);
        stages.mark(Phase::Queued, start + Duration::from_millis(2));
        stages.mark(Phase::Queued, start + Duration::from_millis(9));
        assert_eq!(stages.at(Phase::Queued), Some(Duration::from_millis(2)));
        assert_eq!(stages.current(), Phase::Queued);
        assert_eq!(stages.between(Phase::Received, Phase::Queued), Duration::from_millis(2));
    }
}

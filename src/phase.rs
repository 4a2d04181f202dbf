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

/// Why a call was refused before any work began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The request itself does not do.
    Invalid,
    /// What it brings beside its arguments is too large.
    Metadata,
    /// Its caller calls more often than it may.
    RateLimited,
    /// There are as many Executions as there may be.
    Sessions,
    /// Its queue, or its part of it, is full, or so long that its turn would come too late.
    Queue,
    /// Too many wait for the same flight, or on the same connection.
    Waiters,
    /// Its provider is not asked for the time being.
    Unavailable,
    /// The daemon is going down.
    ShuttingDown,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Invalid,
        Self::Metadata,
        Self::RateLimited,
        Self::Sessions,
        Self::Queue,
        Self::Waiters,
        Self::Unavailable,
        Self::ShuttingDown,
    ];

    /// Its name in statistics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Metadata => "metadata_size",
            Self::RateLimited => "rate_limited",
            Self::Sessions => "max_sessions",
            Self::Queue => "queue_full",
            Self::Waiters => "max_waiters",
            Self::Unavailable => "provider_unavailable",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// Its place in [`Refusal::ALL`].
    pub fn index(self) -> usize {
        match self {
            Self::Invalid => 0,
            Self::Metadata => 1,
            Self::RateLimited => 2,
            Self::Sessions => 3,
            Self::Queue => 4,
            Self::Waiters => 5,
            Self::Unavailable => 6,
            Self::ShuttingDown => 7,
        }
    }
}

/// How an Execution ended: exactly one of these, the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutionEnd {
    /// It has a reply.
    Completed,
    /// Its queue's or its work's time ran out. That is no error.
    Timeout,
    /// Its work failed, or its queue was full.
    Error,
    /// Nobody waited for it any more, or the daemon went down.
    Cancelled,
}

impl ExecutionEnd {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Completed, Self::Timeout, Self::Error, Self::Cancelled];

    /// Its place in [`ExecutionEnd::ALL`].
    pub fn index(self) -> usize {
        match self {
            Self::Completed => 0,
            Self::Timeout => 1,
            Self::Error => 2,
            Self::Cancelled => 3,
        }
    }
}

/// Where an Execution is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutionState {
    /// It has its id, and waits for its turn.
    Allocated,
    /// Its provider was asked.
    Processing,
    /// It is over.
    Ended(ExecutionEnd),
}

impl ExecutionState {
    /// Its name on the wire.
    pub fn label(self) -> &'static str {
        match self {
            Self::Allocated => "allocated",
            Self::Processing => "processing",
            Self::Ended(ExecutionEnd::Completed) => "completed",
            Self::Ended(ExecutionEnd::Timeout) => "timeout",
            Self::Ended(ExecutionEnd::Error) => "error",
            Self::Ended(ExecutionEnd::Cancelled) => "cancelled",
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
    /// The same for the first text that was told.
    first_byte: AtomicU64,
    /// The same for the first attempt after one that failed.
    retried: AtomicU64,
    /// The same for the first question to whoever waits.
    asked: AtomicU64,
}

/// The same, read at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    phases: [u64; Phase::ALL.len()],
    first_byte: u64,
    retried: u64,
    asked: u64,
}

impl Stages {
    /// Stages of an Execution that was received at `start`.
    pub fn new(start: Instant) -> Self {
        let stages = Self {
            start,
            marks: Default::default(),
            first_byte: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            asked: AtomicU64::new(0),
        };
        stages.mark(Phase::Received, start);
        stages
    }

    /// Notes that `phase` was entered at `at`; only the first note counts.
    pub fn mark(&self, phase: Phase, at: Instant) {
        if let Some(mark) = self.marks.get(phase.index())
            && mark.load(Ordering::Relaxed) == 0
        {
            mark.store(self.micros(at), Ordering::Relaxed);
        }
    }

    /// Notes that text was told; only the first note counts, and only that one looks at the clock.
    pub fn mark_first_byte(&self) {
        if self.first_byte.load(Ordering::Relaxed) == 0 {
            self.first_byte.store(self.micros(Instant::now()), Ordering::Relaxed);
        }
    }

    /// Notes that another attempt begins; only the first note counts.
    pub fn mark_retried(&self) {
        if self.retried.load(Ordering::Relaxed) == 0 {
            self.retried.store(self.micros(Instant::now()), Ordering::Relaxed);
        }
    }

    /// Notes that somebody is asked something; only the first note counts.
    pub fn mark_asked(&self) {
        if self.asked.load(Ordering::Relaxed) == 0 {
            self.asked.store(self.micros(Instant::now()), Ordering::Relaxed);
        }
    }

    fn micros(&self, at: Instant) -> u64 {
        let after = at.saturating_duration_since(self.start);
        after
            .as_secs()
            .saturating_mul(1_000_000)
            .saturating_add(u64::from(after.subsec_micros()))
            .saturating_add(1)
    }

    /// All marks as they are now.
    pub fn marks(&self) -> Marks {
        Marks {
            phases: std::array::from_fn(|place| {
                self.marks.get(place).map_or(0, |mark| mark.load(Ordering::Relaxed))
            }),
            first_byte: self.first_byte.load(Ordering::Relaxed),
            retried: self.retried.load(Ordering::Relaxed),
            asked: self.asked.load(Ordering::Relaxed),
        }
    }

    /// When the Execution began.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// How long after the start `phase` was entered.
    pub fn at(&self, phase: Phase) -> Option<Duration> {
        after_start(self.marks.get(phase.index())?.load(Ordering::Relaxed))
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

impl Marks {
    /// How long after the start `phase` was entered.
    pub fn at(&self, phase: Phase) -> Option<Duration> {
        after_start(*self.phases.get(phase.index())?)
    }

    /// How long after the start the first text was told.
    pub fn first_byte(&self) -> Option<Duration> {
        after_start(self.first_byte)
    }

    /// How long after the start the first further attempt began.
    pub fn retried(&self) -> Option<Duration> {
        after_start(self.retried)
    }

    /// How long after the start somebody was first asked something.
    pub fn asked(&self) -> Option<Duration> {
        after_start(self.asked)
    }

    /// How many phases were entered and notes taken.
    pub fn entered(&self) -> u64 {
        let entered = |mark: &u64| u64::from(*mark > 0);
        let notes = [&self.first_byte, &self.retried, &self.asked].into_iter().map(entered).sum::<u64>();
        self.phases.iter().map(entered).sum::<u64>() + notes
    }
}

fn after_start(mark: u64) -> Option<Duration> {
    mark.checked_sub(1).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_a_copy_that_counts_what_was_entered() {
        let start = Instant::now();
        let stages = Stages::new(start);
        let before = stages.marks();
        stages.mark(Phase::Queued, start + Duration::from_millis(2));
        stages.mark_first_byte();
        assert_eq!((before.entered(), before.at(Phase::Queued), before.first_byte()), (1, None, None));
        let after = stages.marks();
        assert_eq!((after.entered(), after.at(Phase::Queued)), (3, Some(Duration::from_millis(2))));
        assert!(after.first_byte().is_some());
    }

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

//! Executions, the isolated sessions in which Runs work: how many there are, and how they ended.

use std::collections::VecDeque;
use std::time::Duration;

use crate::phase::{ExecutionEnd, Marks};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// How many Executions the recent averages are taken over.
const RECENT: usize = 1000;

/// The Executions of a daemon.
#[derive(Debug)]
pub struct Executions {
    limit: usize,
    active: AtomicUsize,
    peak: AtomicUsize,
    partial: AtomicUsize,
    ended: Mutex<Ended>,
}

/// Those that ended. Sums are kept with each one, so that reading them is a copy.
#[derive(Debug)]
struct Ended {
    recent: VecDeque<(ExecutionEnd, Duration)>,
    sums: Sums,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    ended: [u64; ExecutionEnd::ALL.len()],
    took: Duration,
    events: u64,
    recent_completed: usize,
    recent_took: Duration,
}

/// What became of Executions since the daemon started, read at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExecutionTotals {
    ended: [u64; ExecutionEnd::ALL.len()],
    /// The most that there were at one time.
    pub peak: usize,
    /// Those that have a reply which lacks parts of what was asked for.
    pub partial: usize,
    /// Average from call to end; zero when none has ended.
    pub average: Duration,
    /// Phases entered and notes taken, but for those that each caller has of its own.
    pub events: u64,
}

/// The last thousand Executions, summed up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recent {
    /// How many are summed up.
    pub executions: usize,
    /// How many of them had a reply.
    pub successful: usize,
    /// Their average duration; zero when there are none.
    pub average: Duration,
}

impl Executions {
    /// None yet, and room for so many at one time.
    pub fn new(limit: usize) -> Self {
        let ended = Ended { recent: VecDeque::with_capacity(RECENT), sums: Sums::default() };
        Self {
            limit,
            active: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            partial: AtomicUsize::new(0),
            ended: Mutex::new(ended),
        }
    }

    /// Takes room for one, to be given back with [`Executions::close`]; says whether there was any.
    pub fn open(&self) -> bool {
        // In one step: one that is refused is at no time counted, and takes no other's room.
        let one_more = |active| (active < self.limit).then_some(active + 1);
        let Ok(before) = self.active.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more) else {
            return false;
        };
        if before >= self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(before + 1, Ordering::Relaxed);
        }
        true
    }

    /// One ended, like this: counted once, as one of the ends.
    pub fn ended(&self, end: ExecutionEnd, marks: &Marks, took: Duration) {
        // Every caller has the first phase of its own.
        let events = marks.entered().saturating_sub(1);
        let mut ended = self.ended.lock();
        let Ended { recent, sums } = &mut *ended;
        if recent.len() == RECENT
            && let Some((oldest, took)) = recent.pop_front()
        {
            sums.recent_completed -= usize::from(oldest == ExecutionEnd::Completed);
            sums.recent_took -= took;
        }
        recent.push_back((end, took));
        sums.recent_completed += usize::from(end == ExecutionEnd::Completed);
        sums.recent_took += took;
        sums.took = sums.took.saturating_add(took);
        sums.events += events;
        if let Some(count) = sums.ended.get_mut(end.index()) {
            *count += 1;
        }
    }

    /// One that has a reply lacks parts of it.
    pub fn was_partial(&self) {
        self.partial.fetch_add(1, Ordering::Relaxed);
    }

    /// One is gone: its room is free.
    pub fn close(&self) {
        self.active.fetch_sub(1, Ordering::AcqRel);
    }

    /// How many there may be at one time.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many wait or work.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// What became of them, and of the last thousand.
    pub fn read(&self) -> (ExecutionTotals, Recent) {
        let (sums, executions) = {
            let ended = self.ended.lock();
            (ended.sums, ended.recent.len())
        };
        let average = |sum: Duration, count: u64| {
            let nanos = sum.as_nanos().checked_div(count.into()).unwrap_or_default();
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        };
        let mut totals = ExecutionTotals {
            ended: sums.ended,
            peak: self.peak.load(Ordering::Relaxed),
            partial: self.partial.load(Ordering::Relaxed),
            average: Duration::ZERO,
            events: sums.events,
        };
        totals.average = average(sums.took, totals.finished());
        let recent = Recent {
            executions,
            successful: sums.recent_completed,
            average: average(sums.recent_took, u64::try_from(executions).unwrap_or(u64::MAX)),
        };
        (totals, recent)
    }
}

impl ExecutionTotals {
    /// How many ended like this.
    pub fn of(&self, end: ExecutionEnd) -> u64 {
        self.ended.get(end.index()).copied().unwrap_or_default()
    }

    /// How many ended.
    pub fn finished(&self) -> u64 {
        self.ended.iter().sum()
    }

    /// Which share of those that ended did so like this, to the millionth: 0 when none has.
    pub fn rate(&self, end: ExecutionEnd) -> f64 {
        let millionths = self.of(end).saturating_mul(1_000_000).checked_div(self.finished());
        f64::from(u32::try_from(millionths.unwrap_or_default()).unwrap_or_default()) / 1e6
    }
}

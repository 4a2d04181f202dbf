//! What becomes of calls: one record each, the last of them kept, all of them counted.
//!
//! Reading never holds callers up for longer than it takes to copy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::ids::{ExecutionId, PrincipalId, RequestId};
use crate::phase::{ExecutionState, Marks, Refusal, Terminal};
use crate::telemetry::CallLog;

pub mod executions;
pub mod histogram;
mod ring;
pub mod spend;

pub use executions::{ExecutionTotals, Executions, Recent};
pub use histogram::Durations;

use histogram::Histogram;
use ring::Ring;

/// How many finished calls are kept for inspection.
pub const KEPT_RECORDS: usize = 4096;

/// How a caller came to its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It opened the flight.
    Leader,
    /// It joined a flight in the air.
    Follower,
    /// An equal call had been answered shortly before.
    Cache,
}

impl Role {
    /// Its name on the wire.
    pub fn label(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Cache => "cache",
        }
    }
}

/// Where a call's time went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// From its first byte to its answer.
    pub total: Duration,
    /// Waiting for the session's slot and in the provider's queue.
    pub queue: Duration,
    /// Waiting for the permit that all providers share.
    pub permit: Duration,
    /// With the provider.
    pub provider: Duration,
}

impl Spent {
    /// The daemon's own part.
    pub fn overhead(&self) -> Duration {
        self.total.saturating_sub(self.queue + self.permit + self.provider)
    }
}

/// One finished call, as one waiter saw it.
#[derive(Debug, Clone)]
pub struct Record {
    /// Whose.
    pub request: RequestId,
    /// In which Execution it was worked on; none where it was refused before, or needed no work.
    pub execution: Option<ExecutionId>,
    /// For whom.
    pub principal: PrincipalId,
    /// Which tool; `unknown` where there is none of that name.
    pub tool: Arc<str>,
    /// Who worked.
    pub provider: Option<Arc<str>>,
    /// Which model answered or was asked, where that is known.
    pub model: Option<Arc<str>>,
    /// How it came to its answer; none where it was refused before.
    pub role: Option<Role>,
    /// How it ended.
    pub terminal: Terminal,
    /// The error's code, if it is one.
    pub code: Option<&'static str>,
    /// Why it was refused, if it was.
    pub refusal: Option<Refusal>,
    /// Where its time went.
    pub spent: Spent,
    /// Its Execution as it was then.
    pub seen: Option<Seen>,
}

/// An Execution, as one of its callers saw it last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Where it was.
    pub state: ExecutionState,
    /// What it had entered when.
    pub marks: Marks,
    /// How long it had been under way when this caller came.
    pub joined_after: Duration,
    /// How long its work may take.
    pub timeout: Duration,
    /// Parts of what it was to do are missing in its reply.
    pub partial: bool,
}

/// Counts since the daemon started.
#[derive(Debug, Default)]
struct Counts {
    executions: AtomicU64,
    joined: AtomicU64,
    resumed: AtomicU64,
    resumed_again: AtomicU64,
    asked: AtomicU64,
    answered: AtomicU64,
    cache_hits: AtomicU64,
    completed: AtomicU64,
    timeout: AtomicU64,
    error: AtomicU64,
    cancelled: AtomicU64,
    rejected: AtomicU64,
    refusals: [AtomicU64; Refusal::ALL.len()],
}

/// The same, read at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Calls that have ended.
    pub calls: u64,
    /// Executions begun.
    pub executions: u64,
    /// Calls that joined an Execution in the air.
    pub joined: u64,
    /// Calls sent again that collected their execution or its outcome.
    pub resumed: u64,
    /// Calls sent again of which nothing was known, and which ran again: a model's answer may be billed twice.
    pub resumed_again: u64,
    /// Questions of servers that somebody was asked.
    pub asked: u64,
    /// Those of them to which something was said.
    pub answered: u64,
    /// Calls that were answered from the cache.
    pub cache_hits: u64,
    /// Calls by how they ended.
    pub completed: u64,
    /// See `completed`.
    pub timeout: u64,
    /// See `completed`.
    pub error: u64,
    /// See `completed`.
    pub cancelled: u64,
    /// See `completed`.
    pub rejected: u64,
    /// Those of them by why, in the order of [`Refusal::ALL`].
    pub refusals: [u64; Refusal::ALL.len()],
}

/// Records and counts of a daemon.
#[derive(Debug)]
pub struct Lifecycle {
    counts: Counts,
    /// Calls refused because their caller calls too often, by principal: those are configured, so they are few.
    rate_limited: Mutex<BTreeMap<Arc<str>, u64>>,
    durations: Histogram,
    records: Ring,
    draining: AtomicBool,
    started: Instant,
    log: CallLog,
}

impl Lifecycle {
    /// Nothing has happened yet; finished calls go to `log`.
    pub fn new(log: CallLog) -> Self {
        Self {
            counts: Counts::default(),
            rate_limited: Mutex::default(),
            durations: Histogram::default(),
            records: Ring::new(KEPT_RECORDS),
            draining: AtomicBool::new(false),
            started: Instant::now(),
            log,
        }
    }

    /// A call came to share somebody's Execution.
    pub fn joined(&self) {
        self.counts.joined.fetch_add(1, Ordering::Relaxed);
    }

    /// A call that was sent again collected its Execution, or its outcome.
    pub fn resumed(&self) {
        self.counts.resumed.fetch_add(1, Ordering::Relaxed);
    }

    /// A call was sent again, and nothing is known of the first time: it runs again.
    pub fn resumed_again(&self) {
        self.counts.resumed_again.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody is asked what a server wants to know.
    pub fn asked(&self) {
        self.counts.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// Something was said to it.
    pub fn answered(&self) {
        self.counts.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// A call of this principal was refused because it calls too often.
    pub fn rate_limited(&self, principal: &Arc<str>) {
        *self.rate_limited.lock().entry(Arc::clone(principal)).or_default() += 1;
    }

    /// How many of its calls were refused so, for each principal that had any.
    pub fn rate_limits(&self) -> Vec<(Arc<str>, u64)> {
        self.rate_limited.lock().iter().map(|(name, count)| (Arc::clone(name), *count)).collect()
    }

    /// A call was answered from the cache.
    pub fn cache_hit(&self) {
        self.counts.cache_hits.fetch_add(1, Ordering::Relaxed);
    }

    /// An Execution began.
    pub fn opened(&self) {
        self.counts.executions.fetch_add(1, Ordering::Relaxed);
    }

    /// A waiter is done: its one terminal record.
    #[inline]
    pub fn ended(&self, record: Record) {
        let counter = match record.terminal {
            Terminal::Completed => &self.counts.completed,
            Terminal::Timeout => &self.counts.timeout,
            Terminal::Error => &self.counts.error,
            Terminal::Cancelled => &self.counts.cancelled,
            Terminal::Rejected => &self.counts.rejected,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        match record.refusal {
            // What was refused took no time worth knowing, and would make every quantile look good.
            Some(refusal) => {
                if let Some(count) = self.counts.refusals.get(refusal.index()) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            None => self.durations.record(record.spent.total),
        }
        self.log.write(&record);
        self.records.push(record);
    }

    /// The record of a finished call of this principal.
    pub fn find(&self, who: PrincipalId, request: RequestId) -> Option<Record> {
        self.records.find(who, request)
    }

    /// The counts.
    pub fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        let [completed, timeout, error, cancelled, rejected] =
            [&counts.completed, &counts.timeout, &counts.error, &counts.cancelled, &counts.rejected]
                .map(read);
        Totals {
            calls: completed + timeout + error + cancelled + rejected,
            executions: read(&counts.executions),
            joined: read(&counts.joined),
            resumed: read(&counts.resumed),
            resumed_again: read(&counts.resumed_again),
            asked: read(&counts.asked),
            answered: read(&counts.answered),
            cache_hits: read(&counts.cache_hits),
            completed,
            timeout,
            error,
            cancelled,
            rejected,
            refusals: std::array::from_fn(|place| counts.refusals.get(place).map_or(0, read)),
        }
    }

    /// How long calls took, from first byte to answer: all that ended but those that were refused.
    pub fn durations(&self) -> Durations {
        self.durations.read()
    }

    /// Lines of the call log that were dropped, because they came faster than they could be written.
    pub fn dropped_lines(&self) -> u64 {
        self.log.dropped()
    }

    /// How long the daemon has been up.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Writes out what the call log still holds.
    pub fn flush(&self) {
        self.log.flush();
    }

    /// From here on new calls are refused.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether new calls are refused.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;

//! What becomes of calls: one record each, the last of them kept, all of them counted.
//!
//! Reading never holds callers up for longer than it takes to copy.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::ids::{ExecutionId, PrincipalId, RequestId};
use crate::phase::Terminal;
use crate::telemetry::CallLog;

/// How many finished calls are kept for inspection.
pub const KEPT_RECORDS: usize = 4096;

/// How many Executions the averages are taken over.
const AVERAGED_EXECUTIONS: usize = 1000;

/// How a caller came to its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It opened the flight.
    Leader,
    /// It joined a flight in the air.
    Follower,
}

impl Role {
    /// Its name on the wire.
    pub fn label(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
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
    /// How it came to its answer; none where it was refused before.
    pub role: Option<Role>,
    /// How it ended.
    pub terminal: Terminal,
    /// The error's code, if it is one.
    pub code: Option<&'static str>,
    /// Where its time went.
    pub spent: Spent,
}

/// One finished Execution.
#[derive(Debug, Clone, Copy)]
struct Finished {
    successful: bool,
    took: Duration,
}

/// Counts since the daemon started.
#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    executions: AtomicU64,
    joined: AtomicU64,
    resumed: AtomicU64,
    resumed_again: AtomicU64,
    completed: AtomicU64,
    timeout: AtomicU64,
    error: AtomicU64,
    cancelled: AtomicU64,
    rejected: AtomicU64,
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
}

/// The last Executions, summed up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recent {
    /// How many are summed up.
    pub executions: usize,
    /// How many of them had a reply.
    pub successful: usize,
    /// Their average duration; zero when there are none.
    pub average: Duration,
}

/// Records and counts of a daemon.
#[derive(Debug)]
pub struct Lifecycle {
    counts: Counts,
    records: Mutex<VecDeque<Record>>,
    finished: Mutex<VecDeque<Finished>>,
    draining: AtomicBool,
    started: Instant,
    log: CallLog,
}

impl Lifecycle {
    /// Nothing has happened yet; finished calls go to `log`.
    pub fn new(log: CallLog) -> Self {
        Self {
            counts: Counts::default(),
            records: Mutex::new(VecDeque::with_capacity(KEPT_RECORDS)),
            finished: Mutex::new(VecDeque::with_capacity(AVERAGED_EXECUTIONS)),
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

    /// An Execution began.
    pub fn opened(&self) {
        self.counts.executions.fetch_add(1, Ordering::Relaxed);
    }

    /// An Execution ended.
    pub fn landed(&self, successful: bool, took: Duration) {
        push_bounded(&mut self.finished.lock(), Finished { successful, took }, AVERAGED_EXECUTIONS);
    }

    /// A waiter is done: its one terminal record.
    pub fn ended(&self, record: Record) {
        let counter = match record.terminal {
            Terminal::Completed => &self.counts.completed,
            Terminal::Timeout => &self.counts.timeout,
            Terminal::Error => &self.counts.error,
            Terminal::Cancelled => &self.counts.cancelled,
            Terminal::Rejected => &self.counts.rejected,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        self.log.write(&record);
        push_bounded(&mut self.records.lock(), record, KEPT_RECORDS);
    }

    /// The record of a finished call of this principal.
    pub fn find(&self, who: PrincipalId, request: RequestId) -> Option<Record> {
        let records = self.records.lock();
        records.iter().rev().find(|record| record.request == request && record.principal == who).cloned()
    }

    /// The counts.
    pub fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        Totals {
            calls: read(&counts.calls),
            executions: read(&counts.executions),
            joined: read(&counts.joined),
            resumed: read(&counts.resumed),
            resumed_again: read(&counts.resumed_again),
            completed: read(&counts.completed),
            timeout: read(&counts.timeout),
            error: read(&counts.error),
            cancelled: read(&counts.cancelled),
            rejected: read(&counts.rejected),
        }
    }

    /// The last Executions.
    pub fn recent(&self) -> Recent {
        let finished = self.finished.lock();
        let executions = finished.len();
        let total: Duration = finished.iter().map(|each| each.took).sum();
        let average =
            u32::try_from(executions).ok().and_then(|count| total.checked_div(count)).unwrap_or_default();
        Recent { executions, successful: finished.iter().filter(|each| each.successful).count(), average }
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

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T, bound: usize) {
    if queue.len() == bound {
        queue.pop_front();
    }
    queue.push_back(item);
}

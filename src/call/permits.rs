//! Leases: what a Run holds while it works, and who holds what.

use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use tokio::time::Instant;

use crate::call::flight::Flight;
use crate::call::queue::Permit;
use crate::deadline::Deadline;
use crate::sync::Mutex;

/// Who holds permits, since when, past which deadline.
#[derive(Debug, Clone)]
pub struct Holder {
    /// Whose Run works under them.
    pub flight: Arc<Flight>,
    /// Since when.
    pub since: Instant,
    /// When it must have ended.
    pub deadline: Deadline,
    /// It has given its global permit back while somebody thinks about a question of its.
    pub rests: bool,
}

/// All leases of the daemon.
#[derive(Debug, Default)]
pub struct Leases {
    holders: Mutex<Slab<Holder>>,
}

impl Leases {
    /// Binds permits, narrow to wide, to the Run that works under them.
    pub fn grant(self: &Arc<Self>, provider: Permit, global: Permit, holder: Holder) -> Lease {
        let entry = self.holders.lock().insert(holder);
        Lease {
            leases: Arc::clone(self),
            entry,
            provider,
            global: Some(global),
            rested: Duration::ZERO,
            rests_since: None,
        }
    }

    /// Everybody who holds one.
    pub fn holders(&self) -> Vec<Holder> {
        self.holders.lock().iter().map(|(_, holder)| holder.clone()).collect()
    }

    /// Those past their deadline by more than `grace`.
    pub fn overdue(&self, now: Instant, grace: Duration) -> Vec<Holder> {
        let holders = self.holders.lock();
        holders
            .iter()
            .map(|(_, holder)| holder)
            .filter(|holder| holder.deadline.overdue(now) > grace)
            .cloned()
            .collect()
    }
}

/// The guard of a Run's permits: held until the work has really ended. It cannot be cloned, and dropping it is
/// the only way to give it back.
#[must_use = "a lease that is dropped bounds nothing"]
#[derive(Debug)]
pub struct Lease {
    leases: Arc<Leases>,
    entry: usize,
    provider: Permit,
    /// `None` while it rests.
    global: Option<Permit>,
    rested: Duration,
    rests_since: Option<Instant>,
}

impl Lease {
    /// Notes how long it was held for work: both pools learn of it when it is given back.
    pub fn worked(&mut self, worked: Duration) {
        self.provider.worked(worked);
        if let Some(global) = &mut self.global {
            global.worked(worked.saturating_sub(self.rested));
        }
    }

    /// Gives the global permit back, to have another one before the work goes on.
    pub fn rest(&mut self, now: Instant) {
        self.rests_since.get_or_insert(now);
        self.note(|holder| holder.rests = true);
        // After the note: more leases than permits would be wrong, fewer are on their way.
        self.global = None;
    }

    /// The work goes on under this one.
    pub fn goes_on(&mut self, global: Permit, now: Instant) {
        self.global = Some(global);
        let since = self.rests_since.take();
        self.rested += since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.note(|holder| holder.rests = false);
    }

    /// Its work must have ended then.
    pub fn due(&self, deadline: Deadline) {
        self.note(|holder| holder.deadline = deadline);
    }

    fn note(&self, change: impl FnOnce(&mut Holder)) {
        if let Some(holder) = self.leases.holders.lock().get_mut(self.entry) {
            change(holder);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.holders.lock().try_remove(self.entry);
    }
}

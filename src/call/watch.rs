//! What can be asked about calls: those under way, those that ended, and outcomes kept for who could not wait.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use slab::Slab;
use tokio::time::Instant;

use crate::call::flight::Flight;
use crate::call::outcome::Outcome;
use crate::call::parked::Parked;
use crate::call::shown::{self, Active};
use crate::ids::{PrincipalId, RequestId};
use crate::lifecycle::spend::Ledger;
use crate::lifecycle::{Lifecycle, Record, Role};
use crate::phase::Terminal;
use crate::sync::Mutex;
use crate::tool::Found;

/// How long an outcome is kept for who could not wait for it.
const KEPT_FOR: Duration = Duration::from_secs(3600);
/// How many outcomes are kept; the oldest goes first.
const KEPT_OUTCOMES: usize = 1024;
/// How many bytes of outcomes, and of what was asked for them, are kept; the oldest goes first.
const KEPT_BYTES: usize = 64 << 20;

#[derive(Debug)]
struct Kept {
    request: RequestId,
    principal: PrincipalId,
    since: Instant,
    /// How the call ended for its caller, whose record may be forgotten sooner.
    ended: Terminal,
    flight: Arc<Flight>,
}

/// Calls under way and outcomes kept, beside the records of those that ended.
#[derive(Debug)]
pub struct Watch {
    lifecycle: Arc<Lifecycle>,
    ledger: Arc<Ledger>,
    /// Looked through only where somebody asks; each waiter knows its place.
    active: Mutex<Slab<Active>>,
    kept: Mutex<VecDeque<Kept>>,
    parked: Parked,
}

impl Watch {
    /// Nothing to see yet.
    pub fn new(lifecycle: Arc<Lifecycle>, ledger: Arc<Ledger>) -> Self {
        Self {
            lifecycle,
            ledger,
            active: Mutex::default(),
            kept: Mutex::default(),
            parked: Parked::default(),
        }
    }

    /// A caller that opened no Execution got this: what it cost was paid once.
    pub(super) fn shared(&self, role: Option<Role>, outcome: &Outcome) {
        if let (Some(Role::Follower | Role::Cache), Ok(reply)) = (role, outcome)
            && let Some(usage) = reply.usage
        {
            self.ledger.saved(usage);
        }
    }

    /// What models' answers cost, and what sharing saved.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Records and counts.
    pub fn lifecycle(&self) -> &Arc<Lifecycle> {
        &self.lifecycle
    }

    /// Runs whose callers were asked by a result.
    pub(super) fn parked(&self) -> &Parked {
        &self.parked
    }

    /// A call is under way; says its place.
    pub(super) fn began(&self, active: Active) -> usize {
        self.active.lock().insert(active)
    }

    /// A call has ended; `place` is what [`Watch::began`] said, where it was under way.
    #[inline]
    pub(super) fn ended(&self, record: Record, place: Option<usize>) {
        if let Some(place) = place {
            let active = self.active.lock().try_remove(place);
            // Its flight may go with it: after the lock.
            drop(active);
        }
        self.lifecycle.ended(record);
    }

    /// Keeps what this flight lands with for who could not wait.
    pub(super) fn keep(
        &self,
        request: RequestId,
        principal: PrincipalId,
        ended: Terminal,
        flight: &Arc<Flight>,
    ) {
        let kept = Kept { request, principal, since: Instant::now(), ended, flight: Arc::clone(flight) };
        self.kept.lock().push_back(kept);
        self.sweep();
    }

    /// Lets go of outcomes that are too old or too many.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut kept = self.kept.lock();
        let mut bytes: usize = kept.iter().map(|kept| kept.flight.bytes()).sum();
        while let Some(oldest) = kept.front() {
            let too_old = now.saturating_duration_since(oldest.since) > KEPT_FOR;
            if !too_old && kept.len() <= KEPT_OUTCOMES && bytes <= KEPT_BYTES {
                return;
            }
            // One that was still at work when the sum was taken may have landed since.
            bytes = bytes.saturating_sub(oldest.flight.bytes());
            kept.pop_front();
        }
    }

    /// Calls under way.
    pub fn active(&self) -> usize {
        self.active.lock().len()
    }

    /// What the daemon knows of one request of this principal, with the reply if that was kept.
    pub fn find(&self, who: PrincipalId, request: RequestId) -> Option<Found> {
        let kept = {
            let kept = self.kept.lock();
            let kept = kept.iter().find(|kept| kept.request == request && kept.principal == who);
            kept.map(|kept| (kept.ended, Arc::clone(&kept.flight)))
        };
        let active = {
            let active = self.active.lock();
            let mut mine = active.iter().map(|(_, active)| active);
            mine.find(|active| active.request == request && active.principal == who).cloned()
        };
        let outcome = kept.as_ref().map(|(_, flight)| flight.outcome().cloned());
        let work = kept.as_ref().map(|(_, flight)| &**flight);
        let mut about = match (active, self.lifecycle.find(who, request), &kept) {
            (Some(active), _, _) => shown::under_way(&active),
            (None, Some(record), _) => shown::ended(&record, work),
            (None, None, Some((ended, flight))) => shown::forgotten(request, *ended, flight),
            (None, None, None) => return None,
        };
        if let (Some(flight), Some(outcome), Value::Object(members)) = (work, &outcome, &mut about) {
            members.insert("work".into(), shown::work(flight, outcome.as_ref()));
        }
        Some(Found { about, reply: outcome.flatten().and_then(Result::ok) })
    }

    /// This principal's calls under way, the oldest first.
    pub fn list(&self, who: PrincipalId) -> Value {
        let mut mine: Vec<Active> = {
            let active = self.active.lock();
            active
                .iter()
                .map(|(_, active)| active)
                .filter(|active| active.principal == who)
                .cloned()
                .collect()
        };
        mine.sort_by_key(|active| active.received);
        let list: Vec<_> = mine.iter().map(shown::under_way).collect();
        json!({"active_requests": list})
    }
}

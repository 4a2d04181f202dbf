//! What can be asked about calls: those under way, those that ended, and outcomes kept for who could not wait.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::call::flight::Flight;
use crate::call::key::BuildKeyHasher;
use crate::call::outcome::Outcome;
use crate::ids::{PrincipalId, RequestId};
use crate::lifecycle::{Lifecycle, Record, Role};
use crate::phase::{Phase, Terminal};
use crate::tool::Found;

/// How long an outcome is kept for who could not wait for it.
const KEPT_FOR: Duration = Duration::from_secs(3600);
/// How many outcomes are kept; the oldest goes first.
const KEPT_OUTCOMES: usize = 1024;
/// How many bytes of outcomes are kept; the oldest goes first.
const KEPT_BYTES: usize = 64 << 20;

#[derive(Debug)]
struct Active {
    principal: PrincipalId,
    role: Role,
    received: Instant,
    flight: Arc<Flight>,
}

#[derive(Debug)]
struct Kept {
    request: RequestId,
    principal: PrincipalId,
    since: Instant,
    /// How the call ended for its caller, whose record may be forgotten sooner.
    ended: Terminal,
    flight: Arc<Flight>,
}

impl Kept {
    fn bytes(&self) -> usize {
        let reply = self.flight.outcome().and_then(|outcome| outcome.as_ref().ok());
        reply.map_or(0, |reply| reply.bytes())
    }
}

/// Calls under way and outcomes kept, beside the records of those that ended.
#[derive(Debug)]
pub struct Watch {
    lifecycle: Arc<Lifecycle>,
    active: Mutex<HashMap<RequestId, Active, BuildKeyHasher>>,
    kept: Mutex<VecDeque<Kept>>,
}

impl Watch {
    /// Nothing to see yet.
    pub fn new(lifecycle: Arc<Lifecycle>) -> Self {
        Self { lifecycle, active: Mutex::default(), kept: Mutex::default() }
    }

    /// Records and counts.
    pub fn lifecycle(&self) -> &Arc<Lifecycle> {
        &self.lifecycle
    }

    pub(super) fn began(
        &self,
        request: RequestId,
        principal: PrincipalId,
        role: Role,
        received: Instant,
        flight: &Arc<Flight>,
    ) {
        let active = Active { principal, role, received, flight: Arc::clone(flight) };
        self.active.lock().insert(request, active);
    }

    pub(super) fn ended(&self, record: Record, registered: bool) {
        if registered {
            self.active.lock().remove(&record.request);
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
        let mut bytes: usize = kept.iter().map(Kept::bytes).sum();
        while let Some(oldest) = kept.front() {
            let too_old = now.saturating_duration_since(oldest.since) > KEPT_FOR;
            if !too_old && kept.len() <= KEPT_OUTCOMES && bytes <= KEPT_BYTES {
                return;
            }
            // One that was still at work when the sum was taken may have landed since.
            bytes = bytes.saturating_sub(oldest.bytes());
            kept.pop_front();
        }
    }

    /// Calls under way.
    pub fn active(&self) -> usize {
        self.active.lock().len()
    }

    /// What the daemon knows of one request of this principal, with the reply if that was kept.
    pub fn find(&self, who: PrincipalId, request: RequestId) -> Option<Found> {
        let under_way =
            self.active.lock().get(&request).filter(|active| active.principal == who).map(describe);
        let kept = {
            let kept = self.kept.lock();
            let kept = kept.iter().find(|kept| kept.request == request && kept.principal == who);
            kept.map(|kept| (kept.ended, Arc::clone(&kept.flight)))
        };
        let record = || self.lifecycle.find(who, request).map(|record| told(&record));
        let without_record = || kept.as_ref().map(|(ended, flight)| told_by_flight(*ended, flight));
        let mut about = under_way.or_else(record).or_else(without_record)?;
        let outcome = kept.as_ref().map(|(_, flight)| flight.outcome().cloned());
        if let (Some((_, flight)), Some(outcome), Value::Object(members)) = (kept, &outcome, &mut about) {
            members.insert("work".into(), work(&flight, outcome.as_ref()));
        }
        members_with_id(&mut about, request);
        Some(Found { about, reply: outcome.flatten().and_then(Result::ok) })
    }

    /// This principal's calls under way, the oldest first.
    pub fn list(&self, who: PrincipalId) -> Value {
        let active = self.active.lock();
        let mut mine: Vec<_> = active.iter().filter(|(_, active)| active.principal == who).collect();
        mine.sort_by_key(|(_, active)| active.received);
        let list: Vec<_> = mine
            .into_iter()
            .map(|(request, active)| {
                let mut described = describe(active);
                members_with_id(&mut described, *request);
                described
            })
            .collect();
        json!({"active_requests": list})
    }
}

fn members_with_id(value: &mut Value, request: RequestId) {
    if let Value::Object(members) = value {
        members.insert("request_id".into(), request.to_string().into());
    }
}

fn describe(active: &Active) -> Value {
    let stages = active.flight.stages();
    let phases: serde_json::Map<_, _> = Phase::ALL
        .into_iter()
        .filter_map(|phase| Some((phase.label().to_owned(), millis(stages.at(phase)?))))
        .collect();
    json!({
        "state": "active",
        "phase": stages.current().label(),
        "tool": &*active.flight.tool().name,
        "provider": &**active.flight.provider(),
        "session_id": active.flight.execution().to_string(),
        "role": active.role.label(),
        "waiters": active.flight.waiting(),
        "elapsed_ms": millis(active.received.elapsed()),
        "phases_ms": phases,
    })
}

fn told(record: &Record) -> Value {
    json!({
        "state": record.terminal.label(),
        "code": record.code,
        "tool": &*record.tool,
        "provider": record.provider.as_deref(),
        "session_id": record.execution.map(|execution| execution.to_string()),
        "role": record.role.map(Role::label),
        "latency": {
            "total_ms": millis(record.spent.total),
            "queue_ms": millis(record.spent.queue),
            "permit_ms": millis(record.spent.permit),
            "provider_ms": millis(record.spent.provider),
            "overhead_ms": millis(record.spent.overhead()),
        },
    })
}

/// What is left of a call whose record is forgotten while its outcome is kept.
fn told_by_flight(ended: Terminal, flight: &Flight) -> Value {
    json!({
        "state": ended.label(),
        "tool": &*flight.tool().name,
        "provider": &**flight.provider(),
        "session_id": flight.execution().to_string(),
    })
}

/// Work whose outcome is kept.
fn work(flight: &Flight, outcome: Option<&Outcome>) -> Value {
    match outcome {
        None => json!({"state": "running", "phase": flight.stages().current().label()}),
        Some(Ok(_)) => json!({"state": "completed"}),
        Some(Err(error)) => {
            json!({"state": error.code().terminal().label(), "code": error.code().label(), "message": error.to_string()})
        }
    }
}

/// Milliseconds with microseconds behind the point.
fn millis(span: Duration) -> Value {
    let micros = u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
    Value::from(f64::from(micros) / 1000.0)
}

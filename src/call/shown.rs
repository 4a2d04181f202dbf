//! What is told of a call and of the Execution behind it, as JSON: written only when somebody asks.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::call::flight::Flight;
use crate::call::outcome::{self, Outcome};
use crate::ids::{ExecutionId, PrincipalId, RequestId};
use crate::lifecycle::{Record, Role, Seen};
use crate::phase::{ExecutionState, Phase, Terminal};
use crate::telemetry::push_timestamp;

/// A call under way.
#[derive(Debug, Clone)]
pub(super) struct Active {
    pub(super) request: RequestId,
    pub(super) principal: PrincipalId,
    pub(super) role: Role,
    pub(super) received: Instant,
    pub(super) flight: Arc<Flight>,
}

/// A call under way.
pub(super) fn under_way(active: &Active) -> Value {
    let request = active.request;
    let flight = &active.flight;
    let seen = Seen::of(flight, active.received);
    let about = flight.about();
    let model = about.model.as_deref();
    let metadata = about.metadata.as_deref();
    json!({
        "request_id": request.to_string(),
        "state": "active",
        "phase": flight.stages().current().label(),
        "tool": &*flight.tool().name,
        "provider": &**flight.provider(),
        "model": model,
        "session_id": flight.execution().to_string(),
        "role": active.role.label(),
        "waiters": flight.waiting(),
        "elapsed_ms": millis(active.received.elapsed()),
        "phases_ms": phases(&seen),
        "notes_ms": notes(Some(active.role), &seen),
        "session": session(request, flight.execution(), Some(flight.provider()), model, &seen, metadata),
    })
}

/// A call that has ended. `work`: the flight whose outcome is kept for it.
pub(super) fn ended(record: &Record, work: Option<&Flight>) -> Value {
    let request = record.request;
    let mut told = json!({
        "request_id": request.to_string(),
        "state": record.terminal.label(),
        "code": record.code,
        "tool": &*record.tool,
        "provider": record.provider.as_deref(),
        "model": record.model.as_deref(),
        "session_id": record.execution.map(|execution| execution.to_string()),
        "role": record.role.map(Role::label),
        "latency": {
            "total_ms": millis(record.spent.total),
            "queue_ms": millis(record.spent.queue),
            "permit_ms": millis(record.spent.permit),
            "provider_ms": millis(record.spent.provider),
            "overhead_ms": millis(record.spent.overhead()),
        },
    });
    if let (Value::Object(members), Some(execution), Some(seen)) = (&mut told, record.execution, record.seen)
    {
        let seen = work.map_or(seen, |flight| Seen::again(flight, &seen));
        let metadata = work.and_then(|flight| flight.about().metadata.as_deref());
        let (provider, model) = (record.provider.as_deref(), record.model.as_deref());
        members.insert("phases_ms".into(), phases(&seen));
        members.insert("notes_ms".into(), notes(record.role, &seen));
        members.insert("session".into(), session(request, execution, provider, model, &seen, metadata));
    } else if let Value::Object(members) = &mut told {
        // No Execution was its own: it came, and was answered.
        let hit =
            (record.role == Some(Role::Cache)).then(|| ("cache_hit".to_owned(), millis(record.spent.total)));
        members.insert("phases_ms".into(), json!({Phase::Received.label(): 0.0}));
        members.insert("notes_ms".into(), Value::Object(hit.into_iter().collect()));
    }
    told
}

/// What is left of a call whose record is forgotten while its outcome is kept.
pub(super) fn forgotten(request: RequestId, ended: Terminal, flight: &Flight) -> Value {
    json!({
        "request_id": request.to_string(),
        "state": ended.label(),
        "tool": &*flight.tool().name,
        "provider": &**flight.provider(),
        "model": flight.about().model.as_deref(),
        "session_id": flight.execution().to_string(),
    })
}

/// Work whose outcome is kept.
pub(super) fn work(flight: &Flight, outcome: Option<&Outcome>) -> Value {
    match outcome {
        None => json!({"state": "running", "phase": flight.stages().current().label()}),
        Some(outcome @ Ok(_)) => json!({"state": outcome::terminal(outcome).label()}),
        Some(Err(error)) => {
            json!({"state": error.terminal().label(), "code": error.code().label(), "message": error.to_string()})
        }
    }
}

impl Seen {
    /// What a caller that came at `received` sees of its Execution now.
    pub(super) fn of(flight: &Flight, received: Instant) -> Self {
        Self {
            state: flight.state(),
            marks: flight.stages().marks(),
            joined_after: received.saturating_duration_since(flight.stages().start()),
            timeout: flight.about().timeout,
            partial: flight.outcome().is_some_and(outcome::is_partial),
        }
    }

    /// What it would see now that it has left.
    fn again(flight: &Flight, before: &Self) -> Self {
        let partial = flight.outcome().is_some_and(outcome::is_partial);
        Self { state: flight.state(), marks: flight.stages().marks(), partial, ..*before }
    }
}

/// The Execution, as its caller's clock has it: the caller's id says when it came, by the wall clock.
fn session(
    request: RequestId,
    execution: ExecutionId,
    provider: Option<&str>,
    model: Option<&str>,
    seen: &Seen,
    metadata: Option<&str>,
) -> Value {
    let created_ms = request.minted_ms().saturating_sub(whole_millis(seen.joined_after));
    let time = |after: Duration| {
        let mut text = String::new();
        push_timestamp(&mut text, created_ms + whole_millis(after));
        text
    };
    let completed = match seen.state {
        ExecutionState::Allocated | ExecutionState::Processing => None,
        // One that a kept outcome answered released nothing: it was over as it began.
        ExecutionState::Ended(_) => Some(seen.marks.at(Phase::SessionReleased).unwrap_or_default()),
    };
    let metadata: Option<Value> = metadata.and_then(|metadata| serde_json::from_str(metadata).ok());
    json!({
        "session_id": execution.to_string(),
        "request_id": request.to_string(),
        "provider": provider,
        "model": model,
        "state": seen.state.label(),
        "created_at": time(Duration::ZERO),
        "started_at": seen.marks.at(Phase::ProviderCallStart).map(time),
        "completed_at": completed.map(time),
        "timeout": seen.timeout.as_secs_f64(),
        "metadata": metadata.unwrap_or_else(|| json!({})),
    })
}

/// When which phase was entered, counted from the Execution's start.
fn phases(seen: &Seen) -> Value {
    let entered = |phase: Phase| Some((phase.label().to_owned(), millis(seen.marks.at(phase)?)));
    Value::Object(Phase::ALL.into_iter().filter_map(entered).collect())
}

/// What happened on the way, counted from the Execution's start.
fn notes(role: Option<Role>, seen: &Seen) -> Value {
    let how = match role {
        Some(Role::Follower) => Some("joined"),
        Some(Role::Cache) => Some("cache_hit"),
        Some(Role::Leader) | None => None,
    };
    let how = how.map(|name| (name.to_owned(), millis(seen.joined_after)));
    let first_byte = seen.marks.first_byte().map(|at| ("first_byte".to_owned(), millis(at)));
    let retried = seen.marks.retried().map(|at| ("retried".to_owned(), millis(at)));
    let asked = seen.marks.asked().map(|at| ("asked".to_owned(), millis(at)));
    let ended = seen.marks.at(Phase::SessionReleased).filter(|_| seen.partial);
    let partial = ended.map(|at| ("partial".to_owned(), millis(at)));
    Value::Object(how.into_iter().chain(first_byte).chain(retried).chain(asked).chain(partial).collect())
}

fn whole_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds with microseconds behind the point.
fn millis(span: Duration) -> Value {
    let micros = u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
    Value::from(f64::from(micros) / 1000.0)
}

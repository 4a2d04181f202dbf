//! Counts as figures: what `get_server_stats` says of requests and sessions. Everything is zero while nothing happened.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::call::desk::CareView;
use crate::lifecycle::spend::{Spent, Tally};
use crate::lifecycle::{Durations, ExecutionTotals, Totals};
use crate::phase::{ExecutionEnd, Refusal};
use crate::provider::breaker::BreakerState;

/// Requests: one for each caller, whoever shares an execution.
pub(super) fn requests(
    active: usize,
    totals: &Totals,
    executions: &ExecutionTotals,
    durations: &Durations,
) -> Map<String, Value> {
    let active = u64::try_from(active).unwrap_or(u64::MAX);
    let total = totals.calls + active;
    // Each request is received, and has its end; joining and finding a kept outcome are noted of it alone.
    let events = total + totals.calls + totals.joined + totals.cache_hits + executions.events;
    let figures = [
        ("total_requests", total.into()),
        ("active_requests", active.into()),
        ("completed_requests", totals.completed.into()),
        ("avg_duration_ms", millis(durations.average)),
        ("min_duration_ms", millis(durations.min)),
        ("max_duration_ms", millis(durations.max)),
        ("p50_duration_ms", millis(durations.p50)),
        ("p95_duration_ms", millis(durations.p95)),
        ("p99_duration_ms", millis(durations.p99)),
        ("total_events", events.into()),
    ];
    figures.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect()
}

/// Sessions: the Executions, since the daemon started.
pub(super) fn sessions(totals: &Totals, executions: &ExecutionTotals) -> Value {
    let rejected: Map<_, _> = Refusal::ALL
        .into_iter()
        .zip(totals.refusals)
        .map(|(refusal, count)| (refusal.label().to_owned(), count.into()))
        .collect();
    json!({
        "total_sessions": totals.executions,
        "active_sessions": totals.executions.saturating_sub(executions.finished()),
        "completed_sessions": executions.of(ExecutionEnd::Completed),
        "partial_sessions": executions.partial,
        "error_sessions": executions.of(ExecutionEnd::Error),
        "timeout_sessions": executions.of(ExecutionEnd::Timeout),
        "cancelled_sessions": executions.of(ExecutionEnd::Cancelled),
        "peak_concurrent_sessions": executions.peak,
        "average_duration_seconds": executions.average.as_secs_f64(),
        "success_rate": executions.rate(ExecutionEnd::Completed),
        "timeout_rate": executions.rate(ExecutionEnd::Timeout),
        "error_rate": executions.rate(ExecutionEnd::Error),
        "rejected": rejected,
    })
}

/// Calls that were refused because their caller calls too often, by principal.
pub(super) fn rate_limited(refused: &[(Arc<str>, u64)]) -> Value {
    Value::Object(refused.iter().map(|(name, count)| (name.to_string(), (*count).into())).collect())
}

/// What models' answers cost, and what sharing saved.
pub(super) fn usage(spent: &Spent) -> Value {
    let mut usage = tally(&spent.total);
    let models = spent.models.iter().map(|((provider, model), each)| {
        let mut about = Map::from_iter([
            ("provider".to_owned(), (&**provider).into()),
            ("model".to_owned(), (&**model).into()),
        ]);
        about.extend(tally(each));
        Value::Object(about)
    });
    usage.insert("by_model".into(), models.collect());
    usage.insert("saved".into(), tally(&spent.saved).into());
    usage.into()
}

fn tally(tally: &Tally) -> Map<String, Value> {
    let figures = [
        ("calls", tally.calls.into()),
        ("unpriced_calls", tally.unpriced.into()),
        ("prompt_tokens", tally.prompt_tokens.into()),
        ("completion_tokens", tally.completion_tokens.into()),
        ("cost", tally.cost.json()),
    ];
    figures.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect()
}

/// How each provider is, and what was done about it.
pub(super) fn resilience(care: &[(Arc<str>, CareView)]) -> Value {
    let view = |view: &CareView| {
        json!({
            "breaker": view.breaker.label(),
            "breaker_openings": view.openings,
            "breaker_refused": view.refused,
            "retries": view.retries,
            "retries_denied": view.denied,
            "pauses": view.pauses,
            "fallbacks": view.fallbacks,
            "paused_ms": view.paused.map_or(0, whole_millis),
        })
    };
    Value::Object(care.iter().map(|(name, each)| (name.to_string(), view(each))).collect())
}

/// The providers that are not asked now, and why.
pub(super) fn unavailable(care: &[(Arc<str>, CareView)]) -> Value {
    let of = |view: &CareView| match (view.breaker, view.paused) {
        (BreakerState::Open(wait), _) => {
            Some(json!({"why": "failing", "retry_after_ms": whole_millis(wait)}))
        }
        (_, Some(wait)) => {
            Some(json!({"why": "asked to be left alone", "retry_after_ms": whole_millis(wait)}))
        }
        (BreakerState::Closed | BreakerState::HalfOpen, None) => None,
    };
    Value::Object(care.iter().filter_map(|(name, view)| Some((name.to_string(), of(view)?))).collect())
}

fn whole_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds with all that the clock tells behind the point.
fn millis(span: Duration) -> Value {
    (span.as_secs_f64() * 1e3).into()
}

#[cfg(test)]
mod tests;

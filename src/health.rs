//! Looks at the daemon itself: one line every so often, and an error for what must never be.
//!
//! It reports, and stops what is overdue. It never invents permits.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::call::Calls;
use crate::call::queue::PoolView;
use crate::ids::{PrincipalId, RequestId};
use crate::provider::catalog::Catalog;
use crate::provider::pool::Gauges;
use crate::tool::{Found, Insight};

mod statistics;

/// A lease this long past its deadline is an error: the work was cut off at the deadline, or should have been.
const OVERDUE: Duration = Duration::from_secs(10);

/// Sums may be wrong while somebody takes a permit; not twice, this far apart.
const SECOND_LOOK: Duration = Duration::from_millis(100);

/// Above this share of a limit, in percent, an operator should know.
const BUSY_PERCENT: usize = 80;

/// What one look sees.
#[derive(Debug)]
struct Look {
    global: PoolView,
    providers: Vec<(Arc<str>, PoolView)>,
    /// They hold no permits: no sum of permits counts them.
    composites: Vec<(Arc<str>, PoolView)>,
    leases: usize,
    inflight: usize,
    waiters: usize,
    oldest: Duration,
}

impl Look {
    fn at(calls: &Calls) -> Self {
        let (global, providers) = calls.pools();
        let holders = calls.leases().holders();
        let now = Instant::now();
        let age = |since: Instant| now.saturating_duration_since(since);
        Self {
            global,
            providers,
            composites: calls.composites(),
            leases: holders.iter().filter(|holder| !holder.rests).count(),
            inflight: calls.flights().executions(),
            waiters: calls.watch().active(),
            oldest: holders.iter().map(|holder| age(holder.since)).max().unwrap_or_default(),
        }
    }

    fn queued(&self) -> usize {
        self.global.queued + self.named().map(|(_, view)| view.queued).sum::<usize>()
    }

    /// Every pool but the one for all.
    fn named(&self) -> impl Iterator<Item = &(Arc<str>, PoolView)> {
        self.providers.iter().chain(&self.composites)
    }

    /// Permits on their way to a lease are taken and not yet bound, so only more leases than permits are wrong.
    fn is_balanced(&self) -> bool {
        let taken: usize = self.providers.iter().map(|(_, view)| view.in_use).sum();
        let within = |view: &PoolView| view.in_use <= view.limit;
        let limits_hold = within(&self.global) && self.named().all(|(_, view)| within(view));
        limits_hold && self.leases <= self.global.in_use && self.global.in_use <= taken
    }

    /// `kimi=2/6 glm=0/4`
    fn each(&self) -> String {
        let each = self.named().map(|(name, view)| format!("{name}={}/{}", view.in_use, view.limit));
        each.collect::<Vec<_>>().join(" ")
    }

    /// `global=3/24 kimi=2/6 glm=0/4 queued=1 inflight=5 waiters=9 oldest_ms=8123`
    fn line(&self) -> String {
        let mut line = format!("global={}/{} {}", self.global.in_use, self.global.limit, self.each());
        // Writing to a String cannot fail.
        let _ = write!(line, " queued={} inflight={}", self.queued(), self.inflight);
        let _ = write!(line, " waiters={} oldest_ms={}", self.waiters, self.oldest.as_millis());
        line
    }
}

/// The daemon's own health, as the readiness door sees it.
#[derive(Debug, Default)]
pub struct Health {
    broken: AtomicBool,
}

impl Health {
    /// Whether something is that must never be.
    pub fn broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Looks every `interval` until told to stop.
    pub async fn watch(self: Arc<Self>, calls: Arc<Calls>, interval: Duration, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => self.look(&calls).await,
            }
        }
    }

    /// One look, and a second where the first saw sums that do not add up.
    ///
    /// Cancel safe: a look that is dropped reports nothing.
    pub async fn look(&self, calls: &Calls) {
        let mut look = Look::at(calls);
        let mut unbalanced = false;
        if !look.is_balanced() {
            tokio::time::sleep(SECOND_LOOK).await;
            look = Look::at(calls);
            unbalanced = !look.is_balanced();
        }
        calls.watch().sweep();
        calls.attachments().sweep();
        calls.sweep_parked();
        calls.registry().catalog().books().conversations.sweep();
        tracing::info!(
            global_in_use = look.global.in_use,
            global_limit = look.global.limit,
            queued = look.queued(),
            inflight = look.inflight,
            waiters = look.waiters,
            oldest_ms = u64::try_from(look.oldest.as_millis()).unwrap_or(u64::MAX),
            permits = look.each(),
            "Semaphore health: {}",
            look.line()
        );
        warn_of_use(&look);
        let overdue = report_overdue(calls);
        let lost = calls.flights().without_run();
        for flight in &lost {
            tracing::error!(session = %flight.execution(), tool = &*flight.tool().name, "a flight has no Run");
        }
        if unbalanced {
            tracing::error!("permits do not add up, twice in a row: {}", look.line());
        }
        self.broken.store(unbalanced || overdue || !lost.is_empty(), Ordering::Release);
    }
}

fn warn_of_use(look: &Look) {
    let all = std::iter::once(("global", look.global));
    let each = look.named().map(|(name, view)| (&**name, *view));
    for (name, view) in all.chain(each) {
        if view.in_use * 100 > view.limit * BUSY_PERCENT {
            tracing::warn!(
                "{name} is busy: {} of {} permits in use, {} calls wait",
                view.in_use,
                view.limit,
                view.queued
            );
        }
    }
}

fn report_overdue(calls: &Calls) -> bool {
    let now = Instant::now();
    let overdue = calls.leases().overdue(now, OVERDUE);
    for holder in &overdue {
        let flight = &holder.flight;
        tracing::error!(
            session = %flight.execution(),
            tool = &*flight.tool().name,
            provider = &**flight.provider(),
            held_ms = u64::try_from(now.saturating_duration_since(holder.since).as_millis()).unwrap_or(u64::MAX),
            "a lease is past its deadline; its work is stopped"
        );
        flight.stop();
    }
    !overdue.is_empty()
}

impl Insight for Calls {
    fn health(&self) -> Value {
        let look = Look::at(self);
        json!({
            "status": if self.watch().lifecycle().draining() { "draining" } else { "ok" },
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": self.watch().lifecycle().uptime().as_secs(),
            "inflight": look.inflight,
            "waiters": look.waiters,
            "queued": look.queued(),
            "permits": permits(&look),
            "unavailable": statistics::unavailable(&self.care()),
        })
    }

    fn server_stats(&self) -> Value {
        // Ends before beginnings, and calls that ended before those under way: none is counted twice.
        let (executions, recent) = self.flights().statistics().read();
        let totals = self.watch().lifecycle().totals();
        let look = Look::at(self);
        let (kept, kept_bytes) = self.registry().catalog().books().conversations.kept();
        let mut stats = json!({
            "total_executions": totals.executions,
            "successful": recent.successful,
            "failed": recent.executions - recent.successful,
            "average_duration_seconds": recent.average.as_secs_f64(),
            "active_executions": look.inflight,
            "queue_size": look.queued(),
            "waiters": look.waiters,
            "oldest_ms": u64::try_from(look.oldest.as_millis()).unwrap_or(u64::MAX),
            "uptime_seconds": self.watch().lifecycle().uptime().as_secs(),
            "version": env!("CARGO_PKG_VERSION"),
            "calls": {
                "total": totals.calls,
                "completed": totals.completed,
                "error": totals.error,
                "timeout": totals.timeout,
                "cancelled": totals.cancelled,
                "rejected": totals.rejected,
            },
            "dedup": {
                "calls": totals.executions + totals.joined + totals.cache_hits,
                "executions": totals.executions,
                "joined": totals.joined,
                "cache_hits": totals.cache_hits,
                "executions_saved": totals.joined + totals.cache_hits,
            },
            "questions": {"asked": totals.asked, "answered": totals.answered, "parked": self.parked()},
            "reattach": {"resumed": totals.resumed, "resumed_again": totals.resumed_again},
            "rate_limited": statistics::rate_limited(&self.watch().lifecycle().rate_limits()),
            "permits": permits(&look),
            "providers": providers(self.registry().catalog()),
            "usage": statistics::usage(&self.watch().ledger().spent()),
            "resilience": statistics::resilience(&self.care()),
            "conversations": {"kept": kept, "bytes": kept_bytes},
            "sessions": statistics::sessions(&totals, &executions),
            "call_log": {"dropped_lines": self.watch().lifecycle().dropped_lines()},
        });
        if let Value::Object(members) = &mut stats {
            let durations = self.watch().lifecycle().durations();
            members.extend(statistics::requests(look.waiters, &totals, &executions, &durations));
        }
        stats
    }

    fn request(&self, who: PrincipalId, id: RequestId) -> Option<Found> {
        self.watch().find(who, id)
    }

    fn active(&self, who: PrincipalId) -> Value {
        self.watch().list(who)
    }
}

/// What the connections of a provider are doing.
pub fn connections(gauges: &Gauges) -> Value {
    let view = gauges.view();
    json!({"active": view.active, "idle": view.idle, "failed": view.failed})
}

/// The providers that have connections.
fn providers(catalog: &Catalog) -> Value {
    let named = catalog.entries().iter().filter_map(|entry| {
        let gauges = entry.connections.as_ref()?;
        Some((entry.name.to_string(), json!({"connections": connections(gauges)})))
    });
    Value::Object(named.collect())
}

fn permits(look: &Look) -> Value {
    let view = |view: &PoolView| json!({"in_use": view.in_use, "limit": view.limit, "queued": view.queued});
    let mut members = Map::from_iter([("global".to_owned(), view(&look.global))]);
    members.extend(look.named().map(|(name, each)| (name.to_string(), view(each))));
    Value::Object(members)
}

#[cfg(test)]
mod tests;

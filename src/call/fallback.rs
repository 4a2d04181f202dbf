//! Where one provider fails by its own fault, the work is done by another: one after the other, within one deadline.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::call::attempts::Attempts;
use crate::call::desk::Desk;
use crate::call::offer::Offer;
use crate::call::outcome::CallError;
use crate::deadline::Deadline;
use crate::provider::{Blame, Elsewhere, Job, Reply};
use crate::tool::{Effect, Tool};

/// Where else a Run's work may be done.
pub(super) struct Fallback {
    desk: Arc<Desk>,
    /// How long it may take there.
    rung: Duration,
    job: Box<dyn Job>,
}

impl Fallback {
    /// Those of this work, and how long all of it may take, given what it may take at its first place.
    pub(super) fn of(job: &dyn Job, offer: &Offer, tool: &Tool, first: Duration) -> (Vec<Self>, Duration) {
        let found = |elsewhere: Elsewhere| {
            let Elsewhere { provider, timeout, job } = elsewhere;
            let (desk, _) = offer.lane(offer.registry.lane(&provider)?);
            Some(Self { desk: Arc::clone(desk), rung: timeout.min(tool.timeout), job })
        };
        let all: Vec<_> = job.fallbacks().into_iter().filter_map(found).collect();
        let whole = all.iter().fold(first, |whole, each| whole.saturating_add(each.rung));
        (all, whole.min(tool.timeout))
    }
}

impl Attempts<'_> {
    /// What could not be done here is done elsewhere, if that does no harm.
    pub(super) async fn elsewhere(
        self,
        first: CallError,
        fallbacks: Vec<Fallback>,
    ) -> Result<Reply, CallError> {
        let Self { path, flight, caller, queued, progress, desk, .. } = self;
        let effect = flight.tool().effect;
        let mut failed: Option<CallError> = None;
        let mut who = Arc::clone(desk);
        for Fallback { desk, rung, job } in fallbacks {
            let now = Instant::now();
            let late = progress.whole.is_some_and(|whole| whole.instant() <= now);
            let why = failed.as_ref().unwrap_or(&first);
            if late || path.closing.is_cancelled() || !may_go_on(why, effect) {
                break;
            }
            // While it waits for another, it can be taken back for good.
            progress.began &= !surely_not_done(why);
            who.gave_up();
            flight.begin_anew(&format!(
                "[{} failed: {} is asked instead, and what was said so far is void]",
                who.name(),
                desk.name()
            ));
            let until = Deadline::since(now, path.queue_budget);
            let until = progress.whole.map_or(until, |whole| whole.min(until));
            let mut attempts = Attempts {
                path,
                flight,
                caller,
                queued,
                desk: &desk,
                rung,
                started: None,
                progress: &mut *progress,
                // What winds down by itself has no other provider.
                stop: None,
            };
            match attempts.run(job, until, now).await {
                Ok(mut reply) => {
                    reply.provider = Some(Arc::clone(desk.name()));
                    return Ok(reply);
                }
                Err(error) => failed = Some(error),
            }
            who = desk;
        }
        // A write that may have been done says so. Else it is told what became of whom the call was for.
        let may_be_done = |failed: &CallError| effect == Effect::Write && !surely_not_done(failed);
        Err(failed.filter(may_be_done).unwrap_or(first))
    }
}

/// Whether somebody else may do what failed so: it is the provider's fault, and doing it again does no harm.
fn may_go_on(failed: &CallError, effect: Effect) -> bool {
    let repeatable = match effect {
        Effect::Read | Effect::Idempotent => true,
        Effect::Write => false,
    };
    let theirs = match failed {
        CallError::Provider(fault) => match fault.blame() {
            Blame::Provider | Blame::Load => true,
            Blame::Caller => false,
        },
        CallError::Unavailable { .. } | CallError::ProviderTimeout { .. } => true,
        _ => false,
    };
    theirs && (repeatable || surely_not_done(failed))
}

/// Whether the work surely was not done where it failed so.
fn surely_not_done(failed: &CallError) -> bool {
    match failed {
        CallError::Provider(fault) => fault.surely_not_done(),
        CallError::Unavailable { .. } | CallError::Full { .. } | CallError::QueueTimeout { .. } => true,
        _ => false,
    }
}

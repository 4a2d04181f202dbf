//! The work of a Run at a provider: a slot, its turn, the permits, and what it does under them.

use std::sync::Arc;

use tokio::time::Instant;

use crate::call::Path;
use crate::call::budget::Budget;
use crate::call::flight::Flight;
use crate::call::outcome::CallError;
use crate::call::permits::Holder;
use crate::call::queue::Pool;
use crate::deadline::Deadline;
use crate::ids::{ClientSessionId, PrincipalId};
use crate::phase::Phase;
use crate::provider::{Context, Job, Reply, Tell};
use crate::tool::registry::Place;

impl Path {
    /// Where a Run waits for its turn.
    pub(super) fn pool(&self, place: Place) -> &Arc<Pool> {
        let pool = match place {
            Place::Provider(index) => self.pools.get(index),
            Place::Composite => Some(&self.consensus),
        };
        let Some(pool) = pool else {
            unreachable!("a call is prepared for a provider of the catalogue, and each has a pool")
        };
        pool
    }

    /// Slot, queue and permits, narrow to wide; then the work, within the Run's deadline.
    #[expect(clippy::too_many_arguments, reason = "one Run's parts, taken apart by the one who calls")]
    pub(super) async fn work(
        &self,
        flight: &Arc<Flight>,
        job: Box<dyn Job>,
        provider: usize,
        principal: PrincipalId,
        session: ClientSessionId,
        slots: Option<&Arc<Pool>>,
        began: &mut bool,
    ) -> Result<Reply, CallError> {
        let (Some(pool), Some(provider_timeout)) = (self.pools.get(provider), self.timeouts.get(provider))
        else {
            unreachable!("a call is prepared for a provider of the catalogue");
        };
        let stages = flight.stages();
        let queued = Instant::now();
        stages.mark(Phase::Queued, queued);
        let until = Deadline::since(queued, self.queue_budget);
        let budget = Budget { flight, principal, session, since: queued, until, closing: &self.closing };
        let (mut slot, slot_at) = match slots {
            Some(slots) => budget.turn(slots, queued).await.map(|(slot, at)| (Some(slot), at))?,
            None => (None, queued),
        };
        let (permit, at) = budget.turn(pool, slot_at).await?;
        stages.mark(Phase::Dequeued, at);
        let (global, start) = budget.turn(&self.global, at).await?;
        stages.mark(Phase::SessionAllocated, start);
        let limit = flight.tool().timeout.min(*provider_timeout);
        let deadline = Deadline::since(start, limit);
        let holder = Holder { flight: Arc::clone(flight), since: start, deadline };
        let mut lease = self.leases.grant(permit, global, holder);
        stages.mark(Phase::ProviderCallStart, start);
        *began = true;
        let tell: Arc<dyn Tell> = flight.clone();
        let context = Context { deadline, tell, max_reply_bytes: self.max_reply_bytes, children: None };
        let worked = deadline.limit(job.run(context)).await;
        let end = Instant::now();
        lease.worked(end.saturating_duration_since(start));
        if let Some(slot) = &mut slot {
            slot.worked(end.saturating_duration_since(slot_at));
        }
        drop(lease);
        drop(slot);
        match worked {
            Ok(reply) => reply.map_err(CallError::Provider),
            Err(_) => Err(CallError::ProviderTimeout {
                provider: Arc::clone(pool.name()),
                after: limit,
                execution: flight.execution(),
            }),
        }
    }
}

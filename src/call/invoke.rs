//! The work of a Run at a provider: a slot, its turn, the permits, and what it does under them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::call::Path;
use crate::call::budget::Budget;
use crate::call::caller::Caller;
use crate::call::flight::Flight;
use crate::call::offer::Offer;
use crate::call::outcome::CallError;
use crate::call::permits::Holder;
use crate::call::queue::Pool;
use crate::deadline::Deadline;
use crate::phase::Phase;
use crate::provider::{Context, Job, Reply, Tell};
use crate::tool::Tool;
use crate::tool::place::{Composite, Place};

impl Path {
    /// Where a Run waits for its turn, and how long its work may take there.
    pub(super) fn place<'a>(
        &'a self,
        offer: &'a Offer,
        tool: &Tool,
        place: Place,
    ) -> (&'a Arc<Pool>, Duration) {
        match place {
            Place::Lane(id) => {
                let (pool, limit) = offer.lane(id);
                (pool, limit.map_or(tool.timeout, |limit| tool.timeout.min(limit)))
            }
            Place::Composite(kind) => (self.slots(kind), tool.timeout),
        }
    }

    /// The slots of a kind of composites.
    fn slots(&self, kind: Composite) -> &Arc<Pool> {
        let slots = Composite::ALL.iter().zip(&self.composites).find(|(each, _)| **each == kind);
        let Some((_, pool)) = slots else {
            unreachable!("every kind is among all kinds, and each has its slots")
        };
        pool
    }

    /// Slots, queue and permits, narrow to wide; then the work, within the Run's deadline. A composite's child has no
    /// slot of its session: its composite has one of its own kind.
    pub(super) async fn work(
        &self,
        flight: &Arc<Flight>,
        job: Box<dyn Job>,
        pool: &Arc<Pool>,
        caller: &Caller,
        is_child: bool,
        began: &mut bool,
    ) -> Result<Reply, CallError> {
        let stages = flight.stages();
        let queued = Instant::now();
        stages.mark(Phase::Queued, queued);
        let until = Deadline::since(queued, self.queue_budget);
        let budget = Budget { flight, caller, since: queued, until, closing: &self.closing };
        let slots = (!is_child).then_some(&caller.session.slots);
        let (mut slot, slot_at) = budget.turn_if(slots, queued).await?;
        let (mut own_slot, own_at) = budget.turn_if(caller.principal.slots.as_ref(), slot_at).await?;
        let (permit, at) = budget.turn(pool, own_at).await?;
        stages.mark(Phase::Dequeued, at);
        let (global, start) = budget.turn(&self.global, at).await?;
        stages.mark(Phase::SessionAllocated, start);
        let limit = flight.about().timeout;
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
        if let Some(own) = &mut own_slot {
            own.worked(end.saturating_duration_since(own_at));
        }
        drop(lease);
        drop((own_slot, slot));
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

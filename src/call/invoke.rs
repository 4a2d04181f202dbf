//! The work of a Run at a provider: a slot, its turn, the permits, and what it does under them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::call::Path;
use crate::call::attempts::{Attempts, Progress};
use crate::call::budget::Budget;
use crate::call::caller::Caller;
use crate::call::desk::Desk;
use crate::call::fallback::Fallback;
use crate::call::flight::Flight;
use crate::call::offer::Offer;
use crate::call::outcome::CallError;
use crate::deadline::Deadline;
use crate::phase::Phase;
use crate::provider::{Job, Reply};
use crate::tool::Tool;
use crate::tool::place::{Composite, Place, Slots};
use crate::tool::registry::Prepared;

/// A Run's place in a lane.
pub(super) struct InLane {
    pub(super) desk: Arc<Desk>,
    /// How long its work may take there.
    pub(super) rung: Duration,
    /// Where it is done if that fails.
    pub(super) fallbacks: Vec<Fallback>,
    /// Whether a composite's work called it.
    pub(super) is_child: bool,
    /// Tells work that winds down by itself to do so.
    pub(super) stop: Option<CancellationToken>,
}

impl Slots for Path {
    fn are_full(&self, kind: Composite) -> bool {
        self.slots(kind).pool.is_full()
    }
}

impl Path {
    /// Where a Run waits for its turn, and how long its work may take there.
    pub(super) fn place<'a>(
        &'a self,
        offer: &'a Offer,
        tool: &Tool,
        prepared: &Prepared,
    ) -> (&'a Arc<Desk>, Duration) {
        match prepared.place {
            Place::Lane(id) => {
                let (desk, limit) = offer.lane(id);
                let limit = prepared.limit.or(limit);
                (desk, limit.map_or(tool.timeout, |limit| tool.timeout.min(limit)))
            }
            Place::Composite(kind) => (self.slots(kind), tool.timeout),
        }
    }

    /// The slots of a kind of composites.
    fn slots(&self, kind: Composite) -> &Arc<Desk> {
        let slots = Composite::ALL.iter().zip(&self.composites).find(|(each, _)| **each == kind);
        let Some((_, desk)) = slots else {
            unreachable!("every kind is among all kinds, and each has its slots")
        };
        desk
    }

    /// Slots, then the work in its lane, within the Run's deadline. A composite's child has no slot of its session: its
    /// composite has one of its own kind.
    pub(super) async fn work(
        &self,
        flight: &Arc<Flight>,
        job: Box<dyn Job>,
        lane: InLane,
        caller: &Caller,
        progress: &mut Progress,
    ) -> Result<Reply, CallError> {
        let InLane { desk, rung, fallbacks, is_child, stop } = lane;
        let desk = &desk;
        let queued = Instant::now();
        flight.stages().mark(Phase::Queued, queued);
        if fallbacks.is_empty() {
            // Before it waits for anything. Who may go elsewhere needs a slot all the same.
            desk.look(queued)?;
        }
        let until = Deadline::since(queued, self.queue_budget);
        let closing = &self.closing;
        let budget = Budget { flight, caller, since: queued, until, closing, returns: false };
        let slots = (!is_child).then_some(&caller.session.slots);
        let (mut slot, slot_at) = budget.turn_if(slots, queued).await?;
        let (mut own_slot, own_at) = budget.turn_if(caller.principal.slots.as_ref(), slot_at).await?;
        let mut attempts = Attempts {
            path: self,
            flight,
            caller,
            desk,
            queued,
            rung,
            started: None,
            progress: &mut *progress,
            stop,
        };
        let worked = match attempts.run(job, until, own_at).await {
            // Boxed: plain calls are not to carry its room.
            Err(error) if !fallbacks.is_empty() => attempts.elsewhere(error, fallbacks).boxed().await,
            worked => worked,
        };
        if let Some(end) = progress.ended {
            if let Some(slot) = &mut slot {
                slot.worked(end.saturating_duration_since(slot_at));
            }
            if let Some(own) = &mut own_slot {
                own.worked(end.saturating_duration_since(own_at));
            }
        }
        drop((own_slot, slot));
        worked
    }
}

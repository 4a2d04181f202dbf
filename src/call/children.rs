//! Composites: work that calls tools itself. Its Run holds a slot of its own kind and nothing else; its children are
//! Runs of their own, which hold no session's slot, so that no wait depends on itself.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::call::budget::Budget;
use crate::call::flight::Flight;
use crate::call::outcome::CallError;
use crate::call::queue::Pool;
use crate::call::waiter::Answer;
use crate::call::{Call, Caller, Calls, Options, Origin, Path, Submitted, Waiter};
use crate::deadline::Deadline;
use crate::phase::Phase;
use crate::provider::submit::{Child, ChildFailed, Submit};
use crate::provider::{Context, Job, Reply, Tell};

/// What a composite keeps for itself of the time that is left, at most: else a child that ran into the deadline would
/// take the answers of all the others with it.
const PUTTING_TOGETHER: Duration = Duration::from_secs(1);

/// Of a short time, only this part of it.
const PART_KEPT: u32 = 20;

/// Who called a composite, and the path that its children go.
pub(super) struct Opener {
    pub(super) calls: Calls,
    pub(super) caller: Caller,
}

/// Takes in the children of one composite. Only its work holds it: with that it goes.
struct Children {
    opener: Opener,
    flight: Arc<Flight>,
    /// The composite's own.
    deadline: Deadline,
}

/// A child under way, in the class of its composite, whoever joins that or leaves it meanwhile. Whoever drops it takes
/// the child back: work that is paid for lingers for nobody.
struct UnderWay {
    waiter: Waiter,
    composite: Arc<Flight>,
}

impl UnderWay {
    fn new(waiter: Waiter, composite: Arc<Flight>) -> Self {
        let (flight, seat) = waiter.seat();
        composite.adopt(flight, seat);
        Self { waiter, composite }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let (flight, seat) = self.waiter.seat();
        self.composite.let_go(flight, seat);
        self.waiter.cancel_handle().cancel();
    }
}

impl Submit for Children {
    fn submit(&self, child: Child) -> BoxFuture<'static, Result<Arc<Reply>, ChildFailed>> {
        let left = self.deadline.remaining();
        let options = Options {
            priority: self.flight.claims().0,
            timeout: Some(left.saturating_sub(PUTTING_TOGETHER.min(left / PART_KEPT))),
            ..Options::default()
        };
        let call = Call { id: None, tool: &child.tool, arguments: &child.arguments, extra: None, options };
        let origin = Origin::Composite { ordinal: child.ordinal };
        match self.opener.calls.submit_from(&self.opener.caller, call, origin) {
            Submitted::Answered(answer) => std::future::ready(end(answer)).boxed(),
            Submitted::Waiting(waiter) => {
                let mut child = UnderWay::new(waiter, Arc::clone(&self.flight));
                async move { end(child.waiter.answer().await) }.boxed()
            }
        }
    }
}

fn end(answer: Answer) -> Result<Arc<Reply>, ChildFailed> {
    answer.outcome.map_err(|error| ChildFailed { code: error.code().label(), message: error.to_string() })
}

impl Path {
    /// A slot of its own kind; then the work, within the Run's deadline.
    pub(super) async fn compose(
        &self,
        flight: &Arc<Flight>,
        job: Box<dyn Job>,
        slots: &Arc<Pool>,
        opener: Opener,
        began: &mut bool,
    ) -> Result<Reply, CallError> {
        let stages = flight.stages();
        let queued = Instant::now();
        stages.mark(Phase::Queued, queued);
        let caller = opener.caller.clone();
        let budget = Budget {
            flight,
            caller: &caller,
            since: queued,
            until: Deadline::since(queued, self.queue_budget),
            closing: &self.closing,
            returns: false,
        };
        let (mut slot, start) = match budget.turn(slots, queued).await {
            Ok(turn) => turn,
            Err(error @ CallError::Full { .. }) => return job.when_full().ok_or(error),
            Err(error) => return Err(error),
        };
        for phase in [Phase::Dequeued, Phase::SessionAllocated, Phase::ProviderCallStart] {
            stages.mark(phase, start);
        }
        let limit = flight.about().timeout;
        let deadline = Deadline::since(start, limit);
        *began = true;
        let tell: Arc<dyn Tell> = flight.clone();
        let children: Arc<dyn Submit> = Arc::new(Children { opener, flight: Arc::clone(flight), deadline });
        let context = Context {
            deadline,
            tell,
            max_reply_bytes: self.max_reply_bytes,
            children: Some(children),
            ask: None,
            stop: None,
        };
        let worked = deadline.limit(job.run(context)).await;
        slot.worked(start.elapsed());
        drop(slot);
        match worked {
            Ok(reply) => reply.map_err(CallError::Provider),
            Err(_) => Err(CallError::ProviderTimeout {
                provider: Arc::clone(slots.name()),
                after: limit,
                execution: flight.execution(),
            }),
        }
    }
}

//! How a call that nothing kept has answered comes to its flight: it joins one, unread where it is written like it, or
//! opens one and starts its Run.

use std::sync::Arc;

use tokio::time::Instant;

use crate::call::flight::{Boarding, Unread};
use crate::call::flights::{Aboard, Found, RunGuard};
use crate::call::outcome::{CallError, Outcome};
use crate::call::reattach::Attached;
use crate::call::waiter::{Arrival, Waiter};
use crate::call::{Answer, Call, Caller, Calls, Options, Run, Submitted};
use crate::ids::RequestId;
use crate::lifecycle::Role;
use crate::tool::{Effect, Tool};

impl Calls {
    /// A seat in the flight of an equal call, or in one of its own, whose Run `run` makes.
    ///
    /// # Errors
    /// The flight has too many waiters, or there are too many Executions.
    pub(super) fn board(
        &self,
        boarding: Boarding,
        arrival: Arrival,
        attached: Option<Attached>,
        speaks_for_itself: Option<Unread<'_>>,
        run: impl FnOnce(RunGuard) -> Run,
    ) -> Result<Waiter, CallError> {
        let (key, keep) = (boarding.key, boarding.keep);
        let watch = Arc::clone(&self.watch);
        match self.flights.board(boarding)? {
            Aboard::Joined(flight, seat) => {
                self.path.lifecycle.joined();
                Ok(Waiter::new(watch, flight, seat, Role::Follower, arrival).attached(attached))
            }
            Aboard::Opened(guard, seat) => {
                let flight = Arc::clone(guard.flight());
                // An equal flight may have landed since the look before; it filled the cache before it freed the key.
                if let Some(outcome) = self.flights.cache().answers(keep, key, flight.arguments()) {
                    self.path.lifecycle.cache_hit();
                    guard.land_kept(outcome);
                    return Ok(Waiter::new(watch, flight, seat, Role::Cache, arrival).attached(attached));
                }
                self.path.lifecycle.opened();
                let run = run(guard);
                let waiter = Waiter::new(watch, flight, seat, Role::Leader, arrival);
                // Before the work begins: whoever knows that it runs can find it.
                let waiter = waiter.attached(attached);
                self.start(run);
                if let Some(written) = speaks_for_itself {
                    self.flights.was_written(&written, waiter.seat().0);
                }
                Ok(waiter)
            }
        }
    }

    /// Joins the flight of a call that was written the same, byte for byte, or takes the outcome that was kept of one: it
    /// was read, checked and made ready for both.
    ///
    /// # Errors
    /// Its principal calls too often.
    pub(super) fn join_unread(
        &self,
        caller: &Caller,
        call: &Call<'_>,
        unread: &Unread<'_>,
        arrival: Arrival,
    ) -> Result<Joins, CallError> {
        match self.flights.written_so(unread) {
            None => Ok(Joins::No),
            Some(Found::Flight(flight)) => {
                self.count_call(caller, arrival.received)?;
                let until = arrival.until();
                let Some(seat) = flight.board_unread(unread, arrival.priority, until, arrival.can) else {
                    return Ok(Joins::Counted);
                };
                self.path.lifecycle.joined();
                let watch = Arc::clone(&self.watch);
                let waiter = Waiter::new(watch, flight, seat, Role::Follower, arrival);
                Ok(Joins::Yes(waiter.attached(Attached::of(caller, call.id)).submitted()))
            }
            Some(Found::Kept(asked)) => {
                if !asked.speaks_for(unread) {
                    return Ok(Joins::No);
                }
                self.count_call(caller, arrival.received)?;
                let is_attached = caller.attachment.is_some() && call.id.is_some();
                let outcome = self.flights.kept(unread, &asked);
                let answer = outcome.and_then(|outcome| {
                    self.kept_answer(&asked.tool, &asked.provider, arrival, is_attached, outcome)
                });
                Ok(answer.map_or(Joins::Counted, |answer| {
                    Joins::Yes(Submitted::Answered(self.recorded(caller, &asked.tool, answer)))
                }))
            }
        }
    }

    /// An answer from what was kept; `None`: it cannot be delivered whole.
    ///
    /// One that cannot goes through a flight, which keeps it to be collected; so does a write's whose caller may come back
    /// for it, since a write is never done again.
    pub(super) fn kept_answer(
        &self,
        tool: &Tool,
        provider: &Arc<str>,
        arrival: Arrival,
        is_attached: bool,
        outcome: Outcome,
    ) -> Option<Answer> {
        if (is_attached && tool.effect == Effect::Write) || arrival.bounds.are_passed_by(&outcome) {
            return None;
        }
        self.path.lifecycle.cache_hit();
        let provider = Some(Arc::clone(provider));
        Some(Answer::at_once(arrival.request, arrival.received, Role::Cache, provider, outcome))
    }

    /// What its waiter will go by.
    pub(super) fn arrival(
        &self,
        caller: &Caller,
        call: &Call<'_>,
        (request, received): (RequestId, Instant),
    ) -> Arrival {
        let Options { priority, timeout, bounds, wants_text, log, can, .. } = call.options;
        Arrival {
            request,
            principal: caller.principal.id,
            received,
            patience: timeout.map_or(self.patience, |asked| asked.min(self.patience)),
            priority: priority.max(caller.principal.ceiling),
            bounds,
            wants_text,
            log,
            can,
        }
    }

    /// Takes one call of those that its principal may make.
    pub(super) fn count_call(&self, caller: &Caller, received: Instant) -> Result<(), CallError> {
        let taken = caller.principal.take_call(received);
        taken.inspect_err(|_| self.path.lifecycle.rate_limited(&caller.principal.name))
    }
}

/// Whether a call came aboard unread.
pub(super) enum Joins {
    Yes(Submitted),
    /// It did not, and was counted as one of its principal's.
    Counted,
    No,
}

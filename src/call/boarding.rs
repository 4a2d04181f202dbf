//! How a call that nothing kept has answered comes to its flight: it joins one, or opens one and starts its Run.

use std::sync::Arc;

use crate::call::Calls;
use crate::call::Run;
use crate::call::flight::Boarding;
use crate::call::flights::{Aboard, RunGuard};
use crate::call::outcome::CallError;
use crate::call::reattach::Attached;
use crate::call::waiter::{Arrival, Waiter};
use crate::lifecycle::Role;

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
                Ok(waiter)
            }
        }
    }
}

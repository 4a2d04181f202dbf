//! A caller that lost its connection comes back: for its seat, or to take its call back.

use crate::call::flight::{Flight, Leaving, Life, NoSeat, SeatNo, Stop, wake};
use crate::call::queue::Priority;
use crate::deadline::Deadline;
use crate::provider::asking::Can;

impl Flight {
    /// Takes a seat for a caller that had one before: even in a flight that has landed, unless it was stopped.
    ///
    /// # Errors
    /// It was stopped, or is full.
    pub(in crate::call) fn board_again(
        &self,
        class: Priority,
        until: Deadline,
        can: Can,
    ) -> Result<SeatNo, NoSeat> {
        let mut state = self.state.lock();
        match state.life {
            Life::Flying if state.waiting >= self.rules.max_waiters => return Err(NoSeat::Full),
            Life::Flying => state.stop = Stop::No,
            // Its outcome is there, or about to be: whoever lands it wakes every seat after.
            Life::Landed if state.stop != Stop::Now => {}
            Life::Stopping | Life::Landed => return Err(NoSeat::Over),
        }
        if self.outcome.get().is_some() {
            // It needs no seat to hear of that.
            return Ok(state.number());
        }
        Ok(state.sit_down(class, until, can))
    }

    /// Takes the call of one who sat there back, whether it sits there still or has left since: the work stops, as
    /// far as it may, if nobody else waits.
    pub(in crate::call) fn take_back(&self, seat: SeatNo) {
        self.cancel(seat);
        let mut state = self.state.lock();
        let run = self.last_left(&mut state, Leaving::Cancelled);
        drop(state);
        wake([None, run]);
    }

    /// How much memory it takes, once it has landed with its reply, about.
    pub(in crate::call) fn bytes(&self) -> usize {
        let reply = self.outcome().and_then(|outcome| outcome.as_ref().ok());
        self.arguments.len() + reply.map_or(0, |reply| reply.bytes())
    }
}

//! Who sits in a flight, and where.

use crate::call::flight::{Life, NoSeat, Seat, SeatNo, State, Stop};
use crate::call::queue::Priority;
use crate::deadline::Deadline;
use crate::provider::asking::Can;

impl State {
    pub(super) fn number(&mut self) -> SeatNo {
        let number = SeatNo(self.next_seat);
        self.next_seat += 1;
        number
    }

    /// A seat for one who may come aboard, where there is one.
    pub(super) fn take_seat(
        &mut self,
        max_waiters: usize,
        class: Priority,
        until: Deadline,
        can: Can,
    ) -> Result<SeatNo, NoSeat> {
        // A parked Run is for who comes back to it, unless others wait for it too.
        if self.life != Life::Flying || (self.waiting == 0 && self.is_parked()) {
            return Err(NoSeat::Over);
        }
        if self.waiting >= max_waiters {
            return Err(NoSeat::Full);
        }
        self.stop = Stop::No;
        Ok(self.sit_down(class, until, can))
    }

    pub(super) fn sit_down(&mut self, class: Priority, until: Deadline, can: Can) -> SeatNo {
        let number = self.number();
        self.waiting += 1;
        self.standing.came(class, until);
        self.seats.push((number, Seat::Waiting { waker: None, wants_more: false, class, can }));
        number
    }

    pub(super) fn wait_no_more(&mut self, class: Priority) {
        self.waiting -= 1;
        self.standing.went(class);
    }

    /// Takes out everybody who waits: they need no seat to hear of the landing. Who took its call back and has not been
    /// told yet stays.
    pub(super) fn vacate(&mut self) -> Vec<(SeatNo, Seat)> {
        self.waiting = 0;
        let seats = std::mem::take(&mut self.seats);
        if !seats.iter().any(|(_, seat)| matches!(seat, Seat::Cancelled)) {
            return seats;
        }
        let (waiting, cancelled) =
            seats.into_iter().partition(|(_, seat)| matches!(seat, Seat::Waiting { .. }));
        self.seats = cancelled;
        waiting
    }

    pub(super) fn seat(&mut self, number: SeatNo) -> Option<&mut Seat> {
        let place = self.seats.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.seats.get_mut(place).map(|(_, seat)| seat)
    }

    pub(super) fn stand_up(&mut self, number: SeatNo) -> Option<Seat> {
        let place = self.seats.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(self.seats.remove(place).1)
    }
}

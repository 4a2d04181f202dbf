//! What a flight's waiters are worth together, and where its Run waits meanwhile.

use crate::call::flight::Flight;
use crate::call::queue::class::ByClass;
use crate::call::queue::{PlaceInLine, Priority};
use crate::deadline::Deadline;
use crate::tool::Effect;

/// The highest class of those who wait, the longest patience of those who came, and the place of the Run.
#[derive(Debug)]
pub(super) struct Standing {
    waiting: ByClass<usize>,
    class: Priority,
    until: Deadline,
    place: Option<PlaceInLine>,
}

impl Standing {
    pub(super) fn new(opener: Priority, until: Deadline) -> Self {
        Self { waiting: ByClass::default(), class: opener, until, place: None }
    }

    /// One more waits, at most until then.
    pub(super) fn came(&mut self, class: Priority, until: Deadline) {
        *self.waiting.get_mut(class) += 1;
        self.until = self.until.max(until);
        self.settle();
    }

    /// One waits no longer.
    pub(super) fn went(&mut self, class: Priority) {
        *self.waiting.get_mut(class) -= 1;
        self.settle();
    }

    /// The highest class of those who wait; with nobody left it stays what it was. The Run's place follows.
    fn settle(&mut self) {
        let highest = self.waiting.each().into_iter().find(|(_, waiting)| **waiting > 0);
        let Some((class, _)) = highest.filter(|(class, _)| *class != self.class) else { return };
        self.class = class;
        if let Some(place) = &self.place {
            place.reclass(class);
        }
    }
}

impl Flight {
    /// The class of its Run in every queue, and from when on a turn is of no use to anybody: a read is stopped
    /// when its last waiter's patience is over; other work goes on without waiters.
    pub(in crate::call) fn claims(&self) -> (Priority, Option<Deadline>) {
        let standing = &self.state.lock().standing;
        let until = match self.tool.effect {
            Effect::Read => Some(standing.until),
            Effect::Idempotent | Effect::Write => None,
        };
        (standing.class, until)
    }

    /// Where its Run waits from now on: its place takes the class that the flight has by now, and follows it.
    ///
    /// The flight's lock is held while the pool's is taken, never the other way round: so two who change the
    /// class at once leave the place with the later one's.
    pub(in crate::call) fn waits_at(&self, place: Option<PlaceInLine>) {
        let standing = &mut self.state.lock().standing;
        if let Some(place) = &place {
            place.reclass(standing.class);
        }
        standing.place = place;
    }
}

//! What a flight's waiters are worth together, where its Run waits meanwhile, and the calls that its work has made.

use std::sync::Arc;

use crate::call::flight::{Flight, Seat, SeatNo};
use crate::call::queue::class::ByClass;
use crate::call::queue::{PlaceInLine, Priority};
use crate::deadline::Deadline;
use crate::tool::Effect;

/// The highest class of those who wait, the longest patience of those who came, the place of the Run, and the seats
/// of the calls that a composite's work has made.
#[derive(Debug)]
pub(super) struct Standing {
    waiting: ByClass<usize>,
    class: Priority,
    until: Deadline,
    place: Option<PlaceInLine>,
    children: Vec<(Arc<Flight>, SeatNo)>,
}

impl Standing {
    pub(super) fn new(opener: Priority, until: Deadline) -> Self {
        Self { waiting: ByClass::default(), class: opener, until, place: None, children: Vec::new() }
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

    /// One who waits counts as another class from now on.
    fn rose(&mut self, from: Priority, to: Priority) {
        *self.waiting.get_mut(from) -= 1;
        *self.waiting.get_mut(to) += 1;
        self.settle();
    }

    /// The highest class of those who wait; with nobody left it stays what it was. The Run's place follows, and so do
    /// the calls that its work has made.
    fn settle(&mut self) {
        let highest = self.waiting.each().into_iter().find(|(_, waiting)| **waiting > 0);
        let Some((class, _)) = highest.filter(|(class, _)| *class != self.class) else { return };
        self.class = class;
        if let Some(place) = &self.place {
            place.reclass(class);
        }
        for (child, seat) in &self.children {
            child.reclass(*seat, class);
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

    /// Its work has made a call, which sits there: it counts as the class that this flight has by now, and follows it.
    ///
    /// This flight's lock is held while the child's is taken, never the other way round: children are leaves.
    pub(in crate::call) fn adopt(&self, child: &Arc<Self>, seat: SeatNo) {
        let standing = &mut self.state.lock().standing;
        child.reclass(seat, standing.class);
        standing.children.push((Arc::clone(child), seat));
    }

    /// That call has ended, or was taken back.
    pub(in crate::call) fn let_go(&self, child: &Arc<Self>, seat: SeatNo) {
        let children = &mut self.state.lock().standing.children;
        children.retain(|(each, its)| !(Arc::ptr_eq(each, child) && *its == seat));
    }

    /// How many calls of its work it would raise.
    #[cfg(test)]
    pub(in crate::call) fn followers(&self) -> usize {
        self.state.lock().standing.children.len()
    }

    /// One who still waits counts as this class from now on.
    fn reclass(&self, seat: SeatNo, class: Priority) {
        let mut state = self.state.lock();
        let Some(Seat::Waiting { class: its, .. }) = state.seat(seat) else { return };
        let before = std::mem::replace(its, class);
        state.standing.rose(before, class);
    }
}

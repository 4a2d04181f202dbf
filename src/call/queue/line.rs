//! Everybody who waits for one pool, in the order in which they are served.
//!
//! A place belongs to who waits and lasts until that one takes it away, whatever became of its wait. Nothing here
//! has a timer: who has waited long enough rises when the next is chosen.

use std::collections::BTreeSet;
use std::task::Waker;

use slab::Slab;
use tokio::time::Instant;

use crate::call::queue::Claim;
use crate::call::queue::class::{ByClass, Priority};
use crate::call::queue::lane::{Lane, Stand};
use crate::ids::PrincipalId;

/// What became of a wait.
#[derive(Debug)]
enum Lot {
    /// It goes on; the waker of one that was not polled yet is missing.
    Waits(Option<Waker>),
    /// The permit is its own, and counts as in use.
    Chosen,
    /// The pool was closed.
    Refused,
}

/// What somebody sees who looks after its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Waits,
    Chosen,
    Refused,
}

/// The number of a place, and of the arrival it was given to: places are given out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    place: usize,
    arrival: u64,
}

#[derive(Debug)]
struct Place {
    stand: Stand,
    /// What its call asks for.
    class: Priority,
    since: Instant,
    /// In which lane it stands, and when it rises from there.
    lane: Priority,
    rises: Option<Instant>,
    lot: Lot,
}

#[derive(Debug, Default)]
pub(super) struct Line {
    places: Slab<Place>,
    lanes: ByClass<Lane>,
    /// Who rises when.
    rising: BTreeSet<(Instant, usize)>,
    arrivals: u64,
    waiting: usize,
}

impl Line {
    /// Gets in line.
    pub(super) fn join(&mut self, claim: &Claim, now: Instant) -> Ticket {
        let ticket = self.place(claim, Lot::Waits(None));
        self.waiting += 1;
        self.stand(ticket.place, now);
        ticket
    }

    /// A place for one who need not wait.
    pub(super) fn pass(&mut self, claim: &Claim) -> Ticket {
        self.place(claim, Lot::Chosen)
    }

    fn place(&mut self, claim: &Claim, lot: Lot) -> Ticket {
        let arrival = self.arrivals;
        self.arrivals += 1;
        let stand = Stand { principal: claim.principal, session: claim.session, arrival };
        let Claim { class, since, .. } = *claim;
        let place = self.places.insert(Place { stand, class, since, lane: class, rises: None, lot });
        Ticket { place, arrival }
    }

    /// Chooses the next, and says whom to wake. Only while somebody waits.
    pub(super) fn choose(&mut self, now: Instant) -> Option<Waker> {
        self.let_rise(now);
        let best = self.lanes.each().into_iter().find(|(_, lane)| lane.waiting() > 0).map(|(class, _)| class);
        let number = best.and_then(|class| self.lanes.get_mut(class).pop());
        let Some((number, place)) = number.and_then(|number| Some((number, self.places.get_mut(number)?)))
        else {
            unreachable!("who waits stands in one lane, and leaves it before its place goes")
        };
        if let Some(rises) = place.rises.take() {
            self.rising.remove(&(rises, number));
        }
        self.waiting -= 1;
        match std::mem::replace(&mut place.lot, Lot::Chosen) {
            Lot::Waits(waker) => waker,
            Lot::Chosen | Lot::Refused => unreachable!("who is chosen or refused stands in no lane"),
        }
    }

    /// Looks, and is woken when there is something new to see. A place seen as chosen or refused is gone.
    pub(super) fn look(&mut self, ticket: Ticket, waker: &Waker) -> Look {
        let Some(place) = self.places.get_mut(ticket.place) else {
            unreachable!("a place lasts until who waits takes it away, and it looks no more then")
        };
        let seen = match &mut place.lot {
            Lot::Waits(Some(known)) => {
                known.clone_from(waker);
                return Look::Waits;
            }
            Lot::Waits(none) => {
                *none = Some(waker.clone());
                return Look::Waits;
            }
            Lot::Chosen => Look::Chosen,
            Lot::Refused => Look::Refused,
        };
        self.places.remove(ticket.place);
        seen
    }

    /// Takes a place away, and says what had become of it.
    pub(super) fn leave(&mut self, ticket: Ticket) -> Look {
        if matches!(self.places.get(ticket.place), Some(Place { lot: Lot::Waits(_), .. })) {
            self.step_out(ticket.place);
            self.waiting -= 1;
        }
        match self.places.remove(ticket.place).lot {
            Lot::Waits(_) => Look::Waits,
            Lot::Chosen => Look::Chosen,
            Lot::Refused => Look::Refused,
        }
    }

    /// Gives one who still waits another class; how long it has waited counts on.
    pub(super) fn reclass(&mut self, ticket: Ticket, class: Priority, now: Instant) {
        let Some(place) = self.places.get_mut(ticket.place) else { return };
        let waits = place.stand.arrival == ticket.arrival && matches!(place.lot, Lot::Waits(_));
        if !waits || place.class == class {
            return;
        }
        place.class = class;
        self.step_out(ticket.place);
        self.stand(ticket.place, now);
    }

    /// Refuses everybody who waits, and says whom to wake.
    pub(super) fn refuse_all(&mut self) -> Vec<Waker> {
        self.lanes = ByClass::default();
        self.rising.clear();
        self.waiting = 0;
        let waiting = self.places.iter_mut().filter(|(_, place)| matches!(place.lot, Lot::Waits(_)));
        let refused = waiting.map(|(_, place)| std::mem::replace(&mut place.lot, Lot::Refused));
        refused.filter_map(|lot| if let Lot::Waits(waker) = lot { waker } else { None }).collect()
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many of this principal wait.
    pub(super) fn waiting_of(&self, principal: PrincipalId) -> usize {
        self.lanes.each().iter().map(|(_, lane)| lane.waiting_of(principal)).sum()
    }

    /// How many are served before one that comes now.
    pub(super) fn before(&mut self, claim: &Claim, now: Instant) -> usize {
        self.let_rise(now);
        let (class, _) = claim.class.aged(claim.since, now);
        let lanes = self.lanes.each();
        let above = lanes.iter().filter(|(each, _)| *each < class).map(|(_, lane)| lane.waiting());
        let beside = lanes.iter().filter(|(each, _)| *each == class);
        above.sum::<usize>()
            + beside.map(|(_, lane)| lane.before(claim.principal, claim.session)).sum::<usize>()
    }

    /// Moves up who has waited long enough: each at most twice in its life.
    fn let_rise(&mut self, now: Instant) {
        while let Some((_, place)) = self.rising.first().filter(|(rises, _)| *rises <= now).copied() {
            self.step_out(place);
            self.stand(place, now);
        }
    }

    /// Puts one into the lane of what it counts as now.
    fn stand(&mut self, number: usize, now: Instant) {
        let Some(place) = self.places.get_mut(number) else { return };
        (place.lane, place.rises) = place.class.aged(place.since, now);
        if let Some(rises) = place.rises {
            self.rising.insert((rises, number));
        }
        self.lanes.get_mut(place.lane).insert(place.stand, number);
    }

    /// Takes one out of its lane.
    fn step_out(&mut self, number: usize) {
        let Some(place) = self.places.get_mut(number) else { return };
        if let Some(rises) = place.rises.take() {
            self.rising.remove(&(rises, number));
        }
        self.lanes.get_mut(place.lane).remove(place.stand);
    }
}

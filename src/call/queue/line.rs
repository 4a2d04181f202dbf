//! Everybody who waits for one pool, in the order in which they are served.
//!
//! A place belongs to who waits and lasts until that one takes it away, whatever became of its wait. Nothing here
//! has a timer: who has waited long enough rises when the next is chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;

use slab::Slab;
use tokio::time::Instant;

use crate::call::queue::Claim;
use crate::call::queue::class::{ByClass, Priority};
use crate::call::queue::lane::{Lane, Stand};
use crate::deadline::Deadline;
use crate::ids::PrincipalId;

/// What became of a wait.
#[derive(Debug)]
enum Lot {
    /// It goes on; the waker of one that was not polled yet is missing.
    Waits(Option<Waker>),
    /// The permit is its own, and counts as in use.
    Chosen,
    /// It will have none.
    Refused(Why),
}

/// Why who waits will have no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The pool was closed.
    Closed,
    /// The pool rests for longer than that one can wait.
    Rests,
}

/// What somebody sees who looks after its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Waits,
    Chosen,
    Refused(Why),
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
    until: Deadline,
    /// It had a permit before: it stands before all lanes.
    returns: bool,
    /// In which lane it stands, and when it rises from there.
    lane: Priority,
    rises: Option<Instant>,
    lot: Lot,
}

#[derive(Debug, Default)]
pub(super) struct Line {
    places: Slab<Place>,
    /// Those who had a permit before, by arrival.
    returning: BTreeMap<u64, usize>,
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
        let Claim { class, since, until, returns, .. } = *claim;
        let place = Place { stand, class, since, until, returns, lane: class, rises: None, lot };
        let place = self.places.insert(place);
        Ticket { place, arrival }
    }

    /// Chooses the next, and says whom to wake. Only while somebody waits.
    pub(super) fn choose(&mut self, now: Instant) -> Option<Waker> {
        let number = self.returning.pop_first().map(|(_, number)| number).or_else(|| {
            self.let_rise(now);
            let best = self.lanes.each().into_iter().find(|(_, lane)| lane.waiting() > 0);
            let best = best.map(|(class, _)| class);
            best.and_then(|class| self.lanes.get_mut(class).pop())
        });
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
            Lot::Chosen | Lot::Refused(_) => unreachable!("who is chosen or refused stands in no lane"),
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
            Lot::Refused(why) => Look::Refused(*why),
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
            Lot::Refused(why) => Look::Refused(why),
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

    /// Refuses those who cannot wait so long, and says whom to wake.
    pub(super) fn refuse_before(&mut self, instant: Instant) -> Vec<Waker> {
        let too_early = |(number, place): (usize, &Place)| {
            let waits = matches!(place.lot, Lot::Waits(_)) && place.until.instant() < instant;
            waits.then_some(number)
        };
        let refused: Vec<_> = self.places.iter().filter_map(too_early).collect();
        let mut wakers = Vec::new();
        for number in refused {
            self.step_out(number);
            self.waiting -= 1;
            let Some(place) = self.places.get_mut(number) else { continue };
            if let Lot::Waits(waker) = std::mem::replace(&mut place.lot, Lot::Refused(Why::Rests)) {
                wakers.extend(waker);
            }
        }
        wakers
    }

    /// Refuses everybody who waits, and says whom to wake.
    pub(super) fn refuse_all(&mut self) -> Vec<Waker> {
        self.returning.clear();
        self.lanes = ByClass::default();
        self.rising.clear();
        self.waiting = 0;
        let waiting = self.places.iter_mut().filter(|(_, place)| matches!(place.lot, Lot::Waits(_)));
        let refused = waiting.map(|(_, place)| std::mem::replace(&mut place.lot, Lot::Refused(Why::Closed)));
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
        self.returning.len()
            + above.sum::<usize>()
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
        if place.returns {
            self.returning.insert(place.stand.arrival, number);
            return;
        }
        (place.lane, place.rises) = place.class.aged(place.since, now);
        if let Some(rises) = place.rises {
            self.rising.insert((rises, number));
        }
        self.lanes.get_mut(place.lane).insert(place.stand, number);
    }

    /// Takes one out of its lane.
    fn step_out(&mut self, number: usize) {
        let Some(place) = self.places.get_mut(number) else { return };
        if place.returns {
            self.returning.remove(&place.stand.arrival);
            return;
        }
        if let Some(rises) = place.rises.take() {
            self.rising.remove(&(rises, number));
        }
        self.lanes.get_mut(place.lane).remove(place.stand);
    }
}

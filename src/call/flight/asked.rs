//! What those who wait are asked while the work goes on: the earliest who can answer, and the next where that one leaves.

use std::sync::Arc;
use std::task::Waker;

use tokio::sync::oneshot;

use crate::call::asking::{Parking, Rest};
use crate::call::flight::{Flight, Life, NoSeat, Seat, SeatNo, Sight, State, Stop, wake};
use crate::call::queue::Priority;
use crate::deadline::Deadline;
use crate::ids::QuestionId;
use crate::provider::asking::{Can, Question, Said};

/// Questions of one Run at once: a server that asks more is not answered by people.
const QUESTIONS: usize = 16;

/// A question that is open.
#[derive(Debug)]
pub(super) struct Open {
    id: QuestionId,
    question: Arc<Question>,
    /// Who is asked.
    at: SeatNo,
    /// Whether that one has seen it.
    told: bool,
    /// Who was asked has left to come back with the answer, and can be asked for this.
    parked: Option<(Parking, Can)>,
    rest: Arc<Rest>,
    /// Where the answer goes; `None`: nobody wants it any more, which who is asked is still to be told.
    wanted: Option<oneshot::Sender<Said>>,
}

impl Open {
    fn is_wanted(&self) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| !wanted.is_closed())
    }
}

impl Flight {
    /// Asks the earliest who can answer; whatever ends the wait without an answer drops the sender. `None`: nobody can.
    pub(in crate::call) fn ask(
        &self,
        id: QuestionId,
        question: Arc<Question>,
        rest: &Arc<Rest>,
    ) -> Option<oneshot::Receiver<Said>> {
        let mut state = self.state.lock();
        if state.life != Life::Flying || state.questions.len() >= QUESTIONS {
            return None;
        }
        let needs = question.needs;
        let (at, waker, parked) = if let Some((at, waker)) = state.candidate(needs, None) {
            (at, waker, None)
        } else {
            // One who comes back is asked then.
            let (at, can) = state.parked(needs)?;
            (at, None, Some((Parking::new(rest), can)))
        };
        let (send, answer) = oneshot::channel();
        let rest = Arc::clone(rest);
        state.questions.push(Open { id, question, at, told: false, parked, rest, wanted: Some(send) });
        drop(state);
        wake([waker, None]);
        Some(answer)
    }

    /// Whether anybody waits now.
    pub(in crate::call) fn has_waiters(&self) -> bool {
        self.state.lock().waiting > 0
    }

    /// What those who wait can be asked for, each for some of it.
    pub(in crate::call) fn can(&self) -> Can {
        self.state.lock().able().fold(Can::NOTHING, Can::and)
    }

    /// Whether somebody waits, and all who do can be asked for this.
    pub(in crate::call) fn all_can(&self, needs: Can) -> bool {
        let state = self.state.lock();
        state.waiting > 0 && state.able().all(|can| can.covers(needs))
    }

    /// Nobody wants to know any more.
    pub(in crate::call) fn withdraw(&self, id: QuestionId) {
        let mut state = self.state.lock();
        let Some(place) = state.questions.iter().position(|open| open.id == id) else { return };
        let Some(open) = state.questions.get_mut(place) else { return };
        open.wanted = None;
        let at = open.at;
        if !open.told || open.parked.is_some() {
            state.questions.remove(place);
        }
        let waker = match state.seat(at) {
            Some(Seat::Waiting { waker, .. }) => waker.clone(),
            Some(Seat::Cancelled) | None => None,
        };
        drop(state);
        wake([waker, None]);
    }

    /// Who sits there was asked this, and says so. Whether anybody still wants to know.
    pub(in crate::call) fn said(&self, seat: SeatNo, id: QuestionId, said: Said) -> bool {
        let mut state = self.state.lock();
        let place = state.questions.iter().position(|open| open.id == id && open.at == seat && open.told);
        let Some(place) = place else { return false };
        let open = state.questions.remove(place);
        drop(state);
        open.wanted.is_some_and(|wanted| wanted.send(said).is_ok())
    }

    /// Who sits there has not answered this: it is asked again.
    pub(in crate::call) fn ask_again(&self, seat: SeatNo, id: QuestionId) {
        let mut state = self.state.lock();
        if let Some(open) = state.questions.iter_mut().find(|open| open.id == id && open.at == seat) {
            open.told = false;
        }
    }

    /// Who sits there cannot be asked now: the next one is.
    pub(in crate::call) fn ask_behind(&self, seat: SeatNo) {
        let wakers = self.state.lock().ask_others(seat);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Who sits there leaves, to come back with answers: its questions stay its own. `false`: the flight is over.
    pub(in crate::call) fn park(&self, seat: SeatNo) -> bool {
        let mut state = self.state.lock();
        if state.life != Life::Flying {
            return false;
        }
        let Some(Seat::Waiting { class, can, .. }) = state.stand_up(seat) else { return false };
        state.wait_no_more(class);
        for open in state.questions.iter_mut().filter(|open| open.at == seat) {
            open.parked = Some((Parking::new(&open.rest), can));
        }
        true
    }

    /// Takes a seat for one that parked there: even in a flight that has landed, unless it was stopped.
    ///
    /// # Errors
    /// It was stopped, or is full.
    pub(in crate::call) fn board_parked(
        &self,
        before: SeatNo,
        class: Priority,
        until: Deadline,
        can: Can,
    ) -> Result<SeatNo, NoSeat> {
        let seat = self.board_again(class, until, can)?;
        let mut state = self.state.lock();
        for open in state.questions.iter_mut().filter(|open| open.at == before) {
            (open.at, open.parked) = (seat, None);
        }
        Ok(seat)
    }

    /// Who parked at `before` is back at `seat` without having heard what it is asked: it is asked again. Whether
    /// there is anything.
    pub(in crate::call) fn ask_anew(&self, before: SeatNo, seat: SeatNo, can: Can) -> bool {
        let mut state = self.state.lock();
        let unheard =
            |open: &&mut Open| open.at == before && open.parked.is_some() && can.covers(open.question.needs);
        let mut any = false;
        for open in state.questions.iter_mut().filter(unheard) {
            (open.at, open.told, open.parked) = (seat, false, None);
            any = true;
        }
        any
    }

    /// Nobody has come back: others are asked instead. Whether anybody waits who could be.
    pub(in crate::call) fn ask_instead_of_parked(&self) -> bool {
        let mut state = self.state.lock();
        let mut wakers = Vec::new();
        while let Some(open) = state.questions.iter_mut().find(|open| open.parked.is_some()) {
            let at = open.at;
            for open in state.questions.iter_mut().filter(|open| open.at == at) {
                open.parked = None;
            }
            wakers.extend(state.ask_others(at));
        }
        if state.waiting == 0 && state.stop == Stop::No && !state.promised {
            state.life = Life::Stopping;
        }
        let goes_on = state.life == Life::Flying;
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        goes_on
    }
}

impl State {
    /// Whether somebody has left to come back with answers.
    pub(super) fn is_parked(&self) -> bool {
        self.questions.iter().any(|open| open.parked.is_some())
    }

    /// What the one who sits there is still to be told of questions.
    pub(super) fn question_for(&mut self, seat: SeatNo) -> Option<Sight> {
        let place = self
            .questions
            .iter()
            .position(|open| open.at == seat && (!open.told || open.wanted.is_none()))?;
        let open = self.questions.get_mut(place)?;
        if open.wanted.is_none() {
            let open = self.questions.remove(place);
            return Some(Sight::Withdrawn(open.id));
        }
        open.told = true;
        Some(Sight::Asked(open.id, Arc::clone(&open.question)))
    }

    /// The one who sat there has left: what it was asked, the next who can answer is asked; where there is none, nobody.
    pub(super) fn ask_others(&mut self, seat: SeatNo) -> Vec<Waker> {
        let mut wakers = Vec::new();
        let mut place = 0;
        while let Some(open) = self.questions.get(place) {
            if open.at != seat {
                place += 1;
                continue;
            }
            let next = if open.is_wanted() { self.candidate(open.question.needs, Some(seat)) } else { None };
            let Some((at, waker)) = next else {
                self.questions.remove(place);
                continue;
            };
            if let Some(open) = self.questions.get_mut(place) {
                (open.at, open.told) = (at, false);
            }
            wakers.extend(waker);
            place += 1;
        }
        wakers
    }

    /// What each who waits can be asked for.
    fn able(&self) -> impl Iterator<Item = Can> + '_ {
        self.seats.iter().filter_map(|(_, seat)| match seat {
            Seat::Waiting { can, .. } => Some(*can),
            Seat::Cancelled => None,
        })
    }

    /// The earliest who waits and can answer, of those behind a seat.
    fn candidate(&self, needs: Can, behind: Option<SeatNo>) -> Option<(SeatNo, Option<Waker>)> {
        self.seats.iter().find_map(|(number, seat)| match seat {
            Seat::Waiting { waker, can, .. } if can.covers(needs) && Some(*number) > behind => {
                Some((*number, waker.clone()))
            }
            Seat::Waiting { .. } | Seat::Cancelled => None,
        })
    }

    /// One who has left to come back, and can answer.
    fn parked(&self, needs: Can) -> Option<(SeatNo, Can)> {
        self.questions.iter().find_map(|open| {
            let (_, can) = open.parked.as_ref()?;
            can.covers(needs).then_some((open.at, *can))
        })
    }
}

//! What those who wait are asked while the work goes on: the earliest who can answer, and the next where that one leaves.

use std::sync::Arc;
use std::task::Waker;

use tokio::sync::oneshot;

use crate::call::flight::{Flight, Life, Seat, SeatNo, Sight, State};
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
    /// Where the answer goes; `None`: nobody wants it any more, which who is asked is still to be told.
    wanted: Option<oneshot::Sender<Said>>,
}

impl Flight {
    /// Asks the earliest who can answer; whatever ends the wait without an answer drops the sender. `None`: nobody can.
    pub(in crate::call) fn ask(
        &self,
        id: QuestionId,
        question: Arc<Question>,
    ) -> Option<oneshot::Receiver<Said>> {
        let mut state = self.state.lock();
        if state.life != Life::Flying || state.questions.len() >= QUESTIONS {
            return None;
        }
        let (at, waker) = state.candidate(question.needs, None)?;
        let (send, answer) = oneshot::channel();
        state.questions.push(Open { id, question, at, told: false, wanted: Some(send) });
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(answer)
    }

    /// Nobody wants to know any more.
    pub(in crate::call) fn withdraw(&self, id: QuestionId) {
        let mut state = self.state.lock();
        let Some(place) = state.questions.iter().position(|open| open.id == id) else { return };
        let (at, told) = state.questions.get(place).map_or((SeatNo(0), false), |open| (open.at, open.told));
        if !told {
            state.questions.remove(place);
            return;
        }
        if let Some(open) = state.questions.get_mut(place) {
            open.wanted = None;
        }
        let waker = match state.seat(at) {
            Some(Seat::Waiting { waker, .. }) => waker.clone(),
            Some(Seat::Cancelled) | None => None,
        };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
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
}

impl State {
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
            let needs = open.question.needs;
            match self.candidate(needs, Some(seat)) {
                Some((at, waker)) if open_is_wanted(&self.questions, place) => {
                    if let Some(open) = self.questions.get_mut(place) {
                        (open.at, open.told) = (at, false);
                    }
                    wakers.extend(waker);
                    place += 1;
                }
                Some(_) | None => drop(self.questions.remove(place)),
            }
        }
        wakers
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
}

fn open_is_wanted(questions: &[Open], place: usize) -> bool {
    questions.get(place).is_some_and(|open| open.wanted.as_ref().is_some_and(|wanted| !wanted.is_closed()))
}

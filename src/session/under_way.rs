//! Calls under way on one connection: each has a place, and only those that were woken are looked at.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;
use slab::Slab;
use tokio::time::Instant;

use crate::call::{Answer, News, Waiter};
use crate::proto::Ticket;
use crate::provider::Step;

/// One call that waits for its answer.
pub(super) struct CallUnderWay {
    pub(super) waiter: Waiter,
    pub(super) ticket: Ticket,
    pub(super) began: Instant,
    pub(super) told_at: Instant,
}

/// What happened to a call.
#[expect(
    clippy::large_enum_variant,
    reason = "it is handled where it is made: a box would cost every answer"
)]
pub(super) enum Happened {
    /// More text was told to the call at this place.
    Text(usize, String),
    /// The work of the call at this place has come further.
    Step(usize, Step),
    /// The call has ended, and its place is free.
    Ended(CallUnderWay, Answer),
}

/// The calls of one connection.
#[derive(Default)]
pub(super) struct UnderWay {
    calls: Slab<CallUnderWay>,
    /// A waker for each place, kept for the next call that takes it.
    wakers: Vec<Waker>,
    woken: Arc<Woken>,
    /// Places that were woken and are still to be looked at.
    due: Vec<usize>,
}

/// Places that were woken, and whom to tell.
#[derive(Default)]
struct Woken {
    state: Mutex<WokenState>,
}

#[derive(Default)]
struct WokenState {
    places: Vec<usize>,
    session: Option<Waker>,
}

struct PlaceWaker {
    woken: Arc<Woken>,
    place: usize,
}

impl Wake for PlaceWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.woken.state.lock();
        state.places.push(self.place);
        let session = state.session.take();
        drop(state);
        if let Some(session) = session {
            session.wake();
        }
    }
}

impl UnderWay {
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The call with this id of the client's, among those that are answered in turn or among the others. A connection has few calls under way, so looking through them beats
    /// keeping a map.
    pub(super) fn find(&self, id: &str, in_turn: bool) -> Option<&CallUnderWay> {
        let mut calls = self.calls.iter().map(|(_, call)| call);
        calls.find(|call| call.ticket.in_turn == in_turn && call.ticket.id.as_deref() == Some(id))
    }

    pub(super) fn insert(&mut self, call: CallUnderWay) {
        let place = self.calls.insert(call);
        while self.wakers.len() <= place {
            let waker = PlaceWaker { woken: Arc::clone(&self.woken), place: self.wakers.len() };
            self.wakers.push(Waker::from(Arc::new(waker)));
        }
        self.due.push(place);
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut CallUnderWay> {
        self.calls.get_mut(place)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut CallUnderWay> {
        self.calls.iter_mut().map(|(_, call)| call)
    }

    /// Takes out every call whose own deadline has come, with its answer; says when the next one's comes.
    pub(super) fn give_up(&mut self, now: Instant) -> (Vec<(CallUnderWay, Answer)>, Option<Instant>) {
        let late: Vec<_> = self
            .calls
            .iter()
            .filter(|(_, call)| call.waiter.until() <= now)
            .map(|(place, _)| place)
            .collect();
        let ended = late.into_iter().map(|place| {
            let mut call = self.calls.remove(place);
            let answer = call.waiter.give_up();
            (call, answer)
        });
        let ended: Vec<_> = ended.collect();
        (ended, self.calls.iter().map(|(_, call)| call.waiter.until()).min())
    }

    /// The next thing that happened to any of them.
    pub(super) fn poll_happened(&mut self, cx: &mut Context<'_>) -> Poll<Happened> {
        loop {
            while let Some(place) = self.due.pop() {
                let (Some(call), Some(waker)) = (self.calls.get_mut(place), self.wakers.get(place)) else {
                    continue;
                };
                match call.waiter.poll_news(&mut Context::from_waker(waker)) {
                    Poll::Pending => {}
                    Poll::Ready(News::Text(text)) => {
                        self.due.push(place);
                        return Poll::Ready(Happened::Text(place, text));
                    }
                    Poll::Ready(News::Step(step)) => {
                        self.due.push(place);
                        return Poll::Ready(Happened::Step(place, step));
                    }
                    Poll::Ready(News::Answer(answer)) => {
                        let call = self.calls.remove(place);
                        self.let_go();
                        return Poll::Ready(Happened::Ended(call, answer));
                    }
                }
            }
            let mut state = self.woken.state.lock();
            if state.places.is_empty() {
                if !state.session.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                    state.session = Some(cx.waker().clone());
                }
                return Poll::Pending;
            }
            std::mem::swap(&mut state.places, &mut self.due);
        }
    }

    /// A burst is over: an idle connection keeps no memory for it.
    fn let_go(&mut self) {
        if self.calls.is_empty() && self.wakers.len() > 8 {
            *self = Self::default();
        }
    }
}

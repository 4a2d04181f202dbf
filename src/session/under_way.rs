//! Calls under way on one connection: each has a place, and only those that were woken are looked at.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;
use slab::Slab;
use tokio::time::Instant;

use crate::call::{Answer, News, Waiter};
use crate::ids::QuestionId;
use crate::proto::Ticket;

/// One call that waits for its answer.
pub(super) struct CallUnderWay {
    pub(super) waiter: Waiter,
    pub(super) ticket: Ticket,
    /// When its caller was last told something.
    pub(super) told_at: Instant,
    /// Questions that its client was asked and has not answered.
    pub(super) asked: Vec<QuestionId>,
}

/// The place whose call wakes the session itself. Most connections have one call under way at most: it needs no list of
/// who was woken, only a look whenever the session was, and lies where the session does.
const FIRST: usize = 0;

/// The calls of one connection.
#[derive(Default)]
pub(super) struct UnderWay {
    first: Option<CallUnderWay>,
    /// Those at the places behind it.
    others: Slab<CallUnderWay>,
    /// A waker for each of their places, kept for the next call that takes it.
    wakers: Vec<Waker>,
    woken: Arc<Woken>,
    /// Places that were woken and are still to be looked at.
    due: Vec<usize>,
    /// The first place is to be looked at.
    first_is_due: bool,
}

/// Places that were woken, and whom to tell.
#[derive(Default)]
struct Woken {
    state: Mutex<WokenState>,
}

#[derive(Default)]
struct WokenState {
    places: Vec<usize>,
    /// Which of all places are among these: work may tell much while nobody looks.
    listed: Vec<bool>,
    session: Option<Waker>,
}

impl WokenState {
    /// Lists a place that is not listed yet. Whoever listed the first has woken the session.
    fn list(&mut self, place: usize) {
        if self.listed.len() <= place {
            self.listed.resize(place + 1, false);
        }
        if let Some(listed @ false) = self.listed.get_mut(place) {
            *listed = true;
            self.places.push(place);
        }
    }

    /// Hands them over, in the room of others that were looked at.
    fn hand_over(&mut self, to: &mut Vec<usize>) {
        self.listed.fill(false);
        std::mem::swap(&mut self.places, to);
    }
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
        state.list(self.place);
        let session = state.session.take();
        drop(state);
        if let Some(session) = session {
            session.wake();
        }
    }
}

impl UnderWay {
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.others.is_empty()
    }

    /// The call with this id of the client's, among those that are answered in turn or among the others. A connection has few calls under way, so looking through them beats
    /// keeping a map.
    pub(super) fn find(&self, id: &str, in_turn: bool) -> Option<&CallUnderWay> {
        let mut calls = self.iter();
        calls.find(|call| call.ticket.in_turn == in_turn && call.ticket.id.as_deref() == Some(id))
    }

    pub(super) fn insert(&mut self, call: CallUnderWay) {
        if self.first.is_none() {
            self.first = Some(call);
            self.first_is_due = true;
            return;
        }
        let place = self.others.insert(call) + 1;
        while self.wakers.len() < place {
            let waker = PlaceWaker { woken: Arc::clone(&self.woken), place: self.wakers.len() + 1 };
            self.wakers.push(Waker::from(Arc::new(waker)));
        }
        self.due.push(place);
    }

    /// Lets go of the call at this place, which has ended.
    pub(super) fn remove(&mut self, place: usize) {
        match place.checked_sub(1) {
            None => self.first = None,
            Some(other) => drop(self.others.try_remove(other)),
        }
        if self.wakers.len() > 8 && self.is_empty() {
            // A burst is over: an idle connection keeps no memory for it.
            *self = Self::default();
        }
    }

    /// The call whose client was asked this.
    pub(super) fn asked(&mut self, id: QuestionId) -> Option<&mut CallUnderWay> {
        self.iter_mut().find(|call| call.asked.contains(&id))
    }

    fn iter(&self) -> impl Iterator<Item = &CallUnderWay> {
        self.first.iter().chain(self.others.iter().map(|(_, call)| call))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut CallUnderWay> {
        self.first.iter_mut().chain(self.others.iter_mut().map(|(_, call)| call))
    }

    /// Takes out every call whose own deadline has come, with its answer; says when the next one's comes.
    pub(super) fn give_up(&mut self, now: Instant) -> (Vec<(CallUnderWay, Answer)>, Option<Instant>) {
        let is_late = |call: &CallUnderWay| call.waiter.until() <= now;
        let mut late: Vec<_> = self.first.take_if(|call| is_late(call)).into_iter().collect();
        let others = self.others.iter().filter(|(_, call)| is_late(call)).map(|(place, _)| place);
        for place in others.collect::<Vec<_>>() {
            late.extend(self.others.try_remove(place));
        }
        let ended = late.into_iter().map(|mut call| {
            let answer = call.waiter.give_up();
            (call, answer)
        });
        let ended: Vec<_> = ended.collect();
        (ended, self.iter().map(|call| call.waiter.until()).min())
    }

    /// The session waits to be woken.
    pub(super) fn rest(&mut self) {
        self.first_is_due = true;
    }

    /// The next place that is to be looked at.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if std::mem::take(&mut self.first_is_due) && self.first.is_some() {
            return Poll::Ready(FIRST);
        }
        if self.wakers.is_empty() {
            // There never was a second call.
            return Poll::Pending;
        }
        loop {
            if let Some(place) = self.due.pop() {
                return Poll::Ready(place);
            }
            let mut state = self.woken.state.lock();
            if state.places.is_empty() {
                if !state.session.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                    state.session = Some(cx.waker().clone());
                }
                return Poll::Pending;
            }
            state.hand_over(&mut self.due);
        }
    }

    /// What there is to tell of the call at this place.
    pub(super) fn look(&mut self, place: usize, cx: &mut Context<'_>) -> Option<(&mut CallUnderWay, News)> {
        let (call, waker) = match place.checked_sub(1) {
            None => (self.first.as_mut()?, cx.waker()),
            Some(other) => (self.others.get_mut(other)?, self.wakers.get(other)?),
        };
        let Poll::Ready(news) = call.waiter.poll_news(&mut Context::from_waker(waker)) else { return None };
        if let News::Text(_) | News::Step(_) | News::Logged(_) | News::Question(..) | News::Withdrawn(_) =
            news
        {
            // There may be more.
            if place == FIRST { self.first_is_due = true } else { self.due.push(place) }
        }
        Some((call, news))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Session(AtomicUsize);

    impl Wake for Session {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A session whose peer does not read looks at nobody, while work goes on to tell.
    #[test]
    fn a_place_that_is_woken_often_is_listed_once_until_it_is_looked_at() {
        let mut calls = UnderWay::default();
        calls.wakers = [1, 2]
            .map(|place| Waker::from(Arc::new(PlaceWaker { woken: Arc::clone(&calls.woken), place })))
            .into();
        let session = Arc::new(Session::default());
        let waker = Waker::from(Arc::clone(&session));
        let cx = &mut Context::from_waker(&waker);
        for looked in 1..4 {
            assert!(calls.poll_due(cx).is_pending());
            for _ in 0..100 {
                calls.wakers.iter().for_each(Waker::wake_by_ref);
            }
            assert_eq!(calls.woken.state.lock().places.len(), 2);
            assert_eq!(session.0.load(Ordering::Relaxed), looked);
            assert_eq!([calls.poll_due(cx), calls.poll_due(cx)], [Poll::Ready(2), Poll::Ready(1)]);
        }
    }
}

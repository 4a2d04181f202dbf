//! A bounded number of permits, and a bounded queue of those who wait for one.
//!
//! One mutex, held for a handful of instructions, decides and counts at once: a permit that was given back goes
//! straight to the next in line, so nobody overtakes, and a waiter that is dropped between being chosen and being
//! told hands its permit on.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;

use crate::call::outcome::{CallError, Full};

/// Who goes first: the class, then who came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    class: Priority,
    arrival: u64,
}

/// The class of a call. The first is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// Before all others.
    High,
    /// Where nothing is said.
    #[default]
    Medium,
    /// When nobody else waits.
    Low,
}

impl Priority {
    /// Reads a class by its name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "high" => Some(Self::High),
            "medium" => Some(Self::Medium),
            "low" => Some(Self::Low),
            _ => None,
        }
    }
}

/// Permits of one kind, and the queue before them.
#[derive(Debug)]
pub struct Pool {
    name: Arc<str>,
    limit: usize,
    queue_limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_use: usize,
    arrivals: u64,
    closed: bool,
    /// Those who wait; the waker of one that was not polled yet is missing.
    waiting: BTreeMap<Turn, Option<Waker>>,
    /// Those who were chosen and have not taken their permit yet. They count as in use.
    chosen: Vec<Turn>,
    /// Moving average of how long a permit was held for work.
    service: Duration,
}

/// What a pool looks like at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolView {
    /// Permits held.
    pub in_use: usize,
    /// Permits in all.
    pub limit: usize,
    /// Those who wait.
    pub queued: usize,
}

impl Pool {
    /// A pool of `limit` permits with room for `queue_limit` who wait.
    pub fn new(name: Arc<str>, limit: usize, queue_limit: usize) -> Self {
        Self { name, limit, queue_limit, state: Mutex::new(State::default()) }
    }

    /// What the permits are for.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What it looks like now.
    pub fn view(&self) -> PoolView {
        let state = self.state.lock();
        PoolView { in_use: state.in_use, limit: self.limit, queued: state.waiting.len() }
    }

    /// Takes a permit at once, if one is free and nobody waits for it.
    pub fn try_take(self: &Arc<Self>) -> Option<Permit> {
        let mut state = self.state.lock();
        let free = !state.closed && state.in_use < self.limit && state.waiting.is_empty();
        if !free {
            return None;
        }
        state.in_use += 1;
        Some(Permit { pool: Arc::clone(self) })
    }

    /// Gets in line for a permit.
    ///
    /// # Errors
    /// The queue is full, or the daemon is going down: at once.
    pub fn queue(self: &Arc<Self>, class: Priority) -> Result<Waiting, CallError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(CallError::ShuttingDown);
        }
        if state.waiting.len() >= self.queue_limit {
            let retry_after = Some(self.next_turn(&state));
            let full = Full::Queue { name: Arc::clone(&self.name), limit: self.queue_limit };
            return Err(CallError::Full { full, retry_after });
        }
        let turn = Turn { class, arrival: state.arrivals };
        state.arrivals += 1;
        if state.in_use < self.limit && state.waiting.is_empty() {
            state.in_use += 1;
            state.chosen.push(turn);
        } else {
            state.waiting.insert(turn, None);
        }
        drop(state);
        Ok(Waiting { pool: Arc::clone(self), turn: Some(turn) })
    }

    /// When a place is likely to be free, from how long recent work took.
    pub fn retry_after(&self) -> Duration {
        self.next_turn(&self.state.lock())
    }

    /// One turn of the queue: everybody in front, `limit` at a time. Between 100 ms and a minute.
    fn next_turn(&self, state: &State) -> Duration {
        let rounds = state.waiting.len() / self.limit.max(1) + 1;
        let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
        let turn = state.service.saturating_mul(rounds);
        turn.clamp(Duration::from_millis(100), Duration::from_mins(1))
    }

    /// Notes how long a permit was held for work.
    pub fn observe(&self, service: Duration) {
        let mut state = self.state.lock();
        state.service = if state.service.is_zero() { service } else { (state.service * 7 + service) / 8 };
    }

    /// Refuses everybody who waits and who comes; permits in use stay good.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_values().flatten().for_each(Waker::wake);
    }

    /// Gives one permit back: to the next in line, else to the pool.
    fn release(&self) {
        let mut state = self.state.lock();
        let next = state.waiting.pop_first();
        match next {
            Some((turn, waker)) => {
                state.chosen.push(turn);
                drop(state);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            None => state.in_use -= 1,
        }
    }
}

/// A permit. Dropping it gives it back; it cannot be cloned or released twice.
#[must_use = "a permit that is not held bounds nothing"]
#[derive(Debug)]
pub struct Permit {
    pool: Arc<Pool>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.pool.release();
    }
}

/// A place in line. Dropping it leaves the line; if its turn had come, the permit goes to the next.
///
/// Cancel safe.
#[must_use = "who does not wait gets no permit"]
#[derive(Debug)]
pub struct Waiting {
    pool: Arc<Pool>,
    turn: Option<Turn>,
}

impl Future for Waiting {
    type Output = Result<Permit, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(turn) = self.turn else { unreachable!("polled again after it was ready") };
        let mut state = self.pool.state.lock();
        if let Some(place) = state.chosen.iter().position(|chosen| *chosen == turn) {
            state.chosen.swap_remove(place);
            drop(state);
            self.turn = None;
            return Poll::Ready(Ok(Permit { pool: Arc::clone(&self.pool) }));
        }
        if let Some(waker) = state.waiting.get_mut(&turn) {
            *waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        // Only `close` takes somebody out of the line without choosing it.
        drop(state);
        self.turn = None;
        Poll::Ready(Err(CallError::ShuttingDown))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(turn) = self.turn else { return };
        let mut state = self.pool.state.lock();
        if state.waiting.remove(&turn).is_some() {
            return;
        }
        if let Some(place) = state.chosen.iter().position(|chosen| *chosen == turn) {
            state.chosen.swap_remove(place);
            drop(state);
            self.pool.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn pool(limit: usize, queue: usize) -> Arc<Pool> {
        Arc::new(Pool::new(Arc::from("test"), limit, queue))
    }

    #[test]
    fn a_permit_given_back_goes_to_the_first_in_line() {
        let pool = pool(1, 9);
        let held = pool.try_take().unwrap();
        let mut first = pool.queue(Priority::Medium).unwrap();
        let mut second = pool.queue(Priority::Medium).unwrap();
        let mut high = pool.queue(Priority::High).unwrap();
        assert!((&mut first).now_or_never().is_none());
        drop(held);
        assert!(pool.try_take().is_none(), "nobody overtakes");
        let held = (&mut high).now_or_never().unwrap().unwrap();
        assert!((&mut second).now_or_never().is_none());
        drop(held);
        let _held = (&mut first).now_or_never().unwrap().unwrap();
        assert_eq!(pool.view(), PoolView { in_use: 1, limit: 1, queued: 1 });
    }

    #[test]
    fn who_leaves_after_being_chosen_hands_the_permit_on() {
        let pool = pool(1, 9);
        let held = pool.try_take().unwrap();
        let first = pool.queue(Priority::Medium).unwrap();
        let mut second = pool.queue(Priority::Medium).unwrap();
        drop(held);
        drop(first);
        drop((&mut second).now_or_never().unwrap().unwrap());
        assert_eq!(pool.view(), PoolView { in_use: 0, limit: 1, queued: 0 });
    }

    #[test]
    fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
        let pool = pool(1, 1);
        let _held = pool.try_take().unwrap();
        let _waits = pool.queue(Priority::Medium).unwrap();
        pool.observe(Duration::from_secs(4));
        let error = pool.queue(Priority::High).unwrap_err();
        assert_eq!(error.retry_after_ms(), Some(8000));
        assert_eq!(error.to_string(), "The queue of test is full (1 waiting)");
    }

    #[test]
    fn closing_answers_all_who_wait_and_takes_no_permit_away() {
        let pool = pool(1, 9);
        let held = pool.try_take().unwrap();
        let mut waits = pool.queue(Priority::Low).unwrap();
        pool.close();
        assert_eq!((&mut waits).now_or_never().unwrap().unwrap_err(), CallError::ShuttingDown);
        assert_eq!(pool.queue(Priority::Low).unwrap_err(), CallError::ShuttingDown);
        drop(held);
        assert_eq!(pool.view(), PoolView { in_use: 0, limit: 1, queued: 0 });
    }

    #[derive(Debug, Clone, Copy)]
    enum Move {
        Queue(u8),
        Try,
        Poll(usize),
        Leave(usize),
        GiveBack(usize),
    }

    fn any_move() -> impl Strategy<Value = Move> {
        prop_oneof![
            (0..3u8).prop_map(Move::Queue),
            Just(Move::Try),
            any::<usize>().prop_map(Move::Poll),
            any::<usize>().prop_map(Move::Leave),
            any::<usize>().prop_map(Move::GiveBack),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_no_permit_is_lost_or_made(limit in 1..4usize, moves in prop::collection::vec(any_move(), 0..200)) {
            let pool = pool(limit, 5);
            let (mut waiting, mut held) = (Vec::new(), Vec::new());
            for each in moves {
                match each {
                    Move::Queue(class) => {
                        let class = [Priority::High, Priority::Medium, Priority::Low][usize::from(class)];
                        waiting.extend(pool.queue(class).ok());
                    }
                    Move::Try => held.extend(pool.try_take()),
                    Move::Poll(at) if !waiting.is_empty() => {
                        let at = at % waiting.len();
                        let ready: Option<Result<Permit, CallError>> = (&mut waiting[at]).now_or_never();
                        if let Some(permit) = ready {
                            held.push(permit.unwrap());
                            drop(waiting.swap_remove(at));
                        }
                    }
                    Move::Leave(at) if !waiting.is_empty() => drop(waiting.swap_remove(at % waiting.len())),
                    Move::GiveBack(at) if !held.is_empty() => drop(held.swap_remove(at % held.len())),
                    Move::Poll(_) | Move::Leave(_) | Move::GiveBack(_) => {}
                }
                let view = pool.view();
                prop_assert!(held.len() <= view.in_use && view.in_use <= limit);
                prop_assert!(view.queued == 0 || view.in_use == limit, "nobody waits beside a free permit");
            }
            drop((waiting, held));
            prop_assert_eq!(pool.view(), PoolView { in_use: 0, limit, queued: 0 });
        }
    }
}

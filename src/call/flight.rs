//! One call in the air: a Run that belongs to the daemon, and everybody who waits for it.
//!
//! Nobody leads: each caller has a seat. A flight can be boarded while it flies; one that is being stopped or has
//! landed cannot, and whoever comes then opens the next generation.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::call::key::CallKey;
use crate::call::outcome::Outcome;
use crate::ids::ExecutionId;
use crate::phase::Stages;
use crate::provider::Tell;
use crate::tool::{Effect, Tool, Worth};

mod stopped;

pub use stopped::Stopped;

/// How long a cheap read goes on for a caller whose connection went.
const LINGER: Duration = Duration::from_secs(2);

/// Text in progress that is kept for those who join late. More than a screen or two helps nobody.
const RETAINED_TEXT_BYTES: usize = 64 * 1024;

/// Why a waiter leaves before the flight has landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// It took its call back.
    Cancelled,
    /// Its own deadline came.
    DeadlineCame,
    /// Its connection went.
    ConnectionGone,
}

/// Why a flight cannot be boarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSeat {
    /// It is being stopped, or has landed.
    Over,
    /// Too many wait for it already.
    Full,
}

/// A waiter's place in its flight. Numbers are never given twice: a late cancel cannot hit a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeatNo(u64);

#[derive(Debug)]
enum Seat {
    /// It waits; the waker of one that was not polled yet is missing.
    Waiting { waker: Option<Waker>, wants_text: bool },
    /// It took its call back, and has not been told yet.
    Cancelled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Flying,
    Stopping,
    Landed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Somebody waits, or the work is to be finished anyhow.
    No,
    /// Nobody waits; it goes on until then for one who may come back.
    At(Instant),
    /// At once.
    Now,
}

#[derive(Debug)]
struct State {
    life: Life,
    /// In order of their numbers.
    seats: Vec<(SeatNo, Seat)>,
    next_seat: u64,
    /// Seats that wait; those that were cancelled and not told yet do not count.
    waiting: usize,
    stop: Stop,
    run: Option<Waker>,
    told: Told,
}

/// The latest of the text in progress.
#[derive(Debug, Default)]
struct Told {
    text: String,
    /// How many bytes were told before `text` begins.
    forgotten: u64,
}

/// What every flight of a daemon goes by.
#[derive(Debug, Clone, Copy)]
pub struct FlightRules {
    /// Waiters on one flight.
    pub max_waiters: usize,
    /// How long a paid-for read goes on for a caller whose connection went.
    pub reattach: Duration,
}

/// One call in the air.
#[derive(Debug)]
pub struct Flight {
    key: Option<CallKey>,
    generation: u64,
    arguments: Vec<u8>,
    execution: ExecutionId,
    tool: Arc<Tool>,
    provider: Arc<str>,
    rules: FlightRules,
    stages: Stages,
    has_run: AtomicBool,
    outcome: OnceLock<Outcome>,
    state: Mutex<State>,
}

/// What makes a flight.
pub struct Boarding {
    /// Under which key it can be found; `None`: nobody can join it.
    pub key: Option<CallKey>,
    /// Its canonical arguments.
    pub arguments: Vec<u8>,
    /// The tool that is called.
    pub tool: Arc<Tool>,
    /// Who will do the work.
    pub provider: Arc<str>,
    /// What it goes by.
    pub rules: FlightRules,
    /// When it was received.
    pub at: Instant,
}

/// What a waiter sees when it looks.
pub enum Sight {
    /// More text was told since it last looked.
    Text(String),
    /// The flight has landed.
    Landed(Outcome),
    /// Its call was taken back.
    Cancelled,
}

impl Flight {
    /// A flight with its opener aboard.
    pub fn open(boarding: Boarding, generation: u64) -> (Arc<Self>, SeatNo) {
        let mut state = State {
            life: Life::Flying,
            seats: Vec::with_capacity(1),
            next_seat: 0,
            waiting: 0,
            stop: Stop::No,
            run: None,
            told: Told::default(),
        };
        let seat = state.sit_down();
        let flight = Self {
            key: boarding.key,
            generation,
            arguments: boarding.arguments,
            execution: ExecutionId::mint(),
            tool: boarding.tool,
            provider: boarding.provider,
            rules: boarding.rules,
            stages: Stages::new(boarding.at),
            has_run: AtomicBool::new(true),
            outcome: OnceLock::new(),
            state: Mutex::new(state),
        };
        (Arc::new(flight), seat)
    }

    /// Takes a seat.
    ///
    /// # Errors
    /// It cannot be boarded any more, or is full.
    pub fn board(&self) -> Result<SeatNo, NoSeat> {
        let mut state = self.state.lock();
        if state.life != Life::Flying {
            return Err(NoSeat::Over);
        }
        if state.waiting >= self.rules.max_waiters {
            return Err(NoSeat::Full);
        }
        state.stop = Stop::No;
        Ok(state.sit_down())
    }

    /// Takes a seat for a caller that had one before: even in a flight that has landed, unless it was stopped.
    ///
    /// # Errors
    /// It was stopped, or is full.
    pub(super) fn board_again(&self) -> Result<SeatNo, NoSeat> {
        let mut state = self.state.lock();
        match state.life {
            Life::Flying if state.waiting >= self.rules.max_waiters => return Err(NoSeat::Full),
            Life::Flying => state.stop = Stop::No,
            // Its outcome is there, or about to be: whoever lands it wakes every seat after.
            Life::Landed if state.stop != Stop::Now => {}
            Life::Stopping | Life::Landed => return Err(NoSeat::Over),
        }
        Ok(state.sit_down())
    }

    /// Looks, and is woken when there is more to see. `seen` is how much of the text was seen; `None`: the
    /// waiter does not care for text.
    pub fn look(&self, seat: SeatNo, seen: Option<&mut u64>, cx: &mut Context<'_>) -> Poll<Sight> {
        if let Some(outcome) = self.outcome.get() {
            return Poll::Ready(Sight::Landed(outcome.clone()));
        }
        let mut state = self.state.lock();
        // Looked at again under the lock: whoever lands sets the outcome first and wakes the seats after.
        if let Some(outcome) = self.outcome.get() {
            return Poll::Ready(Sight::Landed(outcome.clone()));
        }
        match state.seat(seat) {
            Some(Seat::Waiting { waker, wants_text }) => {
                *waker = Some(cx.waker().clone());
                *wants_text = seen.is_some();
            }
            Some(Seat::Cancelled) | None => return Poll::Ready(Sight::Cancelled),
        }
        match seen.and_then(|seen| state.told.since(seen)) {
            Some(text) => Poll::Ready(Sight::Text(text)),
            None => Poll::Pending,
        }
    }

    /// Takes a waiting caller's call back. It is told so when it next looks. Nothing happens once the flight has
    /// landed, or when it left already.
    pub fn cancel(&self, seat: SeatNo) {
        let mut state = self.state.lock();
        if state.life == Life::Landed {
            return;
        }
        let Some(place) = state.seat(seat) else { return };
        let Seat::Waiting { waker, .. } = std::mem::replace(place, Seat::Cancelled) else { return };
        state.waiting -= 1;
        let run = self.last_left(&mut state, Leaving::Cancelled);
        drop(state);
        wake([waker, run]);
    }

    /// Gives a seat up. Says whether the work goes on.
    pub fn leave(&self, seat: SeatNo, why: Leaving) -> bool {
        let mut state = self.state.lock();
        let place = state.stand_up(seat);
        let mut run = None;
        if let Some(Seat::Waiting { .. }) = place {
            state.waiting -= 1;
            run = self.last_left(&mut state, why);
        }
        let goes_on = state.life == Life::Flying;
        drop(state);
        wake([None, run]);
        goes_on
    }

    /// The table of "the last waiter leaves". Returns the Run's waker where the Run must look.
    fn last_left(&self, state: &mut State, why: Leaving) -> Option<Waker> {
        if state.waiting > 0 || state.life != Life::Flying {
            return None;
        }
        state.stop = match (why, self.tool.effect) {
            (Leaving::Cancelled, Effect::Read | Effect::Idempotent | Effect::Write)
            | (Leaving::DeadlineCame, Effect::Read) => Stop::Now,
            (Leaving::ConnectionGone, Effect::Read) => Stop::At(Instant::now() + self.linger()),
            (Leaving::DeadlineCame | Leaving::ConnectionGone, Effect::Idempotent | Effect::Write) => Stop::No,
        };
        if state.stop == Stop::Now {
            state.life = Life::Stopping;
        }
        state.run.take()
    }

    fn linger(&self) -> Duration {
        match self.tool.worth {
            Worth::Cheap => LINGER,
            Worth::Paid => self.rules.reattach,
        }
    }

    /// Stops the Run, whoever waits: the daemon goes down, or the Run is overdue.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        if state.life == Life::Flying {
            state.life = Life::Stopping;
        }
        state.stop = Stop::Now;
        let run = state.run.take();
        drop(state);
        wake([None, run]);
    }

    /// Resolves when the Run must stop.
    pub fn stopped(self: &Arc<Self>) -> Stopped {
        Stopped::new(Arc::clone(self))
    }

    /// From here on nobody can board. Says whether it was the first to say so.
    pub(super) fn close_doors(&self) -> bool {
        let mut state = self.state.lock();
        std::mem::replace(&mut state.life, Life::Landed) != Life::Landed
    }

    /// Lands: everybody aboard is answered. Only after [`Flight::close_doors`].
    pub(super) fn publish(&self, outcome: Outcome) {
        if self.outcome.set(outcome).is_err() {
            return;
        }
        let mut state = self.state.lock();
        // Nobody is told of the way any more, and who keeps the outcome keeps the flight.
        state.told = Told::default();
        let wakers: Vec<_> = state
            .seats
            .iter_mut()
            .filter_map(|(_, seat)| match seat {
                Seat::Waiting { waker, .. } => waker.take(),
                Seat::Cancelled => None,
            })
            .collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The Run is gone, whatever became of it.
    pub(super) fn run_ended(&self) {
        self.has_run.store(false, Ordering::Release);
    }

    /// Whether somebody works for it.
    pub fn has_run(&self) -> bool {
        self.has_run.load(Ordering::Acquire)
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting
    }

    /// Under which key it is found.
    pub fn key(&self) -> Option<&CallKey> {
        self.key.as_ref()
    }

    /// Which generation of its key it is.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether it was opened with these canonical arguments.
    pub fn has_arguments(&self, arguments: &[u8]) -> bool {
        self.arguments == arguments
    }

    /// How much memory it takes once it has landed, about.
    pub(super) fn bytes(&self) -> usize {
        let reply = self.outcome.get().and_then(|outcome| outcome.as_ref().ok());
        self.arguments.len() + reply.map_or(0, |reply| reply.bytes())
    }

    /// The isolated session its Run works in.
    pub fn execution(&self) -> ExecutionId {
        self.execution
    }

    /// The tool that is called.
    pub fn tool(&self) -> &Arc<Tool> {
        &self.tool
    }

    /// Who does the work.
    pub fn provider(&self) -> &Arc<str> {
        &self.provider
    }

    /// When it entered which phase.
    pub fn stages(&self) -> &Stages {
        &self.stages
    }

    /// What it landed with.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.get()
    }
}

impl Tell for Flight {
    fn text(&self, piece: &str) {
        if piece.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        state.told.push(piece);
        let wakers: Vec<_> = state
            .seats
            .iter()
            .filter_map(|(_, seat)| match seat {
                Seat::Waiting { waker, wants_text: true } => waker.clone(),
                Seat::Waiting { .. } | Seat::Cancelled => None,
            })
            .collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl State {
    fn sit_down(&mut self) -> SeatNo {
        let number = SeatNo(self.next_seat);
        self.next_seat += 1;
        self.waiting += 1;
        self.seats.push((number, Seat::Waiting { waker: None, wants_text: false }));
        number
    }

    fn seat(&mut self, number: SeatNo) -> Option<&mut Seat> {
        let place = self.seats.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.seats.get_mut(place).map(|(_, seat)| seat)
    }

    fn stand_up(&mut self, number: SeatNo) -> Option<Seat> {
        let place = self.seats.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(self.seats.remove(place).1)
    }
}

impl Told {
    fn push(&mut self, piece: &str) {
        self.text.push_str(piece);
        if self.text.len() > 2 * RETAINED_TEXT_BYTES {
            let surplus = self.text.len() - RETAINED_TEXT_BYTES;
            let cut =
                (surplus..self.text.len()).find(|at| self.text.is_char_boundary(*at)).unwrap_or(surplus);
            self.text.drain(..cut);
            self.forgotten += u64::try_from(cut).unwrap_or(u64::MAX);
        }
    }

    /// What came after `seen`, as far as it is retained.
    fn since(&self, seen: &mut u64) -> Option<String> {
        let skip = usize::try_from(seen.saturating_sub(self.forgotten)).unwrap_or(usize::MAX);
        let new = self.text.get(skip..).filter(|new| !new.is_empty())?;
        *seen = self.forgotten + u64::try_from(self.text.len()).unwrap_or(u64::MAX);
        Some(new.to_owned())
    }
}

fn wake(wakers: [Option<Waker>; 2]) {
    wakers.into_iter().flatten().for_each(Waker::wake);
}

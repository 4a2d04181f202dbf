//! One call in the air: a Run that belongs to the daemon, and everybody who waits for it.
//!
//! Nobody leads: each caller has a seat. A flight can be boarded while it flies; one that is being stopped or has
//! landed cannot, and whoever comes then opens the next generation.

use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::call::key::{CallKey, Form};
use crate::call::outcome::{self, Outcome};
use crate::call::queue::Priority;
use crate::call::told::{New, Seen, Told};
use crate::deadline::Deadline;
use crate::ids::{ExecutionId, QuestionId};
use crate::phase::{ExecutionState, Phase, Stages};
use crate::provider::asking::{Can, Question};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::tool::{Effect, Tool, Worth};

mod again;
mod anew;
mod asked;
mod seats;
mod standing;
mod stopped;
mod telling;
mod unread;

use standing::Standing;
pub use stopped::Stopped;
pub use unread::Unread;
pub(in crate::call) use unread::Written;

/// How long a cheap read goes on for a caller whose connection went.
const LINGER: Duration = Duration::from_secs(2);

/// Why a waiter leaves before the flight has landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// It took its call back.
    Cancelled,
    /// Its own deadline came.
    DeadlineCame,
    /// Its client would give up: it was told where to collect the outcome.
    AnsweredEarly,
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

/// What the doors of a landing flight were like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doors {
    /// Whoever came was taken aboard.
    Open,
    /// It was being stopped: whoever came was sent to the next generation.
    Stopped,
    /// It had landed before.
    Closed,
}

/// A waiter's place in its flight. Numbers are never given twice: a late cancel cannot hit a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeatNo(u64);

#[derive(Debug)]
enum Seat {
    /// It waits; the waker of one that was not polled yet is missing.
    Waiting { waker: Option<Waker>, wants_more: bool, class: Priority, can: Can },
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
    standing: Standing,
    stop: Stop,
    /// Somebody was told that the work goes on: whoever leaves later does not stop it.
    promised: bool,
    run: Option<Waker>,
    told: Told,
    /// What those who wait are asked.
    questions: Vec<asked::Open>,
    /// What its opener wrote, where that says what it asks.
    written: Option<Written>,
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
    arguments: Box<[u8]>,
    execution: ExecutionId,
    tool: Arc<Tool>,
    provider: Arc<str>,
    rules: FlightRules,
    keep: Option<Duration>,
    about: About,
    stages: Stages,
    has_run: AtomicBool,
    /// Somebody took its call back: whoever looks must look which seat it was.
    taken_back: AtomicBool,
    outcome: OnceLock<Outcome>,
    state: Mutex<State>,
}

/// What is told of an Execution to who asks about it.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The model that is asked, where one is.
    pub model: Option<Arc<str>>,
    /// How long its work may take.
    pub timeout: Duration,
    /// What its opener's request brought beside the arguments, as one JSON object.
    pub metadata: Option<Box<str>>,
}

/// What makes a flight.
pub struct Boarding {
    /// Under which key it can be found; `None`: nobody can join it.
    pub key: Option<CallKey>,
    /// Its canonical arguments.
    pub arguments: Form,
    /// The tool that is called.
    pub tool: Arc<Tool>,
    /// Who will do the work.
    pub provider: Arc<str>,
    /// What it goes by.
    pub rules: FlightRules,
    /// How long its outcome answers equal calls after it has landed.
    pub keep: Option<Duration>,
    /// What is told of its Execution.
    pub about: About,
    /// When it was received.
    pub at: Instant,
    /// The class of who comes.
    pub priority: Priority,
    /// How long that one waits for the answer.
    pub until: Deadline,
    /// What that one can be asked for.
    pub can: Can,
}

/// What a waiter sees when it looks.
pub enum Sight {
    /// More was told since it last looked.
    New(New),
    /// It is asked something.
    Asked(QuestionId, Arc<Question>),
    /// What it was asked needs no answer any more.
    Withdrawn(QuestionId),
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
            standing: Standing::new(boarding.priority, boarding.until),
            stop: Stop::No,
            promised: false,
            run: None,
            told: Told::default(),
            questions: Vec::new(),
            written: None,
        };
        let seat = state.sit_down(boarding.priority, boarding.until, boarding.can);
        let flight = Self {
            key: boarding.key,
            generation,
            arguments: Box::from(&*boarding.arguments),
            execution: ExecutionId::mint(),
            tool: boarding.tool,
            provider: boarding.provider,
            rules: boarding.rules,
            keep: boarding.keep,
            about: boarding.about,
            stages: Stages::new(boarding.at),
            has_run: AtomicBool::new(true),
            taken_back: AtomicBool::new(false),
            outcome: OnceLock::new(),
            state: Mutex::new(state),
        };
        (Arc::new(flight), seat)
    }

    /// Takes a seat. A Run that waits in a queue waits in the highest class of all who have one.
    ///
    /// # Errors
    /// It cannot be boarded any more, or is full.
    pub fn board(&self, class: Priority, until: Deadline, can: Can) -> Result<SeatNo, NoSeat> {
        self.state.lock().take_seat(self.rules.max_waiters, class, until, can)
    }

    /// Looks, and is woken when there is more to see. `seen` is how much of the way was seen; `None`: the
    /// waiter does not care for it.
    pub fn look(&self, seat: SeatNo, seen: Option<&mut Seen>, cx: &mut Context<'_>) -> Poll<Sight> {
        // Nobody takes a call back once the doors are closed, and they are before there is an outcome.
        if let Some(outcome) = self.outcome.get()
            && !self.taken_back.load(Ordering::Acquire)
        {
            if let Some(seen) = seen
                && let Some(last) = self.state.lock().told.before_the_end(seen)
            {
                return Poll::Ready(Sight::New(last));
            }
            return Poll::Ready(Sight::Landed(outcome.clone()));
        }
        let mut state = self.state.lock();
        // Under the lock: whoever lands sets the outcome first and takes the seats after.
        match (state.seat(seat), self.outcome.get()) {
            // Even where it has landed since: who took its call back is told so, and gets no answer any more.
            (Some(Seat::Cancelled), _) | (None, None) => return Poll::Ready(Sight::Cancelled),
            (Some(Seat::Waiting { .. }) | None, Some(outcome)) => {
                let last = seen.and_then(|seen| state.told.before_the_end(seen));
                return Poll::Ready(last.map_or_else(|| Sight::Landed(outcome.clone()), Sight::New));
            }
            (Some(Seat::Waiting { waker, wants_more, .. }), None) => {
                if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
                *wants_more = seen.is_some();
            }
        }
        if let Some(sight) = state.question_for(seat) {
            return Poll::Ready(sight);
        }
        match seen.and_then(|seen| state.told.since(seen)) {
            Some(new) => Poll::Ready(Sight::New(new)),
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
        let Seat::Waiting { waker, class, .. } = std::mem::replace(place, Seat::Cancelled) else { return };
        self.taken_back.store(true, Ordering::Release);
        state.wait_no_more(class);
        let asked = state.ask_others(seat);
        let run = self.last_left(&mut state, Leaving::Cancelled);
        drop(state);
        wake([waker, run]);
        asked.into_iter().for_each(Waker::wake);
    }

    /// Gives a seat up. Says whether there will be an outcome to collect: the work goes on, or has ended by itself.
    pub fn leave(&self, seat: SeatNo, why: Leaving) -> bool {
        let mut state = self.state.lock();
        let place = state.stand_up(seat);
        state.promised |= why == Leaving::AnsweredEarly;
        let (mut run, mut asked) = (None, Vec::new());
        if let Some(Seat::Waiting { class, .. }) = place {
            state.wait_no_more(class);
            asked = state.ask_others(seat);
            run = self.last_left(&mut state, why);
        }
        let collectable = match state.life {
            Life::Flying | Life::Landed => true,
            Life::Stopping => false,
        };
        drop(state);
        wake([None, run]);
        asked.into_iter().for_each(Waker::wake);
        collectable
    }

    /// The table of "the last waiter leaves". Returns the Run's waker where the Run must look.
    fn last_left(&self, state: &mut State, why: Leaving) -> Option<Waker> {
        if state.waiting > 0 || state.promised || state.is_parked() || state.life != Life::Flying {
            return None;
        }
        state.stop = match (why, self.tool.effect) {
            (Leaving::Cancelled, Effect::Read | Effect::Idempotent | Effect::Write)
            | (Leaving::DeadlineCame, Effect::Read) => Stop::Now,
            (Leaving::ConnectionGone, Effect::Read) => Stop::At(Instant::now() + self.linger()),
            (Leaving::AnsweredEarly, Effect::Read)
            | (
                Leaving::AnsweredEarly | Leaving::DeadlineCame | Leaving::ConnectionGone,
                Effect::Idempotent | Effect::Write,
            ) => Stop::No,
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

    /// From here on nobody can board.
    pub(super) fn close_doors(&self) -> Doors {
        let mut state = self.state.lock();
        match std::mem::replace(&mut state.life, Life::Landed) {
            Life::Flying => Doors::Open,
            Life::Stopping => Doors::Stopped,
            Life::Landed => Doors::Closed,
        }
    }

    /// Lands: everybody aboard is answered. Only after [`Flight::close_doors`].
    pub(super) fn publish(&self, outcome: Outcome) {
        if self.outcome.set(outcome).is_err() {
            return;
        }
        let mut state = self.state.lock();
        // Who keeps the outcome keeps the flight.
        state.told.end();
        let questions = std::mem::take(&mut state.questions);
        let written = state.written.take();
        let seats = state.vacate();
        drop(state);
        drop((questions, written));
        for (_, seat) in seats {
            if let Seat::Waiting { waker: Some(waker), .. } = seat {
                waker.wake();
            }
        }
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

    /// How long its outcome answers equal calls after it has landed.
    pub fn keep(&self) -> Option<Duration> {
        self.keep
    }

    /// Its canonical arguments.
    pub fn arguments(&self) -> &[u8] {
        &self.arguments
    }

    /// Whether it was opened with these canonical arguments.
    pub fn has_arguments(&self, arguments: &[u8]) -> bool {
        *self.arguments == *arguments
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

    /// What is told of its Execution.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Where its Execution is.
    pub fn state(&self) -> ExecutionState {
        match self.outcome() {
            Some(outcome) => ExecutionState::Ended(outcome::execution_end(outcome)),
            None if self.stages.at(Phase::ProviderCallStart).is_some() => ExecutionState::Processing,
            None => ExecutionState::Allocated,
        }
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

fn wake(wakers: [Option<Waker>; 2]) {
    wakers.into_iter().flatten().for_each(Waker::wake);
}

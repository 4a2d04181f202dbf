//! A daemon and the model of it, side by side.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Event;
use crate::call::tests::rig::{Rig, TOOLS, code, error, pass, peek, secs, settle, text};
use crate::call::tests::stage::{Order, Progress};
use crate::call::{Answer, CallError, Caller, Code, Full, Options, Outcome, Submitted, Waiter};
use crate::ids::ExecutionId;
use crate::lifecycle::Role;
use crate::phase::Terminal;
use crate::tool::{Dedup, Effect, Worth};

const WORK: Duration = Duration::from_secs(4);
const QUEUE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_millis(7500);
const HALF: Duration = Duration::from_millis(500);

/// Principal, session where only that may share, tool, label.
type Key = (u32, Option<u64>, usize, usize);

/// A flight as the model sees it.
struct Air {
    key: Option<Key>,
    piece: usize,
    effect: Effect,
    worth: Worth,
    opened: Instant,
    order: Option<Order>,
    /// The last waiter has left in a way that stops it at once.
    stopping: bool,
    /// Nobody waits; it stops then.
    lingers: Option<Instant>,
    over: bool,
    /// What its first waiter was told, and with which Execution: all others must be told the same.
    told: Option<(Outcome, Option<ExecutionId>)>,
}

/// A caller that waits.
struct Seat {
    waiter: Waiter,
    flight: usize,
    role: Role,
    deadline: Instant,
    cancelled: bool,
}

pub(super) struct World {
    rig: Rig,
    callers: Vec<Caller>,
    flights: Vec<Air>,
    seats: Vec<Seat>,
    /// What answers later twins: a reply, or an error of this code.
    kept: HashMap<Key, Result<(), Code>>,
    hits: u64,
    submitted: u64,
    /// Calls by how they ended: completed, timeout, error, cancelled, rejected.
    ended: [u64; 5],
    draining: bool,
    halted: bool,
}

impl World {
    pub(super) fn new(rig: Rig) -> Self {
        let callers =
            [(0, 1), (0, 2), (1, 3), (1, 4)].map(|(principal, session)| rig.caller(principal, session));
        Self {
            rig,
            callers: callers.into(),
            flights: Vec::new(),
            seats: Vec::new(),
            kept: HashMap::new(),
            hits: 0,
            submitted: 0,
            ended: [0; 5],
            draining: false,
            halted: false,
        }
    }

    pub(super) async fn happens(&mut self, event: Event) {
        match event {
            Event::Call { who, tool, label, dedup, patience } => self.call(who, tool, label, dedup, patience),
            Event::Cancel(at) if !self.seats.is_empty() => self.cancel(at % self.seats.len()),
            Event::Disconnect(at) if !self.seats.is_empty() => self.disconnect(at % self.seats.len()),
            Event::Gate(at, order) => self.gate(at, order),
            Event::Settle => self.settle().await,
            Event::Second => {
                self.settle().await;
                for _ in 0..2 {
                    pass(HALF).await;
                    self.settle().await;
                }
            }
            Event::Drain => {
                self.rig.calls.start_draining();
                self.draining = true;
            }
            Event::Cancel(_) | Event::Disconnect(_) => {}
        }
    }

    /// The daemon goes: what waits is answered, then what works is cut off, and nothing is left.
    pub(super) async fn ends(mut self) {
        self.happens(Event::Drain).await;
        self.settle().await;
        self.rig.calls.stop_all();
        self.halted = true;
        self.settle().await;
        assert!(self.seats.is_empty(), "somebody still waits");
        self.rig.assert_at_rest();
        for caller in &self.callers {
            let slots = caller.session.slots.view();
            assert_eq!((slots.in_use, slots.queued), (0, 0));
        }
        let totals = self.rig.calls.watch().lifecycle().totals();
        let by_end = [totals.completed, totals.timeout, totals.error, totals.cancelled, totals.rejected];
        assert_eq!((totals.calls, by_end), (self.submitted, self.ended), "every waiter ends exactly once");
        assert_eq!(totals.cache_hits, self.hits);
        assert_eq!(totals.executions, u64::try_from(self.flights.len()).unwrap());
    }

    fn call(&mut self, who: usize, tool: usize, label: usize, dedup: Option<Dedup>, patience: Option<u64>) {
        let caller = self.callers[who].clone();
        let (name, effect, worth) = TOOLS[tool];
        let principal = caller.principal.id.0;
        let key = match dedup.unwrap_or(effect.default_dedup()) {
            Dedup::Principal => Some((principal, None, tool, label)),
            Dedup::Session => Some((principal, Some(caller.session.id.0), tool, label)),
            Dedup::Off => None,
        };
        let patience = patience.map(|whole| secs(whole) + HALF);
        let options = Options { dedup, timeout: patience, ..Options::default() };
        let submitted = self.rig.submit(&caller, name, &format!(r#"{{"k":"{label}"}}"#), options);
        self.submitted += 1;
        let deadline = Instant::now() + patience.unwrap_or(PATIENCE);
        if self.draining {
            return self.refused(submitted, &CallError::ShuttingDown);
        }
        if let Some(kept) = key.and_then(|key| self.kept.get(&key)) {
            let Submitted::Answered(answer) = submitted else {
                panic!("under way, though an outcome was kept")
            };
            assert_eq!((answer.role, answer.execution, code(&answer)), (Some(Role::Cache), None, kept.err()));
            self.hits += 1;
            return self.note(&answer);
        }
        let flies = |air: &Air| key.is_some() && air.key == key && !air.stopping && !self.is_over(air);
        if let Some(flight) = self.flights.iter().position(flies) {
            if self.waiting(flight) >= self.rig.config.limits.waiters {
                let full = Full::Waiters { limit: self.rig.config.limits.waiters };
                return self.refused(submitted, &CallError::Full { full, retry_after: Some(secs(1)) });
            }
            self.flights[flight].lingers = None;
            return self.sits_down(submitted, flight, Role::Follower, deadline);
        }
        let aloft = self.flights.iter().filter(|air| !self.is_over(air)).count();
        let limit = self.rig.config.limits.executions;
        if aloft >= limit {
            let full = Full::Executions { limit };
            return self.refused(submitted, &CallError::Full { full, retry_after: Some(secs(1)) });
        }
        let piece = self.rig.stage.last();
        let opened = Instant::now();
        let air = Air {
            key,
            piece,
            effect,
            worth,
            opened,
            order: None,
            stopping: false,
            lingers: None,
            over: false,
            told: None,
        };
        self.flights.push(air);
        self.sits_down(submitted, self.flights.len() - 1, Role::Leader, deadline);
    }

    fn refused(&mut self, submitted: Submitted, why: &CallError) {
        let Submitted::Answered(answer) = submitted else { panic!("under way, and not {why}") };
        assert_eq!((error(&answer), answer.execution, answer.role), (why, None, None));
        self.note(&answer);
    }

    fn sits_down(&mut self, submitted: Submitted, flight: usize, role: Role, deadline: Instant) {
        match submitted {
            Submitted::Waiting(waiter) => {
                self.seats.push(Seat { waiter, flight, role, deadline, cancelled: false });
            }
            Submitted::Answered(answer) => {
                // Only a full queue ends a Run at its first poll: no piece has an order from the start.
                assert_eq!((answer.role, role), (Some(Role::Leader), Role::Leader));
                assert_eq!(code(&answer), Some(Code::OverCapacity));
                assert_eq!(self.rig.stage.started(self.flights[flight].piece), None);
                self.flights[flight].over = true;
                self.note(&answer);
            }
        }
    }

    fn note(&mut self, answer: &Answer) {
        let terminal = code(answer).map_or(Terminal::Completed, Code::terminal);
        self.note_end(terminal);
    }

    fn note_end(&mut self, terminal: Terminal) {
        let place = match terminal {
            Terminal::Completed => 0,
            Terminal::Timeout => 1,
            Terminal::Error => 2,
            Terminal::Cancelled => 3,
            Terminal::Rejected => 4,
        };
        self.ended[place] += 1;
    }

    fn progress(&self, air: &Air) -> Progress {
        self.rig.stage.progress(air.piece)
    }

    fn is_over(&self, air: &Air) -> bool {
        air.over || matches!(self.progress(air), Progress::Ended | Progress::CutOff)
    }

    fn waiting(&self, flight: usize) -> usize {
        self.seats.iter().filter(|seat| seat.flight == flight && !seat.cancelled).count()
    }

    fn cancel(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        seat.waiter.cancel_handle().cancel();
        if seat.cancelled {
            // It has left already: saying so again changes nothing for who waits, or lingers, since.
            return;
        }
        let flight = seat.flight;
        let landed = self.rig.stage.progress(self.flights[flight].piece);
        if matches!(landed, Progress::Ended | Progress::CutOff) {
            return;
        }
        self.seats[at].cancelled = true;
        if self.waiting(flight) == 0 {
            self.flights[flight].stopping = true;
        }
    }

    fn disconnect(&mut self, at: usize) {
        let Seat { waiter, flight, cancelled, .. } = self.seats.swap_remove(at);
        drop(waiter);
        self.note_end(Terminal::Cancelled);
        if cancelled || self.waiting(flight) > 0 {
            return;
        }
        let air = &mut self.flights[flight];
        if air.effect == Effect::Read && !air.stopping {
            let linger = if air.worth == Worth::Paid { self.rig.config.reattach } else { secs(2) };
            air.lingers = Some(Instant::now() + linger);
        }
    }

    /// Only work that runs is told how to end.
    fn gate(&mut self, at: usize, order: Order) {
        let stage = &self.rig.stage;
        let runs = |air: &&mut Air| stage.progress(air.piece) == Progress::Running && air.order.is_none();
        let mut running: Vec<_> = self.flights.iter_mut().filter(runs).collect();
        if running.is_empty() {
            return;
        }
        let place = at % running.len();
        running[place].order = Some(order.clone());
        stage.order(running[place].piece, order);
    }

    /// Everything runs that can; then the daemon is held against the model, until neither changes.
    async fn settle(&mut self) {
        loop {
            settle().await;
            for at in 0..self.flights.len() {
                self.hold_flight(at);
            }
            if !self.hold_seats() {
                break;
            }
        }
        self.hold_sums();
    }

    /// A flight ends when there is a reason, and only then.
    fn hold_flight(&mut self, at: usize) {
        let air = &self.flights[at];
        if air.over {
            return;
        }
        let (now, started) = (Instant::now(), self.rig.stage.started(air.piece));
        let worked_out = started.is_some_and(|started| started + WORK <= now);
        let waited_out = started.is_none() && air.opened + QUEUE <= now;
        let lingered_out = air.lingers.is_some_and(|until| until <= now);
        let drained = self.halted || self.draining && started.is_none();
        let cut = air.stopping || worked_out || waited_out || lingered_out || drained;
        let allowed: &[Progress] = match (cut, &air.order) {
            (false, Some(_)) => &[Progress::Ended],
            (true, Some(_)) => &[Progress::Ended, Progress::CutOff],
            (true, None) => &[Progress::CutOff],
            (false, None) if started.is_some() => &[Progress::Running],
            // In its turn for a slot it may find the provider's queue full; its seats are told so.
            (false, None) => &[Progress::Ready, Progress::CutOff],
        };
        let progress = self.progress(air);
        assert!(allowed.contains(&progress), "flight {at} is {progress:?} where the model says {allowed:?}");
        if !matches!(progress, Progress::Ended | Progress::CutOff) {
            return;
        }
        if let Some((key, code)) = air.key.zip(self.keeps(air)) {
            self.kept.insert(key, code);
        }
        self.flights[at].over = true;
    }

    /// With what a flight that is over answers later twins: it was guarded, was not stopped, and came to a reply
    /// or, as a write, to nobody knows what.
    fn keeps(&self, air: &Air) -> Option<Result<(), Code>> {
        let guarded = air.key.is_some_and(|(_, session, ..)| session.is_some());
        let lingered_out = air.lingers.is_some_and(|until| until <= Instant::now());
        if self.rig.config.guard_window.is_zero() || !guarded || air.stopping || lingered_out {
            return None;
        }
        let write = air.effect == Effect::Write;
        match (self.progress(air), &air.order) {
            (Progress::Ended, Some(Order::Answer(_))) => Some(Ok(())),
            (Progress::Ended, Some(order)) if *order == Order::refused() => None,
            (Progress::Ended, _) => write.then_some(Err(Code::OutcomeUnknown)),
            (_, _) if self.rig.stage.started(air.piece).is_some() => {
                write.then_some(Err(Code::OutcomeUnknown))
            }
            (_, _) => None,
        }
    }

    /// Every seat is told what it must be told, and nothing else. Says whether somebody left.
    fn hold_seats(&mut self) -> bool {
        let now = Instant::now();
        let (mut left, mut at) = (false, 0);
        while at < self.seats.len() {
            let (flight, cancelled) = (self.seats[at].flight, self.seats[at].cancelled);
            let due = cancelled || self.flights[flight].over || self.seats[at].deadline <= now;
            let Some(answer) = peek(&mut self.seats[at].waiter) else {
                assert!(!due, "seat {at} of flight {flight} is not told of its end");
                at += 1;
                continue;
            };
            assert!(due, "seat {at} of flight {flight} is told {:?}", answer.outcome);
            let role = self.seats.remove(at).role;
            self.note(&answer);
            assert_eq!(answer.role, Some(role));
            if cancelled {
                assert_eq!(error(&answer), &CallError::Cancelled);
            } else if self.flights[flight].over {
                self.hold_answer(flight, &answer);
            } else {
                left = true;
                self.gave_up(flight, &answer);
            }
        }
        left
    }

    fn gave_up(&mut self, flight: usize, answer: &Answer) {
        let alone = self.waiting(flight) == 0;
        let air = &mut self.flights[flight];
        let stops = alone && air.effect == Effect::Read;
        assert_eq!((code(answer), error(answer).still_running()), (Some(Code::Timeout), !stops));
        air.stopping |= stops;
    }

    /// The same for all of one generation, and what its end was.
    fn hold_answer(&mut self, flight: usize, answer: &Answer) {
        if let Some((told, execution)) = &self.flights[flight].told {
            let same = match (told, &answer.outcome) {
                (Ok(one), Ok(other)) => Arc::ptr_eq(one, other),
                (Err(one), Err(other)) => Arc::ptr_eq(one, other),
                (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
            };
            assert!(same && *execution == answer.execution, "two of one generation were told two things");
            return;
        }
        let air = &self.flights[flight];
        let write = air.effect == Effect::Write;
        let unless_write = |code| if write { Code::OutcomeUnknown } else { code };
        let started = self.rig.stage.started(air.piece).is_some();
        let expected: &[Option<Code>] = match (self.progress(air), &air.order) {
            (Progress::Ended, Some(Order::Answer(expected))) => {
                assert_eq!(&text(answer), expected);
                &[None]
            }
            (Progress::Ended, Some(Order::Panic)) => &[Some(unless_write(Code::InternalError))],
            (Progress::Ended, Some(order)) if *order == Order::refused() => &[Some(Code::ProviderError)],
            (Progress::Ended, _) => &[Some(unless_write(Code::ProviderError))],
            (_, _) if started && self.halted => {
                &[Some(unless_write(Code::ShuttingDown)), Some(unless_write(Code::Timeout))]
            }
            (_, _) if started => &[Some(unless_write(Code::Timeout))],
            (_, _) if self.draining => {
                &[Some(Code::ShuttingDown), Some(Code::QueueTimeout), Some(Code::OverCapacity)]
            }
            (_, _) if air.opened + QUEUE <= Instant::now() => {
                &[Some(Code::QueueTimeout), Some(Code::OverCapacity)]
            }
            (_, _) => &[Some(Code::OverCapacity)],
        };
        assert!(expected.contains(&code(answer)), "{:?} where the model says {expected:?}", answer.outcome);
        self.flights[flight].told = Some((answer.outcome.clone(), answer.execution));
    }

    fn hold_sums(&self) {
        let aloft: Vec<_> = self.flights.iter().filter(|air| !air.over).collect();
        let mut keys: Vec<_> = aloft.iter().filter_map(|air| air.key).collect();
        keys.sort_unstable();
        keys.dedup();
        let keyed = aloft.iter().filter(|air| air.key.is_some()).count();
        assert_eq!(keys.len(), keyed, "two generations of one key fly at once");
        let flights = self.rig.calls.flights();
        assert_eq!((flights.keys(), flights.executions()), (keyed, aloft.len()));
        assert!(flights.without_run().is_empty());
        assert_eq!(self.rig.calls.watch().active(), self.seats.len());
        let running = aloft.iter().filter(|air| self.progress(air) == Progress::Running).count();
        assert_eq!(self.rig.calls.leases().holders().len(), running);
        let (global, providers) = self.rig.calls.pools();
        let offline = providers.last().unwrap().1;
        assert_eq!(global.in_use, running, "only work holds the global permit");
        assert!(
            global.in_use <= global.limit && offline.in_use <= offline.limit && running <= offline.in_use
        );
        assert!(offline.queued <= self.rig.config.limits.queue);
        for caller in &self.callers {
            let slots = caller.session.slots.view();
            assert!(slots.in_use <= slots.limit);
            assert!(slots.queued == 0 || slots.in_use == slots.limit, "nobody waits beside a free slot");
        }
        let idle = offline.in_use < offline.limit && offline.queued > 0;
        assert!(!idle, "nobody waits beside a free permit");
    }
}

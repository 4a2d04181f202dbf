//! Calls in the air, by key: the one place where a key is looked up, inserted and removed.

use std::sync::Arc;

#[cfg(not(all(test, feature = "shuttle")))]
use dashmap::{DashMap, Entry};
use tokio::time::Instant;

use crate::call::cache::OutcomeCache;
use crate::call::flight::{Boarding, Doors, Flight, NoSeat, SeatNo, Unread, Written};
use crate::call::key::{BuildKeyHasher, CallKey};
use crate::call::outcome::{self, CallError, Full, Outcome};
use crate::lifecycle::Executions;
use crate::phase::Phase;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::tool::{Effect, Tool};

#[cfg(all(test, feature = "shuttle"))]
mod one_lock;
mod written;

#[cfg(all(test, feature = "shuttle"))]
use one_lock::{Entry, OneLock as DashMap};
use written::ByText;
pub use written::{Asked, Found};

/// The flights of a daemon, and how many Executions they may be.
#[derive(Debug)]
pub struct Flights {
    by_key: DashMap<CallKey, Arc<Flight>, BuildKeyHasher>,
    by_text: ByText,
    cache: OutcomeCache,
    generations: AtomicU64,
    executions: Executions,
}

/// How a caller came aboard.
pub enum Aboard {
    /// It joined a flight in the air.
    Joined(Arc<Flight>, SeatNo),
    /// It opened one, whose Run is still to be started under this guard.
    Opened(RunGuard, SeatNo),
}

impl Flights {
    /// No flights yet, and room for `max_executions`; outcomes that answer later calls go to `cache`.
    pub fn new(max_executions: usize, cache: OutcomeCache) -> Self {
        Self {
            by_key: DashMap::with_hasher(BuildKeyHasher::default()),
            by_text: ByText::default(),
            cache,
            generations: AtomicU64::new(0),
            executions: Executions::new(max_executions),
        }
    }

    /// Joins the flight in the air, or opens one: one atomic step for each key.
    ///
    /// # Errors
    /// The flight has too many waiters, or there are too many Executions.
    pub fn board(self: &Arc<Self>, boarding: Boarding) -> Result<Aboard, CallError> {
        let Some(key) = boarding.key else { return self.open(boarding, |_| ()) };
        match self.by_key.entry(key) {
            Entry::Vacant(vacant) => self.open(boarding, |flight| {
                vacant.insert(Arc::clone(flight));
            }),
            Entry::Occupied(mut occupied) => {
                let flight = occupied.get();
                if !flight.has_arguments(&boarding.arguments) {
                    // Two texts of one digest, made on purpose or by a chance of 1 in 2^128: each its own.
                    let alone = Boarding { key: None, ..boarding };
                    drop(occupied);
                    return self.open(alone, |_| ());
                }
                match flight.board(boarding.priority, boarding.until, boarding.can) {
                    Ok(seat) => Ok(Aboard::Joined(Arc::clone(flight), seat)),
                    Err(NoSeat::Full) => {
                        let full = Full::Waiters { limit: boarding.rules.max_waiters };
                        Err(CallError::Full { full, retry_after: Some(std::time::Duration::from_secs(1)) })
                    }
                    Err(NoSeat::Over) => self.open(boarding, |next| {
                        occupied.insert(Arc::clone(next));
                    }),
                }
            }
        }
    }

    /// What a call that is written like this is likely to find, unread.
    pub fn written_so(&self, call: &Unread<'_>) -> Option<Found> {
        self.by_text.find(call)
    }

    /// Calls that are written like this one, which opened the flight, can come aboard unread.
    pub fn was_written(&self, call: &Unread<'_>, flight: &Arc<Flight>) {
        if call.text.len() <= written::LONGEST && flight.was_written(call) {
            self.by_text.note_flight(call, flight);
        }
    }

    /// Calls that are written like this one find the outcome that was kept unread.
    pub fn was_kept(
        &self,
        call: &Unread<'_>,
        key: CallKey,
        arguments: &[u8],
        (tool, provider): (&Arc<Tool>, &Arc<str>),
    ) {
        if call.text.len() > written::LONGEST_KEPT || arguments.len() > written::LONGEST_KEPT {
            return;
        }
        let (tool, provider) = (Arc::clone(tool), Arc::clone(provider));
        let asked = Asked { written: Written::by(call), key, arguments: arguments.into(), tool, provider };
        self.by_text.note_kept(call, asked);
    }

    /// The outcome that was kept of what this call asks, if it is young enough.
    pub fn kept(&self, call: &Unread<'_>, asked: &Asked) -> Option<Outcome> {
        let kept = self.cache.find(&asked.key, &asked.arguments);
        if kept.is_none() {
            self.by_text.forget(call);
        }
        kept
    }

    fn open(
        self: &Arc<Self>,
        boarding: Boarding,
        list: impl FnOnce(&Arc<Flight>),
    ) -> Result<Aboard, CallError> {
        if !self.executions.open() {
            let full = Full::Executions { limit: self.executions.limit() };
            return Err(CallError::Full { full, retry_after: Some(std::time::Duration::from_secs(1)) });
        }
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let (flight, seat) = Flight::open(boarding, generation);
        list(&flight);
        Ok(Aboard::Opened(RunGuard { flights: Arc::clone(self), flight, landed: false }, seat))
    }

    /// Outcomes that answer equal calls after their flight has landed.
    pub fn cache(&self) -> &OutcomeCache {
        &self.cache
    }

    /// Fills the cache, frees the key, then answers everybody aboard: whoever finds no flight finds the outcome. A
    /// second landing is dropped.
    fn land(&self, flight: &Flight, outcome: Outcome, is_new: bool) {
        let doors = flight.close_doors();
        if doors == Doors::Closed {
            return;
        }
        if let Some(key) = flight.key() {
            // What a stopped flight still came to answers nobody: an equal call is the next generation's.
            if let Some(ttl) = flight.keep().filter(|_| is_new && doors == Doors::Open) {
                self.cache.fill(*key, flight.arguments(), &outcome, ttl);
            }
            self.by_key.remove_if(key, |_, listed| listed.generation() == flight.generation());
        }
        if is_new {
            self.count(flight, &outcome);
        }
        // Before anybody is answered: whoever is may call again at once, and finds a place.
        self.executions.close();
        flight.publish(outcome);
    }

    /// Counts an Execution as ended. Only what lands first comes here, so each is counted as one of the ends.
    fn count(&self, flight: &Flight, outcome: &Outcome) {
        let stages = flight.stages();
        if stages.at(Phase::SessionReleased).is_none() {
            // Its Run was lost before it could say so; by now it holds nothing.
            let end = Instant::now();
            if stages.at(Phase::ProviderCallStart).is_some() {
                stages.mark(Phase::ProviderCallEnd, end);
            }
            stages.mark(Phase::SessionReleased, end);
        }
        let marks = stages.marks();
        if outcome::is_partial(outcome) {
            self.executions.was_partial();
        }
        let took = marks.at(Phase::SessionReleased).unwrap_or_default();
        self.executions.ended(outcome::execution_end(outcome), &marks, took);
    }

    /// Executions that wait or work.
    pub fn executions(&self) -> usize {
        self.executions.active()
    }

    /// How many Executions there were, and how they ended.
    pub fn statistics(&self) -> &Executions {
        &self.executions
    }

    /// Keys in the map.
    pub fn keys(&self) -> usize {
        self.by_key.len()
    }

    /// Flights in the map for which nobody works: there must be none.
    pub fn without_run(&self) -> Vec<Arc<Flight>> {
        let flights = self.by_key.iter().filter(|entry| !entry.value().has_run());
        flights.map(|entry| Arc::clone(entry.value())).collect()
    }
}

/// Lands the flight with an error if its Run is lost: it panicked, or its task was aborted.
#[must_use = "without its guard a lost Run would answer nobody"]
#[derive(Debug)]
pub struct RunGuard {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
    landed: bool,
}

impl RunGuard {
    /// Whose Run it guards.
    pub fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// The Run ended, with this: everybody is answered.
    pub fn land(&mut self, outcome: Outcome) {
        self.landed = true;
        self.flights.land(&self.flight, outcome, true);
    }

    /// No Run is needed: an equal flight's outcome was kept, and stays kept no longer for it.
    pub fn land_kept(mut self, outcome: Outcome) {
        self.landed = true;
        self.flights.land(&self.flight, outcome, false);
    }
}

impl Drop for RunGuard {
    fn drop(&mut self) {
        if !self.landed {
            self.flights.land(&self.flight, Err(Arc::new(lost(&self.flight))), true);
        }
        self.flight.run_ended();
    }
}

/// A write that had begun may have been done: nobody is to be told that sending it again is fine.
fn lost(flight: &Flight) -> CallError {
    let began = flight.stages().at(Phase::ProviderCallStart).is_some();
    match flight.tool().effect {
        Effect::Write if began => {
            CallError::OutcomeUnknown { tool: Arc::clone(&flight.tool().name), what: "was lost" }
        }
        Effect::Write | Effect::Read | Effect::Idempotent => CallError::Lost,
    }
}

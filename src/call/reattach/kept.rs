//! The calls of one session key: under way, left behind, and ended.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::call::flight::{Flight, SeatNo};
use crate::call::outcome::CallError;
use crate::ids::RequestId;
use crate::phase::Phase;

/// Outcomes kept under one session key.
pub(super) const OUTCOMES: usize = 64;
/// Their bytes together.
pub(super) const BYTES: usize = 4 << 20;
/// What all session keys together keep. Above it, whoever comes to keep more keeps less.
pub(super) const ALL_BYTES: usize = 256 << 20;
/// Calls under one session key, whatever their state: as many as one connection may have under way, and the kept.
const CALLS: usize = 1024 + OUTCOMES;
/// What a kept call takes beside its flight's arguments and reply.
const ENTRY_BYTES: usize = 512;

/// Everything under one session key.
#[derive(Debug)]
pub(super) struct State {
    calls: HashMap<Arc<str>, Entry>,
    /// Calls whose outcome is kept, the oldest first.
    kept: VecDeque<Arc<str>>,
    bytes: usize,
    /// Calls whose waiter left before they landed.
    left: Vec<Arc<str>>,
    used: Instant,
}

#[derive(Debug)]
struct Entry {
    /// Who came with it last: one that was replaced changes nothing any more.
    request: RequestId,
    seat: SeatNo,
    flight: Arc<Flight>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    UnderWay,
    Left,
    Kept { since: Instant, bytes: usize },
}

impl State {
    pub(super) fn new(now: Instant) -> Self {
        Self { calls: HashMap::new(), kept: VecDeque::new(), bytes: 0, left: Vec::new(), used: now }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn kept(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn used(&self) -> Instant {
        self.used
    }

    pub(super) fn touch(&mut self, now: Instant) {
        self.used = now;
    }

    /// A call is under way. One too many is not remembered, unless somebody left one behind.
    pub(super) fn begin(&mut self, id: &Arc<str>, request: RequestId, seat: SeatNo, flight: &Arc<Flight>) {
        self.used = Instant::now();
        self.remove(id);
        if self.calls.len() >= CALLS && !self.drop_oldest() && !self.drop_left() {
            return;
        }
        let entry = Entry { request, seat, flight: Arc::clone(flight), stage: Stage::UnderWay };
        self.calls.insert(Arc::clone(id), entry);
    }

    /// A call was answered.
    pub(super) fn keep(&mut self, id: &Arc<str>, request: RequestId) {
        self.keep_since(id, request, Instant::now());
    }

    fn keep_since(&mut self, id: &Arc<str>, request: RequestId, since: Instant) {
        let Some(entry) = self.calls.get_mut(id).filter(|entry| entry.request == request) else { return };
        let bytes = ENTRY_BYTES + id.len() + entry.flight.bytes();
        entry.stage = Stage::Kept { since, bytes };
        self.bytes += bytes;
        self.kept.push_back(Arc::clone(id));
    }

    /// A call's waiter is gone.
    pub(super) fn leave(&mut self, id: &Arc<str>, request: RequestId) {
        let Some(entry) = self.calls.get_mut(id).filter(|entry| entry.request == request) else { return };
        entry.stage = Stage::Left;
        self.left.push(Arc::clone(id));
    }

    /// A call was taken back by its waiter.
    pub(super) fn forget(&mut self, id: &str, request: RequestId) {
        if self.calls.get(id).is_some_and(|entry| entry.request == request) {
            self.remove(id);
        }
    }

    /// The flight of a call, and where its last waiter sat.
    pub(super) fn find(&self, id: &str, oldest: Option<Instant>) -> Option<(Arc<Flight>, SeatNo)> {
        let entry = self.calls.get(id)?;
        match (entry.stage, oldest) {
            // Gathered behind a younger one.
            (Stage::Kept { since, .. }, Some(oldest)) if since <= oldest => None,
            (Stage::Kept { .. } | Stage::UnderWay | Stage::Left, _) => {
                Some((Arc::clone(&entry.flight), entry.seat))
            }
        }
    }

    /// The same, and forgets it.
    pub(super) fn take(&mut self, id: &str) -> Option<(Arc<Flight>, SeatNo)> {
        let entry = self.remove(id)?;
        Some((entry.flight, entry.seat))
    }

    fn remove(&mut self, id: &str) -> Option<Entry> {
        let entry = self.calls.remove(id)?;
        match entry.stage {
            Stage::UnderWay => {}
            Stage::Left => self.left.retain(|other| **other != *id),
            Stage::Kept { bytes, .. } => {
                self.bytes -= bytes;
                self.kept.retain(|other| **other != *id);
            }
        }
        Some(entry)
    }

    /// Forgets the oldest outcome; says whether there was one.
    pub(super) fn drop_oldest(&mut self) -> bool {
        let Some(id) = self.kept.pop_front() else { return false };
        if let Some(Entry { stage: Stage::Kept { bytes, .. }, .. }) = self.calls.remove(&id) {
            self.bytes -= bytes;
        }
        true
    }

    fn drop_left(&mut self) -> bool {
        let oldest = self.left.first().cloned();
        oldest.is_some_and(|id| self.remove(&id).is_some())
    }

    /// Keeps what was left behind and has landed since, and lets go of what is too old or too much.
    pub(super) fn tidy(&mut self, now: Instant, kept_for: Duration) {
        if !self.left.is_empty() {
            self.gather(now);
        }
        while let Some(oldest) = self.kept.front() {
            let too_old = match self.calls.get(oldest).map(|entry| entry.stage) {
                Some(Stage::Kept { since, .. }) => now.saturating_duration_since(since) >= kept_for,
                Some(Stage::UnderWay | Stage::Left) | None => true,
            };
            if !too_old && self.kept.len() <= OUTCOMES && self.bytes <= BYTES {
                return;
            }
            self.drop_oldest();
        }
    }

    fn gather(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.left) {
            let Some(entry) = self.calls.get(&id) else { continue };
            match entry.flight.outcome() {
                None => {
                    self.left.push(id);
                    continue;
                }
                // Stopped while nobody waited: there is nothing to collect.
                Some(Err(error)) if **error == CallError::Cancelled => {
                    self.calls.remove(&id);
                    continue;
                }
                Some(_) => {}
            }
            // Age counts from its landing, which nobody looked at.
            let stages = entry.flight.stages();
            let landed = stages.at(Phase::SessionReleased).map_or(now, |at| stages.start() + at);
            let request = entry.request;
            self.keep_since(&id, request, landed);
        }
    }
}

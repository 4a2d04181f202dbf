//! What the work tells on its way reaches whoever waits and wants it.

use std::sync::Arc;
use std::task::Waker;

use crate::call::flight::{Flight, Seat, State};
use crate::provider::{Level, Logged, Step, Tell};

impl Tell for Flight {
    fn text(&self, piece: &str) {
        if piece.is_empty() {
            return;
        }
        self.stages.mark_first_byte();
        let mut state = self.state.lock();
        state.told.push(piece);
        let wakers = wanted_by(&state);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn step(&self, step: Step) {
        // No JSON number says it.
        if !step.progress.is_finite() || step.total.is_some_and(|total| !total.is_finite()) {
            return;
        }
        let mut state = self.state.lock();
        state.told.step(step);
        let wakers = wanted_by(&state);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn log(&self, logged: Arc<Logged>) {
        let mut state = self.state.lock();
        if !state.told.log(logged) {
            return;
        }
        let wakers = wanted_by(&state);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn log_level(&self) -> Option<Level> {
        self.state.lock().told.log_level()
    }
}

impl Flight {
    /// Somebody who waits wants to read the log of the work from this level on.
    pub fn wants_log(&self, level: Level) {
        self.state.lock().told.wants_log(level);
    }
}

/// Whom to wake.
pub(super) fn wanted_by(state: &State) -> Vec<Waker> {
    let wanted = state.seats.iter().filter_map(|(_, seat)| match seat {
        Seat::Waiting { waker, wants_more: true, .. } => waker.clone(),
        Seat::Waiting { .. } | Seat::Cancelled => None,
    });
    wanted.collect()
}

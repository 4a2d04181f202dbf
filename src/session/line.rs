//! Requests of a client that is answered strictly in order: those behind a call that runs wait here.

use std::collections::VecDeque;

use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::proto::{Turn, WAIT_FOR_TURN};

/// Answers that wait behind them, refusals mostly. A client that makes more does not wait for any.
const ANSWERS: usize = 1024;

/// What is next.
pub(super) enum Next {
    /// A request.
    Frame(Utf8Bytes),
    /// The answer to one that was read already.
    Answer(String),
}

/// More answers wait than may.
pub(super) struct Overflow;

/// The line of one connection; one that is not answered in order never uses it.
pub(super) struct Line {
    /// A call runs, and everything waits for its answer.
    taken: bool,
    waiting: VecDeque<Next>,
    frames: usize,
    bytes: usize,
    limit: usize,
}

impl Line {
    /// Room for requests of `limit` bytes together.
    pub(super) fn new(limit: usize) -> Self {
        Self { taken: false, waiting: VecDeque::new(), frames: 0, bytes: 0, limit }
    }

    /// What becomes of a request of so many bytes.
    pub(super) fn turn(&self, bytes: usize) -> Turn {
        if !self.taken && self.waiting.is_empty() {
            Turn::Free
        } else if self.frames < WAIT_FOR_TURN && self.bytes + bytes <= self.limit {
            Turn::Taken
        } else {
            Turn::Full
        }
    }

    /// A call runs from now on.
    pub(super) fn take(&mut self) {
        self.taken = true;
    }

    /// That call was answered.
    pub(super) fn leave(&mut self) {
        self.taken = false;
    }

    /// Keeps a request until its turn.
    pub(super) fn wait(&mut self, frame: Utf8Bytes) {
        self.frames += 1;
        self.bytes += frame.len();
        self.waiting.push_back(Next::Frame(frame));
    }

    /// Keeps an answer until its turn, or gives it back if that is now.
    pub(super) fn answer(&mut self, text: String) -> Result<Option<String>, Overflow> {
        if !self.taken && self.waiting.is_empty() {
            return Ok(Some(text));
        }
        if self.waiting.len() - self.frames >= ANSWERS {
            return Err(Overflow);
        }
        self.waiting.push_back(Next::Answer(text));
        Ok(None)
    }

    /// Whether somebody waits who has the turn now.
    pub(super) fn moves_on(&self) -> bool {
        !self.taken && !self.waiting.is_empty()
    }

    /// Who has the turn now.
    pub(super) fn next(&mut self) -> Option<Next> {
        if self.taken {
            return None;
        }
        let next = self.waiting.pop_front()?;
        if let Next::Frame(frame) = &next {
            self.frames -= 1;
            self.bytes -= frame.len();
        }
        if self.waiting.is_empty() {
            // An idle connection keeps no memory for a burst.
            self.waiting = VecDeque::new();
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_wait_up_to_a_count_and_a_number_of_bytes() {
        let mut line = Line::new(1000);
        assert_eq!(line.turn(2000), Turn::Free);
        line.take();
        line.wait("x".repeat(900).into());
        assert_eq!((line.turn(100), line.turn(101)), (Turn::Taken, Turn::Full));
        (1..WAIT_FOR_TURN).for_each(|_| line.wait("".into()));
        assert_eq!(line.turn(0), Turn::Full);
    }

    #[test]
    fn answers_keep_their_place_and_have_a_bound() {
        let mut line = Line::new(1000);
        assert!(matches!(line.answer("now".into()), Ok(Some(_))));
        line.take();
        line.wait("first".into());
        (0..ANSWERS).for_each(|_| assert!(matches!(line.answer("behind".into()), Ok(None))));
        assert!(line.answer("one more".into()).is_err());
        assert!(!line.moves_on() && line.next().is_none());
        line.leave();
        assert!(matches!(line.next(), Some(Next::Frame(_))));
        assert!(matches!(line.next(), Some(Next::Answer(_))) && line.moves_on());
    }
}

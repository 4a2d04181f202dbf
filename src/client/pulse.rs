//! Is the daemon still there? A ping every ten seconds, and ten seconds to answer it.

use std::time::{Duration, Instant};

/// Between two pings. Often enough that a call's typed failure comes well before its client gives up.
const PING_EVERY: Duration = Duration::from_secs(10);
/// A daemon on the same machine that needs longer than this is stuck.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    /// Nothing is due.
    Rest,
    /// Send a ping.
    Ping,
    /// The last ping went unanswered.
    Dead,
}

/// When the next ping is due, and by when the last one must be answered.
#[derive(Debug)]
pub(super) struct Pulse {
    ping_at: Instant,
    answer_by: Option<Instant>,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self { ping_at: now + PING_EVERY, answer_by: None }
    }

    /// When [`Pulse::step`] has something to say at the earliest.
    pub(super) fn next(&self) -> Instant {
        self.answer_by.map_or(self.ping_at, |by| by.min(self.ping_at))
    }

    /// Anything that arrives proves life: a pong may wait behind a large message.
    pub(super) fn alive(&mut self) {
        self.answer_by = None;
    }

    /// Decides, and takes note of a ping that it asks for.
    pub(super) fn step(&mut self, now: Instant) -> Beat {
        if self.answer_by.is_some_and(|by| by <= now) {
            return Beat::Dead;
        }
        if self.ping_at > now {
            return Beat::Rest;
        }
        self.ping_at = now + PING_EVERY;
        self.answer_by.get_or_insert(now + ANSWER_WITHIN);
        Beat::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_daemon_is_asked_once_and_then_given_up() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.step(start), Beat::Rest);
        assert_eq!(pulse.step(start + PING_EVERY), Beat::Ping);
        assert_eq!(pulse.step(pulse.next()), Beat::Dead);
    }

    #[test]
    fn whatever_arrives_after_a_ping_keeps_the_connection() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        let asked = start + PING_EVERY;
        assert_eq!(pulse.step(asked), Beat::Ping);
        pulse.alive();
        assert_eq!(pulse.step(asked + PING_EVERY), Beat::Ping);
    }

    #[test]
    fn a_busy_connection_is_pinged_as_often_as_a_quiet_one() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        pulse.alive();
        assert_eq!(pulse.next(), start + PING_EVERY);
    }
}

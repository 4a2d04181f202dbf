//! One timer a connection: for its hello, its pings, and the heartbeat of its calls.

use std::future::Future;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::Timer;

/// How long a client may take to say hello.
const HELLO: Duration = Duration::from_secs(15);
/// Between two pings of a quiet connection.
const PING: Duration = Duration::from_secs(30);
/// How long a pinged peer may stay silent.
const PONG: Duration = Duration::from_secs(10);
/// Between two signs of life of a call.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(5);

/// What the timer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    /// Ask the peer whether it lives.
    Ping,
    /// It did not say hello.
    HelloMissing,
    /// It did not answer the ping.
    Silent,
    /// Tell of calls under way.
    Heartbeat,
    /// A call's own deadline has come.
    CallsEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    Hello,
    Quiet,
    Pong,
}

/// When something is due. The timer is moved only when it fires: a busy connection pays nothing for it.
pub(super) struct Pulse {
    timer: Timer,
    waits: Waits,
    since: Instant,
    heard: Instant,
    heartbeat: Option<Instant>,
    calls_end: Option<Instant>,
    /// What the timer stands at.
    aimed: Instant,
    /// The clock, if it was read since the task was woken: the timer itself lies elsewhere, and is looked at only if it may
    /// have fired.
    now: Option<Instant>,
    /// The timer was moved, and not looked at since.
    moved: bool,
}

impl Pulse {
    /// A connection that has just begun.
    pub(super) fn new(awaits_hello: bool) -> Self {
        let now = Instant::now();
        let waits = if awaits_hello { Waits::Hello } else { Waits::Quiet };
        let mut pulse = Self {
            timer: Box::pin(tokio::time::sleep_until(now)),
            waits,
            since: now,
            heard: now,
            heartbeat: None,
            calls_end: None,
            aimed: now,
            now: None,
            moved: true,
        };
        pulse.aim();
        pulse
    }

    /// The task was woken, nobody knows when.
    pub(super) fn woken(&mut self) {
        self.now = None;
    }

    /// It is this late.
    pub(super) fn is(&mut self, now: Instant) {
        self.now = Some(now);
    }

    /// The peer sent something.
    pub(super) fn heard(&mut self) {
        self.heard = Instant::now();
        self.is(self.heard);
    }

    /// The peer said hello.
    pub(super) fn greeted(&mut self) {
        if self.waits == Waits::Hello {
            self.waits = Waits::Quiet;
            self.since = self.heard;
        }
    }

    /// A call is under way whose caller wants signs of life.
    pub(super) fn wants_heartbeat(&mut self) {
        if self.heartbeat.is_none() {
            self.heartbeat = Some(Instant::now() + HEARTBEAT);
            self.aim();
        }
    }

    /// A call is under way whose own deadline comes then.
    pub(super) fn calls_end_at(&mut self, until: Instant) {
        if self.calls_end.is_none_or(|known| until < known) {
            self.calls_end = Some(until);
            self.aim();
        }
    }

    /// Whether the timer is to be looked at: it was moved, or may have fired. One that woke the task had fired before the
    /// clock was read, and does not fire early.
    pub(super) fn is_due(&self) -> bool {
        self.moved || self.now.map_or_else(|| self.timer.is_elapsed(), |now| now >= self.aimed)
    }

    fn due(&self) -> Instant {
        match self.waits {
            Waits::Hello => self.since + HELLO,
            Waits::Quiet => self.heard.max(self.since) + PING,
            Waits::Pong => self.since + PONG,
        }
    }

    /// Moves the timer forward to what is due first. It is never moved back: firing early costs less than moving
    /// it with every call.
    fn aim(&mut self) {
        let next = [self.heartbeat, self.calls_end].into_iter().flatten().fold(self.due(), Instant::min);
        if next < self.aimed || self.timer.is_elapsed() {
            self.timer.as_mut().reset(next);
            self.aimed = next;
            self.moved = true;
        }
    }

    /// The next beat.
    pub(super) fn poll_beat(&mut self, cx: &mut Context<'_>) -> Poll<Beat> {
        self.moved = false;
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if self.calls_end.is_some_and(|end| end <= now) {
                self.calls_end = None;
                self.aim();
                return Poll::Ready(Beat::CallsEnd);
            }
            if self.heartbeat.is_some_and(|beat| beat <= now) {
                self.heartbeat = None;
                self.aim();
                return Poll::Ready(Beat::Heartbeat);
            }
            let beat = if self.due() <= now { self.fall_due(now) } else { None };
            self.aim();
            if let Some(beat) = beat {
                return Poll::Ready(beat);
            }
        }
        // A task that has done much at once is told to come again, and its timer is not looked at.
        self.moved = !tokio::task::coop::has_budget_remaining();
        Poll::Pending
    }

    fn fall_due(&mut self, now: Instant) -> Option<Beat> {
        match self.waits {
            Waits::Hello => {
                // Said once; the session ends with it.
                self.since = now + HELLO;
                Some(Beat::HelloMissing)
            }
            Waits::Quiet => {
                self.waits = Waits::Pong;
                self.since = now;
                Some(Beat::Ping)
            }
            Waits::Pong => {
                let answered = self.heard >= self.since;
                self.waits = Waits::Quiet;
                self.since = now;
                if answered { None } else { Some(Beat::Silent) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    async fn beat(pulse: &mut Pulse) -> (Beat, u64) {
        let start = Instant::now();
        let beat = std::future::poll_fn(|cx| pulse.poll_beat(cx)).await;
        (beat, start.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_is_pinged_and_then_gone() {
        let mut pulse = Pulse::new(false);
        assert_eq!(beat(&mut pulse).await, (Beat::Ping, 30));
        assert_eq!(beat(&mut pulse).await, (Beat::Silent, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pong_keeps_the_peer() {
        let mut pulse = Pulse::new(false);
        assert_eq!(beat(&mut pulse).await, (Beat::Ping, 30));
        tokio::time::advance(Duration::from_secs(1)).await;
        pulse.heard();
        assert_eq!(beat(&mut pulse).await, (Beat::Ping, 39));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hello_is_waited_for_15_seconds() {
        assert_eq!(beat(&mut Pulse::new(true)).await, (Beat::HelloMissing, 15));
        let mut pulse = Pulse::new(true);
        pulse.heard();
        pulse.greeted();
        assert_eq!(beat(&mut pulse).await, (Beat::Ping, 30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_nobody_could_look_at_is_looked_at_the_next_time() {
        let mut pulse = Pulse::new(false);
        for much_was_done in [true, false] {
            std::future::poll_fn(|cx| {
                while much_was_done && pin!(tokio::task::coop::consume_budget()).poll(cx).is_ready() {}
                assert!(pulse.poll_beat(cx).is_pending());
                assert_eq!(pulse.is_due(), much_was_done);
                Poll::Ready(())
            })
            .await;
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_comes_once_for_each_wish() {
        let mut pulse = Pulse::new(false);
        pulse.wants_heartbeat();
        pulse.wants_heartbeat();
        assert_eq!(beat(&mut pulse).await, (Beat::Heartbeat, 5));
        assert_eq!(beat(&mut pulse).await, (Beat::Ping, 25));
    }
}

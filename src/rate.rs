//! How often something may be done: evenly with a burst ([`Gcra`]), or so many times within any stretch of time
//! ([`Window`]). A refusal says exactly how long to wait, and takes nothing.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Keys of a [`Window`] that have a log of their own. Whoever comes beyond them shares one, so that strangers take
/// no more memory than this, and nobody escapes the limit.
const OWN_LOGS: usize = 1024;

/// The generic cell rate algorithm: one number of state, however many calls there are.
///
/// So many calls `per` stretch on average, and `burst` of them at once.
#[derive(Debug)]
pub struct Gcra {
    start: Instant,
    /// Between two calls at the even pace, in nanoseconds.
    interval: u64,
    /// How far ahead of the even pace calls may be.
    tolerance: u64,
    /// When the next call would come at the even pace, in nanoseconds after `start`.
    next: AtomicU64,
}

impl Gcra {
    /// `calls` for each `per`, and `burst` of them at once; neither is taken to be less than one.
    pub fn new(calls: u32, per: Duration, burst: u32) -> Self {
        let interval = nanos(per) / u64::from(calls.max(1));
        let tolerance = interval.saturating_mul(u64::from(burst.max(1) - 1));
        Self { start: Instant::now(), interval, tolerance, next: AtomicU64::new(0) }
    }

    /// Takes one call at `now`.
    ///
    /// # Errors
    /// How long to wait until one may be taken.
    pub fn take(&self, now: Instant) -> Result<(), Duration> {
        let now = nanos(now.saturating_duration_since(self.start));
        let step = |next: u64| {
            let due = next.saturating_sub(self.tolerance);
            (due <= now).then(|| next.max(now).saturating_add(self.interval))
        };
        match self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step) {
            Ok(_) => Ok(()),
            Err(next) => Err(Duration::from_nanos(next.saturating_sub(self.tolerance) - now)),
        }
    }
}

/// At most so many times within any stretch of time, for each key: the instants of the last ones are kept.
#[derive(Debug)]
pub struct Window<K> {
    calls: usize,
    per: Duration,
    logs: Mutex<Logs<K>>,
}

#[derive(Debug)]
struct Logs<K> {
    own: HashMap<K, VecDeque<Instant>>,
    /// Of those who came when there were too many.
    shared: VecDeque<Instant>,
    /// Logs that have run out are looked for once in a while, not by every stranger.
    next_sweep: Option<Instant>,
}

impl<K: Eq + Hash + Clone> Window<K> {
    /// `calls` within any `per`, for each key.
    pub fn new(calls: usize, per: Duration) -> Self {
        let logs = Logs { own: HashMap::new(), shared: VecDeque::new(), next_sweep: None };
        Self { calls, per, logs: Mutex::new(logs) }
    }

    /// How many within which stretch.
    pub fn limit(&self) -> (usize, Duration) {
        (self.calls, self.per)
    }

    /// Takes one for `key` at `now`.
    ///
    /// # Errors
    /// How long to wait until one may be taken.
    pub fn take(&self, key: &K, now: Instant) -> Result<(), Duration> {
        let mut logs = self.logs.lock();
        let log = logs.of(key, self.per, now);
        while log.front().is_some_and(|first| now.saturating_duration_since(*first) >= self.per) {
            log.pop_front();
        }
        if log.len() < self.calls {
            log.push_back(now);
            return Ok(());
        }
        let oldest = log.front().map_or(Duration::ZERO, |first| now.saturating_duration_since(*first));
        Err(self.per.saturating_sub(oldest))
    }

    /// How many keys have a log of their own.
    pub fn keys(&self) -> usize {
        self.logs.lock().own.len()
    }
}

impl<K: Eq + Hash + Clone> Logs<K> {
    fn of(&mut self, key: &K, per: Duration, now: Instant) -> &mut VecDeque<Instant> {
        if !self.own.contains_key(key) {
            if self.own.len() >= OWN_LOGS && self.next_sweep.is_none_or(|at| at <= now) {
                let ran_out = |last: Option<&Instant>| {
                    last.is_none_or(|last| now.saturating_duration_since(*last) >= per)
                };
                self.own.retain(|_, log| !ran_out(log.back()));
                self.next_sweep = Some(now + per / 16);
            }
            if self.own.len() >= OWN_LOGS {
                return &mut self.shared;
            }
        }
        self.own.entry(key.clone()).or_default()
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn of_ten_calls_a_minute_the_eleventh_is_told_exactly_how_long_to_wait() {
        let (even, window) = (Gcra::new(10, MINUTE, 10), Window::new(10, MINUTE));
        let now = even.start;
        for call in 0..10 {
            let at = now + secs(call);
            assert_eq!((even.take(at), window.take(&"one", at)), (Ok(()), Ok(())), "call {call}");
        }
        let at = now + secs(9);
        assert_eq!(window.take(&"one", at), Err(secs(51)), "a minute after the first");
        assert_eq!(window.take(&"other", at), Ok(()), "another's calls are another's");
        assert_eq!(
            window.take(&"one", now + secs(60) - Duration::from_nanos(1)),
            Err(Duration::from_nanos(1))
        );
        assert_eq!(window.take(&"one", now + secs(60)), Ok(()));
        assert_eq!(window.take(&"one", now + secs(60)), Err(secs(1)), "the second one's place");
        // Nine seconds have earned one call more.
        assert_eq!(even.take(at), Ok(()));
        assert_eq!(even.take(at), Err(secs(3)));
        let left = secs(3);
        assert_eq!(even.take(at + left - Duration::from_nanos(1)), Err(Duration::from_nanos(1)));
        assert_eq!(even.take(at + left), Ok(()));
    }

    #[test]
    fn a_refused_call_takes_nothing() {
        let (even, window) = (Gcra::new(1, secs(6), 1), Window::new(1, secs(6)));
        let now = even.start;
        assert_eq!((even.take(now), window.take(&(), now)), (Ok(()), Ok(())));
        for _ in 0..100 {
            assert!(even.take(now).is_err() && window.take(&(), now).is_err());
        }
        let later = now + secs(6);
        assert_eq!((even.take(later), window.take(&(), later)), (Ok(()), Ok(())));
    }

    #[test]
    fn calls_that_come_at_the_even_pace_all_pass() {
        let even = Gcra::new(10, MINUTE, 1);
        let now = even.start;
        for call in 0..100 {
            let at = now + secs(6) * call;
            assert_eq!(even.take(at), Ok(()));
            assert!(even.take(at).is_err());
        }
    }

    #[test]
    fn a_hundred_thousand_strangers_take_no_more_memory_than_a_thousand() {
        let now = Instant::now();
        let window = Window::new(2, MINUTE);
        for stranger in 0..100_000_u32 {
            let _ = window.take(&stranger, now);
        }
        assert_eq!(window.keys(), OWN_LOGS);
        assert!(window.take(&100_001, now).is_err(), "who shares a log has no more calls than one");
        assert_eq!(window.take(&1, now), Ok(()), "who was there before keeps its own");
        // Once their time is over their logs go, and newcomers have logs of their own again.
        assert_eq!(window.take(&200_000, now + MINUTE), Ok(()));
        assert_eq!(window.keys(), 1);
    }
}

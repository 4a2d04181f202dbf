//! How many of something there were lately, without a lock: a ring of counters, each for a tenth of the time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How many counters there are: a count is exact to a tenth of its time.
const PARTS: u64 = 10;

/// Counts over the last stretch of time.
#[derive(Debug)]
pub struct Recent {
    start: Instant,
    part_ms: u64,
    /// The number of the part that it counts in the upper half, the count in the lower.
    parts: [AtomicU64; 10],
}

impl Recent {
    /// Counts over the last `span`.
    pub fn over(span: Duration) -> Self {
        let part_ms = (millis(span) / PARTS).max(1);
        Self { start: Instant::now(), part_ms, parts: Default::default() }
    }

    /// One more, at `now`.
    pub fn add(&self, now: Instant) {
        let number = self.part(now);
        let Some(part) = self.at(number) else { return };
        let one_more = |seen: u64| {
            let counts_this = seen >> 32 == number;
            Some(if counts_this { seen + 1 } else { number << 32 | 1 })
        };
        // It cannot fail: there is always one more.
        let _ = part.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
    }

    /// How many there were.
    pub fn count(&self, now: Instant) -> u64 {
        let number = self.part(now);
        let counts = self.parts.iter().map(|part| part.load(Ordering::Relaxed));
        counts.filter(|seen| (seen >> 32) + PARTS > number).map(|seen| seen & 0xffff_ffff).sum()
    }

    /// From here on nothing has been counted.
    pub fn forget(&self) {
        self.parts.iter().for_each(|part| part.store(0, Ordering::Relaxed));
    }

    /// Numbers begin with ten: a counter that was never used is too old from the start.
    fn part(&self, now: Instant) -> u64 {
        let number = millis(now.saturating_duration_since(self.start)) / self.part_ms + PARTS;
        number & 0xffff_ffff
    }

    fn at(&self, number: u64) -> Option<&AtomicU64> {
        self.parts.get(usize::try_from(number % PARTS).ok()?)
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_its_time_does_not_count() {
        let recent = Recent::over(Duration::from_secs(10));
        let at = |secs| recent.start + Duration::from_secs(secs);
        assert_eq!(recent.count(at(0)), 0);
        for secs in 0..25 {
            recent.add(at(secs));
            recent.add(at(secs));
            assert_eq!(recent.count(at(secs)), 2 * (secs + 1).min(10), "at {secs} s");
        }
        assert_eq!((recent.count(at(29)), recent.count(at(33)), recent.count(at(34))), (10, 2, 0));
        recent.add(at(40));
        recent.forget();
        assert_eq!(recent.count(at(40)), 0);
    }
}

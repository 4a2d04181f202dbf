//! How fast a pool serves, and what that means for who waits.

use std::time::Duration;

/// Fewer observations than this are a guess: nobody is refused on a guess.
const ENOUGH: u32 = 8;

/// The shortest wait that is worth an answer of its own.
const SHORTEST: Duration = Duration::from_millis(100);

/// Beyond this nobody knows; it is also as long as a call may queue.
const LONGEST: Duration = Duration::from_mins(1);

/// A moving average of how long permits are held for work: each observation counts for an eighth.
#[derive(Debug, Default)]
pub(super) struct Pace {
    nanos: u64,
    seen: u32,
}

impl Pace {
    /// A permit was held so long for work.
    pub(super) fn note(&mut self, held: Duration) {
        let held = u64::try_from(held.as_nanos()).unwrap_or(u64::MAX);
        self.nanos = if self.seen == 0 { held } else { self.nanos - self.nanos / 8 + held / 8 };
        self.seen = self.seen.saturating_add(1);
    }

    /// When one behind `before` others has its turn, `permits` at a time: those at work count as one more round.
    /// For who is told to come back.
    pub(super) fn turn(&self, before: usize, permits: usize) -> Duration {
        let rounds = u64::try_from(before / permits.max(1) + 1).unwrap_or(u64::MAX);
        Duration::from_nanos(self.nanos.saturating_mul(rounds)).clamp(SHORTEST, LONGEST)
    }

    /// How long `before` others take at this pace, had those at work ended already; `None` while that would be a
    /// guess. For who is refused because it waits in vain.
    pub(super) fn least_wait(&self, before: usize, permits: usize) -> Option<Duration> {
        let before = u64::try_from(before).unwrap_or(u64::MAX);
        let permits = u64::try_from(permits.max(1)).unwrap_or(u64::MAX);
        (self.seen >= ENOUGH).then(|| Duration::from_nanos(self.nanos.saturating_mul(before) / permits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_work_counts_most_and_one_outlier_little() {
        let mut pace = Pace::default();
        assert_eq!(pace.turn(0, 1), SHORTEST);
        pace.note(Duration::from_secs(4));
        assert_eq!((pace.turn(0, 1), pace.turn(7, 4)), (Duration::from_secs(4), Duration::from_secs(8)));
        pace.note(Duration::from_secs(12));
        assert_eq!(pace.turn(0, 1), Duration::from_secs(5));
        assert_eq!(pace.turn(1_000_000, 1), LONGEST);
    }

    #[test]
    fn a_few_observations_are_no_estimate() {
        let mut pace = Pace::default();
        for _ in 0..7 {
            pace.note(Duration::from_secs(4));
        }
        assert_eq!(pace.least_wait(6, 2), None);
        pace.note(Duration::from_secs(4));
        assert_eq!(pace.least_wait(6, 2), Some(Duration::from_secs(12)));
        assert_eq!(pace.least_wait(0, 2), Some(Duration::ZERO), "those at work may end at any time");
    }
}

//! Durations, counted in buckets: recording is three additions without a lock, quantiles are exact to 1.6 %.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets that share one power of two: with 32, the middle of a bucket is 1/64 from its ends.
const PER_OCTAVE: u64 = 32;
/// The power of two that `PER_OCTAVE` is.
const OCTAVE_BITS: u32 = 5;
/// All that a `u64` of nanoseconds can fall into: no duration is out of range.
const BUCKETS: usize = 32 * 60;
/// The sum counts in units of 64 ns: in nanoseconds, a thousand calls at work all the time overflow it within a year.
const SUM_SHIFT: u32 = 6;

/// Durations of any number of calls, in 15 KiB.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
    shortest: AtomicU64,
    longest: AtomicU64,
}

/// What a histogram holds, read at one time; all zero while it is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Durations {
    /// How many.
    pub count: u64,
    /// Their average.
    pub average: Duration,
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
    /// Half of them took no longer.
    pub p50: Duration,
    /// 95 % of them took no longer.
    pub p95: Duration,
    /// 99 % of them took no longer.
    pub p99: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            shortest: AtomicU64::new(u64::MAX),
            longest: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket_of(nanos)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let rounded = nanos.saturating_add(1 << (SUM_SHIFT - 1)) >> SUM_SHIFT;
        self.sum.fetch_add(rounded, Ordering::Relaxed);
        // Almost always only looked at: the extremes are soon found.
        if nanos < self.shortest.load(Ordering::Relaxed) {
            self.shortest.fetch_min(nanos, Ordering::Relaxed);
        }
        if nanos > self.longest.load(Ordering::Relaxed) {
            self.longest.fetch_max(nanos, Ordering::Relaxed);
        }
    }

    /// What was counted. Whoever records meanwhile is not held up.
    pub fn read(&self) -> Durations {
        let sum = self.sum.load(Ordering::Relaxed);
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let count: u64 = counts.iter().sum();
        if count == 0 {
            return Durations::default();
        }
        // Read after the buckets: each duration counted there has been here, or is on its way and cut to its bucket.
        let longest = self.longest.load(Ordering::Relaxed);
        let shortest = self.shortest.load(Ordering::Relaxed).min(longest);
        let within = |nanos: u64| Duration::from_nanos(nanos.clamp(shortest, longest));
        Durations {
            count,
            average: within(((sum / count) << SUM_SHIFT) + ((sum % count) << SUM_SHIFT) / count),
            min: within(0),
            max: within(u64::MAX),
            p50: within(quantile(&counts, count, 50)),
            p95: within(quantile(&counts, count, 95)),
            p99: within(quantile(&counts, count, 99)),
        }
    }
}

/// The middle of the bucket that holds the duration which `percent` of all do not exceed.
fn quantile(counts: &[u64], count: u64, percent: u64) -> u64 {
    let rank = (count / 100 * percent + (count % 100 * percent).div_ceil(100)).max(1);
    let mut seen = 0;
    let holds_it = |(_, each): &(usize, &u64)| {
        seen += **each;
        seen >= rank
    };
    counts.iter().enumerate().find(holds_it).map_or(0, |(bucket, _)| middle_of(bucket))
}

/// Below 32, a bucket each; above, 32 for each power of two.
fn bucket_of(nanos: u64) -> usize {
    let octave = nanos.checked_ilog2().unwrap_or(0).saturating_sub(OCTAVE_BITS);
    let bucket = u64::from(octave) * PER_OCTAVE + (nanos >> octave);
    usize::try_from(bucket).unwrap_or(usize::MAX)
}

fn middle_of(bucket: usize) -> u64 {
    let bucket = u64::try_from(bucket).unwrap_or(u64::MAX);
    let Some(octave) = (bucket / PER_OCTAVE).checked_sub(1) else { return bucket };
    let start = (PER_OCTAVE + bucket % PER_OCTAVE) << octave;
    start + (1 << octave) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_histogram_is_all_zeros() {
        assert_eq!(Histogram::default().read(), Durations::default());
    }

    #[test]
    fn one_duration_is_told_exactly() {
        let histogram = Histogram::default();
        let took = Duration::from_nanos(1_234_567);
        histogram.record(took);
        let read = histogram.read();
        assert_eq!([read.min, read.max, read.average, read.p50, read.p95, read.p99], [took; 6]);
    }

    #[test]
    fn every_duration_has_a_bucket_whose_middle_is_near() {
        let edges = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + (1 << bit) / 3]);
        for nanos in edges.chain([u64::MAX - 1, u64::MAX]) {
            let bucket = bucket_of(nanos);
            assert!(bucket < BUCKETS, "{nanos}");
            let off = middle_of(bucket).abs_diff(nanos);
            assert!(u128::from(off) * 100 <= u128::from(nanos) * 2, "{nanos} is off by {off}");
        }
    }

    /// The exact value by the same rank.
    fn exact(sorted: &[u64], percent: usize) -> u64 {
        sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
    }

    #[test]
    fn quantiles_are_within_two_percent() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut shapes: Vec<Vec<u64>> = vec![(1..=1000).collect(), vec![5_000_000; 10]];
        // From microseconds to hours, evenly over the powers; then two humps, as timeouts make.
        shapes.push((0..5000).map(|_| random.u64(1000..2000) << random.u32(0..32)).collect());
        let humps = |at: u64| if at.is_multiple_of(12) { 30_000_000_000 + at } else { 20_000 + at };
        shapes.push((0..3000).map(humps).collect());
        for mut shape in shapes {
            let histogram = Histogram::default();
            for nanos in &shape {
                histogram.record(Duration::from_nanos(*nanos));
            }
            shape.sort_unstable();
            let read = histogram.read();
            let sum: u128 = shape.iter().map(|nanos| u128::from(*nanos)).sum();
            let average = u64::try_from(sum / u128::try_from(shape.len()).unwrap()).unwrap();
            let pairs = [
                (read.p50, exact(&shape, 50)),
                (read.p95, exact(&shape, 95)),
                (read.p99, exact(&shape, 99)),
                (read.average, average),
            ];
            for (told, exact) in pairs {
                let off = told.as_nanos().abs_diff(exact.into());
                assert!(off * 100 <= u128::from(exact) * 2 + 6400, "{told:?} for {exact} ns");
            }
            assert_eq!(
                (read.min.as_nanos(), read.max.as_nanos()),
                (shape[0].into(), shape[shape.len() - 1].into())
            );
        }
    }
}

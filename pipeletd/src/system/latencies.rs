//! How long something takes: a histogram that many count into at once.
//!
//! Counting is two relaxed additions and a search among [`BOUNDS`], with no lock and no
//! allocation, so it may stand on the hottest path. Its buckets are narrow enough to estimate
//! quantiles, and their bounds are round numbers, so that coarser histograms can be read from them
//! exactly. Two snapshots make a window. Pure, and knows nothing of what is measured.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Within a decade, so that the next bound is at most a third above.
const STEPS: [u64; 10] = [10, 12, 15, 20, 25, 30, 40, 50, 60, 80];
/// From 10 µs to 1000 s.
const DECADES: usize = 8;
/// Of buckets with a bound; what is above the last one has a bucket of its own.
pub const BOUNDED: usize = STEPS.len() * DECADES;
const BUCKETS: usize = BOUNDED + 1;

/// The buckets' upper bounds, in microseconds; what equals a bound is below it.
pub const BOUNDS: [u64; BOUNDED] = {
    let mut bounds = [0; BOUNDED];
    let (mut decade, mut unit) = (0, 1);
    while decade < DECADES {
        let mut step = 0;
        while step < STEPS.len() {
            bounds[decade * STEPS.len() + step] = STEPS[step] * unit;
            step += 1;
        }
        decade += 1;
        unit *= 10;
    }
    bounds
};

/// The histogram.
#[derive(Debug)]
pub struct Latencies {
    buckets: [AtomicU64; BUCKETS],
    micros: AtomicU64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            micros: AtomicU64::new(0),
        }
    }
}

impl Latencies {
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// What was counted until now.
    pub fn snapshot(&self) -> LatencySnapshot {
        let buckets = self.buckets.each_ref();
        LatencySnapshot {
            buckets: buckets.map(|bucket| bucket.load(Ordering::Relaxed)),
            micros: self.micros.load(Ordering::Relaxed),
        }
    }
}

/// A histogram as it was at some time, or over some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencySnapshot {
    buckets: [u64; BUCKETS],
    micros: u64,
}

impl Default for LatencySnapshot {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
            micros: 0,
        }
    }
}

impl LatencySnapshot {
    /// How many there are in each bucket: one for each of [`BOUNDS`], and one for what is above.
    pub const fn buckets(&self) -> &[u64] {
        &self.buckets
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All of them together.
    pub const fn sum(&self) -> Duration {
        Duration::from_micros(self.micros)
    }

    /// How many took at most so many microseconds, which must be one of [`BOUNDS`].
    pub fn at_most(&self, bound: u64) -> u64 {
        let buckets = BOUNDS.partition_point(|other| *other <= bound);
        self.buckets[..buckets].iter().sum()
    }

    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for (count, more) in self.buckets.iter_mut().zip(other.buckets) {
            *count += more;
        }
        self.micros += other.micros;
        self
    }

    /// What came after an earlier snapshot of the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = |bucket: usize| self.buckets[bucket].saturating_sub(earlier.buckets[bucket]);
        Self {
            buckets: std::array::from_fn(counts),
            micros: self.micros.saturating_sub(earlier.micros),
        }
    }

    /// An estimate of what the given share, between 0 and 1, took at most; `None` of nothing.
    ///
    /// It is within its bucket, so at most a third too much or a quarter too little. What is above
    /// the last bound counts as that.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        // Counts are far below what a float holds exactly, and a share of one is no more than it.
        #[expect(clippy::cast_precision_loss)]
        let wanted = (share.clamp(0.0, 1.0) * count as f64).max(1.0);
        let mut below = 0.0;
        for (bucket, in_it) in self.buckets.iter().enumerate().filter(|(_, n)| **n > 0) {
            #[expect(clippy::cast_precision_loss)]
            let in_it = *in_it as f64;
            if below + in_it >= wanted {
                let upper = bound(bucket);
                let lower = bucket.checked_sub(1).map_or(Duration::ZERO, bound);
                let part = (wanted - below) / in_it;
                return Some(lower + upper.saturating_sub(lower).mul_f64(part));
            }
            below += in_it;
        }
        (count > 0).then(|| bound(BOUNDED))
    }
}

fn bound(bucket: usize) -> Duration {
    Duration::from_micros(BOUNDS[bucket.min(BOUNDED - 1)])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn histogram(micros: &[u64]) -> Latencies {
        let latencies = Latencies::default();
        for micros in micros {
            latencies.record(Duration::from_micros(*micros));
        }
        latencies
    }

    #[test]
    fn bounds_ascend_and_are_round() {
        assert!(BOUNDS.is_sorted_by(|a, b| a < b));
        assert_eq!(BOUNDS[0], 10);
        for round in [1_000, 2_500, 5_000, 10_000, 25_000, 10_000_000, 100_000_000] {
            assert!(BOUNDS.contains(&round), "{round}");
        }
    }

    #[test]
    fn what_equals_a_bound_is_below_it() {
        let seen = histogram(&[0, 5_000, 5_001, u64::MAX]).snapshot();
        let check = |bound, expected| assert_eq!(seen.at_most(bound), expected, "{bound}");
        check(10, 1);
        check(4_000, 1);
        check(5_000, 2);
        check(6_000, 3);
        check(BOUNDS[BOUNDED - 1], 3);
        assert_eq!(seen.count(), 4);
    }

    #[test]
    fn quantiles() {
        let check = |micros: &[u64], share, expected: Option<u64>| {
            let seen = histogram(micros).snapshot().quantile(share);
            assert_eq!(seen, expected.map(Duration::from_micros), "{micros:?}");
        };
        check(&[], 0.5, None);
        check(&[45], 0.5, Some(50));
        check(&[45, 45], 0.5, Some(45));
        check(&[5, 45, 90_000_000], 0.5, Some(45));
        check(&[5, 45, 90_000_000], 0.99, Some(99_400_000));
        check(&[u64::MAX], 0.99, Some(BOUNDS[BOUNDED - 1]));
    }

    #[test]
    fn two_snapshots_make_a_window() {
        let latencies = histogram(&[100, 100]);
        let earlier = latencies.snapshot();
        latencies.record(Duration::from_millis(3));
        let window = latencies.snapshot().since(&earlier);
        assert_eq!(window, histogram(&[3_000]).snapshot());
        assert_eq!(window.sum(), Duration::from_millis(3));
    }

    proptest! {
        #[test]
        fn a_quantile_is_near(micros in 100_u64..900_000_000, share in 0.0..=1.0_f64) {
            let seen = histogram(&[micros]).snapshot().quantile(share).unwrap();
            let ratio = seen.as_secs_f64() / Duration::from_micros(micros).as_secs_f64();
            prop_assert!((0.74..=1.34).contains(&ratio), "{ratio}");
        }
    }
}

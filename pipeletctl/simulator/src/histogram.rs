//! Many durations in little room, to within 3 %.
//!
//! Invariant: its size does not depend on how many there are.

use std::time::Duration;

/// Steps within each doubling.
const STEPS: u64 = 32;

/// Microseconds, counted by size: exact below `STEPS`, then in `STEPS` steps for each doubling.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    most: Duration,
}

impl Histogram {
    pub(super) fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = bucket(micros);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
        self.most = self.most.max(duration);
    }

    /// The duration that so many of a hundred do not exceed; none where nothing was recorded.
    pub(super) fn percentile(&self, percent: u64) -> Option<Duration> {
        let wanted = (self.total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Some(Duration::from_micros(ceiling(bucket)).min(self.most));
            }
        }
        None
    }

    pub(super) fn most(&self) -> Option<Duration> {
        (self.total > 0).then_some(self.most)
    }
}

fn bucket(micros: u64) -> usize {
    let doublings = (micros / STEPS).checked_ilog2().map_or(0, |log| log + 1);
    let step = if doublings == 0 {
        micros
    } else {
        (micros >> (doublings - 1)) - STEPS
    };
    usize::try_from(u64::from(doublings) * STEPS + step).unwrap_or(usize::MAX)
}

/// The largest number of microseconds in a bucket.
fn ceiling(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let (doublings, step) = (bucket / STEPS, bucket % STEPS);
    if doublings == 0 {
        return step;
    }
    ((STEPS + step + 1) << (doublings - 1)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_are_narrow() {
        let mut last = 0;
        for micros in 0..200_000_u64 {
            let bucket = bucket(micros);
            assert!(bucket == last || bucket == last + 1, "{micros}");
            last = bucket;
            let ceiling = ceiling(bucket);
            assert!(micros <= ceiling, "{micros} > {ceiling}");
            assert!((ceiling - micros) * 100 <= micros.max(1) * 4, "{micros}");
        }
    }

    #[test]
    fn percentiles() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(50), None);
        for micros in 1..=100 {
            histogram.record(Duration::from_micros(micros * 10));
        }
        for (percent, micros) in [(50, 500), (90, 900), (99, 990), (100, 1000)] {
            let found = histogram.percentile(percent).unwrap().as_micros();
            assert!(
                (micros..=micros * 104 / 100).contains(&found),
                "{percent}: {found}"
            );
        }
        assert_eq!(histogram.most(), Some(Duration::from_millis(1)));
    }
}

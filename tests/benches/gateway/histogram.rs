//! Latencies in a fixed space: buckets whose width is under one per cent of their value.

use std::{
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Buckets to each power of two.
const STEPS: u32 = 7;

/// The zero of this process's clock: stations and receivers live in it, so that one stamp in a
/// body tells how long it travelled.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since the bench began.
pub(crate) fn now_ns() -> u64 {
    u64::try_from(EPOCH.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        let bucket = bucket_of(nanoseconds);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.max = self.max.max(nanoseconds);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        if other.buckets.len() > self.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn max_ms(&self) -> f64 {
        milliseconds(self.max)
    }

    /// What this share of the samples stayed below, in milliseconds.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank among counts far below 2^52"
    )]
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let rank = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank && *count > 0 {
                return milliseconds(ceiling_of(bucket).min(self.max));
            }
        }
        0.0
    }
}

fn milliseconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64() * 1e3
}

/// Below 2^7 a bucket for each value; above, the seven bits under the highest one.
fn bucket_of(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(STEPS + 1);
    let bucket = (u64::from(shift) << STEPS) + (value >> shift);
    usize::try_from(bucket).unwrap_or(usize::MAX)
}

/// The last value of a bucket.
fn ceiling_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket >> STEPS).saturating_sub(1);
    let value = bucket - (shift << STEPS);
    ((value + 1) << shift) - 1
}

/// Samples that two threads pass to each other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Histogram>>);

impl Shared {
    pub(crate) fn record(&self, nanoseconds: u64) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .record(nanoseconds);
    }

    /// Those since the last time.
    pub(crate) fn take(&self) -> Histogram {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

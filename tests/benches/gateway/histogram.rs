//! Latencies, counted in little room, and the clock that they are taken from.

use std::{
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The zero of this process's clock: stations and receivers live in it, so that one stamp in a
/// body tells how long it travelled.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since the bench began.
pub(crate) fn now_ns() -> u64 {
    u64::try_from(EPOCH.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds, to within 1 %.
#[derive(Debug, Clone)]
pub(crate) struct Histogram(hdrhistogram::Histogram<u64>);

impl Default for Histogram {
    fn default() -> Self {
        Self(hdrhistogram::Histogram::new(2).expect("two digits are allowed"))
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.0.record(nanoseconds).expect("it grows as it must");
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("it grows as it must");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn max_ms(&self) -> f64 {
        milliseconds(self.0.max())
    }

    /// What this share of the samples stayed below, in milliseconds.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        milliseconds(self.0.value_at_quantile(share))
    }
}

fn milliseconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64() * 1e3
}

/// Samples that two threads pass to each other.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedHistogram(Arc<Mutex<Histogram>>);

impl SharedHistogram {
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

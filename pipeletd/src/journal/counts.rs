//! What the committer counts for who wants to look: events by type, and how long commits take.
//!
//! Since the daemon started, in relaxed atomics with one writer.

use std::sync::atomic::{AtomicU64, Ordering};

use pipelet_domain::events::EventType;

use crate::system::latencies::Latencies;

#[derive(Debug)]
pub(super) struct Counts {
    /// At each event type's code.
    by_kind: Box<[AtomicU64]>,
    pub(super) commits: Latencies,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            by_kind: (0..=u8::MAX).map(|_| AtomicU64::new(0)).collect(),
            commits: Latencies::default(),
        }
    }
}

impl Counts {
    pub(super) fn count(&self, kind: EventType) {
        self.by_kind[usize::from(kind.code())].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn of(&self, kind: EventType) -> u64 {
        self.by_kind[usize::from(kind.code())].load(Ordering::Relaxed)
    }
}

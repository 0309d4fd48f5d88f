//! How handshakes and connections of stations end, in figures, and what they hold meanwhile.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    ended::Ended,
    refusals::{Refusals, RefusedHandshake},
    unfinished::Unfinished,
};

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConnectionStats {
    pub(super) unfinished: Unfinished,
    pub(super) ended: ReasonCounts,
    pub(super) refusals: Refusals,
    open: Arc<AtomicU64>,
}

/// A station's connection, for as long as it is open.
#[derive(Debug)]
pub(super) struct OpenConnection(Arc<AtomicU64>);

/// How often something came to pass, by why it did.
#[derive(Debug, Clone)]
pub(super) struct ReasonCounts(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl ConnectionStats {
    /// With room for so many bytes of messages whose end has not come.
    pub fn new(max_unfinished: u64) -> Self {
        Self {
            unfinished: Unfinished::new(max_unfinished),
            ended: ReasonCounts::new(Ended::REASONS),
            refusals: Refusals::default(),
            open: Arc::default(),
        }
    }

    /// Those of stations that are here.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn opened(&self) -> OpenConnection {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenConnection(Arc::clone(&self.open))
    }

    /// The bytes of all messages whose end has not come.
    pub fn unfinished_bytes(&self) -> u64 {
        self.unfinished.bytes()
    }

    /// Connections that have ended since the start, by the reason in their `StationDisconnected`.
    pub fn ended(&self) -> BTreeMap<&'static str, u64> {
        self.ended.snapshot()
    }

    /// Handshakes that were refused since the start, by reason.
    pub fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.refusals.counts()
    }

    /// Those that were refused of late, the latest first.
    pub fn refused_of_late(&self) -> Vec<RefusedHandshake> {
        self.refusals.latest()
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ReasonCounts {
    pub(super) fn new(reasons: impl IntoIterator<Item = &'static str>) -> Self {
        let counts = reasons.into_iter().map(|reason| (reason, 0)).collect();
        Self(Arc::new(Mutex::new(counts)))
    }

    pub(super) fn count(&self, reason: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(reason).or_default() += 1;
    }

    pub(super) fn snapshot(&self) -> BTreeMap<&'static str, u64> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.clone()
    }
}

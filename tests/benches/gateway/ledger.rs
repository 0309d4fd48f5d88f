//! What was acknowledged to stations, and what of it is still owed to receivers.
//!
//! The stations ask it for room before they send, so that a closed loop of CALLs never outruns
//! the POSTs for long: a rate that leaves a growing backlog behind is not a rate.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::sync::Semaphore;

/// POSTs that may be owed to each receiver before the stations wait.
const ROOM: usize = 4096;

#[derive(Debug, Clone)]
pub(crate) struct Ledger(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    numbers: AtomicU64,
    acknowledged: AtomicU64,
    refused: AtomicU64,
    owed: AtomicU64,
    room: Semaphore,
}

impl Ledger {
    /// For events that go to up to this many receivers each.
    pub(crate) fn new(fan_out: usize) -> Self {
        Self(Arc::new(Inner {
            numbers: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            owed: AtomicU64::new(0),
            room: Semaphore::new(ROOM * fan_out.max(1)),
        }))
    }

    /// Waits until there is room for an event with so many POSTs, and numbers it.
    pub(crate) async fn admit(&self, posts: u32) -> u64 {
        if let Ok(room) = self.0.room.acquire_many(posts).await {
            room.forget();
        }
        self.0.numbers.fetch_add(1, Relaxed)
    }

    /// A station has its CALLRESULT: these POSTs are owed now.
    pub(crate) fn acknowledged(&self, posts: u32) {
        self.0.acknowledged.fetch_add(1, Relaxed);
        self.0.owed.fetch_add(u64::from(posts), Relaxed);
    }

    /// A station has a CALLERROR: nothing is owed.
    pub(crate) fn refused(&self, posts: u32) {
        self.0.refused.fetch_add(1, Relaxed);
        self.posted(posts as usize);
    }

    pub(crate) fn posted(&self, posts: usize) {
        self.0.room.add_permits(posts);
    }

    pub(crate) fn all_acknowledged(&self) -> u64 {
        self.0.acknowledged.load(Relaxed)
    }

    pub(crate) fn all_refused(&self) -> u64 {
        self.0.refused.load(Relaxed)
    }

    /// POSTs that all acknowledged events came to.
    pub(crate) fn owed(&self) -> u64 {
        self.0.owed.load(Relaxed)
    }
}

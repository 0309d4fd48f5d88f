//! What the committer hands to one webhook: positions of events that it is owed.
//!
//! Bounded. A webhook that does not keep up is marked as lagging instead, and reads the journal
//! forward until it has caught up; so a backlog is a number, not a queue in memory.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use pipelet_domain::{deliveries::SubscriptionVersion, events::Seq};
use tokio::sync::Notify;

/// Positions that wait; 8 bytes each.
const MAX_WAITING: usize = 4096;

#[derive(Debug)]
pub(super) struct ConsumerQueue {
    state: Mutex<State>,
    pub(super) wake: Notify,
    /// How many events the webhook has been owed in all.
    received: AtomicU64,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Seq>,
    /// Some positions were not kept: the reader must find them in the journal itself.
    lagging: bool,
    versions: Arc<[SubscriptionVersion]>,
}

/// What a reader found in its queue.
#[derive(Debug)]
pub(super) enum ConsumerBatch {
    /// Owed positions in ascending order. With `drained`, nothing more waits.
    Live { seqs: Vec<Seq>, drained: bool },
    /// The journal has to be read forward, owed as these versions say.
    Lagging(Arc<[SubscriptionVersion]>),
}

impl ConsumerQueue {
    /// A queue whose reader begins by reading the journal forward.
    pub(super) fn lagging(versions: Arc<[SubscriptionVersion]>, received: u64) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            lagging: true,
            versions,
        };
        Self {
            state: Mutex::new(state),
            wake: Notify::new(),
            received: AtomicU64::new(received),
        }
    }

    /// Hands over newly committed positions, in ascending order.
    pub(super) fn push(&self, seqs: &[Seq]) {
        self.received
            .fetch_add(seqs.len() as u64, Ordering::Relaxed);
        let mut state = self.state();
        if !state.lagging {
            if state.waiting.len() + seqs.len() > MAX_WAITING {
                state.lagging = true;
                state.waiting.clear();
            } else {
                state.waiting.extend(seqs);
            }
        }
        drop(state);
        self.wake.notify_one();
    }

    /// What the webhook wants, and wanted before.
    pub(super) fn versions(&self) -> Arc<[SubscriptionVersion]> {
        Arc::clone(&self.state().versions)
    }

    pub(super) fn set_versions(&self, versions: Arc<[SubscriptionVersion]>) {
        self.state().versions = versions;
        self.wake.notify_one();
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Takes at most `limit` positions from `from` on.
    ///
    /// A lagging reader that has read up to `head` is lagging no more. That is safe because the
    /// committer publishes the head before it fills the queues: what the reader has not seen in
    /// the journal is still to be pushed.
    pub(super) fn take(&self, from: Seq, limit: usize, head: impl Fn() -> Seq) -> ConsumerBatch {
        let mut state = self.state();
        if state.lagging {
            if from < head() {
                return ConsumerBatch::Lagging(Arc::clone(&state.versions));
            }
            state.lagging = false;
        }
        let mut seqs = Vec::new();
        while seqs.len() < limit {
            match state.waiting.pop_front() {
                Some(seq) if seq >= from => seqs.push(seq),
                // Read from the journal before the committer came to push it.
                Some(_) => {}
                None => {
                    return ConsumerBatch::Live {
                        seqs,
                        drained: true,
                    };
                }
            }
        }
        ConsumerBatch::Live {
            seqs,
            drained: false,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

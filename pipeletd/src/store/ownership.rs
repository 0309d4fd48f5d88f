//! Whether the shards are this process's.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll};

use tokio::{sync::watch, time::Instant};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Ownership(Option<Arc<Lent>>);

/// What whoever renews a lease says of it.
#[derive(Debug)]
pub(super) struct Lent {
    term: u64,
    /// It is held until then; what is done later is not an owner's.
    pub(super) until: watch::Sender<Instant>,
    /// Cancelled when another process has it.
    pub(super) lost: CancellationToken,
    /// Cancelled when it is to be given up.
    pub(super) end: CancellationToken,
    pub(super) renewing: TaskTracker,
}

impl Ownership {
    /// As long as the process runs.
    pub const fn exclusive() -> Self {
        Self(None)
    }

    pub(super) fn lent(term: u64, until: Instant) -> (Self, Arc<Lent>) {
        let lent = Arc::new(Lent {
            term,
            until: watch::Sender::new(until),
            lost: CancellationToken::new(),
            end: CancellationToken::new(),
            renewing: TaskTracker::new(),
        });
        (Self(Some(Arc::clone(&lent))), lent)
    }

    /// Each that is lent has a greater one than all before.
    pub fn term(&self) -> u64 {
        self.0.as_ref().map_or(0, |lent| lent.term)
    }

    /// Whether they are this process's now: it may be cut off from whoever would tell it
    /// otherwise.
    pub fn is_held(&self) -> bool {
        let Self(lent) = self;
        lent.as_ref()
            .is_none_or(|lent| Instant::now() < *lent.until.borrow() && !lent.lost.is_cancelled())
    }

    /// Returns once they are, and never where they are another's.
    pub async fn held(&self) {
        let Self(Some(lent)) = self else {
            return;
        };
        let mut until = lent.until.subscribe();
        while !self.is_held() {
            if until.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Does something as an owner: it makes no step while they may be another's.
    pub async fn while_held<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            self.held().await;
            let step = poll_fn(|context| {
                if self.is_held() {
                    work.as_mut().poll(context).map(Some)
                } else {
                    Poll::Ready(None)
                }
            });
            if let Some(done) = step.await {
                return done;
            }
        }
    }

    /// Returns when they are another's.
    pub async fn lost(&self) {
        match self {
            Self(None) => std::future::pending().await,
            Self(Some(lent)) => lent.lost.cancelled().await,
        }
    }

    /// The same as [`Self::give_up`], when what is returned is dropped.
    pub(super) fn give_up_on_drop(&self) -> Option<DropGuard> {
        self.0.as_ref().map(|lent| lent.end.clone().drop_guard())
    }

    /// Lets another process have them at once.
    pub async fn give_up(&self) {
        if let Self(Some(lent)) = self {
            lent.end.cancel();
            lent.renewing.close();
            lent.renewing.wait().await;
        }
    }
}

//! Retries that go out before they are due, because somebody says that the receiver is mended.
//!
//! Invariant: the first that fails ends it, and what is not in flight by then waits as it did. One
//! retry goes out first, and with each that is delivered twice as many may: a receiver that is not
//! mended costs one attempt. They are taken by due time, each behind the one that was taken last,
//! so that none is taken twice; and they leave room for what is due.

use std::{collections::HashSet, sync::Arc};

use pipelet_domain::deliveries::RetryKey;
use tokio::sync::oneshot;

use super::{DispatchError, Dispatcher, Origin, RETRY_WINDOW};
use crate::store::blocking;

/// At once, at most: of the room for retries, those that are due keep their share.
const MOST: usize = RETRY_WINDOW / 4;

/// How many attempts of a pass ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetriedNow {
    pub delivered: u64,
    pub failed: u64,
}

#[derive(Debug)]
pub(super) struct Early {
    after: Option<RetryKey>,
    /// How many may be loaded at once.
    room: usize,
    /// Waiting or in flight.
    loaded: HashSet<RetryKey>,
    /// There are no more behind `after`.
    ended: bool,
    counts: RetriedNow,
    /// Who wants to know how it ends.
    told: Vec<oneshot::Sender<RetriedNow>>,
}

impl Early {
    fn begin() -> Self {
        Self {
            after: None,
            room: 1,
            loaded: HashSet::new(),
            ended: false,
            counts: RetriedNow::default(),
            told: Vec::new(),
        }
    }

    /// Each look at the store has to be worth it.
    fn wants_more(&self) -> bool {
        !self.ended && self.loaded.len() <= self.room / 2
    }
}

impl Dispatcher {
    /// One that is under way already is not begun anew.
    pub(super) fn begin_early(&mut self, tell: oneshot::Sender<RetriedNow>) {
        if self.webhook.enabled {
            let early = self.early.get_or_insert_with(Early::begin);
            early.told.retain(|tell| !tell.is_closed());
            early.told.push(tell);
        }
    }

    pub(super) fn may_load_early(&self) -> bool {
        self.store_rests.is_none()
            && self.loaded_retries.len() < RETRY_WINDOW
            && !self.retry_memory.is_exhausted()
            && self.early.as_ref().is_some_and(Early::wants_more)
    }

    pub(super) async fn load_early(&mut self) -> Result<(), DispatchError> {
        let Some(early) = &self.early else {
            return Ok(());
        };
        let (id, after) = (self.id(), early.after);
        let limit = early.room - early.loaded.len();
        let store = Arc::clone(&self.means.store);
        let keys = blocking(move || store.retry_keys(id, after, limit)).await?;
        // Those that are loaded already are due.
        let wanted = |key: &RetryKey| !self.loaded_retries.contains(key);
        let wanted: Vec<_> = keys.iter().copied().filter(wanted).collect();
        let dealt_with = self.load_retries(&wanted).await?;
        let Some(early) = &mut self.early else {
            return Ok(());
        };
        early.loaded.extend(&wanted[..dealt_with]);
        early.loaded.retain(|key| self.loaded_retries.contains(key));
        let reached = if dealt_with < wanted.len() {
            // There was no room for the next one.
            wanted[..dealt_with].last()
        } else {
            early.ended = keys.len() < limit;
            keys.last()
        };
        early.after = reached.copied().or(early.after);
        if early.ended && early.loaded.is_empty() {
            self.end_early();
        }
        Ok(())
    }

    /// What an attempt at a retry came to.
    pub(super) fn mind_early(&mut self, key: RetryKey, delivered: bool) {
        let Some(early) = &mut self.early else { return };
        if !early.loaded.remove(&key) {
            return;
        }
        if delivered {
            early.counts.delivered += 1;
        } else {
            early.counts.failed += 1;
        }
        early.room = early.room.saturating_mul(2).min(MOST);
        let done = early.ended && early.loaded.is_empty();
        if done || !delivered {
            self.end_early();
        }
    }

    /// What is loaded and not in flight waits for its time again.
    pub(super) fn end_early(&mut self) {
        let Some(early) = self.early.take() else {
            return;
        };
        for tell in early.told {
            // Who asked may have gone away.
            let _ = tell.send(early.counts);
        }
        let loaded = early.loaded;
        let unloaded = self.lanes.remove(|job| match &job.origin {
            Origin::Retry(retry) => loaded.contains(&retry.key),
            Origin::Live(_) => false,
        });
        for job in unloaded {
            let bytes = job.memory_size();
            if let Origin::Retry(retry) = job.origin {
                self.unload_retry(retry.key, bytes);
            }
        }
    }
}

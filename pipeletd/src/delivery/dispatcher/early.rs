//! Retries that go out before they are due, because somebody says that the receiver is mended.
//!
//! Invariant: it costs no more than one attempt where that is not so. One retry goes out first, and
//! with each that is delivered so many more as there were; the first that fails ends it, and what
//! did not go out waits as it did. Each that waited at the beginning goes out once: they are taken
//! by due time, and behind the last that was taken.

use std::{collections::HashSet, sync::Arc};

use super::{DispatchError, Dispatcher, RETRY_WINDOW};
use crate::{delivery::record::RetryKey, store::blocking};

#[derive(Debug)]
pub(super) struct Early {
    after: Option<RetryKey>,
    /// How many may be on their way at once.
    room: usize,
    on_their_way: HashSet<RetryKey>,
    /// There are no more behind `after`.
    ended: bool,
}

impl Early {
    pub(super) fn begin() -> Self {
        Self {
            after: None,
            room: 1,
            on_their_way: HashSet::new(),
            ended: false,
        }
    }

    fn free(&self) -> usize {
        self.room.saturating_sub(self.on_their_way.len())
    }
}

impl Dispatcher {
    pub(super) fn may_load_early(&self) -> bool {
        let loadable = |early: &Early| !early.ended && early.free() > 0;
        self.webhook.enabled
            && self.store_rests.is_none()
            && self.loaded_retries.len() < RETRY_WINDOW
            && self.early.as_ref().is_some_and(loadable)
    }

    pub(super) async fn load_early(&mut self) -> Result<(), DispatchError> {
        let Some(early) = &self.early else {
            return Ok(());
        };
        let (id, after) = (self.id(), early.after);
        let room = RETRY_WINDOW.saturating_sub(self.loaded_retries.len());
        let limit = early.free().min(room);
        let store = Arc::clone(&self.means.store);
        let retries = blocking(move || store.retries(id, after, limit)).await?;
        let mut taken = Vec::new();
        if let Some(early) = &mut self.early {
            early.ended = retries.len() < limit;
            for retry in retries {
                early.after = Some(retry.key);
                // Else it is due, and loaded as that.
                if self.loaded_retries.insert(retry.key) {
                    early.on_their_way.insert(retry.key);
                    taken.push(retry);
                }
            }
            if early.ended && early.on_their_way.is_empty() {
                self.early = None;
            }
        }
        for retry in taken {
            self.enqueue_retry(retry);
        }
        Ok(())
    }

    /// What an attempt at a retry came to.
    pub(super) fn mind_early(&mut self, key: RetryKey, delivered: bool) {
        let Some(early) = &mut self.early else { return };
        if !early.on_their_way.remove(&key) {
            return;
        }
        early.room = early.room.saturating_mul(2).min(RETRY_WINDOW);
        if !delivered || early.ended && early.on_their_way.is_empty() {
            self.early = None;
        }
    }
}

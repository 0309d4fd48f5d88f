//! Retries that go out before they are due, because an operator says that the receiver is mended.
//!
//! Invariant: the first that fails ends it, and what is not in flight by then waits as it did. One
//! retry goes out first, and with each that is delivered twice as many may: a receiver that is not
//! mended costs one attempt. They are taken by due time, each behind the one that was taken last,
//! so that none is taken twice; and they leave room for what is due.

use std::collections::HashSet;

use pipelet_domain::deliveries::RetryKey;
use tokio::sync::oneshot;

use super::{DispatchError, Dispatcher, Origin, RETRY_WINDOW};

/// At once, at most: of the room for retries, those that are due keep their share.
const MOST: usize = RETRY_WINDOW / 4;

/// How many attempts of a pass ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetriedNow {
    pub delivered: u64,
    pub failed: u64,
}

impl RetriedNow {
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            delivered: self.delivered + other.delivered,
            failed: self.failed + other.failed,
        }
    }
}

#[derive(Debug)]
pub(super) struct ImmediateRetry {
    after: Option<RetryKey>,
    /// How many may be loaded at once.
    room: usize,
    /// Waiting or in flight.
    loaded: HashSet<RetryKey>,
    /// There are no more behind `after`.
    ended: bool,
    counts: RetriedNow,
    /// Who wants to know how it ends.
    callers: Vec<oneshot::Sender<RetriedNow>>,
}

impl ImmediateRetry {
    fn begin() -> Self {
        Self {
            after: None,
            room: 1,
            loaded: HashSet::new(),
            ended: false,
            counts: RetriedNow::default(),
            callers: Vec::new(),
        }
    }

    /// Each look at the store has to be worth it.
    fn wants_more(&self) -> bool {
        !self.ended && self.loaded.len() <= self.room / 2
    }
}

impl Dispatcher {
    /// One that is under way already is not begun anew.
    pub(super) fn begin_immediate_retry(&mut self, caller: oneshot::Sender<RetriedNow>) {
        if self.webhook.enabled {
            let pass = self
                .immediate_retry
                .get_or_insert_with(ImmediateRetry::begin);
            pass.callers.retain(|caller| !caller.is_closed());
            pass.callers.push(caller);
        }
    }

    pub(super) fn may_load_immediate_retry(&self) -> bool {
        self.store_rests.is_none()
            && self.loaded_retries.len() < RETRY_WINDOW
            && !self.retry_memory.is_exhausted()
            && self
                .immediate_retry
                .as_ref()
                .is_some_and(ImmediateRetry::wants_more)
    }

    pub(super) async fn load_immediate_retry(&mut self) -> Result<(), DispatchError> {
        let Some(pass) = &self.immediate_retry else {
            return Ok(());
        };
        let (id, after) = (self.id(), pass.after);
        let limit = pass.room - pass.loaded.len();
        let keys = self.context.store.retry_keys(id, after, limit).await?;
        // Those that are loaded already are due.
        let wanted = |key: &RetryKey| !self.loaded_retries.contains(key);
        let wanted: Vec<_> = keys.iter().copied().filter(wanted).collect();
        let dealt_with = self.load_retries(&wanted).await?;
        let Some(pass) = &mut self.immediate_retry else {
            return Ok(());
        };
        pass.loaded.extend(&wanted[..dealt_with]);
        pass.loaded.retain(|key| self.loaded_retries.contains(key));
        let reached = if dealt_with < wanted.len() {
            // There was no room for the next one.
            wanted[..dealt_with].last()
        } else {
            pass.ended = keys.len() < limit;
            keys.last()
        };
        pass.after = reached.copied().or(pass.after);
        if pass.ended && pass.loaded.is_empty() {
            self.end_immediate_retry();
        }
        Ok(())
    }

    /// What an attempt at a retry came to.
    pub(super) fn settle_immediate_retry(&mut self, key: RetryKey, delivered: bool) {
        let Some(pass) = &mut self.immediate_retry else {
            return;
        };
        if !pass.loaded.remove(&key) {
            return;
        }
        if delivered {
            pass.counts.delivered += 1;
        } else {
            pass.counts.failed += 1;
        }
        pass.room = pass.room.saturating_mul(2).min(MOST);
        let done = pass.ended && pass.loaded.is_empty();
        if done || !delivered {
            self.end_immediate_retry();
        }
    }

    /// What is loaded and not in flight waits for its time again.
    pub(super) fn end_immediate_retry(&mut self) {
        let Some(pass) = self.immediate_retry.take() else {
            return;
        };
        for caller in pass.callers {
            // Who asked may have gone away.
            let _ = caller.send(pass.counts);
        }
        let loaded = pass.loaded;
        let unloaded = self.queues.remove(|job| match &job.origin {
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

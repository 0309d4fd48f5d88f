//! The webhooks that were deleted, as far as anything is kept of them.
//!
//! Their names and final books stay for a while, and for as long as they have dead letters. Of
//! older ones the books' sum is kept: however many webhooks come and go, the store does not grow.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use pipelet_domain::{deliveries::DeliveryCounts, webhooks::WebhookId};

use super::ledger::{Entry, Ledger};

/// So many are kept that have no dead letters, the latest.
pub(super) const KEPT: usize = 100;

#[derive(Debug, Default)]
pub(super) struct Deleted(Mutex<BTreeMap<WebhookId, DeliveryCounts>>);

impl Deleted {
    /// Its final books are on disk.
    pub(super) fn add(&self, webhook: WebhookId, books: DeliveryCounts) {
        self.all().insert(webhook, books);
    }

    /// Archives all but the latest, and those that have dead letters. Nothing waits for it to be on
    /// disk: what a crash undoes, the next start does again.
    pub(super) async fn archive_old(&self, ledger: &Ledger) {
        for (webhook, books) in self.take_old(ledger) {
            // It fails only where the daemon ends.
            let _ = ledger.record(Entry::Archived { webhook, books }).await;
        }
    }

    /// No other call archives those that are returned.
    fn take_old(&self, ledger: &Ledger) -> Vec<(WebhookId, DeliveryCounts)> {
        let mut all = self.all();
        let bare = all
            .keys()
            .copied()
            .filter(|id| ledger.counts(*id).dead == 0);
        let mut old: Vec<_> = bare.collect();
        old.truncate(old.len().saturating_sub(KEPT));
        let old = old.into_iter();
        old.filter_map(|id| all.remove_entry(&id)).collect()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<WebhookId, DeliveryCounts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

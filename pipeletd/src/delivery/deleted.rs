//! The webhooks that were deleted, as far as anything is kept of them.
//!
//! Their names and final books stay for a while, and for as long as they have dead letters. Of
//! older ones the books' sum is kept: however many webhooks come and go, the store does not grow.

use pipelet_domain::{deliveries::Stage, webhooks::WebhookId};

use super::{
    ledger::{Books, Entry},
    webhooks::Inner,
};
/// So many are kept that have no dead letters, the latest.
pub(super) const KEPT: usize = 100;

/// Archives all but the latest, and those that have dead letters. What a crash or an outage keeps
/// from being done is done by a later call.
pub(super) async fn archive_old(delivery: &Inner) {
    let is_deleted = |id: &WebhookId| {
        let stored = delivery.webhooks.find(id);
        stored.is_none_or(|found| found.value.stage == Stage::Deleted)
    };
    let mut books = delivery.ledger_books();
    // A deletion that is under way closes them one after the other.
    books.closed.retain(|id, _| is_deleted(id));
    for webhook in old(&books) {
        for shard in &delivery.shards {
            // It fails only where the store has an outage, or the daemon ends.
            let archived = Entry::Archived { webhook };
            let _ = shard.ledger.record_durably(archived).await;
        }
    }
}

fn old(books: &Books) -> Vec<WebhookId> {
    let bare = books.closed.keys().copied();
    let mut old: Vec<_> = bare.filter(|id| books.counts(*id).dead == 0).collect();
    old.truncate(old.len().saturating_sub(KEPT));
    old
}

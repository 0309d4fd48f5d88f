//! What is asked of all shards together: sums, and lists that are merged.
//!
//! Nothing is kept here.

use futures_util::future::try_join_all;
use pipelet_domain::{
    deliveries::{FailedDelivery, FailedFilter, FailedId, LedgerCounts, Retry, RetryKey},
    events::Seq,
    webhooks::WebhookId,
};

use super::{
    dispatcher::DispatcherContext,
    ledger::{Books, LedgerError},
    webhooks::Inner,
};
use crate::{
    journal::AppendError,
    store::{Part, ReadLimit, StoreError},
};

impl Inner {
    pub(super) fn check_journals(&self) -> Result<(), AppendError> {
        self.shards
            .iter()
            .try_for_each(|shard| shard.journal.check())
    }

    /// Whether what makes room can be written down.
    pub(super) fn check_ledgers(&self) -> Result<(), LedgerError> {
        let mut ledgers = self.shards.iter().map(|shard| &shard.ledger);
        ledgers.try_for_each(|ledger| ledger.check(false))
    }

    pub(super) fn sum_of(&self, number: impl Fn(&DispatcherContext) -> u64) -> u64 {
        self.shards.iter().map(number).sum()
    }

    /// What the ledger of this position's shard counts for a webhook.
    pub(super) fn counts_at(&self, seq: Seq, id: WebhookId) -> LedgerCounts {
        let shard = self.shards.at(seq);
        shard.map_or_else(LedgerCounts::default, |shard| shard.ledger.counts(id))
    }

    /// How many failed deliveries there are, over all webhooks.
    pub(super) fn dead(&self) -> u64 {
        self.sum_of(|shard| shard.ledger.dead())
    }

    /// What the ledgers count, all together.
    pub(super) fn ledger_books(&self) -> Books {
        let books = self.shards.iter().map(|shard| shard.ledger.books());
        books.fold(Books::default(), Books::plus)
    }

    /// The keys of a webhook's retries after `after`, by due time.
    pub(super) async fn retry_keys(
        &self,
        id: WebhookId,
        after: Option<RetryKey>,
        limit: usize,
    ) -> Result<Vec<RetryKey>, StoreError> {
        let shards = self.shards.iter();
        let keys = shards.map(|shard| shard.store.retry_keys(id, after, limit));
        let mut keys = try_join_all(keys).await?.concat();
        keys.sort_unstable();
        keys.truncate(limit);
        Ok(keys)
    }

    /// As [`LedgerStore::retries`](store::LedgerStore::retries), wherever they are.
    pub(super) async fn retries(
        &self,
        keys: &[RetryKey],
        mut limit: ReadLimit,
    ) -> Result<(Vec<Retry>, usize), StoreError> {
        let (mut found, mut looked_at) = (Vec::new(), 0);
        // In each shard, those that follow each other.
        for keys in keys.chunk_by(|one, next| one.seq.shard() == next.seq.shard()) {
            let Some(shard) = self.shards.at(keys[0].seq) else {
                looked_at += keys.len();
                continue;
            };
            // The first one is read however large it is: not if others were before.
            if !found.is_empty() && (limit.bytes == 0 || limit.count == 0) {
                break;
            }
            let (retries, looked) = shard.store.retries(keys, limit).await?;
            let bytes = retries.iter().map(Retry::memory_size).sum();
            limit.count = limit.count.saturating_sub(retries.len());
            limit.bytes = limit.bytes.saturating_sub(bytes);
            looked_at += looked;
            found.extend(retries);
            if looked < keys.len() {
                break;
            }
        }
        Ok((found, looked_at))
    }

    /// As [`LedgerStore::failed_deliveries`](crate::store::LedgerStore::failed_deliveries), of all
    /// shards.
    pub(super) async fn failed_deliveries(
        &self,
        filter: &FailedFilter,
        after: Option<FailedId>,
        limit: ReadLimit,
    ) -> Result<Part<FailedDelivery>, StoreError> {
        let shards = self.shards.iter();
        let part = limit.part_of(self.shards.count());
        let parts = shards.map(|shard| shard.store.failed_deliveries(filter, after, part));
        let parts = try_join_all(parts).await?;
        Ok(Part::merged(
            parts,
            limit,
            |failed| failed.id,
            FailedDelivery::memory_size,
        ))
    }
}

//! The transactions, as the API reads them: what is stored, and before it what is newer in memory.
//!
//! Invariant: a start or a stop that its station was answered is seen.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use futures_util::future::try_join_all;
use pipelet_domain::{
    events::Seq,
    projection::{Transaction, TransactionFilter},
    shards::{Shards, merged},
};

use super::{projector, transactions::LiveTransactions};
use crate::store::{ProjectionStore, StoreError};

/// The handle. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Transactions(Shards<ShardTransactions>);

/// Those of a shard.
#[derive(Debug, Clone)]
pub(super) struct ShardTransactions {
    pub(super) live: LiveTransactions,
    pub(super) store: Arc<dyn ProjectionStore>,
}

impl Transactions {
    pub(super) const fn new(shards: Shards<ShardTransactions>) -> Self {
        Self(shards)
    }

    pub async fn get(&self, transaction_id: i64) -> Result<Option<Arc<Transaction>>, StoreError> {
        let found = try_join_all(self.0.iter().map(|shard| shard.get(transaction_id))).await?;
        Ok(found.into_iter().flatten().next())
    }

    /// At most `limit` transactions, the latest first, from the position on in each shard that a
    /// call before gave. Gives where the next call goes on.
    pub async fn list(
        &self,
        filter: &TransactionFilter,
        before: Option<Shards<Seq>>,
        limit: usize,
    ) -> Result<(Vec<Arc<Transaction>>, Option<Shards<Seq>>), StoreError> {
        let mut before = match before {
            Some(before) if before.count() == self.0.count() => before,
            _ => self.0.map(|_| Seq(u64::MAX)),
        };
        // One more, which says whether there is another page.
        let looks = self.0.iter().zip(&before);
        let looks = looks.map(|(shard, before)| shard.list(filter, *before, limit + 1));
        let found = merged(try_join_all(looks).await?, |_| false, |it| it.started_at);
        let mut found: Vec<_> = found.map(|(_, transaction)| transaction).collect();
        let is_cut = found.len() > limit;
        found.truncate(limit);
        before = self
            .0
            .with_values(self.0.ids().zip(&before).map(|(shard, before)| {
                let of_shard = found.iter().map(|transaction| transaction.seq);
                of_shard
                    .filter(|seq| seq.shard() == shard)
                    .min()
                    .unwrap_or(*before)
            }));
        Ok((found, is_cut.then_some(before)))
    }
}

impl ShardTransactions {
    async fn get(&self, transaction_id: i64) -> Result<Option<Arc<Transaction>>, StoreError> {
        // Taken first: what is saved meanwhile is then found twice rather than never.
        let late_stop = self.live.late_stop(transaction_id);
        let known = match self.live.get(transaction_id) {
            Some(live) => Some(live),
            None => self.store.transaction(transaction_id).await?.map(Arc::new),
        };
        let ended = late_stop.zip(known.as_ref());
        let ended = ended.and_then(|(stop, known)| stop.ended(known));
        Ok(ended.map(Arc::new).or(known))
    }

    /// At most `limit` transactions that started before `before` in the journal, the latest first.
    async fn list(
        &self,
        filter: &TransactionFilter,
        before: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<Transaction>>, StoreError> {
        // Taken first: what is saved meanwhile is then found twice rather than never.
        let late_stops = self.live.late_stops();
        let unsaved = self.live.unsaved().into_iter();
        let ended = projector::ended(self.store.as_ref(), &late_stops).await?;
        let known: BTreeMap<Seq, _> = unsaved
            .chain(ended)
            .map(|newer| (newer.seq, newer))
            .collect();
        let mut found: Vec<Arc<Transaction>> = known
            .values()
            .filter(|newer| newer.seq < before)
            .filter(|newer| filter.matches(newer))
            .cloned()
            .collect();
        let enough = limit.saturating_add(known.len());
        let stored = self
            .store
            .transactions(filter, Some(before), enough)
            .await?;
        let stored = stored
            .into_iter()
            .filter(|stored| !known.contains_key(&stored.seq));
        found.extend(stored.map(Arc::new));
        found.sort_unstable_by_key(|transaction| Reverse(transaction.seq));
        found.truncate(limit);
        Ok(found)
    }
}

//! The transactions, as the API reads them: what is stored, and before it what is newer in memory.
//!
//! Invariant: a start or a stop that its station was answered is seen.

use std::{collections::BTreeMap, sync::Arc};

use pipelet_domain::{
    events::Seq,
    projection::{Transaction, TransactionFilter},
};

use super::{projector, transactions::LiveTransactions};
use crate::store::{ProjectionStore, StoreError};

/// The handle. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Transactions {
    live: LiveTransactions,
    store: Arc<dyn ProjectionStore>,
}

impl Transactions {
    pub(super) const fn new(live: LiveTransactions, store: Arc<dyn ProjectionStore>) -> Self {
        Self { live, store }
    }

    pub async fn get(&self, transaction_id: i64) -> Result<Option<Arc<Transaction>>, StoreError> {
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
    pub async fn list(
        &self,
        filter: TransactionFilter,
        before: Option<Seq>,
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
            .filter(|newer| before.is_none_or(|before| newer.seq < before))
            .filter(|newer| filter.matches(newer))
            .cloned()
            .collect();
        let enough = limit.saturating_add(known.len());
        let stored = self.store.transactions(&filter, before, enough).await?;
        let stored = stored
            .into_iter()
            .filter(|stored| !known.contains_key(&stored.seq));
        found.extend(stored.map(Arc::new));
        found.sort_unstable_by_key(|transaction| std::cmp::Reverse(transaction.seq));
        found.truncate(limit);
        Ok(found)
    }
}

//! The transactions, as the API reads them: what is stored, and before it what is newer in memory.

use std::{collections::BTreeSet, sync::Arc};

use pipelet_domain::{
    events::Seq,
    projection::{Transaction, TransactionFilter},
};

use super::transactions::LiveTransactions;
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
        if let Some(live) = self.live.get(transaction_id) {
            return Ok(Some(live));
        }
        let stored = self.store.transaction(transaction_id).await?;
        Ok(stored.map(Arc::new))
    }

    /// At most `limit` transactions that started before `before` in the journal, the latest first.
    pub async fn list(
        &self,
        filter: TransactionFilter,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Arc<Transaction>>, StoreError> {
        // Taken first: what is saved meanwhile is then found twice rather than never.
        let newer = self.live.unsaved();
        let known: BTreeSet<Seq> = newer.iter().map(|transaction| transaction.seq).collect();
        let mut found: Vec<Arc<Transaction>> = newer
            .into_iter()
            .filter(|newer| before.is_none_or(|before| newer.seq < before))
            .filter(|newer| filter.matches(newer))
            .collect();
        let enough = limit.saturating_add(known.len());
        let stored = self.store.transactions(&filter, before, enough).await?;
        let stored = stored
            .into_iter()
            .filter(|stored| !known.contains(&stored.seq));
        found.extend(stored.map(Arc::new));
        found.sort_unstable_by_key(|transaction| std::cmp::Reverse(transaction.seq));
        found.truncate(limit);
        Ok(found)
    }
}

//! The projections of a shard: stations, transactions, and the position that they are as of.
//!
//! One owner saves, one call after the other; anyone may read meanwhile. What is saved is durable
//! on return. Events apply to it more than once: whoever opens it replays the log from
//! [`SavedStations::projected_to`] on.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;
use pipelet_domain::{
    events::{Seq, StationId},
    projection::{StationState, Transaction, TransactionFilter},
};

use super::StoreError;

/// What was known of the stations when it was last saved.
#[derive(Debug, Clone, Default)]
pub struct SavedStations {
    pub states: Vec<StationState>,
    /// Events below this are contained in the states.
    pub projected_to: Seq,
}

#[async_trait]
pub trait ProjectionStore: fmt::Debug + Send + Sync + 'static {
    async fn stations(&self) -> Result<SavedStations, StoreError>;

    /// Saves what changed: all or nothing.
    async fn save(
        &self,
        states: Vec<StationState>,
        transactions: Vec<Arc<Transaction>>,
        projected_to: Seq,
    ) -> Result<(), StoreError>;

    /// Forgets these stations, all or none; those that are not there are no error. Their
    /// transactions stay.
    async fn forget_stations(&self, stations: &[StationId]) -> Result<(), StoreError>;

    async fn transaction(&self, transaction_id: i64) -> Result<Option<Transaction>, StoreError>;

    /// At most `limit` transactions that match and started before `before` in the log, the latest
    /// first.
    async fn transactions(
        &self,
        filter: &TransactionFilter,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Transaction>, StoreError>;

    /// At most `limit` open transactions that started behind `after` in the log, the oldest first.
    async fn open_transactions(
        &self,
        after: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Transaction>, StoreError>;

    /// Forgets at most `limit` transactions that ended before this, the first that ended first, and
    /// returns how many. Those that are open stay, however old they are. Need not be durable on
    /// return.
    async fn forget_transactions(
        &self,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError>;
}

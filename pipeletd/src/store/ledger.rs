//! The ledger of a shard: what left the happy path, and the counts of it.
//!
//! One owner commits, one call after the other, on a thread that a commit may block; anyone may read
//! meanwhile. A commit is durable on return. One that failed may have been done or not: its owner
//! commits the same again until that works, which comes to the same. Due times are ordered by the
//! owner: the engine only keeps retries apart by their keys.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use pipelet_domain::{
    deliveries::{
        ArchivedCounts, DeliveryCounts, FailedDelivery, FailedFilter, FailedId, LedgerCounts,
        Retry, RetryKey, StoredCounts,
    },
    events::Seq,
    webhooks::WebhookId,
};

use super::{Part, ReadLimit, StoreError};

#[derive(Debug, Clone)]
pub enum LedgerChange {
    Retry(Retry),
    RetryGone(RetryKey),
    /// Its id will not be given out again.
    Failed(FailedDelivery),
    FailedGone(WebhookId, FailedId),
    /// This event's delivery left the happy path: a cursor that was written before doesn't know.
    OffCursorMarker(WebhookId, Seq),
    /// A durable cursor knows it.
    OffCursorMarkerGone(WebhookId, Seq),
    Counts(WebhookId, LedgerCounts),
    /// The final books of a webhook that is deleted.
    Closed(WebhookId, DeliveryCounts),
    /// Nothing is kept of a webhook's counts and final books but this sum of all such.
    Archived(WebhookId, ArchivedCounts),
    /// What the clock of retries shows, in milliseconds; never less than before.
    RetryTime(i64),
}

impl LedgerChange {
    /// Whether there is more to keep after it; others make room, or replace what is small. Those
    /// find room on a disk that is too full for what grows.
    pub const fn grows(&self) -> bool {
        match self {
            Self::Retry(_) | Self::Failed(_) | Self::OffCursorMarker(..) => true,
            Self::RetryGone(_)
            | Self::FailedGone(..)
            | Self::OffCursorMarkerGone(..)
            | Self::Counts(..)
            | Self::Closed(..)
            | Self::Archived(..)
            | Self::RetryTime(_) => false,
        }
    }
}

/// What is read once, when a ledger is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerState {
    pub counts: BTreeMap<WebhookId, LedgerCounts>,
    pub closed: BTreeMap<WebhookId, DeliveryCounts>,
    pub archived: ArchivedCounts,
    pub next_failed: FailedId,
    /// The last [`LedgerChange::RetryTime`].
    pub retry_time: Option<i64>,
}

#[async_trait]
pub trait LedgerStore: fmt::Debug + Send + Sync + 'static {
    async fn state(&self) -> Result<LedgerState, StoreError>;

    /// All or nothing, in the order given.
    async fn commit(&self, changes: Arc<[LedgerChange]>) -> Result<(), StoreError>;

    /// Whether a commit of changes that grow, with records of so many bytes, could work now, as far
    /// as can be told without one.
    async fn check_growth(&self, bytes: usize) -> Result<(), StoreError>;

    /// How many retries and failed deliveries of a webhook there are, counted one by one.
    async fn count_stored(&self, webhook: WebhookId) -> Result<StoredCounts, StoreError>;

    async fn off_cursor_markers(&self, webhook: WebhookId) -> Result<Vec<Seq>, StoreError>;

    /// The keys of at most `limit` retries of a webhook after `after`, by ascending due time.
    async fn retry_keys(
        &self,
        webhook: WebhookId,
        after: Option<RetryKey>,
        limit: usize,
    ) -> Result<Vec<RetryKey>, StoreError>;

    /// The retries with these keys, as far as there is room. One that is gone is left out; the
    /// number is that of the keys that were looked at.
    async fn retries(
        &self,
        keys: &[RetryKey],
        limit: ReadLimit,
    ) -> Result<(Vec<Retry>, usize), StoreError>;

    /// Failed deliveries that match, with an id above `after`, ascending.
    async fn failed_deliveries(
        &self,
        filter: &FailedFilter,
        after: Option<FailedId>,
        limit: ReadLimit,
    ) -> Result<Part<FailedDelivery>, StoreError>;

    async fn failed_delivery(&self, id: FailedId) -> Result<Option<FailedDelivery>, StoreError>;
}

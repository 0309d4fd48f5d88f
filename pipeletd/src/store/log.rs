//! The log of a shard: every event once, by position, and how far each webhook has come.
//!
//! One owner appends, one call after the other, on a thread that an append and a check may block;
//! anyone may read meanwhile. What an append returns for is durable. One that failed has an unknown outcome, which the engine resolves before it
//! appends again, or in [`LogStore::check`]: of a failed batch nothing is found after that, and its
//! positions are given out again. Whoever reads must not pass the owner's head.

use std::{collections::BTreeMap, fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use pipelet_domain::{
    deliveries::{Cursor, Received, SubscriptionVersion},
    events::{Event, Seq},
    webhooks::WebhookId,
};

use super::{ReadLimit, StoreError};

/// Progress of a webhook that goes to disk together with a batch of events.
#[derive(Debug, Clone)]
pub enum Checkpoint {
    Cursor(WebhookId, Cursor),
    Received(WebhookId, Received),
    /// What it wants, by position; the last one is in force from here on.
    Subscription(WebhookId, Arc<[SubscriptionVersion]>),
    /// The webhook is gone: nothing is kept of its progress.
    Gone(WebhookId),
}

impl Checkpoint {
    pub const fn webhook(&self) -> WebhookId {
        match self {
            Self::Cursor(id, _)
            | Self::Received(id, _)
            | Self::Subscription(id, _)
            | Self::Gone(id) => *id,
        }
    }
}

/// What the checkpoints of a webhook have left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    pub cursor: Option<Cursor>,
    pub received: Option<Received>,
    pub versions: Arc<[SubscriptionVersion]>,
}

#[async_trait]
pub trait LogStore: fmt::Debug + Send + Sync + 'static {
    /// From the oldest event that is kept to the position of the next one.
    async fn bounds(&self) -> Result<Range<Seq>, StoreError>;

    /// Appends events together with checkpoints, all or nothing, and returns the first one's
    /// position.
    async fn append(
        &self,
        events: Arc<[Arc<Event>]>,
        checkpoints: Arc<[Checkpoint]>,
    ) -> Result<Seq, StoreError>;

    /// Whether an append could work now, as far as can be told without one.
    async fn check(&self) -> Result<(), StoreError>;

    /// Whether there is room for what stations send that nobody has registered: they are to leave
    /// some of the disk to the others. Does not wait.
    fn has_room_for_strangers(&self) -> bool;

    /// Events from `from` on, in order; none only where there is none.
    async fn read_from(
        &self,
        from: Seq,
        limit: ReadLimit,
    ) -> Result<Vec<(Seq, Arc<Event>)>, StoreError>;

    async fn event(&self, seq: Seq) -> Result<Option<Arc<Event>>, StoreError>;

    /// Forgets events below `floor`, the oldest first and about `limit` of them, and returns how
    /// many bytes they took, about. Events that were appended together may only go together:
    /// those below the floor then stay until it has passed the others. What may go does, some of
    /// it with each call. The log's last event always stays. Need not be durable on return.
    async fn trim(&self, floor: Seq, limit: usize) -> Result<u64, StoreError>;

    async fn progress(&self) -> Result<BTreeMap<WebhookId, Progress>, StoreError>;
}

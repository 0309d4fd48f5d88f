//! What delivery remembers: the cursor of the happy path, and records for exceptions only.
//!
//! Plain values. The store keeps them and knows their bytes; nothing here does.

mod books;
mod failures;
mod subscription;

pub use books::{
    ArchivedCounts, Cursor, DeliveryCounts, LedgerCounts, Received, Stage, StoredCounts,
    StoredWebhook,
};
pub use failures::{
    Attempt, DeadReason, FailedDelivery, FailedFilter, FailedId, Phases, Retry, RetryKey,
};
pub use subscription::{Subscription, SubscriptionVersion, is_owed};

//! Where everything that must survive is kept.
//!
//! The trait speaks in meanings, never in bytes. Every call blocks, and a call that writes
//! returns only once the change is durable, unless it says otherwise. Calls that write one
//! database have one caller at a time: the journal's committer, the ledger, the projector.
//!
//! A disk that is full or fails is no end: calls fail with an outage until it works again, and
//! then go on. A write that failed so may have been done or not.
//!
//! It knows no HTTP, no OCPP message and no configuration.

pub mod backup;
mod block;
mod byte_list;
mod codec;
pub(crate) mod fuzzing;
mod id_tag_record;
mod key_file;
mod keys;
pub mod memory;
mod outage;
mod records;
mod registration_record;
mod sealing;
pub mod sled;
pub mod station_record;
mod transaction_record;

#[cfg(test)]
mod conformance;

use std::{fmt, ops::Range, path::PathBuf, sync::Arc};

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{
        ArchivedCounts, Cursor, FailedDelivery, FailedFilter, FailedId, LedgerCounts, Received,
        Retry, RetryKey, StoredCounts, StoredWebhook, SubscriptionVersion,
    },
    events::{Event, IdTagKey, Seq, StationId},
    id_tags::IdTagEntry,
    projection::{StationState, Transaction, TransactionFilter},
    registration::Registration,
    webhooks::WebhookId,
};

pub use self::{
    backup::{Backup, BackupError, RestoreError},
    key_file::{KeyFileError, check as check_key_file},
    outage::Outage,
};
use crate::{auth::ApiKeyInfo, system::limits::memory::LARGEST_EVENT};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("another process uses the data directory {0}; stop it, or choose another --data-dir")]
    Locked(PathBuf),
    #[error(
        "the store in {path} has format {found}, and this version reads format {known} only; \
         install the version that wrote it, or move the data directory away to begin without it"
    )]
    Format {
        path: PathBuf,
        found: u64,
        known: u64,
    },
    #[error(
        "the store in {path} is damaged: {detail}; restore a backup (pipeletd restore FILE \
         --set-aside), or move the data directory's hot and cold away to begin without them"
    )]
    Damaged { path: PathBuf, detail: String },
    #[error(
        "a restore was interrupted before it was whole, and there is no store yet; run it again, \
         or remove {0} to begin without one"
    )]
    RestoreInterrupted(PathBuf),
    #[error("can't use {path}")]
    Directory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the store failed")]
    Engine(#[source] ::sled::Error),
    #[error("the store could not be synced to disk")]
    Sync(#[source] std::io::Error),
    #[error("the disk is full: {free} bytes are left, and {needed} are kept back")]
    Full { free: u64, needed: u64 },
    #[error("the disk is read-only")]
    ReadOnly,
    #[error("the store has failed and is opened again as soon as that works: {0}")]
    Closed(String),
    #[error("a stored {what} can't be read: {detail}")]
    Record { what: &'static str, detail: String },
    #[error(transparent)]
    KeyFile(KeyFileError),
}

impl StoreError {
    /// Whether it is the disk's doing, so that the same may work later.
    pub const fn is_outage(&self) -> bool {
        match self {
            Self::Engine(error) => !matches!(error, ::sled::Error::Corruption { .. }),
            Self::Sync(_) | Self::Full { .. } | Self::ReadOnly | Self::Closed(_) => true,
            Self::Locked(_)
            | Self::Format { .. }
            | Self::Damaged { .. }
            | Self::RestoreInterrupted(_)
            | Self::Directory { .. }
            | Self::Record { .. }
            | Self::KeyFile(_) => false,
        }
    }

    /// The error with what caused it, for people.
    pub fn chain(&self) -> String {
        let source = std::error::Error::source(self);
        source.map_or_else(|| self.to_string(), |source| format!("{self}: {source}"))
    }
}

/// Who gathers things to write them together ends a batch here. An engine may have trouble with
/// much longer ones; a single long thing is none.
pub const BATCH_BYTES: usize = 1 << 20;

/// How much one read returns at most. The first thing is returned however large it is, so that
/// every read gets on.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimit {
    pub count: usize,
    /// Of events in memory: [`Event::memory_size`].
    pub bytes: usize,
}

impl ReadLimit {
    /// So many things, and no more than what one who reads a part after the other may hold.
    pub const fn part(count: usize) -> Self {
        Self {
            count,
            bytes: PART_BYTES,
        }
    }

    /// A page of a list: so many things, and no more than a caller is sent at once.
    pub const fn page(count: usize) -> Self {
        Self {
            count,
            bytes: PAGE_BYTES,
        }
    }

    /// Whether there is room for one of this size beside those that were taken.
    pub(crate) const fn admits(&self, taken: usize, taken_bytes: usize, size: usize) -> bool {
        taken < self.count && (taken == 0 || taken_bytes + size <= self.bytes)
    }
}

/// Things that were read up to a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<T> {
    pub items: Vec<T>,
    /// There are more, for which there was no room in bytes.
    pub is_cut: bool,
}

impl<T> Part<T> {
    pub fn map<U>(self, view: impl FnMut(T) -> U) -> Part<U> {
        Part {
            items: self.items.into_iter().map(view).collect(),
            is_cut: self.is_cut,
        }
    }
}

/// What is read at once by one who reads all of something, a part after the other.
const PART_BYTES: usize = 1 << 20;
/// A page of what stations send mostly is whole. As JSON it is about half of this, and so less than
/// the 4 MiB that gRPC's clients take by default.
pub const PAGE_BYTES: usize = LARGEST_EVENT;

/// One change of what is kept beside the journal.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "they live for one batch, and most are small"
)]
pub enum Change {
    /// Creates or replaces; its id will not be given out again.
    Webhook(StoredWebhook),
    /// The webhook and its counts; nothing else may be there of it.
    WebhookGone(WebhookId),
    ArchivedCounts(ArchivedCounts),
    LedgerCounts(WebhookId, LedgerCounts),
    Retry(Retry),
    RetryGone(RetryKey),
    /// Its id will not be given out again.
    Failed(FailedDelivery),
    FailedGone(WebhookId, FailedId),
    /// This event's delivery left the happy path: a cursor that was written before doesn't know.
    OffCursorMarker(WebhookId, Seq),
    /// A durable cursor knows it.
    OffCursorMarkerGone(WebhookId, Seq),
    /// Its id will not be given out again.
    ApiKey(ApiKeyInfo),
    ApiKeyGone(u64),
    /// Creates or replaces.
    IdTag(IdTagEntry),
    IdTagGone(IdTagKey),
    Registration(Registration),
    RegistrationGone(StationId),
    /// What the clock of retries shows, in milliseconds; never less than before.
    RetryTime(i64),
}

impl Change {
    /// Whether there is more to keep after it; others make room, or replace what is small.
    pub const fn grows(&self) -> bool {
        match self {
            // One that wants nothing more replaces itself, or ends.
            Self::Webhook(stored) => stored.webhook.enabled,
            Self::Retry(_)
            | Self::Failed(_)
            | Self::OffCursorMarker(..)
            | Self::ApiKey(_)
            | Self::IdTag(_)
            | Self::Registration(_) => true,
            Self::WebhookGone(_)
            | Self::ArchivedCounts(_)
            | Self::LedgerCounts(..)
            | Self::RetryGone(_)
            | Self::FailedGone(..)
            | Self::OffCursorMarkerGone(..)
            | Self::ApiKeyGone(_)
            | Self::IdTagGone(_)
            | Self::RegistrationGone(_)
            | Self::RetryTime(_) => false,
        }
    }
}

/// The next number for each kind of thing that is numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextIds {
    pub webhook: WebhookId,
    pub failed: FailedId,
    pub api_key: u64,
}

/// What was known of the stations when it was last saved.
#[derive(Debug, Clone, Default)]
pub struct SavedStations {
    pub states: Vec<StationState>,
    /// Events below this are contained in the states.
    pub projected_to: Seq,
}

/// A webhook's progress that goes to disk together with a batch of events.
#[derive(Debug, Clone)]
pub enum Progress {
    Cursor(WebhookId, Cursor),
    Received(WebhookId, Received),
    /// What it wants, by position; the last one is in force from here on.
    Subscription(WebhookId, Arc<[SubscriptionVersion]>),
    /// The webhook is gone: nothing is kept of its progress.
    Gone(WebhookId),
}

pub trait Store: Send + Sync + fmt::Debug + 'static {
    // The journal and the cursors.

    /// From the oldest event that is kept to the position of the next one.
    fn bounds(&self) -> Result<Range<Seq>, StoreError>;

    /// Appends events from `first` on, which must be the journal's end, with the progress that
    /// webhooks made meanwhile: all or nothing.
    fn append(
        &self,
        first: Seq,
        events: &[Arc<Event>],
        progress: &[Progress],
    ) -> Result<(), StoreError>;

    /// Forgets the events from `end` on, durably. Nobody may have been told of them: this is for
    /// what a failed `append` has left behind.
    fn cut_off(&self, end: Seq) -> Result<(), StoreError>;

    /// Whether an `append` could work now, as far as can be told without one.
    fn check(&self) -> Result<(), StoreError>;

    /// Whether there is room for what stations send that nobody has registered: they are to leave
    /// some of the disk to the others.
    fn has_room_for_strangers(&self) -> bool;

    /// Events from `from` on, in order; none only where there is none.
    fn read_from(&self, from: Seq, limit: ReadLimit) -> Result<Vec<(Seq, Arc<Event>)>, StoreError>;

    fn event(&self, seq: Seq) -> Result<Option<Arc<Event>>, StoreError>;

    /// Forgets events below `floor`, the oldest first and about `limit` of them, and returns how
    /// many bytes they took, about. Events that were appended together may only go together:
    /// those below the floor then stay until it has passed the others. What may go does, some of
    /// it with each call. The journal's last event always stays. Need not be durable on return.
    fn drop_below(&self, floor: Seq, limit: usize) -> Result<u64, StoreError>;

    fn cursors(&self) -> Result<Vec<(WebhookId, Cursor)>, StoreError>;

    fn received(&self) -> Result<Vec<(WebhookId, Received)>, StoreError>;

    fn subscriptions(&self) -> Result<Vec<(WebhookId, Vec<SubscriptionVersion>)>, StoreError>;

    // What stays beside the journal.

    /// All or nothing, in the order given. Others than those that [grow](Change::grows) find room
    /// on a disk that is too full for those.
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError>;

    /// Whether a `commit` of changes that grow could work now, as far as can be told without one.
    fn check_growth(&self) -> Result<(), StoreError>;

    fn next_ids(&self) -> Result<NextIds, StoreError>;

    /// The last [`Change::RetryTime`].
    fn retry_time(&self) -> Result<Option<i64>, StoreError>;

    /// Deleted ones included, by ascending id.
    fn webhooks(&self) -> Result<Vec<StoredWebhook>, StoreError>;

    /// The last [`Change::ArchivedCounts`].
    fn archived_counts(&self) -> Result<ArchivedCounts, StoreError>;

    fn ledger_counts(&self) -> Result<Vec<(WebhookId, LedgerCounts)>, StoreError>;

    /// How many retries and failed deliveries of a webhook there are, counted one by one.
    fn count_stored(&self, webhook: WebhookId) -> Result<StoredCounts, StoreError>;

    fn off_cursor_markers(&self, webhook: WebhookId) -> Result<Vec<Seq>, StoreError>;

    /// The keys of at most `limit` retries of a webhook after `after`, by ascending due time.
    fn retry_keys(
        &self,
        webhook: WebhookId,
        after: Option<RetryKey>,
        limit: usize,
    ) -> Result<Vec<RetryKey>, StoreError>;

    fn retry(&self, key: RetryKey) -> Result<Option<Retry>, StoreError>;

    /// Failed deliveries that match, with an id above `after`, ascending.
    fn failed_deliveries(
        &self,
        filter: &FailedFilter,
        after: Option<FailedId>,
        limit: ReadLimit,
    ) -> Result<Part<FailedDelivery>, StoreError>;

    fn failed_delivery(&self, id: FailedId) -> Result<Option<FailedDelivery>, StoreError>;

    fn id_tags(&self) -> Result<Vec<IdTagEntry>, StoreError>;

    fn api_keys(&self) -> Result<Vec<ApiKeyInfo>, StoreError>;

    // Stations and transactions.

    /// By ascending station id.
    fn registrations(&self) -> Result<Vec<Registration>, StoreError>;

    fn load_stations(&self) -> Result<SavedStations, StoreError>;

    /// Saves what changed of the projection: all or nothing.
    fn save_stations(
        &self,
        states: &[StationState],
        transactions: &[Arc<Transaction>],
        projected_to: Seq,
    ) -> Result<(), StoreError>;

    /// Forgets these stations, all or none; those that are not there are no error. Their transactions
    /// stay.
    fn forget_stations(&self, stations: &[StationId]) -> Result<(), StoreError>;

    fn transaction(&self, transaction_id: i64) -> Result<Option<Transaction>, StoreError>;

    /// At most `limit` transactions that match and started before `before` in the journal, the
    /// latest first.
    fn transactions(
        &self,
        filter: &TransactionFilter,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Transaction>, StoreError>;

    /// At most `limit` open transactions that started behind `after` in the journal, the oldest
    /// first.
    fn open_transactions(
        &self,
        after: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Transaction>, StoreError>;

    /// Forgets at most `limit` transactions that ended before this, the first that ended first, and
    /// returns how many. Those that are open stay, however old they are. Need not be durable on
    /// return.
    fn forget_transactions(
        &self,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError>;

    /// Reserves `count` numbers that were never given out before; returns the first.
    fn reserve_transaction_numbers(&self, count: u32) -> Result<u32, StoreError>;

    /// A random key, made once for each store.
    fn transaction_key(&self) -> Result<[u8; 16], StoreError>;
}

/// Takes things until one more would be too many or too large together.
pub(crate) fn take_up_to<T>(
    limit: ReadLimit,
    things: impl Iterator<Item = Result<T, StoreError>>,
    size: impl Fn(&T) -> usize,
) -> Result<Part<T>, StoreError> {
    let mut bytes = 0;
    let mut items = Vec::new();
    for thing in things.take(limit.count) {
        let thing = thing?;
        let size = size(&thing);
        if !limit.admits(items.len(), bytes, size) {
            let is_cut = true;
            return Ok(Part { items, is_cut });
        }
        bytes += size;
        items.push(thing);
    }
    let is_cut = false;
    Ok(Part { items, is_cut })
}

/// Runs a call that blocks where blocking does no harm; a panic in it goes on here.
pub async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(run).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels blocking tasks; nobody polls this then.
            Err(_) => std::future::pending().await,
        },
    }
}

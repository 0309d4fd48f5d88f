//! Where everything that must survive is kept.
//!
//! Four traits, each of which a part of the daemon needs: the [log](LogStore), the
//! [ledger](LedgerStore) and the [projections](ProjectionStore) of a shard, and the
//! [configuration](ConfigurationStore) that all shards share. They speak in meanings, never in
//! bytes. Each says what is durable when, and who may call. Engines are [`sled`], [`jetstream`]
//! and, for tests, [`memory`]; the conformance suite holds them to the traits.
//!
//! A disk that is full or fails is no end: calls fail with an outage until it works again, and
//! then go on.
//!
//! It knows no HTTP, no OCPP message and no configuration.

pub mod backup;
mod block;
mod byte_list;
mod codec;
mod configuration;
pub(crate) mod fuzzing;
pub mod group_commit;
mod id_tag_record;
pub mod jetstream;
mod key_file;
mod keys;
mod ledger;
mod log;
pub mod memory;
mod outage;
mod ownership;
mod projections;
mod records;
mod registration_record;
mod sealing;
pub mod sled;
pub mod station_record;
mod table;
mod transaction_record;

use std::{path::PathBuf, sync::Arc};

use pipelet_domain::shards::Shards;

pub use self::{
    backup::{Backup, BackupError, RestoreError, of_parts as backup_of_parts},
    configuration::{
        ConfigurationChange, ConfigurationStore, Counter, Entry, EntryKey, Observer, PutError,
        Revision,
    },
    key_file::{KeyFileError, check as check_key_file},
    ledger::{LedgerChange, LedgerState, LedgerStore},
    log::{Checkpoint, LogStore, Progress},
    outage::Outage,
    ownership::Ownership,
    projections::{ProjectionStore, SavedStations},
};
use crate::system::limits::memory::LARGEST_EVENT;

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
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
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
    #[error("another node has taken this over")]
    Fenced,
    #[error(transparent)]
    Cluster(Box<jetstream::ClusterError>),
}

impl StoreError {
    /// Whether it is the disk's doing, so that the same may work later.
    pub const fn is_outage(&self) -> bool {
        match self {
            Self::Engine(_)
            | Self::Sync(_)
            | Self::Full { .. }
            | Self::ReadOnly
            | Self::Closed(_) => true,
            Self::Locked(_)
            | Self::Format { .. }
            | Self::Damaged { .. }
            | Self::RestoreInterrupted(_)
            | Self::Directory { .. }
            | Self::Record { .. }
            | Self::KeyFile(_)
            | Self::Fenced
            | Self::Cluster(_) => false,
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
    /// Of events in memory: [`Event::memory_size`](pipelet_domain::events::Event::memory_size).
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

    /// What one of so many may read who have it together: any of them may have all that there is.
    #[must_use]
    pub const fn part_of(self, count: usize) -> Self {
        Self {
            count: self.count,
            bytes: self.bytes / count,
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
    /// One of several that are in the keys' order each, read up to the limit.
    pub fn merged<K: Ord>(
        parts: Vec<Self>,
        limit: ReadLimit,
        key: impl Fn(&T) -> K,
        size: impl Fn(&T) -> usize,
    ) -> Self {
        // Behind the end of one that is cut there may be more, before what others have there.
        let cut = parts.iter().filter(|part| part.is_cut);
        let end = cut.filter_map(|part| part.items.last().map(&key)).min();
        let mut items: Vec<_> = parts.into_iter().flat_map(|part| part.items).collect();
        items.sort_by_key(&key);
        let mut bytes = 0;
        let count = items.iter().enumerate().take_while(|(taken, item)| {
            let is_known = end.as_ref().is_none_or(|end| key(item) <= *end);
            let fits = limit.admits(*taken, bytes, size(item));
            bytes += size(item);
            is_known && fits
        });
        let count = count.count();
        let is_cut = end.is_some() || (count < items.len() && count < limit.count);
        items.truncate(count);
        Self { items, is_cut }
    }

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

/// What a daemon keeps everything in.
#[derive(Debug)]
pub struct Engine {
    pub configuration: Arc<dyn ConfigurationStore>,
    /// All of them, or the one that this engine is of.
    pub shards: Shards<ShardStores>,
    /// How many there are; which of them a station belongs to depends on that.
    pub shard_count: u16,
    pub backup: Arc<dyn Backup>,
    pub ownership: Ownership,
}

/// What an engine keeps of one shard.
#[derive(Debug, Clone)]
pub struct ShardStores {
    pub log: Arc<dyn LogStore>,
    pub ledger: Arc<dyn LedgerStore>,
    pub projections: Arc<dyn ProjectionStore>,
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

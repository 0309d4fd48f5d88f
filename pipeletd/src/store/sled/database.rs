//! One sled database with the guards that it needs to keep its word.
//!
//! Found by running sled 0.34.7, each with its guard here:
//! - `flush()` ends in `sync_file_range`, which makes nothing durable against power loss: an own
//!   handle of the `db` file is synced after each.
//! - A new database's files and directory are not synced: they are, once, after opening.
//! - Values over a quarter of a segment become blob files, which are not synced: longer values
//!   are cut into chunks of under 4 KB.
//! - A damaged snapshot stops the opening: it is moved aside, and the log is read instead.
//! - Garbage is collected in the flusher thread only, so that thread stays on.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use sled::{IVec, Tree};

use crate::store::{
    StoreError,
    codec::record_error,
    keys::{self, Kind},
};

/// In bytes; the largest part of a value that goes under one key.
const CHUNK: usize = 4000;
/// Smaller segments pin less space when few long-lived records stay among many short-lived.
const SEGMENT: usize = 512 * 1024;
const GARBAGE_COLLECTION_MS: u64 = 500;

#[derive(Debug)]
pub(super) struct Database {
    tree: Tree,
    db: sled::Db,
    /// sled's log file, for the `sync_data` that sled leaves out.
    log: File,
}

/// Writes that happen together or not at all.
#[derive(Default)]
pub(super) struct Batch(sled::Batch);

impl Database {
    pub(super) fn open(path: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let directory = |source| StoreError::Directory {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(path).map_err(directory)?;
        let db = match open_sled(path, cache_bytes) {
            Err(sled::Error::Corruption { .. })
                if set_snapshots_aside(path).map_err(directory)? =>
            {
                tracing::warn!(path = %path.display(), "moved a damaged snapshot aside");
                open_sled(path, cache_bytes)
            }
            opened => opened,
        };
        let db = db.map_err(|error| match error {
            sled::Error::Corruption { .. } => StoreError::Damaged {
                path: path.to_owned(),
                detail: error.to_string(),
            },
            error => StoreError::Engine(error),
        })?;
        sync_everything(path).map_err(StoreError::Sync)?;
        let log = File::open(path.join("db")).map_err(directory)?;
        Ok(Self {
            tree: (*db).clone(),
            db,
            log,
        })
    }

    /// Applies the batch and returns once it would survive a power loss.
    pub(super) fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.tree.apply_batch(batch.0).map_err(StoreError::Engine)?;
        self.sync()
    }

    /// Applies the batch; it becomes durable with a later commit.
    pub(super) fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.tree.apply_batch(batch.0).map_err(StoreError::Engine)
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(StoreError::Engine)?;
        self.log.sync_data().map_err(StoreError::Sync)
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.tree.get(key).map_err(StoreError::Engine)?;
        value.map(|value| self.whole(key, &value)).transpose()
    }

    /// The entries of a kind from `from` on, whole, in the order of their keys.
    pub(super) fn range(
        &self,
        from: &[u8],
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(IVec, Bytes), StoreError>> + use<'_> {
        let prefix = prefix.to_vec();
        self.tree
            .range(from.to_vec()..)
            .take_while(move |entry| {
                entry
                    .as_ref()
                    .map_or(true, |(key, _)| key.starts_with(&prefix))
            })
            .map(|entry| self.whole_entry(entry))
    }

    pub(super) fn kind(
        &self,
        kind: Kind,
    ) -> impl Iterator<Item = Result<(IVec, Bytes), StoreError>> + use<'_> {
        self.range(&keys::prefix(kind), &keys::prefix(kind))
    }

    pub(super) fn last(&self, kind: Kind) -> Result<Option<(IVec, Bytes)>, StoreError> {
        let last = self.tree.scan_prefix(keys::prefix(kind)).next_back();
        last.map(|entry| self.whole_entry(entry)).transpose()
    }

    /// The greatest key of a kind that is not above this one.
    pub(super) fn key_at_or_before(
        &self,
        kind: Kind,
        key: &[u8],
    ) -> Result<Option<IVec>, StoreError> {
        let first = &keys::prefix(kind)[..];
        let last = self.tree.range(first..=key).keys().next_back();
        last.transpose().map_err(StoreError::Engine)
    }

    /// The keys of a kind, in their order.
    pub(super) fn keys(
        &self,
        kind: Kind,
    ) -> impl Iterator<Item = Result<IVec, StoreError>> + use<> {
        let keys = self.tree.scan_prefix(keys::prefix(kind)).keys();
        keys.map(|key| key.map_err(StoreError::Engine))
    }

    /// Adds a value under a key that is new.
    pub(super) fn put_new(batch: &mut Batch, key: &[u8], value: &[u8]) {
        let mut chunks = value.chunks(CHUNK);
        let first = chunks.next().unwrap_or_default();
        let further = chunks.len();
        for (index, chunk) in chunks.enumerate() {
            batch.0.insert(chunk_key(key, index), chunk);
        }
        let mut head = Vec::with_capacity(2 + first.len());
        // 65,535 chunks are 262 MB, far over every limit on what comes in.
        head.extend_from_slice(&u16::try_from(further).unwrap_or(u16::MAX).to_be_bytes());
        head.extend_from_slice(first);
        batch.0.insert(key, head);
    }

    /// Adds or replaces a value.
    pub(super) fn put(
        &self,
        batch: &mut Batch,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), StoreError> {
        self.remove(batch, key)?;
        Self::put_new(batch, key, value);
        Ok(())
    }

    /// Removes a value with all its chunks; one that isn't there is no error. Returns its size.
    pub(super) fn remove(&self, batch: &mut Batch, key: &[u8]) -> Result<usize, StoreError> {
        let Some(value) = self.tree.get(key).map_err(StoreError::Engine)? else {
            return Ok(0);
        };
        let further = further_chunks(&value)?;
        for index in 0..further {
            batch.0.remove(chunk_key(key, index));
        }
        batch.0.remove(key);
        Ok(value.len() + further * CHUNK)
    }

    fn whole_entry(&self, entry: sled::Result<(IVec, IVec)>) -> Result<(IVec, Bytes), StoreError> {
        let (key, value) = entry.map_err(StoreError::Engine)?;
        let value = self.whole(&key, &value)?;
        Ok((key, value))
    }

    fn whole(&self, key: &[u8], head: &IVec) -> Result<Bytes, StoreError> {
        let further = further_chunks(head)?;
        if further == 0 {
            return Ok(Bytes::copy_from_slice(&head[2..]));
        }
        let mut whole = Vec::with_capacity((further + 1) * CHUNK);
        whole.extend_from_slice(&head[2..]);
        for index in 0..further {
            let chunk = self
                .tree
                .get(chunk_key(key, index))
                .map_err(StoreError::Engine)?;
            let chunk = chunk.ok_or_else(|| record_error("value", "a chunk of it is missing"))?;
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.into())
    }
}

fn further_chunks(head: &IVec) -> Result<usize, StoreError> {
    let count = head
        .first_chunk::<2>()
        .ok_or_else(|| record_error("value", "it is cut short"))?;
    Ok(u16::from_be_bytes(*count).into())
}

fn chunk_key(key: &[u8], index: usize) -> Vec<u8> {
    let mut chunk = Vec::with_capacity(key.len() + 3);
    chunk.push(Kind::Chunk as u8);
    chunk.extend_from_slice(key);
    chunk.extend_from_slice(&u16::try_from(index).unwrap_or(u16::MAX).to_be_bytes());
    chunk
}

fn open_sled(path: &Path, cache_bytes: u64) -> sled::Result<sled::Db> {
    sled::Config::default()
        .path(path)
        .cache_capacity(cache_bytes)
        .segment_size(SEGMENT)
        .flush_every_ms(Some(GARBAGE_COLLECTION_MS))
        .open()
}

/// Returns whether there was a snapshot to move.
fn set_snapshots_aside(path: &Path) -> io::Result<bool> {
    let mut moved = false;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("snap.") {
            let mut aside = PathBuf::from("damaged-");
            aside.as_mut_os_string().push(&name);
            fs::rename(entry.path(), path.join(aside))?;
            moved = true;
        }
    }
    Ok(moved)
}

fn sync_everything(path: &Path) -> io::Result<()> {
    for name in ["conf", "db", "blobs"] {
        match File::open(path.join(name)) {
            Ok(file) => file.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    File::open(path)?.sync_all()?;
    path.parent()
        .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

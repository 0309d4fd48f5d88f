//! The store on sled: two databases in the data directory.
//!
//! `hot` holds the journal and the cursors, first in, first out; `cold` holds everything that
//! stays. Long-lived records among short-lived ones would pin the space of both.

mod backup;
mod compaction;
mod configuration;
mod consistency_check;
pub(in crate::store) mod database;
mod log;
mod panics;
pub(in crate::store) mod room;

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use pipelet_domain::shards::Shards;

use self::{
    configuration::Configuration,
    consistency_check::Found,
    database::{Batch, Database},
    log::Tail,
    room::{Purpose, Room},
};
use super::{
    Engine, Ownership, Revision, ShardStores, StoreError,
    backup::FORMAT_VERSION,
    blocking,
    codec::record_error,
    configuration::Observers,
    key_file::KeyFile,
    keys::{self, Meta},
    sealing::{KeyId, SecretKeys},
    table::{Records, Table as _},
};
use crate::system::private_file;

const HOT_CACHE_BYTES: u64 = 16 << 20;
const COLD_CACHE_BYTES: u64 = 16 << 20;

/// All four stores, of the one shard that there is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SledStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hot: Database,
    cold: Database,
    secrets: SecretKeys,
    directory: PathBuf,
    /// How many batches `cold` has taken; held by whoever writes to it, or needs it to stand still.
    cold_commits: Mutex<u64>,
    /// Of them, how many are durable, and how many `hot` knows of.
    cold_durable: AtomicU64,
    cold_known: AtomicU64,
    tail: Mutex<Tail>,
    /// Held by whoever changes transactions: what is packed is read first.
    transactions: Mutex<()>,
    configuration: Mutex<Configuration>,
    /// Backups that are being written; nothing is forgotten meanwhile.
    backups: AtomicUsize,
    /// Held as long as the store is open: one daemon for a data directory.
    _lock: File,
}

impl SledStore {
    /// Opens the store in a directory, which is made where it isn't there.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::open_with_key(directory, None)
    }

    /// Whether the directory has a store, or one that was begun.
    pub fn is_in(directory: &Path) -> bool {
        compaction::is_any_there(directory) || backup::is_decided(directory)
    }

    /// The same with a key file elsewhere than in the directory.
    pub fn open_with_key(directory: &Path, key_file: Option<&Path>) -> Result<Self, StoreError> {
        private_file::make_directory(directory).map_err(|source| StoreError::Directory {
            path: directory.to_owned(),
            source,
        })?;
        let lock = lock(directory)?;
        Self::open_locked(directory, &KeyFile::new(directory, key_file), lock)
    }

    /// Seals the secrets with a new key, and forgets the one before. What a stop interrupts is
    /// finished by the next call, or when the store is opened.
    pub fn rotate_key(directory: &Path, key_file: Option<&Path>) -> Result<(), StoreError> {
        let lock = lock(directory)?;
        let key_file = KeyFile::new(directory, key_file);
        key_file.add_key().map_err(StoreError::KeyFile)?;
        Self::open_locked(directory, &key_file, lock).map(drop)
    }

    /// Writes both databases of a store anew, without what was removed. What a stop interrupts is
    /// finished or undone by the next call, or when the store is opened.
    ///
    /// Fails where [`Self::open`] would, or where the disk does: then the database is as it was. That
    /// there is no room for a copy is no error, and is said of each database.
    pub fn compact(directory: &Path) -> Result<[Compacted; 2], StoreError> {
        let _lock = lock(directory)?;
        let Databases {
            hot, cold, room, ..
        } = Databases::open(directory)?;
        let compact = |from: Database, name, cache_bytes| {
            let was_bytes = from.length()?;
            let shorter = compaction::compact(from, directory, name, cache_bytes, &room)?;
            let bytes = shorter.map(|shorter| shorter.length()).transpose()?;
            Ok(Compacted {
                name,
                was_bytes,
                bytes,
            })
        };
        Ok([
            compact(hot, compaction::HOT, HOT_CACHE_BYTES)?,
            compact(cold, compaction::COLD, COLD_CACHE_BYTES)?,
        ])
    }

    fn open_locked(directory: &Path, key_file: &KeyFile, lock: File) -> Result<Self, StoreError> {
        let Databases {
            hot,
            cold,
            room,
            format,
        } = Databases::open(directory)?;
        let cold = compaction::shorten(cold, directory, compaction::COLD, COLD_CACHE_BYTES, &room)?;
        let hot = compaction::shorten(hot, directory, compaction::HOT, HOT_CACHE_BYTES, &room)?;
        if format.is_none() && !cold.is_empty()? {
            return Err(StoreError::Damaged {
                path: directory.join("cold"),
                detail: "it doesn't say its format".to_owned(),
            });
        }
        let sealed_with = sealed_with(&cold)?;
        let secrets = key_file.keys_for(sealed_with);
        let secrets = secrets.map_err(StoreError::KeyFile)?;
        let cold = if format.is_none() {
            // Marked before anything else is written.
            cold.commit(compaction::marks(&secrets), Purpose::Bookkeeping)?;
            cold
        } else if sealed_with == Some(secrets.newest().id()) {
            cold
        } else {
            compaction::reseal(cold, directory, &secrets, &room)?
        };
        if secrets.has_older() {
            key_file.retire_older(&secrets);
        }
        let commits = cold.meta_number(Meta::ColdCommits)?.unwrap_or(0);
        let latest = cold.meta_number(Meta::ConfigurationRevision)?.unwrap_or(0);
        let tail = Tail {
            next: log::bounds(&hot)?.end,
            unresolved: false,
        };
        let configuration = Configuration {
            latest: Revision(latest),
            observers: Observers::default(),
        };
        Ok(Self(Arc::new(Inner {
            tail: Mutex::new(tail),
            transactions: Mutex::new(()),
            configuration: Mutex::new(configuration),
            hot,
            cold,
            secrets,
            directory: directory.to_owned(),
            cold_commits: Mutex::new(commits),
            cold_durable: AtomicU64::new(commits),
            cold_known: AtomicU64::new(0),
            backups: AtomicUsize::new(0),
            _lock: lock,
        })))
    }

    /// With one shard.
    pub fn engine(self) -> Engine {
        let store = Arc::new(self);
        Engine {
            shards: Shards::new([store.shard()]),
            shard_count: 1,
            configuration: Arc::<Self>::clone(&store),
            backup: store,
            ownership: Ownership::exclusive(),
        }
    }

    /// What the daemon's one shard is kept in.
    fn shard(&self) -> ShardStores {
        ShardStores {
            log: Arc::new(self.clone()),
            ledger: Arc::new(self.clone()),
            projections: Arc::new(self.clone()),
        }
    }

    /// Runs a call that blocks where blocking does no harm.
    async fn reading<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = Arc::clone(&self.0);
        blocking(move || call(&store)).await
    }
}

impl Records for SledStore {
    type Table = Database;

    fn table(&self) -> &Database {
        &self.0.cold
    }

    fn commit(&self, batch: Batch, grows: bool) -> Result<(), StoreError> {
        let purpose = if grows {
            Purpose::Bookkeeping
        } else {
            Purpose::Upkeep
        };
        self.0.commit_cold(batch, purpose)
    }

    fn check_growth(&self, bytes: u64) -> Result<(), StoreError> {
        self.0.cold.check(Purpose::Outlook, bytes)
    }

    fn transactions(&self) -> &Mutex<()> {
        &self.0.transactions
    }
}

/// What became of a database that was to be written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Of its directory.
    pub name: &'static str,
    /// How long its file was.
    pub was_bytes: u64,
    /// How long it is now; none where there was no room for a copy, and it stayed as it was.
    pub bytes: Option<u64>,
}

/// Both of a directory that is locked, and what is known of them.
struct Databases {
    hot: Database,
    cold: Database,
    room: Arc<Room>,
    /// None of a store that has only begun.
    format: Option<u64>,
}

impl Databases {
    fn open(directory: &Path) -> Result<Self, StoreError> {
        backup::settle(directory)?;
        compaction::settle_all(directory)?;
        let found = Found::of(directory);
        let room = Arc::new(Room::of(directory)?);
        let cold = Database::open(&directory.join("cold"), COLD_CACHE_BYTES, &room)?;
        let format = cold.meta_number(Meta::FormatVersion)?;
        if let Some(found) = format.filter(|found| *found != FORMAT_VERSION) {
            return Err(StoreError::Format {
                path: directory.to_owned(),
                found,
                known: FORMAT_VERSION,
            });
        }
        let hot = Database::open(&directory.join("hot"), HOT_CACHE_BYTES, &room)?;
        found.check(directory, &hot, &cold, log::bounds(&hot)?.end.0)?;
        Ok(Self {
            hot,
            cold,
            room,
            format,
        })
    }
}

impl Inner {
    fn commit_cold(&self, mut batch: Batch, purpose: Purpose) -> Result<(), StoreError> {
        let commits = self.cold_commits.lock();
        let mut commits = commits.unwrap_or_else(PoisonError::into_inner);
        let next = *commits + 1;
        Database::put_new(
            &mut batch,
            &keys::meta(Meta::ColdCommits),
            &next.to_be_bytes(),
        );
        self.cold.commit(batch, purpose)?;
        *commits = next;
        self.cold_durable.store(next, Ordering::Release);
        Ok(())
    }

    fn meta_number(&self, meta: Meta) -> Result<Option<u64>, StoreError> {
        self.cold.meta_number(meta)
    }

    fn put_meta(&self, meta: Meta, value: &[u8]) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        self.cold.put(&mut batch, &keys::meta(meta), value)?;
        self.commit_cold(batch, Purpose::Upkeep)
    }
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let at = |source| StoreError::Directory {
        path: directory.to_owned(),
        source,
    };
    let lock = File::create(directory.join("lock")).map_err(at)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(at(error)),
    }
}

fn sealed_with(cold: &Database) -> Result<Option<KeyId>, StoreError> {
    let id = cold.get(&keys::meta(Meta::SecretsKey))?;
    let id =
        id.map(|id| KeyId::parse(&id).ok_or_else(|| record_error("key id", "it has not 8 bytes")));
    id.transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Backup as _;

    #[test]
    fn one_that_is_in_use_is_told_so_though_its_lock_was_removed() {
        let directory = tempfile::tempdir().unwrap();
        let used = SledStore::open(directory.path()).unwrap();
        std::fs::remove_file(directory.path().join("lock")).unwrap();
        let refused = SledStore::open(directory.path()).unwrap_err();
        assert!(matches!(refused, StoreError::Locked(_)), "{refused:?}");
        let words = format!("uses the data directory {};", directory.path().display());
        assert!(refused.to_string().contains(&words), "{refused}");
        drop(used);
        SledStore::open(directory.path()).unwrap();
    }

    #[test]
    fn another_format_is_refused_in_a_directory_and_in_a_backup() {
        for other in [FORMAT_VERSION - 1, FORMAT_VERSION + 1] {
            let directory = tempfile::tempdir().unwrap();
            let store = SledStore::open(directory.path()).unwrap();
            store
                .0
                .put_meta(Meta::FormatVersion, &other.to_be_bytes())
                .unwrap();
            let mut backup = Vec::new();
            store.back_up(&mut backup).unwrap();
            drop(store);
            let words = format!("format {other}, and this version reads format {FORMAT_VERSION}");
            let refused = SledStore::open(directory.path()).unwrap_err().to_string();
            assert!(refused.contains(&words), "{refused}");
            let elsewhere = tempfile::tempdir().unwrap();
            let restored = SledStore::restore(elsewhere.path(), &mut &backup[..], false);
            let refused = restored.unwrap_err().to_string();
            assert!(refused.contains(&words), "{refused}");
            assert!(!SledStore::is_in(elsewhere.path()));
        }
    }
}

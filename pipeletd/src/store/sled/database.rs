//! One sled database with the guards that it needs to keep its word.
//!
//! Found by running sled 0.34.7, each with its guard here:
//! - `flush()` ends in `sync_file_range`, which makes nothing durable against power loss: an own
//!   handle of the `db` file is synced after each.
//! - A new database's files and directory are not synced: they are, once, after opening.
//! - Values over a quarter of a segment become blob files, which are not synced: longer values
//!   are cut into chunks of under 4 KB.
//! - A damaged snapshot stops the opening: it is moved aside, and the log is read instead.
//! - `conf` is written in two pieces and not synced, and one that was cut short, by a death in the
//!   very first start, stops every opening: it is moved aside, for it says nothing but what
//!   [`open_sled`] asks for, and sled makes it anew.
//! - Garbage is collected in the flusher thread only, so that thread stays on.
//! - Its seven writing threads may all wait for a lock whose holder waits for the file to be made
//!   shorter, which is queued behind them: that hangs for ever. Every batch is handed to the system
//!   before the next one comes, and none is so long that it keeps them all busy.
//! - After an error of the disk it does nothing any more: it is closed, and opened again as soon
//!   as that works. What was committed before is there then; of the batch that failed, all or
//!   nothing is.
//! - It seldom gives the space of what was removed back to the disk, but writes there before its
//!   file grows. So on a disk that is full something may be written as long as the file doesn't.
//! - With an entry it writes others again that stand beside it, removals included: each batch is
//!   held to the room that it may take at most.

use std::{
    fmt,
    fs::{self, File},
    io, mem,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sled::{IVec, Tree};

use super::{
    panics,
    room::{Purpose, Room},
};
use crate::{
    store::{
        StoreError,
        codec::record_error,
        keys::{self, Kind},
        table::Table,
    },
    system::private_file,
};

/// In bytes; the largest part of a value that goes under one key.
const CHUNK: usize = 4000;
/// Smaller segments pin less space when few long-lived records stay among many short-lived.
const SEGMENT: usize = 512 * 1024;
const GARBAGE_COLLECTION_MS: u64 = 500;
/// The least time between two attempts to open it again.
const REOPEN_EVERY: Duration = Duration::from_millis(500);
/// The data directory is ours alone, so who holds a database's lock is a handle of ours that is on
/// its way out, or a process that has just been forked and not become another program yet.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// In bytes; so much has to have been removed for a try to write in its place.
const WORTH_A_TRY: usize = 4 * SEGMENT;
/// A batch of a mebibyte was seen to make sled's file longer by up to three and a half, where it
/// adds, and by half of one where it removes. Whatever it does may begin two segments.
const GROWTH_FOR_ADDED: u64 = 3;
const REMOVED_FOR_GROWTH: u64 = 2;
const LEAST_GROWTH: u64 = 2 * SEGMENT as u64;
/// In bytes; a batch is a single write of the log, which a segment must hold.
const COPIED_AT_ONCE: usize = 64 * 1024;

#[derive(Debug)]
pub(in crate::store) struct Database {
    path: PathBuf,
    cache_bytes: u64,
    room: Arc<Room>,
    /// None after a failure, until it was opened again.
    engine: RwLock<Option<Arc<Engine>>>,
    /// Held while it is opened again.
    outage: Mutex<Outage>,
    /// What was removed since the last try to write in its place, in bytes.
    removed: AtomicUsize,
    /// How long sled's file was at that try; none once it has grown.
    was_long: Mutex<Option<u64>>,
    /// What sled has panicked of; it is used no more.
    damaged: OnceLock<String>,
}

/// An open database of sled's.
struct Engine {
    tree: Tree,
    db: sled::Db,
    /// sled's log file, for the `sync_data` that sled leaves out.
    log: File,
    /// Held for writing while a batch is applied, and for reading while a value is put together:
    /// its chunks are read one by one, and all have to be of one time.
    whole: RwLock<()>,
}

/// The last failure.
#[derive(Debug)]
struct Outage {
    why: String,
    last_try: Instant,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// Writes that happen together or not at all.
#[derive(Default)]
pub(in crate::store) struct Batch {
    writes: sled::Batch,
    /// In bytes, with the keys.
    added: u64,
    removed: u64,
}

impl Batch {
    fn insert(&mut self, key: &[u8], value: Vec<u8>) {
        self.added += (key.len() + value.len()) as u64;
        self.writes.insert(key, value);
    }

    fn remove(&mut self, key: &[u8], size: usize) {
        self.removed += (key.len() + size) as u64;
        self.writes.remove(key);
    }

    /// How much of the disk it may take, in bytes.
    const fn growth(&self) -> u64 {
        LEAST_GROWTH + GROWTH_FOR_ADDED * self.added + self.removed / REMOVED_FOR_GROWTH
    }
}

impl Database {
    pub(in crate::store) fn open(
        path: &Path,
        cache_bytes: u64,
        room: &Arc<Room>,
    ) -> Result<Self, StoreError> {
        room.make_way()?;
        let engine = Engine::open(path, cache_bytes).map_err(|error| match error {
            // Our own lock of the directory was free, as where somebody has removed its file.
            StoreError::Engine(error) if error.downcast_ref().is_some_and(is_locked) => {
                StoreError::Locked(path.parent().unwrap_or(path).to_owned())
            }
            error => error,
        })?;
        private_file::close_directory(path);
        Ok(Self {
            path: path.to_owned(),
            cache_bytes,
            room: Arc::clone(room),
            engine: RwLock::new(Some(Arc::new(engine))),
            outage: Mutex::new(Outage {
                why: String::new(),
                last_try: Instant::now(),
            }),
            removed: AtomicUsize::new(0),
            was_long: Mutex::new(None),
            damaged: OnceLock::new(),
        })
    }

    /// Applies the batch and returns once it would survive a power loss.
    pub(in crate::store) fn commit(
        &self,
        batch: Batch,
        purpose: Purpose,
    ) -> Result<(), StoreError> {
        self.check_room(purpose, batch.growth())?;
        self.with(|engine| {
            engine.apply(batch)?;
            engine.log.sync_data().map_err(StoreError::Sync)
        })
    }

    /// Applies the batch; it becomes durable with a later commit.
    pub(in crate::store) fn apply(&self, batch: Batch, purpose: Purpose) -> Result<(), StoreError> {
        self.check_room(purpose, batch.growth())?;
        self.with(|engine| engine.apply(batch))
    }

    /// Whether so many bytes could be added, as far as can be told.
    pub(in crate::store) fn check(&self, purpose: Purpose, added: u64) -> Result<(), StoreError> {
        self.check_room(purpose, LEAST_GROWTH + GROWTH_FOR_ADDED * added)?;
        self.engine().map(|_| ())
    }

    fn check_room(&self, purpose: Purpose, growth: u64) -> Result<(), StoreError> {
        match self.room.check(purpose, growth) {
            Err(StoreError::Full { .. }) if self.has_room_inside() => {
                self.room.check(Purpose::Inside, growth)
            }
            checked => checked,
        }
    }

    /// Whether sled's file has room in it. It has while the file doesn't grow, which is found out
    /// each time that enough was removed.
    fn has_room_inside(&self) -> bool {
        let Ok(length) = self.length() else {
            return false;
        };
        let mut was = self.was_long.lock().unwrap_or_else(PoisonError::into_inner);
        if was.is_some_and(|was| length > was) {
            *was = None;
        }
        if was.is_none() && self.removed.load(Ordering::Relaxed) >= WORTH_A_TRY {
            self.removed.store(0, Ordering::Relaxed);
            *was = Some(length);
        }
        was.is_some()
    }

    /// Every entry, whole.
    pub(in crate::store) fn everything(
        &self,
    ) -> impl Iterator<Item = Result<(IVec, Bytes), StoreError>> + use<'_> {
        // Further chunks are no entries of their own, and come before everything else.
        self.range(&[Kind::Chunk as u8 + 1], &[])
    }

    pub(in crate::store) fn last(&self, kind: Kind) -> Result<Option<(IVec, Bytes)>, StoreError> {
        self.last_below(kind, &[kind as u8 + 1])
    }

    /// The greatest key of a kind that is not above this one.
    pub(in crate::store) fn key_at_or_before(
        &self,
        kind: Kind,
        key: &[u8],
    ) -> Result<Option<IVec>, StoreError> {
        let first = &keys::prefix(kind)[..];
        self.with(|engine| {
            let last = engine.tree.range(first..=key).keys().next_back();
            last.transpose().map_err(failed)
        })
    }

    pub(in crate::store) fn is_empty(&self) -> Result<bool, StoreError> {
        self.with(|engine| Ok(engine.tree.is_empty()))
    }

    /// Removes a value with all its chunks; one that isn't there is no error. Returns its size.
    pub(in crate::store) fn remove_chunks(
        &self,
        batch: &mut Batch,
        key: &[u8],
    ) -> Result<usize, StoreError> {
        let Some(value) = self.with(|engine| engine.get(key))? else {
            return Ok(0);
        };
        let further = further_chunks(&value)?;
        for index in 0..further {
            batch.remove(&chunk_key(key, index), CHUNK);
        }
        batch.remove(key, value.len());
        let size = value.len() + further * CHUNK;
        self.removed.fetch_add(size, Ordering::Relaxed);
        Ok(size)
    }

    /// Whether everything in it together has no more than so many bytes; looks no further.
    pub(in crate::store) fn is_within(&self, bytes: u64) -> Result<bool, StoreError> {
        let mut found = 0;
        for entry in self.everything() {
            let (key, value) = entry?;
            found += (key.len() + value.len()) as u64;
            if found > bytes {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How long sled's file is.
    pub(in crate::store) fn length(&self) -> Result<u64, StoreError> {
        let known = fs::metadata(self.path.join("db"));
        let known = known.map_err(|source| StoreError::Directory {
            path: self.path.clone(),
            source,
        });
        known.map(|known| known.len())
    }

    /// Puts everything, but what is of one kind, into another database, which becomes durable with
    /// that one's next commit.
    pub(in crate::store) fn copy(
        &self,
        left_out: Option<Kind>,
        to: &Self,
        purpose: Purpose,
    ) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let mut bytes = 0;
        for entry in self.everything() {
            let (key, value) = entry?;
            if left_out.is_some_and(|kind| key.starts_with(&keys::prefix(kind))) {
                continue;
            }
            bytes += key.len() + value.len();
            Self::put_new(&mut batch, &key, &value);
            if bytes >= COPIED_AT_ONCE {
                to.apply(mem::take(&mut batch), purpose)?;
                bytes = 0;
            }
        }
        to.apply(batch, purpose)
    }

    /// Does something with the engine, which is closed where that fails by the disk's doing.
    fn with<T>(&self, run: impl FnOnce(&Engine) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let engine = self.engine()?;
        self.guard(&engine, || run(&engine))
    }

    fn whole_entries(
        &self,
        engine: Arc<Engine>,
        mut entries: impl Iterator<Item = sled::Result<(IVec, IVec)>>,
    ) -> impl Iterator<Item = Result<(IVec, Bytes), StoreError>> {
        self.guarded(engine, move |engine| {
            entries.find_map(|entry| engine.whole_entry(entry).transpose())
        })
    }

    /// An iterator of sled's, which ends with the first panic.
    fn guarded<T>(
        &self,
        engine: Arc<Engine>,
        mut next: impl FnMut(&Engine) -> Option<Result<T, StoreError>>,
    ) -> impl Iterator<Item = Result<T, StoreError>> {
        let mut ended = false;
        std::iter::from_fn(move || {
            if ended {
                return None;
            }
            let next = self
                .guard(&engine, || next(&engine).transpose())
                .transpose();
            ended = matches!(next, None | Some(Err(StoreError::Damaged { .. })));
            next
        })
    }

    /// Does something of sled's. What shows that it is damaged ends its use.
    fn guard<T>(
        &self,
        engine: &Arc<Engine>,
        run: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let done = match panics::caught(run) {
            Ok(done) => done.map_err(|error| damage(&self.path, error)),
            Err(what) => {
                let what = self.damaged.get_or_init(|| what);
                Err(found_damaged(&self.path, what))
            }
        };
        self.noticed(engine, done)
    }

    /// An iterator over what could be begun, or over the error alone.
    fn or_error<T>(
        begun: Result<impl Iterator<Item = Result<T, StoreError>>, StoreError>,
    ) -> impl Iterator<Item = Result<T, StoreError>> {
        let (entries, error) = match begun {
            Ok(entries) => (Some(entries), None),
            Err(error) => (None, Some(Err(error))),
        };
        error.into_iter().chain(entries.into_iter().flatten())
    }

    fn engine(&self) -> Result<Arc<Engine>, StoreError> {
        if self.is_damaged() {
            return Err(damaged(&self.path));
        }
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = &*engine {
            return Ok(Arc::clone(engine));
        }
        drop(engine);
        self.open_again()
    }

    /// Whether sled has panicked.
    fn is_damaged(&self) -> bool {
        self.damaged.get().is_some() || panics::of_its_threads().is_some()
    }

    /// Closes the engine that this result came from, where it can't be used any more.
    fn noticed<T>(
        &self,
        engine: &Arc<Engine>,
        result: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // A sync that fails is not sled's own, which goes on as it was.
        if let Err(error @ StoreError::Engine(_)) = &result
            && error.is_outage()
        {
            self.close(engine, error);
        }
        result
    }

    fn close(&self, failed: &Arc<Engine>, error: &StoreError) {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let mut engine = self.engine.write().unwrap_or_else(PoisonError::into_inner);
        // Another may have closed it, and it may even have been opened again.
        let closed = engine.take_if(|engine| Arc::ptr_eq(engine, failed));
        drop(engine);
        if closed.is_some() {
            *outage = Outage {
                why: error.chain(),
                last_try: Instant::now(),
            };
            let (path, error) = (self.path.display(), &outage.why);
            tracing::error!(%path, error, "the store has failed and is closed");
        }
        drop(outage);
        // Last, since it may take its time.
        drop(closed);
    }

    fn open_again(&self) -> Result<Arc<Engine>, StoreError> {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = &*engine {
            return Ok(Arc::clone(engine));
        }
        drop(engine);
        if outage.last_try.elapsed() < REOPEN_EVERY {
            return Err(StoreError::Closed(outage.why.clone()));
        }
        // A recovery writes, too.
        let opened = self.room.make_way();
        let opened = opened.and_then(|()| Engine::open(&self.path, self.cache_bytes));
        match opened {
            Ok(opened) => {
                let opened = Arc::new(opened);
                tracing::info!(path = %self.path.display(), "the store works again");
                let mut engine = self.engine.write().unwrap_or_else(PoisonError::into_inner);
                *engine = Some(Arc::clone(&opened));
                Ok(opened)
            }
            Err(error) => {
                outage.last_try = Instant::now();
                if error.is_outage() {
                    outage.why = error.chain();
                    return Err(StoreError::Closed(outage.why.clone()));
                }
                Err(error)
            }
        }
    }
}

impl Table for Database {
    type Key = IVec;
    type Batch = Batch;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.with(|engine| match engine.get(key)? {
            Some(head) => engine.whole(key, &head),
            None => Ok(None),
        })
    }

    fn range(
        &self,
        from: &[u8],
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(IVec, Bytes), StoreError>> + use<'_> {
        let prefix = prefix.to_vec();
        let from = from.to_vec();
        let entries = self.engine().map(|engine| {
            let entries = engine.tree.range(from..);
            let of_kind = entries.take_while(move |entry| {
                entry
                    .as_ref()
                    .map_or(true, |(key, _)| key.starts_with(&prefix))
            });
            self.whole_entries(engine, of_kind)
        });
        Self::or_error(entries)
    }

    fn kind_backwards(
        &self,
        kind: Kind,
        below: Option<Vec<u8>>,
    ) -> impl Iterator<Item = Result<(IVec, Bytes), StoreError>> + use<'_> {
        let below = below.unwrap_or_else(|| vec![kind as u8 + 1]);
        let entries = self.engine().map(|engine| {
            let first = keys::prefix(kind).to_vec();
            let entries = engine.tree.range(first..below).rev();
            self.whole_entries(engine, entries)
        });
        Self::or_error(entries)
    }

    fn last_below(&self, kind: Kind, below: &[u8]) -> Result<Option<(IVec, Bytes)>, StoreError> {
        let first = &keys::prefix(kind)[..];
        if below <= first {
            return Ok(None);
        }
        self.with(|engine| {
            let mut entries = engine.tree.range(first..below).rev();
            let last = entries.find_map(|entry| engine.whole_entry(entry).transpose());
            last.transpose()
        })
    }

    fn keys_from(
        &self,
        from: &[u8],
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<IVec, StoreError>> + use<'_> {
        let prefix = prefix.to_vec();
        let from = from.to_vec();
        let keys = self.engine().map(|engine| {
            let keys = engine.tree.range(from..).keys();
            let mut of_kind = keys
                .take_while(move |key| key.as_ref().map_or(true, |key| key.starts_with(&prefix)));
            self.guarded(engine, move |_| {
                of_kind.next().map(|key| key.map_err(failed))
            })
        });
        Self::or_error(keys)
    }

    fn put_new(batch: &mut Batch, key: &[u8], value: &[u8]) {
        let mut chunks = value.chunks(CHUNK);
        let first = chunks.next().unwrap_or_default();
        let further = chunks.len();
        for (index, chunk) in chunks.enumerate() {
            batch.insert(&chunk_key(key, index), chunk.to_vec());
        }
        let mut head = Vec::with_capacity(2 + first.len());
        // 65,535 chunks are 262 MB, far over every limit on what comes in.
        head.extend_from_slice(&u16::try_from(further).unwrap_or(u16::MAX).to_be_bytes());
        head.extend_from_slice(first);
        batch.insert(key, head);
    }

    fn put(&self, batch: &mut Batch, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.remove_chunks(batch, key)?;
        Self::put_new(batch, key, value);
        Ok(())
    }

    fn remove(&self, batch: &mut Batch, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.remove_chunks(batch, key)? > 0)
    }
}

impl Engine {
    fn open(path: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let directory = |source| StoreError::Directory {
            path: path.to_owned(),
            source,
        };
        private_file::make_directory(path).map_err(directory)?;
        // What the disk does to this it would do to sled, too: tried again, where it is an outage.
        let of_disk = |error| failed(sled::Error::Io(error));
        if is_torn(&path.join("conf")).map_err(of_disk)? {
            tracing::warn!(path = %path.display(), "moved a conf that was cut short aside");
            fs::rename(path.join("conf"), path.join("damaged-conf")).map_err(of_disk)?;
        }
        let db = match panics::caught(|| open_sled(path, cache_bytes)) {
            Ok(Err(sled::Error::Corruption { .. }))
                if set_snapshots_aside(path).map_err(directory)? =>
            {
                tracing::warn!(path = %path.display(), "moved a damaged snapshot aside");
                panics::caught(|| open_sled(path, cache_bytes))
            }
            opened => opened,
        };
        let db = db.map_err(|what| found_damaged(path, &what))?;
        let db = db.map_err(|error| damage(path, failed(error)))?;
        if panics::of_its_threads().is_some() {
            mem::forget(db);
            return Err(damaged(path));
        }
        sync_everything(path).map_err(StoreError::Sync)?;
        let log = File::open(path.join("db")).map_err(directory)?;
        Ok(Self {
            tree: (*db).clone(),
            db,
            log,
            whole: RwLock::new(()),
        })
    }

    /// Applies the batch and hands it to the system.
    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let whole = self.whole.write().unwrap_or_else(PoisonError::into_inner);
        self.tree.apply_batch(batch.writes).map_err(failed)?;
        drop(whole);
        self.db.flush().map_err(failed)?;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<IVec>, StoreError> {
        self.tree.get(key).map_err(failed)
    }

    fn whole_entry(
        &self,
        entry: sled::Result<(IVec, IVec)>,
    ) -> Result<Option<(IVec, Bytes)>, StoreError> {
        let (key, head) = entry.map_err(failed)?;
        let value = self.whole(&key, &head)?;
        Ok(value.map(|value| (key, value)))
    }

    /// The value that begins with this. `None` where it has been removed since.
    fn whole(&self, key: &[u8], head: &IVec) -> Result<Option<Bytes>, StoreError> {
        if further_chunks(head)? == 0 {
            return Ok(Some(Bytes::copy_from_slice(&head[2..])));
        }
        let _whole = self.whole.read().unwrap_or_else(PoisonError::into_inner);
        let Some(head) = self.get(key)? else {
            return Ok(None);
        };
        let further = further_chunks(&head)?;
        let mut whole = Vec::with_capacity((further + 1) * CHUNK);
        whole.extend_from_slice(&head[2..]);
        for index in 0..further {
            let chunk = self.get(&chunk_key(key, index))?;
            let chunk = chunk.ok_or_else(|| record_error("value", "a chunk of it is missing"))?;
            whole.extend_from_slice(&chunk);
        }
        Ok(Some(whole.into()))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // sled's own end waits for its threads, which may be those that are gone.
        if self.is_damaged() {
            let engine = self
                .engine
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner);
            mem::forget(engine.take());
        }
    }
}

/// sled's own words are for the log: they say nothing to whoever has to do something about it.
fn found_damaged(path: &Path, what: &str) -> StoreError {
    tracing::error!(path = %path.display(), what, "the store is damaged");
    damaged(path)
}

fn damaged(path: &Path) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        detail: "what stands on the disk is not what was written".to_owned(),
    }
}

/// The error as what it is where it says that there is damage.
fn damage(path: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Engine(error) if error.downcast_ref().is_some_and(is_damage) => {
            found_damaged(path, &error.to_string())
        }
        error => error,
    }
}

fn failed(error: sled::Error) -> StoreError {
    StoreError::Engine(Box::new(error))
}

fn is_damage(error: &sled::Error) -> bool {
    match error {
        sled::Error::Corruption { .. }
        | sled::Error::ReportableBug(_)
        | sled::Error::Unsupported(_)
        | sled::Error::CollectionNotFound(_) => true,
        sled::Error::Io(error) => matches!(
            error.kind(),
            // It reads where nothing is, or what can't be.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
        ),
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
    let config = sled::Config::default()
        .path(path)
        .cache_capacity(cache_bytes)
        .segment_size(SEGMENT)
        .flush_every_ms(Some(GARBAGE_COLLECTION_MS));
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        match config.open() {
            Err(error) if is_locked(&error) && Instant::now() < end => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "nobody tells of a lock that goes"
                )]
                thread::sleep(LOOK_AGAIN);
            }
            opened => return opened,
        }
    }
}

fn is_locked(error: &sled::Error) -> bool {
    let sled::Error::Io(error) = error else {
        return false;
    };
    error.kind() == io::ErrorKind::Other && error.to_string().contains("could not acquire lock")
}

/// Whether the file's end is not the checksum of the rest, as sled writes it.
fn is_torn(conf: &Path) -> io::Result<bool> {
    let bytes = match fs::read(conf) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        read => read?,
    };
    Ok(bytes
        .split_last_chunk()
        .is_none_or(|(text, sum)| crc32fast::hash(text) != u32::from_le_bytes(*sum)))
}

/// Returns whether there was a snapshot to move.
fn set_snapshots_aside(path: &Path) -> io::Result<bool> {
    let mut moved = false;
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if name.to_string_lossy().starts_with("snap.") {
            // Under one name: one is enough to look at.
            fs::rename(path.join(name), path.join("damaged-snap"))?;
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

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    };

    use super::*;

    fn open(path: &Path) -> Result<Database, StoreError> {
        Database::open(path, 1 << 20, &Arc::new(Room::of(path)?))
    }

    #[test]
    fn a_lock_that_goes_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let held = open(directory.path()).unwrap();
        let (told, opened) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = told.send(open(directory.path()));
            });
            let early = opened.recv_timeout(20 * LOOK_AGAIN);
            assert!(early.is_err(), "{early:?}");
            drop(held);
            assert!(opened.recv().unwrap().is_ok());
        });
    }

    /// Of what is written first, any part may be all that there is.
    #[test]
    fn a_conf_that_is_cut_anywhere_keeps_nobody_out() {
        let directory = tempfile::tempdir().unwrap();
        let conf = directory.path().join("conf");
        let key = [Kind::Retry as u8, 7];
        let database = open(directory.path()).unwrap();
        let mut batch = Batch::default();
        database.put(&mut batch, &key, b"kept").unwrap();
        database.commit(batch, Purpose::Event).unwrap();
        drop(database);
        assert!(!is_torn(&conf).unwrap());
        let whole = fs::read(&conf).unwrap();
        for length in 0..whole.len() {
            let mut zeros = whole[..length].to_vec();
            zeros.resize(whole.len(), 0);
            for damaged in [&whole[..length], &zeros] {
                fs::write(&conf, damaged).unwrap();
                let database = open(directory.path()).unwrap();
                assert_eq!(database.get(&key).unwrap().unwrap(), b"kept"[..]);
            }
        }
    }

    #[test]
    fn damage_is_told_without_the_words_of_the_engine() {
        let directory = tempfile::tempdir().unwrap();
        drop(open(directory.path()).unwrap());
        let mut conf = b"nonsense".to_vec();
        conf.extend(crc32fast::hash(&conf).to_le_bytes());
        fs::write(directory.path().join("conf"), conf).unwrap();
        let refused = open(directory.path()).unwrap_err().to_string();
        let words = "is damaged: what stands on the disk is not what was written; restore a backup";
        assert!(refused.contains(words), "{refused}");
    }

    /// One writer puts, replaces and removes a value of several chunks; whoever reads meanwhile
    /// finds it whole, or not at all.
    #[test]
    fn a_value_that_changes_is_read_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let database = open(directory.path()).unwrap();
        let key = [Kind::Retry as u8, 7];
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for turn in 0..3_000 {
                    let mut batch = Batch::default();
                    if turn % 3 == 2 {
                        database.remove(&mut batch, &key).unwrap();
                    } else {
                        let value = vec![u8::try_from(turn % 256).unwrap(); 5 * CHUNK];
                        database.put(&mut batch, &key, &value).unwrap();
                    }
                    database.apply(batch, Purpose::Event).unwrap();
                }
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) {
                let got = database.get(&key).unwrap();
                let listed = database.kind(Kind::Retry).next().transpose().unwrap();
                for value in got.into_iter().chain(listed.map(|(_, value)| value)) {
                    assert_eq!(value.len(), 5 * CHUNK);
                    assert!(value.iter().all(|byte| *byte == value[0]), "of two times");
                }
            }
        });
    }
}

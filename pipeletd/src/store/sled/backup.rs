//! A backup of a store that is in use, and a store made of one.
//!
//! While `cold` is copied nobody writes to it, and the cursors are copied at the same moment: a
//! cursor may never have passed what `cold` doesn't know. The journal only grows, so it is
//! copied behind that, and nothing is forgotten meanwhile. So what is restored is what a crash at
//! that moment would have left, and a few more events.

use std::{
    fs::{self, File},
    io::{self, Read, Seek as _, Write},
    mem,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, atomic::Ordering},
};

use super::{
    COLD_CACHE_BYTES, HOT_CACHE_BYTES, Inner, SledStore, compaction,
    configuration::{self, joined, split},
    database::{Batch, Database},
    lock,
    room::{Purpose, Room},
};
use crate::{
    store::{
        Backup, BackupError, RestoreError, Revision, StoreError,
        backup::{FORMAT_VERSION, Reader, Record, Writer},
        keys::{self, Kind, Meta},
        table::{self, Table as _},
    },
    system::private_file,
};

const PARTS: [&str; 2] = ["hot", "cold"];
/// What this store counts for itself.
const OWN: [&[u8]; 2] = [
    &[Kind::Meta as u8, Meta::ColdCommits as u8],
    &[Kind::Meta as u8, Meta::ConfigurationRevision as u8],
];
/// In bytes; events that are restored together.
const RESTORED_AT_ONCE: usize = 64 * 1024;
/// Where the databases are while they are restored.
const NEW: &str = "restored.new";
/// What that directory is called once they are whole, with the number under which what they
/// replace is set aside. From then on the store is theirs, and whoever opens it moves them to
/// their place first.
const DECIDED: &str = "restored-";

impl Backup for SledStore {
    fn back_up(&self, out: &mut dyn Write) -> Result<(), BackupError> {
        let Self(store) = self;
        store.backups.fetch_add(1, Ordering::SeqCst);
        let written = store.write_backup(out);
        store.backups.fetch_sub(1, Ordering::SeqCst);
        written
    }
}

impl Inner {
    fn write_backup(&self, out: &mut dyn Write) -> Result<(), BackupError> {
        let mut writer = Writer::begin(out)?;
        let mut moment = self.freeze()?;
        let mut frozen = Reader::begin(&mut moment).map_err(spool_error)?;
        while let Some(Record { key, value }) = frozen.next().map_err(spool_error)? {
            match Kind::of(&key) {
                Some(kind) if configuration::KINDS.contains(&kind) => {
                    let (_, record) = split(&value.into())?;
                    writer.record(&key, &record)?;
                }
                _ if OWN.contains(&&key[..]) => {}
                _ => table::backup::write(&mut writer, &key, &value.into())?,
            }
        }
        for entry in self.hot.kind(Kind::Event) {
            let (key, value) = entry?;
            writer.record(&key, &value)?;
        }
        writer.end()
    }

    /// What has to be of one moment, in a file without a name: whoever reads a backup may be
    /// slow, and nobody can write meanwhile.
    fn freeze(&self) -> Result<File, BackupError> {
        self.cold.check(Purpose::Event, 0)?;
        let mut file = tempfile::tempfile_in(&self.directory).map_err(BackupError::Write)?;
        let mut buffered = io::BufWriter::new(&mut file);
        let mut writer = Writer::begin(&mut buffered)?;
        let commits = self.cold_commits.lock();
        let quiet = commits.unwrap_or_else(PoisonError::into_inner);
        // Nothing is appended meanwhile: what is known of a webhook's progress is of one moment.
        let tail = self.tail.lock();
        for kind in [Kind::Cursor, Kind::Received, Kind::Subscription] {
            for entry in self.hot.kind(kind) {
                let (key, value) = entry?;
                writer.record(&key, &value)?;
            }
        }
        drop(tail);
        for entry in self.cold.everything() {
            let (key, value) = entry?;
            writer.record(&key, &value)?;
        }
        drop(quiet);
        writer.end()?;
        drop(buffered);
        file.rewind().map_err(BackupError::Write)?;
        Ok(file)
    }
}

impl SledStore {
    /// Makes a store of a backup, whole or not at all. One that is in the directory is refused,
    /// or `set_aside` under other names.
    pub fn restore(
        directory: &Path,
        input: &mut dyn Read,
        set_aside: bool,
    ) -> Result<(), RestoreError> {
        let at = |source| StoreError::Directory {
            path: directory.to_owned(),
            source,
        };
        private_file::make_directory(directory).map_err(at)?;
        let lock = lock(directory)?;
        finish(directory)?;
        compaction::settle_all(directory)?;
        if !set_aside && is_occupied(directory) {
            return Err(RestoreError::Occupied(directory.to_owned()));
        }
        let new = directory.join(NEW);
        remove(&new).map_err(at)?;
        let room = Arc::new(Room::of(directory)?);
        fill(&new, input, &room).inspect_err(|_| {
            // The next start or restore removes what can't be removed now.
            let _ = remove(&new);
        })?;
        decide(directory).map_err(at)?;
        finish(directory)?;
        drop(lock);
        Ok(())
    }
}

fn is_occupied(directory: &Path) -> bool {
    PARTS.iter().any(|name| directory.join(name).exists())
}

fn aside(name: &str, number: u32) -> String {
    format!("{name}.aside-{number}")
}

/// The one rename after which the restored store is the directory's.
fn decide(directory: &Path) -> io::Result<()> {
    let taken = |number: &u32| {
        let taken = |name: &&str| directory.join(aside(name, *number)).exists();
        PARTS.iter().any(taken)
    };
    let number = (1..=u32::MAX).find(|number| !taken(number));
    let number = number.unwrap_or(u32::MAX);
    let new = directory.join(NEW);
    File::open(&new)?.sync_all()?;
    fs::rename(new, directory.join(format!("{DECIDED}{number}")))?;
    File::open(directory)?.sync_all()
}

/// Finishes a restore that was decided, and undoes one that was not: to be called before a store
/// is opened.
pub(super) fn settle(directory: &Path) -> Result<(), StoreError> {
    if finish(directory)? {
        tracing::warn!("finished a restore that was interrupted");
    }
    let new = directory.join(NEW);
    if !new.exists() {
        return Ok(());
    }
    if !is_occupied(directory) {
        // A store that is empty is not what whoever began the restore waits for.
        return Err(StoreError::RestoreInterrupted(new));
    }
    remove(&new).map_err(|source| StoreError::Directory {
        path: new.clone(),
        source,
    })?;
    tracing::warn!(
        "a restore was interrupted before it was whole: the store is what it was before; to \
         restore the backup, run it again"
    );
    Ok(())
}

/// Moves a restored store to its place, and what it replaces aside, as `hot.aside-1`. Returns
/// whether there was one.
fn finish(directory: &Path) -> Result<bool, StoreError> {
    let finish = || {
        let Some((decided, number)) = decided(directory)? else {
            return Ok(false);
        };
        for name in PARTS {
            let (new, place) = (decided.join(name), directory.join(name));
            if !new.exists() {
                continue;
            }
            if place.exists() {
                fs::rename(&place, directory.join(aside(name, number)))?;
            }
            fs::rename(new, place)?;
        }
        File::open(directory)?.sync_all()?;
        fs::remove_dir(decided)?;
        File::open(directory)?.sync_all()?;
        Ok(true)
    };
    finish().map_err(|source| StoreError::Directory {
        path: directory.to_owned(),
        source,
    })
}

/// Whether a restored store is there that has still to be moved to its place.
pub(super) fn is_decided(directory: &Path) -> bool {
    decided(directory).is_ok_and(|decided| decided.is_some())
}

/// Where a restored store is that is not in its place yet, and its number.
fn decided(directory: &Path) -> io::Result<Option<(PathBuf, u32)>> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(DECIDED));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            return Ok(Some((entry.path(), number)));
        }
    }
    Ok(None)
}

fn fill(new: &Path, input: &mut dyn Read, room: &Arc<Room>) -> Result<(), RestoreError> {
    let mut filling = Filling {
        hot: Database::open(&new.join("hot"), HOT_CACHE_BYTES, room)?,
        cold: Database::open(&new.join("cold"), COLD_CACHE_BYTES, room)?,
        hot_batch: Batch::default(),
        hot_bytes: 0,
        cold_batch: table::backup::Filling::new(),
        revision: Revision(0),
    };
    let mut reader = Reader::begin(input)?;
    while let Some(record) = reader.next()? {
        filling.add(record)?;
    }
    let cold = filling.finish()?;
    match cold.meta_number(Meta::FormatVersion)? {
        Some(FORMAT_VERSION) => Ok(()),
        Some(found) => Err(RestoreError::Format {
            found,
            known: FORMAT_VERSION,
        }),
        None => Err(RestoreError::Damaged),
    }
}

/// A store that is made of a backup's records.
struct Filling {
    hot: Database,
    cold: Database,
    hot_batch: Batch,
    /// In it.
    hot_bytes: usize,
    cold_batch: table::backup::Filling<Database>,
    revision: Revision,
}

impl Filling {
    fn add(&mut self, mut record: Record) -> Result<(), RestoreError> {
        match record.kind()? {
            Kind::Shard => {
                let (_, found) = record.shard()?;
                return Err(RestoreError::Shards { found, known: 1 });
            }
            Kind::Event | Kind::Cursor | Kind::Received | Kind::Subscription => {
                Database::put_new(&mut self.hot_batch, &record.key, &record.value);
                self.hot_bytes += record.key.len() + record.value.len();
            }
            kind => {
                if configuration::KINDS.contains(&kind) {
                    self.revision.0 += 1;
                    record.value = joined(self.revision, &record.value);
                }
                self.cold_batch.add(&record)?;
            }
        }
        if self.cold_batch.is_full() || self.hot_bytes >= RESTORED_AT_ONCE {
            self.apply()?;
        }
        Ok(())
    }

    fn apply(&mut self) -> Result<(), StoreError> {
        let hot = mem::take(&mut self.hot_batch);
        self.hot_bytes = 0;
        self.hot.apply(hot, Purpose::Bookkeeping)?;
        let cold = self.cold_batch.take(&self.cold)?;
        self.cold.apply(cold, Purpose::Bookkeeping)
    }

    fn finish(mut self) -> Result<Database, StoreError> {
        self.apply()?;
        let mut batch = Batch::default();
        let key = keys::meta(Meta::ConfigurationRevision);
        Database::put_new(&mut batch, &key, &self.revision.0.to_be_bytes());
        self.hot.commit(Batch::default(), Purpose::Bookkeeping)?;
        self.cold.commit(batch, Purpose::Bookkeeping)?;
        Ok(self.cold)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// The file was written a moment ago, so it is the disk that fails.
fn spool_error(error: RestoreError) -> BackupError {
    BackupError::Write(io::Error::other(error))
}

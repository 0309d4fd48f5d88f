//! A backup of a store that is in use, and a store made of one.
//!
//! While `cold` is copied nobody writes to it, and the cursors are copied at the same moment: a
//! cursor may never have passed what `cold` doesn't know. The journal only grows, so it is
//! copied behind that, and nothing is forgotten meanwhile. So what is restored is what a crash at
//! that moment would have left, and a few more events.

use std::{
    fs::{self, File},
    io::{self, Read, Seek as _, Write},
    path::Path,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use super::{
    COLD_CACHE_BYTES, FORMAT_VERSION, HOT_CACHE_BYTES, SledStore,
    database::{Batch, Database},
    lock, meta_number,
    room::{Purpose, Room},
};
use crate::{
    private_file,
    store::{
        Backup, BackupError, RestoreError, StoreError,
        backup::{Part, Reader, Writer},
        keys::{Kind, Meta},
    },
};

/// In bytes; records that are restored together.
const RESTORED_AT_ONCE: usize = 64 * 1024;
/// Where the databases are while they are restored.
const NEW: &str = "restored.new";
/// Stands in the directory from before the databases are moved into it until both are there.
const UNFINISHED: &str = "restore.unfinished";

impl Backup for SledStore {
    fn back_up(&self, out: &mut dyn Write) -> Result<(), BackupError> {
        self.backups.fetch_add(1, Ordering::SeqCst);
        let written = self.write_backup(out);
        self.backups.fetch_sub(1, Ordering::SeqCst);
        written
    }
}

impl SledStore {
    fn write_backup(&self, out: &mut dyn Write) -> Result<(), BackupError> {
        let mut writer = Writer::begin(out)?;
        let mut moment = self.freeze()?;
        let mut frozen = Reader::begin(&mut moment).map_err(spool_error)?;
        while let Some(record) = frozen.next().map_err(spool_error)? {
            writer.record(record.part, &record.key, &record.value)?;
        }
        for entry in self.hot.kind(Kind::Event) {
            let (key, value) = entry?;
            writer.record(Part::Hot, &key, &value)?;
        }
        writer.end()
    }

    /// What has to be of one moment, in a file without a name: whoever reads a backup may be
    /// slow, and nobody can write meanwhile.
    fn freeze(&self) -> Result<File, BackupError> {
        self.cold.check(Purpose::Event)?;
        let mut file = tempfile::tempfile_in(&self.directory).map_err(BackupError::Write)?;
        let mut buffered = io::BufWriter::new(&mut file);
        let mut writer = Writer::begin(&mut buffered)?;
        let commits = self.cold_commits.lock();
        let quiet = commits.unwrap_or_else(PoisonError::into_inner);
        for kind in [Kind::Cursor, Kind::Received] {
            for entry in self.hot.kind(kind) {
                let (key, value) = entry?;
                writer.record(Part::Hot, &key, &value)?;
            }
        }
        for entry in self.cold.everything() {
            let (key, value) = entry?;
            writer.record(Part::Cold, &key, &value)?;
        }
        drop(quiet);
        writer.end()?;
        drop(buffered);
        file.rewind().map_err(BackupError::Write)?;
        Ok(file)
    }

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
        let (new, unfinished) = (directory.join(NEW), directory.join(UNFINISHED));
        let parts = ["hot", "cold"];
        if unfinished.exists() {
            for name in parts {
                remove(&directory.join(name)).map_err(at)?;
            }
        } else if !set_aside && parts.iter().any(|name| directory.join(name).exists()) {
            return Err(RestoreError::Occupied(directory.to_owned()));
        }
        remove(&new).map_err(at)?;
        let room = Arc::new(Room::of(directory)?);
        fill(&new, input, &room).inspect_err(|_| {
            // The next restore removes what can't be removed now.
            let _ = remove(&new);
        })?;

        if set_aside {
            aside(directory, parts).map_err(at)?;
        }
        let place = || {
            File::create(&unfinished)?;
            File::open(directory)?.sync_all()?;
            for name in parts {
                fs::rename(new.join(name), directory.join(name))?;
            }
            File::open(directory)?.sync_all()?;
            fs::remove_file(&unfinished)?;
            fs::remove_dir(&new)?;
            File::open(directory)?.sync_all()
        };
        place().map_err(at)?;
        drop(lock);
        Ok(())
    }
}

/// Renames what is there to the first name that is free, as `hot.aside-1`.
fn aside(directory: &Path, parts: [&str; 2]) -> io::Result<()> {
    let taken = |number: &u32| {
        parts
            .iter()
            .any(|name| directory.join(format!("{name}.aside-{number}")).exists())
    };
    let number = (1..=u32::MAX)
        .find(|number| !taken(number))
        .unwrap_or(u32::MAX);
    for name in parts {
        match fs::rename(
            directory.join(name),
            directory.join(format!("{name}.aside-{number}")),
        ) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    File::open(directory)?.sync_all()
}

/// Refuses a directory that half of a store was moved into.
pub(super) fn refuse_unfinished(directory: &Path) -> Result<(), StoreError> {
    if directory.join(UNFINISHED).exists() {
        return Err(StoreError::Damaged {
            path: directory.to_owned(),
            detail: "a restore was interrupted; run it again".to_owned(),
        });
    }
    Ok(())
}

fn fill(new: &Path, input: &mut dyn Read, room: &Arc<Room>) -> Result<(), RestoreError> {
    let hot = Database::open(&new.join("hot"), HOT_CACHE_BYTES, room)?;
    let cold = Database::open(&new.join("cold"), COLD_CACHE_BYTES, room)?;
    let mut reader = Reader::begin(input)?;
    let (mut hot_batch, mut cold_batch, mut bytes) = (Batch::default(), Batch::default(), 0);
    while let Some(record) = reader.next()? {
        let batch = match record.part {
            Part::Hot => &mut hot_batch,
            Part::Cold => &mut cold_batch,
        };
        Database::put_new(batch, &record.key, &record.value);
        bytes += record.key.len() + record.value.len();
        if bytes >= RESTORED_AT_ONCE {
            hot.apply(std::mem::take(&mut hot_batch), Purpose::Bookkeeping)?;
            cold.apply(std::mem::take(&mut cold_batch), Purpose::Bookkeeping)?;
            bytes = 0;
        }
    }
    hot.commit(hot_batch, Purpose::Bookkeeping)?;
    cold.commit(cold_batch, Purpose::Bookkeeping)?;
    match meta_number(&cold, Meta::FormatVersion)? {
        Some(found) if found > FORMAT_VERSION => Err(StoreError::Newer {
            path: new.to_owned(),
            found,
            known: FORMAT_VERSION,
        }
        .into()),
        Some(_) => Ok(()),
        None => Err(RestoreError::Damaged),
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

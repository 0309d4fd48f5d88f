//! Everything that is kept, in one file: written by a daemon that runs, read into an empty
//! directory.
//!
//! It depends on no engine. A line says what the file is; records follow, each the lengths of its
//! key (two bytes) and its value (four), the key and the value; then comes a key of length 0xffff,
//! the number of records, and the SHA-256 of all before it. So one that was cut short or changed is
//! noticed.
//!
//! A record's key begins with its kind, which says what its value is, as `keys::Kind`
//! has it: blocks of events, the progress of webhooks, and the records of the ledger, of the
//! configuration and of the projections, one for each thing. What an engine adds for itself is left
//! out: indexes, packed maps, revisions, and counters that guard its files. Secrets are sealed as
//! they are in the store.
//!
//! Of a store with several shards, the configuration comes first, and then each shard's records behind
//! one that says which it is, of how many (`keys::Kind::Shard`). The file begins otherwise then, since
//! versions before that don't know it.

use std::{
    fmt,
    io::{self, Read, Write},
};

use pipelet_domain::shards::ShardId;
use sha2::{Digest as _, Sha256};

use super::{
    StoreError,
    keys::{self, Kind, Meta},
};

/// The version of keys and records together, as `docs/developing/disk-format.md` specifies them; no
/// other one is read.
pub(super) const FORMAT_VERSION: u64 = 6;
const MAGIC: &[u8] = b"pipelet backup 2\n";
/// Of a store with several shards.
const MAGIC_OF_SHARDS: &[u8] = b"pipelet backup 3\n";
/// In the place of a key's length; no key is so long.
const END: u16 = u16::MAX;
/// In bytes; more than the largest record. What claims more is damaged.
const MAX_VALUE: u32 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the backup can't be written")]
    Write(#[source] io::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("there is a store in {0} already; choose an empty --data-dir, or add --set-aside")]
    Occupied(std::path::PathBuf),
    #[error("there is a cluster {0} already; choose another --cluster")]
    ClusterExists(String),
    #[error(
        "the backup has {found} shards, and {known} are wanted: a store in a data directory has 1, \
         and a cluster as many as its backup"
    )]
    Shards { found: u16, known: u16 },
    #[error("this is no backup of pipeletd")]
    NotABackup,
    #[error("the backup is damaged or cut short; nothing was restored")]
    Damaged,
    #[error(
        "the backup has format {found}, and this version reads format {known} only; restore it \
         with the version that wrote it"
    )]
    Format { found: u64, known: u64 },
    #[error("something stands behind the backup's end; nothing was restored")]
    Trailing,
    #[error("the backup can't be read")]
    Read(#[source] io::Error),
}

/// A store that can be backed up while it is used.
pub trait Backup: Send + Sync + fmt::Debug + 'static {
    /// Writes everything as it is at one moment, and what the journal has got meanwhile. Blocks.
    fn back_up(&self, out: &mut dyn Write) -> Result<(), BackupError>;
}

/// Writes a backup's records.
pub(super) struct Writer<'a> {
    out: &'a mut dyn Write,
    hash: Sha256,
    count: u64,
}

impl<'a> Writer<'a> {
    pub(super) fn begin(out: &'a mut dyn Write) -> Result<Self, BackupError> {
        Self::begin_with(MAGIC, out)
    }

    /// For a store with so many shards.
    pub(super) fn begin_of(shards: u16, out: &'a mut dyn Write) -> Result<Self, BackupError> {
        let magic = if shards == 1 { MAGIC } else { MAGIC_OF_SHARDS };
        Self::begin_with(magic, out)
    }

    fn begin_with(magic: &[u8], out: &'a mut dyn Write) -> Result<Self, BackupError> {
        let mut writer = Self {
            out,
            hash: Sha256::new(),
            count: 0,
        };
        writer.write(magic)?;
        Ok(writer)
    }

    /// What follows is this shard's, of so many.
    pub(super) fn shard(&mut self, shard: ShardId, of: u16) -> Result<(), BackupError> {
        match of {
            1 => Ok(()),
            _ => self.record(&keys::shard(shard), &of.to_be_bytes()),
        }
    }

    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), BackupError> {
        self.count += 1;
        self.write(&header(key, value))?;
        self.write(key)?;
        self.write(value)
    }

    pub(super) fn end(mut self) -> Result<(), BackupError> {
        let count = self.count.to_be_bytes();
        self.write(&END.to_be_bytes())?;
        self.write(&count)?;
        let hash = self.hash.finalize_reset();
        self.out.write_all(&hash).map_err(BackupError::Write)?;
        self.out.flush().map_err(BackupError::Write)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.hash.update(bytes);
        self.out.write_all(bytes).map_err(BackupError::Write)
    }
}

fn header(key: &[u8], value: &[u8]) -> [u8; 6] {
    // Keys have a few dozen bytes, and values far fewer than 4 GB.
    let key = u16::try_from(key.len()).unwrap_or(END).to_be_bytes();
    let value = u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes();
    [key[0], key[1], value[0], value[1], value[2], value[3]]
}

/// A record, read back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

impl Record {
    pub(super) fn kind(&self) -> Result<Kind, RestoreError> {
        Kind::of(&self.key).ok_or(RestoreError::Damaged)
    }

    /// Which shard a [`Kind::Shard`] is the beginning of, and of how many.
    pub(super) fn shard(&self) -> Result<(ShardId, u16), RestoreError> {
        let number = |bytes: &[u8]| bytes.try_into().map(u16::from_be_bytes);
        let shard = number(&self.key[1..]).map_err(|_| RestoreError::Damaged)?;
        let count = number(&self.value).map_err(|_| RestoreError::Damaged)?;
        Ok((ShardId(shard), count))
    }
}

/// Puts the backups of all shards together, each of which has what is set up beside its own records:
/// that is taken of the first, and numbers that were given out of the last.
pub fn of_parts(
    parts: impl ExactSizeIterator<Item = io::Result<impl Read>>,
    out: &mut dyn Write,
) -> Result<(), BackupError> {
    let count = parts.len();
    let shards = u16::try_from(count).unwrap_or(u16::MAX);
    let mut writer = Writer::begin_of(shards, out)?;
    for (index, part) in (1..).zip(parts) {
        let mut part = part.map_err(BackupError::Write)?;
        let mut reader = Reader::begin(&mut part).map_err(of_part)?;
        while let Some(record) = reader.next().map_err(of_part)? {
            let is_wanted = match record.kind().map_err(of_part)? {
                Kind::Webhook | Kind::ApiKey | Kind::IdTag | Kind::Registration => index == 1,
                Kind::Meta if record.key == keys::meta(Meta::FormatVersion) => index == 1,
                Kind::Meta => index == count,
                _ => true,
            };
            if is_wanted {
                writer.record(&record.key, &record.value)?;
            }
        }
    }
    writer.end()
}

/// A part that breaks off is one that can't be written.
fn of_part(error: RestoreError) -> BackupError {
    BackupError::Write(io::Error::other(error))
}

/// Reads a backup's records. What it gave may be trusted once [`Reader::next`] has said that
/// there are no more.
pub(super) struct Reader<'a> {
    input: &'a mut dyn Read,
    hash: Sha256,
    count: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn begin(input: &'a mut dyn Read) -> Result<Self, RestoreError> {
        let mut reader = Self {
            input,
            hash: Sha256::new(),
            count: 0,
        };
        let mut magic = vec![0; MAGIC.len()];
        let read = reader.read(&mut magic);
        match read {
            Ok(()) if magic == MAGIC || magic == MAGIC_OF_SHARDS => Ok(reader),
            Ok(()) | Err(RestoreError::Damaged) => Err(RestoreError::NotABackup),
            Err(error) => Err(error),
        }
    }

    /// `None` at the end, where everything before has proved to be whole.
    pub(super) fn next(&mut self) -> Result<Option<Record>, RestoreError> {
        let (mut key, mut value) = ([0; 2], [0; 4]);
        self.read(&mut key)?;
        if u16::from_be_bytes(key) == END {
            return self.end().map(|()| None);
        }
        self.read(&mut value)?;
        let length = u32::from_be_bytes(value);
        if length > MAX_VALUE {
            return Err(RestoreError::Damaged);
        }
        let key = self.take(u16::from_be_bytes(key).into())?;
        let value = self.take(length.into())?;
        self.count += 1;
        Ok(Some(Record { key, value }))
    }

    fn end(&mut self) -> Result<(), RestoreError> {
        let mut count = [0; 8];
        self.read(&mut count)?;
        let hash = self.hash.finalize_reset();
        let mut expected = [0; 32];
        self.read(&mut expected)?;
        if u64::from_be_bytes(count) != self.count || hash[..] != expected {
            return Err(RestoreError::Damaged);
        }
        match self.read(&mut [0]) {
            Ok(()) => Err(RestoreError::Trailing),
            Err(RestoreError::Damaged) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes room for what comes, not for what was announced.
    fn take(&mut self, length: u64) -> Result<Vec<u8>, RestoreError> {
        let mut bytes = Vec::new();
        let read = (&mut *self.input).take(length).read_to_end(&mut bytes);
        if (read.map_err(RestoreError::Read)? as u64) < length {
            return Err(RestoreError::Damaged);
        }
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), RestoreError> {
        self.input
            .read_exact(bytes)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => RestoreError::Damaged,
                _ => RestoreError::Read(error),
            })?;
        self.hash.update(&*bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::begin(&mut bytes).unwrap();
        writer.record(b"e1", b"one").unwrap();
        writer.record(b"w", &vec![7; 70_000]).unwrap();
        writer.record(b"", b"").unwrap();
        writer.end().unwrap();
        bytes
    }

    fn read(mut bytes: &[u8]) -> Result<Vec<Record>, RestoreError> {
        let mut reader = Reader::begin(&mut bytes)?;
        let mut records = Vec::new();
        while let Some(record) = reader.next()? {
            records.push(record);
        }
        Ok(records)
    }

    #[test]
    fn what_is_written_is_read() {
        let record = |key: &[u8], value: &[u8]| Record {
            key: key.to_vec(),
            value: value.to_vec(),
        };
        let expected = [
            record(b"e1", b"one"),
            record(b"w", &vec![7; 70_000]),
            record(b"", b""),
        ];
        assert_eq!(read(&backup()).unwrap(), expected);
    }

    #[test]
    fn what_is_cut_short_or_changed_is_noticed() {
        let whole = backup();
        for length in (0..60).chain(69_900..whole.len()) {
            let error = read(&whole[..length]).unwrap_err();
            let expected = if length < MAGIC.len() {
                matches!(error, RestoreError::NotABackup)
            } else {
                matches!(error, RestoreError::Damaged)
            };
            assert!(expected, "{length}: {error}");
        }
        for index in (0..60).chain(69_900..whole.len()) {
            let mut changed = whole.clone();
            changed[index] ^= 1;
            assert!(read(&changed).is_err(), "{index}");
        }
        for behind in [&b"\n"[..], &whole] {
            let error = read(&[&whole[..], behind].concat()).unwrap_err();
            assert!(matches!(error, RestoreError::Trailing), "{error}");
        }
    }
}

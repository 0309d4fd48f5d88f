//! Faults that no test can order from a disk, a clock or a resolver.
//!
//! A small C library (`faults/interpose.c`, compiled here with the `cc` that Rust links with)
//! stands between the daemon and its C library. It fails or slows what touches the data
//! directory, shifts the wall clock, answers for names, and writes down what a power loss would
//! undo, which [`Faults::lose_power`] then does to a daemon that was killed.
//!
//! The model of a power loss: what was written and not synced may be gone, page by page, in any
//! combination. Creating, renaming and removing a file count as durable at once.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::Builder;

/// The numbers of the control file, in its order.
#[derive(Debug, Clone, Copy)]
enum Slot {
    WriteErrno = 0,
    SyncErrno = 1,
    SyncDelayMs = 2,
    ClockOffsetMs = 3,
    Record = 4,
    SyncIsNothing = 5,
}

/// What the disk answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskError {
    /// EIO
    Broken = 5,
    /// ENOSPC
    Full = 28,
    /// EROFS
    ReadOnly = 30,
}

/// The faults of one daemon, over all of its starts.
#[derive(Debug)]
pub struct Faults {
    home: TempDir,
    control: File,
    data_dir: PathBuf,
}

impl Faults {
    /// Puts a daemon's disk, clock and resolver under control; nothing fails yet.
    pub fn of(builder: Builder) -> (Self, Builder) {
        let home = tempfile::tempdir().expect("a temporary directory");
        let library = compile(home.path());
        for name in ["undo", "names"] {
            fs::create_dir(home.path().join(name)).expect("a directory");
        }
        let control = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(home.path().join("control"))
            .expect("a control file");
        // A page, because it is mapped.
        control.set_len(4096).expect("room");
        let data_dir = builder.data_dir().to_owned();
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let builder = builder
            .variable("LD_PRELOAD", &text(&library))
            .variable("FAULTS_DIR", &text(home.path()))
            .variable("FAULTS_ROOT", &text(&data_dir));
        let faults = Self {
            home,
            control,
            data_dir,
        };
        (faults, builder)
    }

    /// Every write to the data directory fails from now on, or works again.
    pub fn fail_writes(&self, error: Option<DiskError>) {
        self.set(Slot::WriteErrno, error.map_or(0, |error| error as i64));
    }

    /// Every sync fails from now on, or works again.
    pub fn fail_syncs(&self, error: Option<DiskError>) {
        self.set(Slot::SyncErrno, error.map_or(0, |error| error as i64));
    }

    /// Every sync takes this much longer from now on.
    pub fn delay_syncs(&self, by: Duration) {
        self.set(Slot::SyncDelayMs, millis(by));
    }

    /// The wall clock is this much ahead from now on.
    pub fn advance_clock(&self, by: Duration) {
        self.set(Slot::ClockOffsetMs, millis(by));
    }

    /// The wall clock is this much behind from now on.
    pub fn set_clock_back(&self, by: Duration) {
        self.set(Slot::ClockOffsetMs, -millis(by));
    }

    /// What a name resolves to from now on: addresses, or `hang`, or `fail`.
    pub fn resolve(&self, name: &str, to: &[&str]) {
        let names = self.home.path().join("names");
        // Renamed, so that nobody reads half of it.
        fs::write(names.join(".new"), to.join("\n")).expect("a writable file");
        fs::rename(names.join(".new"), names.join(name)).expect("a writable directory");
    }

    /// From now on it is written down what a power loss would undo. To be called before the start.
    pub fn record_for_power_loss(&self) {
        self.set(Slot::Record, 1);
    }

    /// A sync returns without having made anything durable: what a test must notice.
    pub fn make_syncs_void(&self) {
        self.set(Slot::SyncIsNothing, 1);
    }

    /// Does to the data directory of a killed daemon what a power loss would have done: of what
    /// was not synced, a part that the seed chooses is gone. Returns how many bytes were lost.
    pub fn lose_power(&self, seed: u64) -> u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let undo = self.home.path().join("undo");
        let mut lost = 0;
        for (inode, path) in files_below(&self.data_dir) {
            let mut records = Vec::new();
            for kind in ["syncing", "undo"] {
                let unsynced = undo.join(format!("{inode}.{kind}"));
                if let Ok(bytes) = fs::read(&unsynced) {
                    records.extend(read_records(&bytes));
                }
            }
            if !records.is_empty() {
                lost += revert(&path, &records, &mut random);
            }
        }
        // A new start makes new records.
        fs::remove_dir_all(&undo).expect("a removable directory");
        fs::create_dir(&undo).expect("a directory");
        lost
    }

    fn set(&self, slot: Slot, value: i64) {
        let offset = 8 * slot as u64;
        self.control
            .write_all_at(&value.to_ne_bytes(), offset)
            .expect("a writable control file");
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).expect("a time of this century")
}

fn compile(into: &Path) -> PathBuf {
    let source = into.join("interpose.c");
    let library = into.join("interpose.so");
    fs::write(&source, include_str!("faults/interpose.c")).expect("a writable file");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .args([&library, &source])
        .args(["-ldl", "-lpthread"])
        .status()
        .expect("cc, which Rust links with");
    assert!(status.success(), "cc failed");
    library
}

fn files_below(directory: &Path) -> HashMap<u64, PathBuf> {
    let mut files = HashMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a readable directory") {
            let entry = entry.expect("an entry");
            let known = entry.metadata().expect("metadata");
            if known.is_dir() {
                directories.push(entry.path());
            } else {
                files.insert(known.ino(), entry.path());
            }
        }
    }
    files
}

/// A write that was not synced.
#[derive(Debug)]
struct Unsynced {
    offset: u64,
    size_before: u64,
    overwritten: Vec<u8>,
    written: Vec<u8>,
}

/// The last record may be cut short by the kill: its write then did not happen.
fn read_records(mut bytes: &[u8]) -> Vec<Unsynced> {
    let mut records = Vec::new();
    loop {
        let mut number = || {
            let (head, rest) = bytes.split_first_chunk::<8>()?;
            bytes = rest;
            Some(u64::from_ne_bytes(*head))
        };
        let head = (|| Some([number()?, number()?, number()?, number()?]))();
        let Some([offset, length, size_before, overwritten]) = head else {
            return records;
        };
        let length = usize::try_from(length).expect("a length");
        let overwritten = usize::try_from(overwritten).expect("a length");
        let Some((body, rest)) = bytes.split_at_checked(overwritten + length) else {
            return records;
        };
        bytes = rest;
        let (overwritten, written) = body.split_at(overwritten);
        records.push(Unsynced {
            offset,
            size_before,
            overwritten: overwritten.to_vec(),
            written: written.to_vec(),
        });
    }
}

/// Takes a file back to what was synced, and then lets some pages of the rest come true.
fn revert(path: &Path, records: &[Unsynced], random: &mut fastrand::Rng) -> u64 {
    const PAGE: usize = 4096;
    let file = OpenOptions::new()
        .write(true)
        .open(path)
        .expect("a writable file");
    for record in records.iter().rev() {
        file.write_all_at(&record.overwritten, record.offset)
            .expect("a writable file");
        file.set_len(record.size_before).expect("a writable file");
    }
    // Nothing of it, some of it, nearly all of it.
    let share = *random.choice(&[0.0, 0.5, 0.95]).expect("a choice");
    let mut lost = 0;
    for record in records {
        for (page, bytes) in (0..).zip(record.written.chunks(PAGE)) {
            if random.f64() < share {
                let offset = record.offset + page * PAGE as u64;
                file.write_all_at(bytes, offset).expect("a writable file");
            } else {
                lost += bytes.len() as u64;
            }
        }
    }
    lost
}

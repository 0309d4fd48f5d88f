//! Faults that no test can order from a disk, a clock or a resolver.
//!
//! A small C library (`faults/interpose.c`, compiled here with the `cc` that Rust links with)
//! stands between the daemon and its C library. It fails or slows what touches the data
//! directory, shifts the wall clock, answers for names, and writes down what a power loss would
//! undo, which [`Faults::lose_power`] then does to a daemon that was killed.
//!
//! The model of a power loss: what was written and not synced may be gone, page by page, in any
//! combination, where a page is as it was after some of its writes. Names that were made, changed
//! or removed last may be as they were, until their directory was synced.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use fastrand::Rng;
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
    DieAtRename = 6,
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
        for name in ["undo", "kept", "names"] {
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

    /// The process is killed when it comes to its so-manieth rename in the data directory; with 0, never.
    pub fn die_at_rename(&self, number: u64) {
        let number = i64::try_from(number).expect("a small number");
        self.set(Slot::DieAtRename, number);
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
        let mut random = Rng::with_seed(seed);
        // Nothing of it stays, or some of it, or nearly all.
        let stays = *random.choice(&[0.0, 0.5, 0.95]).expect("a choice");
        self.lose(stays, &mut random)
    }

    /// The same at its worst: everything that was not synced is gone.
    pub fn lose_all_unsynced(&self) -> u64 {
        self.lose(0.0, &mut Rng::with_seed(0))
    }

    fn lose(&self, stays: f64, random: &mut Rng) -> u64 {
        let undo = self.home.path().join("undo");
        for entry in fs::read_dir(&undo).expect("a readable directory") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|kind| kind == "names") {
                let names = fs::read_to_string(path).expect("a readable file");
                let names: Vec<_> = names.lines().collect();
                let kept = names.iter().take_while(|_| random.f64() < stays).count();
                names[kept..].iter().rev().for_each(|name| undo_name(name));
            }
        }
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
                lost += revert(&path, &records, stays, random);
            }
        }
        // A new start makes new records.
        for directory in [undo, self.home.path().join("kept")] {
            fs::remove_dir_all(&directory).expect("a removable directory");
            fs::create_dir(&directory).expect("a directory");
        }
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
        // The daemon may not have come to making it.
        for entry in fs::read_dir(directory).into_iter().flatten() {
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

/// Takes a name back to what it was. An error means that it had not been changed yet, or that its
/// directory is gone as well.
fn undo_name(line: &str) {
    let parts: Vec<_> = line.split('\t').collect();
    let [kind, path, from, kept] = parts[..] else {
        panic!("no name: {line:?}");
    };
    let _ = match kind {
        "C" => fs::remove_file(path).or_else(|_| fs::remove_dir_all(path)),
        "R" => fs::rename(path, from),
        _ => Ok(()),
    };
    if !kept.is_empty() {
        let _ = fs::rename(kept, path);
    }
}

/// Takes a file back to what was synced, and then lets some of the rest come true: of each page
/// the first of its writes, for a page goes to the disk as it is at some time.
fn revert(path: &Path, records: &[Unsynced], stays: f64, random: &mut Rng) -> u64 {
    const PAGE: u64 = 4096;
    let file = OpenOptions::new()
        .write(true)
        .open(path)
        .expect("a writable file");
    for record in records.iter().rev() {
        file.write_all_at(&record.overwritten, record.offset)
            .expect("a writable file");
        file.set_len(record.size_before).expect("a writable file");
    }
    let mut pages: BTreeMap<u64, Vec<(u64, &[u8])>> = BTreeMap::new();
    for record in records {
        let (mut offset, mut rest) = (record.offset, record.written.as_slice());
        while !rest.is_empty() {
            let room = usize::try_from(PAGE - offset % PAGE).expect("a page");
            let (here, further) = rest.split_at(room.min(rest.len()));
            pages.entry(offset / PAGE).or_default().push((offset, here));
            offset += here.len() as u64;
            rest = further;
        }
    }
    let mut lost = 0;
    for writes in pages.values() {
        let kept = writes.iter().take_while(|_| random.f64() < stays).count();
        for (offset, bytes) in &writes[..kept] {
            file.write_all_at(bytes, *offset).expect("a writable file");
        }
        let gone = writes[kept..].iter().map(|(_, bytes)| bytes.len() as u64);
        lost += gone.sum::<u64>();
    }
    lost
}

//! How much room the disk has left, and what of it is kept back.
//!
//! sled does not survive a write that fails, so none is begun that might: events are refused
//! while there is still room to write down what becomes of those that were taken before.
//!
//! An opening writes, too: sled fills the segment up that it was in, and makes a new snapshot. So
//! a file, the reserve, holds the room that it needs. It is removed when an opening, or a write
//! that makes room, would find too little, and made again once there is room for it and for events.
//! Nothing else may use its room, so that a further start finds what it needs, however often the
//! daemon is killed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rustix::{
    fs::{FallocateFlags, StatVfs, StatVfsMountFlags, fallocate, statvfs},
    io::Errno,
};

use crate::store::StoreError;

/// Kept back from events, in bytes: a twentieth of the disk, within these bounds.
const KEPT_BACK: std::ops::RangeInclusive<u64> = (1 << 20)..=(64 << 20);
/// Left free by strangers, in bytes: a tenth of the disk, and at most this.
const STRANGERS_LEAVE: u64 = 1 << 30;
/// Held by the reserve, in bytes: the same, and no less than this.
const LEAST_RESERVE: u64 = 8 << 20;
/// The reserve's name in the data directory.
const RESERVE: &str = "reserve";
/// What `st_blocks` counts, in bytes.
const BLOCK: u64 = 512;

/// What a write is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Purpose {
    /// Something new comes in of a station that nobody has registered.
    Stranger,
    /// Something new comes in.
    Event,
    /// What became of something that came in before is to be written: it may use what is kept
    /// back. Asked before there is a batch, with room to spare for that.
    Outlook,
    /// The batch itself.
    Bookkeeping,
    /// It makes room, or replaces what is small by its like: it may use half of the reserve.
    Upkeep,
    /// Whatever it is for, sled's file has room for it: that may turn out to be wrong once, so it
    /// may use three quarters. So may the copy of a database that gives back what was removed, which
    /// comes after upkeep has used its half.
    Inside,
}

/// The disk that a directory is on.
#[derive(Debug)]
pub(in crate::store) struct Room {
    directory: PathBuf,
    kept_back: u64,
    /// Kept back from strangers, too, in bytes.
    left_by_strangers: u64,
    /// The reserve's size.
    reserved: u64,
    reserve: Mutex<Reserve>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reserve {
    There,
    Gone,
    /// It can't be made on this disk.
    Impossible,
}

impl Room {
    /// Of a data directory that is there.
    pub(in crate::store) fn of(directory: &Path) -> Result<Self, StoreError> {
        let disk = stat(directory)?;
        let size = disk.f_blocks.saturating_mul(disk.f_frsize);
        let kept_back = (size / 20).clamp(*KEPT_BACK.start(), *KEPT_BACK.end());
        let room = Self {
            directory: directory.to_owned(),
            kept_back,
            left_by_strangers: (size / 10).min(STRANGERS_LEAVE),
            reserved: kept_back.max(LEAST_RESERVE),
            reserve: Mutex::new(Reserve::Gone),
        };
        if room.is_held() {
            *room.reserve() = Reserve::There;
        }
        Ok(room)
    }

    /// Whether a write may be begun that takes so many bytes of the disk.
    pub(in crate::store) fn check(&self, purpose: Purpose, growth: u64) -> Result<(), StoreError> {
        let mut free = self.free()?;
        let mut reserve = self.reserve();
        let floor = self.reserved / 2;
        match purpose {
            Purpose::Event if *reserve == Reserve::Gone => {
                if free >= self.reserved + self.kept_back {
                    *reserve = self.make_reserve();
                    free = self.free()?;
                }
            }
            Purpose::Upkeep | Purpose::Inside
                if *reserve == Reserve::There && free < floor + growth =>
            {
                self.remove_reserve()?;
                *reserve = Reserve::Gone;
                free = self.free()?;
            }
            Purpose::Stranger
            | Purpose::Event
            | Purpose::Outlook
            | Purpose::Bookkeeping
            | Purpose::Upkeep
            | Purpose::Inside => {}
        }
        let reserved = match *reserve {
            Reserve::There => 0,
            Reserve::Gone | Reserve::Impossible => self.reserved,
        };
        let needed = match purpose {
            Purpose::Stranger => reserved + self.kept_back.max(self.left_by_strangers),
            Purpose::Event => reserved + self.kept_back,
            Purpose::Outlook => reserved + self.kept_back / 4,
            Purpose::Bookkeeping => reserved + self.kept_back / 8,
            Purpose::Upkeep => floor,
            Purpose::Inside => floor / 2,
        };
        let needed = needed + growth;
        if free < needed {
            return Err(StoreError::Full { free, needed });
        }
        Ok(())
    }

    /// Makes what room there can be for a database to be opened, which is tried in any case.
    pub(in crate::store) fn make_way(&self) -> Result<(), StoreError> {
        match self.check(Purpose::Upkeep, 0) {
            Err(StoreError::Full { .. }) => Ok(()),
            checked => checked,
        }
    }

    /// How much may be copied, where that makes room in the end.
    pub(in crate::store) fn for_a_copy(&self) -> Result<u64, StoreError> {
        self.check(Purpose::Inside, 0)?;
        Ok(self.free()?.saturating_sub(self.reserved / 4))
    }

    fn free(&self) -> Result<u64, StoreError> {
        let disk = stat(&self.directory)?;
        if disk.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(StoreError::ReadOnly);
        }
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn reserve(&self) -> std::sync::MutexGuard<'_, Reserve> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the reserve is there with all of its blocks: a copy of it may have none.
    fn is_held(&self) -> bool {
        let known = fs::metadata(self.directory.join(RESERVE));
        known.is_ok_and(|known| known.blocks() * BLOCK >= self.reserved)
    }

    fn make_reserve(&self) -> Reserve {
        let made = self.remove_reserve().and_then(|()| {
            let path = self.directory.join(RESERVE);
            let made = allocate(&path, self.reserved);
            made.map_err(|source| StoreError::Directory { path, source })
        });
        match made {
            Ok(()) if self.is_held() => Reserve::There,
            Ok(()) => Reserve::Impossible,
            Err(error) => {
                let error = error.chain();
                tracing::warn!(%error, "no room can be reserved for a start from a full disk");
                // What there is of it would only take room. Where it stays, the next start removes it.
                let _ = self.remove_reserve();
                Reserve::Impossible
            }
        }
    }

    fn remove_reserve(&self) -> Result<(), StoreError> {
        let path = self.directory.join(RESERVE);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::Directory { path, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Makes a file whose blocks are really its own.
fn allocate(path: &Path, size: u64) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, size) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(&mut file, size)?,
        allocated => allocated?,
    }
    file.sync_all()
}

fn write_zeros(file: &mut File, size: u64) -> io::Result<()> {
    let zeros = [0; 4 * 1024];
    let mut left = size;
    while left > 0 {
        let piece = left.min(zeros.len() as u64);
        file.write_all(&zeros[..usize::try_from(piece).unwrap_or(zeros.len())])?;
        left -= piece;
    }
    Ok(())
}

fn stat(directory: &Path) -> Result<StatVfs, StoreError> {
    statvfs(directory).map_err(|error| StoreError::Directory {
        path: directory.to_owned(),
        source: error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(room: &Room, purpose: Purpose) -> bool {
        match room.check(purpose, 0) {
            Ok(()) => false,
            Err(StoreError::Full { .. }) => true,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn bookkeeping_has_more_room_than_events_and_upkeep_the_most() {
        let directory = tempfile::tempdir().unwrap();
        let mut room = Room::of(directory.path()).unwrap();
        assert!(KEPT_BACK.contains(&room.kept_back));
        let all = [
            Purpose::Event,
            Purpose::Outlook,
            Purpose::Bookkeeping,
            Purpose::Upkeep,
            Purpose::Inside,
        ];
        for purpose in all {
            assert!(!refused(&room, purpose), "{purpose:?}");
        }

        let all_there_is = 1 << 60;
        for purpose in all {
            let checked = room.check(purpose, all_there_is);
            assert!(
                matches!(checked, Err(StoreError::Full { .. })),
                "{purpose:?}"
            );
        }

        let disk = stat(directory.path()).unwrap();
        room.kept_back = 2 * disk.f_bavail * disk.f_frsize;
        let refused_of = |room: &Room| all.map(|purpose| refused(room, purpose));
        assert_eq!(refused_of(&room), [true, false, false, false, false]);
        room.kept_back *= 3;
        assert_eq!(refused_of(&room), [true, true, false, false, false]);
        room.kept_back *= 2;
        assert_eq!(refused_of(&room), [true, true, true, false, false]);
    }

    #[test]
    fn the_reserve_goes_for_upkeep_and_comes_back_for_events() {
        let directory = tempfile::tempdir().unwrap();
        let reserve = directory.path().join(RESERVE);
        let is_whole =
            || fs::metadata(&reserve).is_ok_and(|known| known.blocks() * BLOCK >= LEAST_RESERVE);
        let mut room = Room::of(directory.path()).unwrap();
        room.check(Purpose::Bookkeeping, 0).unwrap();
        assert!(!is_whole(), "events alone want it");
        room.check(Purpose::Event, 0).unwrap();
        assert!(is_whole());
        // It is found by the next start, a copy without blocks is not.
        assert_eq!(
            *Room::of(directory.path()).unwrap().reserve(),
            Reserve::There
        );
        File::create(&reserve).unwrap().set_len(64 << 20).unwrap();
        assert_eq!(
            *Room::of(directory.path()).unwrap().reserve(),
            Reserve::Gone
        );

        let disk = stat(directory.path()).unwrap();
        let reserved = room.reserved;
        room.reserved = 4 * disk.f_bavail * disk.f_frsize;
        assert!(refused(&room, Purpose::Upkeep));
        assert!(!reserve.exists());
        assert!(
            refused(&room, Purpose::Bookkeeping),
            "it would use the reserve's room"
        );
        assert!(refused(&room, Purpose::Event));
        room.reserved = reserved;
        room.check(Purpose::Event, 0).unwrap();
        assert!(is_whole());
    }
}

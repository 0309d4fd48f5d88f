//! How much room the disk has left, and what of it is kept back.
//!
//! sled does not survive a write that fails, so none is begun that might: events are refused
//! while there is still room to write down what becomes of those that were taken before.

use std::path::{Path, PathBuf};

use rustix::fs::{StatVfs, StatVfsMountFlags, statvfs};

use crate::store::StoreError;

/// Kept back from events, in bytes: a twentieth of the disk, within these bounds.
const KEPT_BACK: std::ops::RangeInclusive<u64> = (1 << 20)..=(64 << 20);

/// What a write is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Something new comes in.
    Event,
    /// What became of something that came in before: it may use what is kept back.
    Bookkeeping,
}

/// The disk that a directory is on.
#[derive(Debug)]
pub(super) struct Room {
    directory: PathBuf,
    kept_back: u64,
}

impl Room {
    pub(super) fn of(directory: &Path) -> Result<Self, StoreError> {
        let directory = directory.to_owned();
        let disk = stat(&directory)?;
        let size = disk.f_blocks.saturating_mul(disk.f_frsize);
        Ok(Self {
            directory,
            kept_back: (size / 20).clamp(*KEPT_BACK.start(), *KEPT_BACK.end()),
        })
    }

    /// Whether a write may be begun.
    pub(super) fn check(&self, purpose: Purpose) -> Result<(), StoreError> {
        let disk = stat(&self.directory)?;
        if disk.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(StoreError::ReadOnly);
        }
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let needed = match purpose {
            Purpose::Event => self.kept_back,
            Purpose::Bookkeeping => self.kept_back / 4,
        };
        if free < needed {
            return Err(StoreError::Full { free, needed });
        }
        Ok(())
    }
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

    #[test]
    fn bookkeeping_has_more_room_than_events() {
        let directory = tempfile::tempdir().unwrap();
        let mut room = Room::of(directory.path()).unwrap();
        assert!(KEPT_BACK.contains(&room.kept_back));
        assert!(room.check(Purpose::Event).is_ok());

        let disk = stat(directory.path()).unwrap();
        room.kept_back = 2 * disk.f_bavail * disk.f_frsize;
        assert!(room.check(Purpose::Bookkeeping).is_ok());
        let refused = room.check(Purpose::Event).unwrap_err();
        assert!(matches!(refused, StoreError::Full { .. }), "{refused}");
        room.kept_back *= 4;
        assert!(room.check(Purpose::Bookkeeping).is_err());
    }
}

//! Files and directories that only their owner may read.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// The mode of a directory that only its owner may enter.
const PRIVATE: u32 = 0o700;
/// What group and others may do.
const OTHERS: u32 = 0o077;

/// Makes a directory, and those above it that are not there, whatever the umask is. One that is
/// there stays as it is.
pub fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE).create(path)
}

/// Closes a directory of ours that was made open to others. Where it can't be closed, it is as
/// usable as it was.
pub fn close_directory(path: &Path) {
    let closed = fs::metadata(path).and_then(|known| {
        if known.permissions().mode() & OTHERS == 0 {
            return Ok(());
        }
        fs::set_permissions(path, Permissions::from_mode(PRIVATE))
    });
    if let Err(error) = closed {
        tracing::warn!(path = %path.display(), %error, "others may read this directory");
    }
}

/// Puts a file in the place of one that may be there, whole or not at all. It is on disk under its
/// name when this returns.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut unfinished = OsString::from(path);
    unfinished.push(".new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

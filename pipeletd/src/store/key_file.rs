//! The file with the keys that the store's secrets are sealed with.
//!
//! A key stands on a line of its own, in base64; the newest comes first, and there are more than
//! one only until everything is sealed with the newest. A key is on disk before anything is
//! sealed with it, and a store that has a key never gets another one silently.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::sealing::{KeyId, SecretKey, SecretKeys};
use crate::system::private_file;

/// Its name in the data directory.
const NAME: &str = "secrets.key";
/// In bytes; far more than any rotation needs.
const MAX_LEN: u64 = 64 * 1024;
/// Read, write and search for others, and write for the group: a group may read, because that is
/// how some orchestrators hand a secret over.
const LOOSE: u32 = 0o037;

const HEAD: &str = "\
# The webhooks' secrets in Pipelet's store are sealed with this key, and lost without it.
# Keep a copy of it, apart from the copies of the store.
";

#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error(
        "the store's secrets are sealed, and their key file {0} is missing; put it back from your \
         copy, or say where it is with --secrets-key-file"
    )]
    Missing(PathBuf),
    #[error(
        "there is no key file {path}; make one with: (umask 077; openssl rand -base64 32 > {path})",
        path = .0.display()
    )]
    NotMade(PathBuf),
    #[error(
        "the store's secrets are sealed with another key than what is in {0}; put the right key \
         file back from your copy, or say where it is with --secrets-key-file"
    )]
    Wrong(PathBuf),
    #[error(
        "the key file {path} is open to others (mode {mode:04o}); chmod 600 it, and rotate the \
         key where others may have read it"
    )]
    Loose { path: PathBuf, mode: u32 },
    #[error("line {line} of the key file {path} is no key: 32 bytes in base64 are one")]
    Malformed { path: PathBuf, line: usize },
    #[error("there is no key in the key file {0}")]
    Empty(PathBuf),
    #[error("can't use the key file {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the system has no random bytes for a key")]
    Random(#[from] getrandom::Error),
}

impl KeyFileError {
    /// Whether it stays so until somebody changes something. A file that is not there may be on a
    /// disk that is not mounted yet.
    pub const fn lasts(&self) -> bool {
        match self {
            Self::Wrong(_) | Self::Loose { .. } | Self::Malformed { .. } | Self::Empty(_) => true,
            Self::Missing(_) | Self::NotMade(_) | Self::Io { .. } | Self::Random(_) => false,
        }
    }
}

/// Whether a store's key file could be used, without using it. One that a start would make, for a
/// store that is not there yet, is none that is wrong; whether it is the store's own, only its
/// opening tells.
pub fn check(
    data_dir: &Path,
    given: Option<&Path>,
    store_is_there: bool,
) -> Result<(), KeyFileError> {
    let file = KeyFile::new(data_dir, given);
    match file.read()? {
        None if store_is_there => Err(KeyFileError::Missing(file.path)),
        None if file.is_given => Err(KeyFileError::NotMade(file.path)),
        None | Some(_) => Ok(()),
    }
}

#[derive(Debug, Clone)]
pub(super) struct KeyFile {
    path: PathBuf,
    /// An operator who names a file has it: one that is missing is not made, because it could be
    /// a disk that is not mounted yet.
    is_given: bool,
}

impl KeyFile {
    pub(super) fn new(data_dir: &Path, given: Option<&Path>) -> Self {
        Self {
            path: given.map_or_else(|| data_dir.join(NAME), Path::to_owned),
            is_given: given.is_some(),
        }
    }

    /// The keys for a store whose secrets are sealed with this one, or with none yet.
    pub(super) fn keys_for(&self, sealed_with: Option<KeyId>) -> Result<SecretKeys, KeyFileError> {
        match (self.read()?, sealed_with) {
            (Some(keys), Some(id)) if keys.find(id).is_none() => {
                Err(KeyFileError::Wrong(self.path.clone()))
            }
            (Some(keys), _) => Ok(keys),
            (None, Some(_)) => Err(KeyFileError::Missing(self.path.clone())),
            (None, None) if self.is_given => Err(KeyFileError::NotMade(self.path.clone())),
            (None, None) => {
                let key = SecretKey::generate()?;
                self.write([&key])?;
                let path = self.path.display();
                tracing::info!(%path, "made the key of the stored secrets; keep a copy of it");
                Ok(SecretKeys::new([key]).expect("there is one"))
            }
        }
    }

    /// Puts a new key before the one that a store is sealed with, unless that has begun already.
    pub(super) fn add_key(&self) -> Result<(), KeyFileError> {
        let keys = self.read()?;
        let keys = keys.ok_or_else(|| KeyFileError::Missing(self.path.clone()))?;
        if keys.has_older() {
            return Ok(());
        }
        let new = SecretKey::generate()?;
        self.write([&new].into_iter().chain(keys.iter()))
    }

    /// Leaves the newest key only.
    pub(super) fn retire_older(&self, keys: &SecretKeys) {
        // Nothing depends on it any more, and an operator may have given a file that only they
        // can change.
        if let Err(error) = self.write([keys.newest()]) {
            let path = self.path.display();
            tracing::warn!(
                %path, %error,
                "older keys stay in the key file, though nothing is sealed with them: leave the first only"
            );
        }
    }

    fn read(&self) -> Result<Option<SecretKeys>, KeyFileError> {
        let file = match fs::File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|source| self.io(source))?,
        };
        let known = file.metadata().map_err(|source| self.io(source))?;
        let mode = known.permissions().mode() & 0o7777;
        if mode & LOOSE != 0 {
            let path = self.path.clone();
            return Err(KeyFileError::Loose { path, mode });
        }
        let mut text = String::new();
        file.take(MAX_LEN)
            .read_to_string(&mut text)
            .map_err(|source| self.io(source))?;
        let keys = parse(&text).map_err(|line| KeyFileError::Malformed {
            path: self.path.clone(),
            line,
        })?;
        let keys = SecretKeys::new(keys).ok_or_else(|| KeyFileError::Empty(self.path.clone()))?;
        Ok(Some(keys))
    }

    /// Readers see the old file or the new one, whole, whenever the machine stops.
    fn write<'a>(&self, keys: impl IntoIterator<Item = &'a SecretKey>) -> Result<(), KeyFileError> {
        let mut text = HEAD.to_owned();
        for key in keys {
            text.push_str(&STANDARD.encode(key.expose()));
            text.push('\n');
        }
        private_file::replace(&self.path, text.as_bytes()).map_err(|source| self.io(source))
    }

    fn io(&self, source: io::Error) -> KeyFileError {
        KeyFileError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

/// The keys, or the number of the line that is none.
fn parse(text: &str) -> Result<Vec<SecretKey>, usize> {
    let lines = (1_usize..).zip(text.lines().map(str::trim));
    let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let key = |(number, line): (usize, &str)| {
        let bytes = STANDARD.decode(line).map_err(|_| number)?;
        let bytes = bytes.try_into().map_err(|_| number)?;
        Ok(SecretKey::from_bytes(bytes))
    };
    keys.map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SecretKey {
        SecretKey::from_bytes([byte; SecretKey::LEN])
    }

    /// A key file with this text and mode, and the directory that it is in.
    fn file(text: &str, mode: u32) -> (tempfile::TempDir, KeyFile) {
        let directory = tempfile::tempdir().unwrap();
        let file = KeyFile::new(directory.path(), None);
        fs::write(&file.path, text).unwrap();
        fs::set_permissions(&file.path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, file)
    }

    #[test]
    fn a_first_key_is_made_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeyFile::new(directory.path(), None);
        let keys = file.keys_for(None).unwrap();
        let id = keys.newest().id();
        let mode = fs::metadata(&file.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(file.keys_for(None).unwrap(), keys);
        assert_eq!(file.keys_for(Some(id)).unwrap(), keys);

        fs::remove_file(&file.path).unwrap();
        let gone = file.keys_for(Some(id));
        assert!(matches!(gone, Err(KeyFileError::Missing(_))), "{gone:?}");
        assert!(!file.path.exists(), "a new key was made");
        assert_ne!(file.keys_for(None).unwrap(), keys);
        let other = file.keys_for(Some(id));
        assert!(matches!(other, Err(KeyFileError::Wrong(_))), "{other:?}");
    }

    #[test]
    fn a_file_that_an_operator_names_is_not_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("given.key");
        let file = KeyFile::new(directory.path(), Some(&path));
        let refused = file.keys_for(None).unwrap_err().to_string();
        assert!(refused.contains("openssl rand -base64 32"), "{refused}");
        assert!(!path.exists());
    }

    #[test]
    fn a_new_key_comes_before_the_old_until_that_is_retired() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeyFile::new(directory.path(), None);
        let first = file.keys_for(None).unwrap();
        file.add_key().unwrap();
        let both = file.keys_for(Some(first.newest().id())).unwrap();
        assert_eq!(both.iter().nth(1), Some(first.newest()));
        file.add_key().unwrap();
        assert_eq!(file.keys_for(None).unwrap(), both, "it had begun already");
        file.retire_older(&both);
        let keys = file.keys_for(None).unwrap();
        assert_eq!((keys.newest(), keys.has_older()), (both.newest(), false));
    }

    #[test]
    fn what_a_file_may_hold() {
        let line = STANDARD.encode([7; 32]);
        let check = |text: &str, expected: Result<&[u8], usize>| {
            let expected = expected.map(|bytes| bytes.iter().copied().map(key).collect());
            assert_eq!(parse(text), expected, "{text:?}");
        };
        check(&line, Ok(&[7]));
        check(
            &format!("# a comment\n\n  {line} \r\n{line}\n"),
            Ok(&[7, 7]),
        );
        check("", Ok(&[]));
        check(&format!("{line}\nnonsense"), Err(2));
        check("c2hvcnQ=", Err(1));
    }

    #[test]
    fn others_may_not_read_it() {
        let line = STANDARD.encode([7; 32]);
        for (mode, allowed) in [
            (0o600, true),
            (0o400, true),
            (0o440, true),
            (0o640, true),
            (0o660, false),
            (0o604, false),
            (0o644, false),
            (0o602, false),
        ] {
            let (_directory, file) = file(&line, mode);
            let read = file.keys_for(None);
            assert_eq!(read.is_ok(), allowed, "{mode:o}: {read:?}");
            if let Err(error) = read {
                let expected = format!("(mode {mode:04o}); chmod 600 it");
                assert!(error.to_string().contains(&expected), "{error}");
            }
        }
    }

    #[test]
    fn an_empty_file_is_no_key() {
        let (_directory, file) = file("# nothing\n", 0o600);
        let read = file.keys_for(None);
        assert!(matches!(read, Err(KeyFileError::Empty(_))), "{read:?}");
    }
}

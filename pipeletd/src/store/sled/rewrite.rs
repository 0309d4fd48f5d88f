//! Writes the cold database anew, with its secrets sealed under the newest key.
//!
//! sled keeps old bytes in its log for long, so a secret that was replaced is still there for
//! whoever reads the disk. What must go goes with the whole database: a copy without it is
//! written and synced, and takes the other's place.
//!
//! A stop at any moment leaves the old database or the new one, whole, and [`settle`] finds out
//! which. The old one goes only once the new one is in its place.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use super::{COLD_CACHE_BYTES, FORMAT_VERSION, database::Batch, database::Database, room::Purpose};
use crate::store::{
    StoreError,
    keys::{self, Kind, Meta},
    records,
    sealing::SecretKeys,
};

const COLD: &str = "cold";
/// The copy while it is written.
const NEW: &str = "cold.new";
/// The database that the copy replaces, from then on until it is removed.
const OLD: &str = "cold.old";

/// Finishes or undoes what a stop interrupted. To be called before the database is opened.
pub(super) fn settle(directory: &Path) -> Result<(), StoreError> {
    let [cold, new, old] = [COLD, NEW, OLD].map(|name| directory.join(name));
    let settle = || {
        if !cold.exists() && old.exists() && new.exists() {
            rename(directory, NEW, COLD)?;
        }
        remove(&new)?;
        if cold.exists() {
            remove(&old)?;
        }
        Ok(())
    };
    settle().map_err(|source| at(directory, source))
}

/// Takes the cold database's place with one that has everything in it, secrets sealed.
pub(super) fn rewrite(
    from: Database,
    directory: &Path,
    secrets: &SecretKeys,
) -> Result<Database, StoreError> {
    copy(&from, directory, secrets)?;
    drop(from);
    swap(directory).map_err(|source| at(directory, source))?;
    settle(directory)?;
    Database::open(&directory.join(COLD), COLD_CACHE_BYTES)
}

/// What stands in a database of this format that is sealed with this key.
pub(super) fn marks(secrets: &SecretKeys) -> Batch {
    let mut batch = Batch::default();
    let format = FORMAT_VERSION.to_be_bytes();
    Database::put_new(&mut batch, &keys::meta(Meta::FormatVersion), &format);
    let id = secrets.newest().id();
    Database::put_new(&mut batch, &keys::meta(Meta::SecretsKey), id.as_bytes());
    batch
}

fn copy(from: &Database, directory: &Path, secrets: &SecretKeys) -> Result<(), StoreError> {
    let to = Database::open(&directory.join(NEW), COLD_CACHE_BYTES)?;
    from.copy_all_but(Kind::Webhook, &to)?;
    let mut batch = marks(secrets);
    for entry in from.kind(Kind::Webhook) {
        let (key, value) = entry?;
        let stored = records::decode_webhook(&value, secrets)?;
        let sealed = records::encode_webhook(&stored, secrets)?;
        Database::put_new(&mut batch, &key, &sealed);
    }
    to.commit(batch, Purpose::Bookkeeping)
}

fn swap(directory: &Path) -> io::Result<()> {
    rename(directory, COLD, OLD)?;
    rename(directory, NEW, COLD)
}

fn rename(directory: &Path, from: &str, to: &str) -> io::Result<()> {
    fs::rename(directory.join(from), directory.join(to))?;
    File::open(directory)?.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn at(directory: &Path, source: io::Error) -> StoreError {
    StoreError::Directory {
        path: directory.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;
    use crate::store::{Store as _, key_file::KeyFile, sled::SledStore};

    const SECRET: &str = "planted-secret";
    static LONG: [u8; 30_000] = [7; 30_000];
    const LONG_KEY: &[u8] = b"r-long";

    /// As a store of format 2 was written: the secret in the clear.
    fn write_format_2(directory: &Path) {
        let json = format!(
            r#"{{"id":1,"name":"N","url":"https://example.com/","enabled":true,"events":["*"],
            "secret_header":"X-Secret","secret_value":"{SECRET}","stage":"active",
            "created_at":"2026-04-14T12:00:00Z","updated_at":"2026-04-14T12:00:00Z",
            "epochs":[{{"from":0,"enabled":true,"events":["*"]}}]}}"#
        );
        let record = [&[1], json.as_bytes()].concat();
        let cold = Database::open(&directory.join(COLD), COLD_CACHE_BYTES).unwrap();
        let mut batch = Batch::default();
        Database::put_new(
            &mut batch,
            &keys::meta(Meta::FormatVersion),
            &2_u64.to_be_bytes(),
        );
        let webhook = [&keys::prefix(Kind::Webhook)[..], &1_u64.to_be_bytes()].concat();
        Database::put_new(&mut batch, &webhook, &record);
        Database::put_new(&mut batch, LONG_KEY, &LONG);
        cold.commit(batch, Purpose::Bookkeeping).unwrap();
        assert!(holds(directory, SECRET.as_bytes()), "it is in the clear");
    }

    /// Whether any file of the store has these bytes in it.
    fn holds(directory: &Path, wanted: &[u8]) -> bool {
        fs::read_dir(directory).unwrap().any(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                return holds(&path, wanted);
            }
            let bytes = fs::read(path).unwrap();
            bytes.windows(wanted.len()).any(|window| window == wanted)
        })
    }

    fn secrets(directory: &Path) -> SecretKeys {
        let cold = Database::open(&directory.join(COLD), COLD_CACHE_BYTES).unwrap();
        let id = super::super::sealed_with(&cold).unwrap();
        KeyFile::new(directory, None).keys_for(id).unwrap()
    }

    /// Stops after so many steps of the copy's way into its place.
    fn stop_after(steps: usize, directory: &Path, secrets: &SecretKeys) {
        let from = Database::open(&directory.join(COLD), COLD_CACHE_BYTES).unwrap();
        let copied = |_: &Path| copy(&from, directory, secrets).unwrap();
        let away = |directory: &Path| rename(directory, COLD, OLD).unwrap();
        let into_place = |directory: &Path| rename(directory, NEW, COLD).unwrap();
        let all: [&dyn Fn(&Path); 3] = [&copied, &away, &into_place];
        for step in &all[..steps] {
            step(directory);
        }
    }

    fn check_whole(directory: &Path) {
        let store = SledStore::open(directory).unwrap();
        let webhooks = store.webhooks().unwrap();
        let secret = webhooks[0].webhook.secret.as_ref().unwrap();
        assert_eq!(secret.secret().expose(), SECRET);
        let long = store.cold.get(LONG_KEY).unwrap();
        assert_eq!(long.as_deref(), Some(&LONG[..]));
        drop(store);
        assert!(
            !holds(directory, SECRET.as_bytes()),
            "a secret is in the clear"
        );
        for gone in [NEW, OLD] {
            assert!(!directory.join(gone).exists(), "{gone} stayed");
        }
    }

    #[test]
    fn an_older_store_is_sealed_wherever_that_stopped_before() {
        for steps in 0..=3 {
            let directory = tempfile::tempdir().unwrap();
            write_format_2(directory.path());
            stop_after(steps, directory.path(), &secrets(directory.path()));
            check_whole(directory.path());
            check_whole(directory.path());
        }
    }

    #[test]
    fn half_a_copy_is_thrown_away() {
        let directory = tempfile::tempdir().unwrap();
        write_format_2(directory.path());
        let half = Database::open(&directory.path().join(NEW), COLD_CACHE_BYTES).unwrap();
        half.commit(marks(&secrets(directory.path())), Purpose::Bookkeeping)
            .unwrap();
        drop(half);
        check_whole(directory.path());
    }

    #[test]
    fn a_key_is_rotated_wherever_that_stopped_before() {
        for steps in 0_usize..=4 {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path();
            write_format_2(path);
            check_whole(path);
            let key_file = KeyFile::new(path, None);
            let first = secrets(path);
            if let Some(steps) = steps.checked_sub(1) {
                key_file.add_key().unwrap();
                stop_after(steps, path, &secrets(path));
            }
            // Either way of going on finishes it.
            if steps % 2 == 0 {
                SledStore::rotate_key(path, None).unwrap();
            }
            check_whole(path);
            let rotated = secrets(path);
            assert!(!rotated.has_older(), "{steps}");
            assert_ne!(rotated.newest(), first.newest(), "{steps}");
            // What was sealed begins with the key's id; three bytes are four characters.
            let sealed = STANDARD.encode(&first.newest().id().as_bytes()[..6]);
            assert!(!holds(&path.join(COLD), sealed.as_bytes()), "{steps}");
        }
    }

    #[test]
    fn a_store_without_its_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        write_format_2(path);
        check_whole(path);
        let kept = path.join("kept.key");
        fs::rename(path.join("secrets.key"), &kept).unwrap();
        for refused in [
            SledStore::open(path).map(drop),
            SledStore::rotate_key(path, None),
        ] {
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("is missing; put it back"), "{refused}");
        }
        assert!(!path.join("secrets.key").exists(), "a new key was made");
        SledStore::open_with_key(path, Some(&kept)).unwrap();
        fs::rename(&kept, path.join("secrets.key")).unwrap();
        check_whole(path);
    }
}

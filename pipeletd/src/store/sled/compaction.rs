//! Writes a database anew, without the bytes of what was removed: the cold one with its secrets
//! sealed under the newest key, and either where most of it is such bytes.
//!
//! sled keeps old bytes in its log for long, so a secret that was replaced is still there for
//! whoever reads the disk, and its file stays as long as it was when most was owed. What must go
//! goes with the whole database: a copy without it is written and synced, and takes the other's
//! place.
//!
//! A stop at any moment leaves the old database or the new one, whole, and [`settle`] finds out
//! which. The old one goes only once the new one is in its place.

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::Arc,
};

use super::{
    COLD_CACHE_BYTES,
    configuration::{joined, split},
    database::{Batch, Database},
    room::{Purpose, Room},
};
use crate::store::{
    StoreError,
    backup::FORMAT_VERSION,
    keys::{self, Kind, Meta},
    records,
    sealing::SecretKeys,
    table::Table as _,
};

pub(super) const COLD: &str = "cold";
pub(super) const HOT: &str = "hot";
/// A start writes a database anew whose file is at least so many times as long as what is in it.
const WORTH_IT: u64 = 4;
/// In bytes. Unless the disk is full, a start leaves a shorter file alone: a busy daemon soon needs as
/// much again for what it removes as it goes. To find out about longer ones, it reads no more than
/// a quarter of this, so that it isn't slow, whatever is owed.
const WORTH_IT_FROM: u64 = 64 << 20;

/// The copy while it is written.
fn new(name: &str) -> String {
    format!("{name}.new")
}

/// The database that the copy replaces, from then on until it is removed.
fn old(name: &str) -> String {
    format!("{name}.old")
}

/// Whether there is any of the databases, or a stop has left it to [`settle`] to put it in its place.
pub(super) fn is_any_there(directory: &Path) -> bool {
    let names = [COLD, HOT].map(|name| [name.to_owned(), old(name)]);
    names
        .iter()
        .flatten()
        .any(|name| directory.join(name).exists())
}

/// Finishes or undoes what a stop interrupted. To be called before the databases are used.
pub(super) fn settle_all(directory: &Path) -> Result<(), StoreError> {
    settle(directory, COLD)?;
    settle(directory, HOT)
}

fn settle(directory: &Path, name: &str) -> Result<(), StoreError> {
    let [there, new, old] = [name, &new(name), &old(name)].map(|name| directory.join(name));
    let settle = || {
        if !there.exists() && old.exists() && new.exists() {
            rename(directory, &new, &there)?;
        }
        if !there.exists() && old.exists() {
            rename(directory, &old, &there)?;
        }
        remove(&new)?;
        if there.exists() && old.exists() {
            // The stop may have come between the renaming and its sync.
            sync(directory)?;
            remove(&old)?;
        }
        Ok(())
    };
    settle().map_err(|source| at(directory, source))
}

/// Gives the room of what was removed back to the disk, where that is much and quickly done, or where
/// the disk is full. Where it fails, the database is used as it was. To be called before anybody else
/// uses it.
pub(super) fn shorten(
    from: Database,
    directory: &Path,
    name: &str,
    cache_bytes: u64,
    room: &Arc<Room>,
) -> Result<Database, StoreError> {
    let Ok(was_bytes) = from.length() else {
        return Ok(from);
    };
    let most = match room.check(Purpose::Event, 0) {
        Err(StoreError::Full { .. }) => was_bytes / WORTH_IT,
        _ if was_bytes >= WORTH_IT_FROM => WORTH_IT_FROM / WORTH_IT,
        _ => return Ok(from),
    };
    match copy_within(most, &from, directory, name, cache_bytes, room) {
        Ok(Some(_)) => {
            let replaced = replace(from, directory, name, cache_bytes, room);
            let Err(error) = replaced else {
                tracing::info!(
                    name,
                    was_bytes,
                    "wrote a database anew, without what was removed"
                );
                return replaced;
            };
            // Either of the two is whole: the one that is in its place will do, if there is one.
            let cause = error.chain();
            tracing::warn!(
                name,
                error = cause,
                "a database that was written anew can't take its place"
            );
            let settled = settle(directory, name);
            let there = directory.join(name);
            if !there.exists() {
                return settled.and(Err(error));
            }
            Database::open(&there, cache_bytes, room)
        }
        Ok(None) => Ok(from),
        Err(error) => {
            let error = error.chain();
            tracing::warn!(name, error, "a database could not be written anew");
            Ok(from)
        }
    }
}

/// The same, however much is to be read and wherever that makes the file shorter. None where there
/// is no room: the database is as it was then, too.
pub(super) fn compact(
    from: Database,
    directory: &Path,
    name: &str,
    cache_bytes: u64,
    room: &Arc<Room>,
) -> Result<Option<Database>, StoreError> {
    let copied = copy_within(u64::MAX, &from, directory, name, cache_bytes, room)?;
    let Some(bytes) = copied else {
        return Ok(None);
    };
    if bytes >= from.length()? {
        settle(directory, name)?;
        return Ok(Some(from));
    }
    replace(from, directory, name, cache_bytes, room).map(Some)
}

/// Writes the copy of a database with no more in it than so many bytes, where there is room for it.
/// Returns how long its file is, in bytes, and nothing where there is none.
fn copy_within(
    most: u64,
    from: &Database,
    directory: &Path,
    name: &str,
    cache_bytes: u64,
    room: &Arc<Room>,
) -> Result<Option<u64>, StoreError> {
    let fits = match room.for_a_copy() {
        Err(StoreError::Full { .. }) => return Ok(None),
        fits => fits?,
    };
    // sled needs more than what is in it.
    if !from.is_within(most.min(fits / 2))? {
        return Ok(None);
    }
    let copied = Database::open(&directory.join(new(name)), cache_bytes, room).and_then(|to| {
        from.copy(None, &to, Purpose::Inside)?;
        to.commit(Batch::default(), Purpose::Inside)?;
        to.length()
    });
    if copied.is_err() {
        settle(directory, name)?;
    }
    match copied {
        Err(StoreError::Full { .. }) => Ok(None),
        copied => copied.map(Some),
    }
}

/// Puts the copy of a database in its place.
fn replace(
    from: Database,
    directory: &Path,
    name: &str,
    cache_bytes: u64,
    room: &Arc<Room>,
) -> Result<Database, StoreError> {
    drop(from);
    swap(directory, name).map_err(|source| at(directory, source))?;
    settle(directory, name)?;
    Database::open(&directory.join(name), cache_bytes, room)
}

/// Takes the cold database's place with one that has everything in it, secrets sealed.
pub(super) fn reseal(
    from: Database,
    directory: &Path,
    secrets: &SecretKeys,
    room: &Arc<Room>,
) -> Result<Database, StoreError> {
    copy(&from, directory, secrets, room)?;
    replace(from, directory, COLD, COLD_CACHE_BYTES, room)
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

fn copy(
    from: &Database,
    directory: &Path,
    secrets: &SecretKeys,
    room: &Arc<Room>,
) -> Result<(), StoreError> {
    let to = Database::open(&directory.join(new(COLD)), COLD_CACHE_BYTES, room)?;
    from.copy(Some(Kind::Webhook), &to, Purpose::Bookkeeping)?;
    let mut batch = marks(secrets);
    for entry in from.kind(Kind::Webhook) {
        let (key, value) = entry?;
        let (revision, record) = split(&value)?;
        let stored = records::decode_webhook(&record, secrets)?;
        let sealed = records::encode_webhook(&stored, secrets)?;
        Database::put_new(&mut batch, &key, &joined(revision, &sealed));
    }
    to.commit(batch, Purpose::Bookkeeping)
}

fn swap(directory: &Path, name: &str) -> io::Result<()> {
    let [there, new, old] = [name, &new(name), &old(name)].map(|name| directory.join(name));
    rename(directory, &there, &old)?;
    rename(directory, &new, &there)
}

fn rename(directory: &Path, from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync(directory)
}

fn sync(directory: &Path) -> io::Result<()> {
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
    use std::{ops::Range, os::unix::fs::MetadataExt as _, sync::mpsc};

    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use bytes::Bytes;
    use jiff::Timestamp;
    use pipelet_domain::{
        deliveries::{Stage, StoredWebhook},
        webhooks::{Field, Secret, TargetPolicy, WebhookDraft, WebhookId},
    };

    use super::*;
    use crate::store::{
        ConfigurationChange, ConfigurationStore as _, Entry, key_file::KeyFile, sled::SledStore,
    };

    const SECRET: &str = "planted-secret";
    static LONG: [u8; 30_000] = [7; 30_000];
    const LONG_KEY: &[u8] = b"r-long";

    fn room(directory: &Path) -> Arc<Room> {
        Arc::new(Room::of(directory).unwrap())
    }

    fn open(directory: &Path, name: &str) -> Database {
        let path = directory.join(name);
        Database::open(&path, COLD_CACHE_BYTES, &room(directory)).unwrap()
    }

    /// A webhook with a secret, and a long value.
    async fn fill(directory: &Path) {
        let draft = WebhookDraft {
            name: Field::Value("N".to_owned()),
            url: Field::Value("https://example.com/".to_owned()),
            events: Field::Value(vec!["*".to_owned()]),
            secret_header: Field::Value("X-Secret".to_owned()),
            secret_value: Field::Value(Secret::new(SECRET)),
            ..WebhookDraft::default()
        };
        let new = draft.create(&TargetPolicy::default()).unwrap();
        let store = SledStore::open(directory).unwrap();
        let webhook = Entry::Webhook(StoredWebhook {
            webhook: new.into_webhook(WebhookId(1), Timestamp::UNIX_EPOCH),
            stage: Stage::Active,
        });
        store.put_if(webhook, None).await.unwrap();
        let mut batch = Batch::default();
        Database::put_new(&mut batch, LONG_KEY, &LONG);
        store.0.cold.commit(batch, Purpose::Bookkeeping).unwrap();
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
        let cold = open(directory, COLD);
        let id = super::super::sealed_with(&cold).unwrap();
        KeyFile::new(directory, None).keys_for(id).unwrap()
    }

    /// Stops after so many steps of the copy's way into its place.
    fn stop_after(steps: usize, directory: &Path, secrets: &SecretKeys) {
        let from = open(directory, COLD);
        let copied = |_: &Path| copy(&from, directory, secrets, &room(directory)).unwrap();
        let path = |name: &str| directory.join(name);
        let away = |directory: &Path| rename(directory, &path(COLD), &path(&old(COLD))).unwrap();
        let into_place =
            |directory: &Path| rename(directory, &path(&new(COLD)), &path(COLD)).unwrap();
        let all: [&dyn Fn(&Path); 3] = [&copied, &away, &into_place];
        for step in &all[..steps] {
            step(directory);
        }
    }

    async fn check_whole(directory: &Path) {
        let store = SledStore::open(directory).unwrap();
        let (told, webhooks) = mpsc::channel();
        let observer = move |change: &ConfigurationChange| told.send(change.clone()).unwrap();
        store.watch(Box::new(observer)).await.unwrap();
        let Ok(ConfigurationChange::Put(Entry::Webhook(stored), _)) = webhooks.try_recv() else {
            panic!("no webhook");
        };
        let secret = stored.webhook.secret.unwrap();
        assert_eq!(secret.secret().expose(), SECRET);
        let long = store.0.cold.get(LONG_KEY).unwrap();
        assert_eq!(long.as_deref(), Some(&LONG[..]));
        drop(store);
        assert!(
            !holds(directory, SECRET.as_bytes()),
            "a secret is in the clear"
        );
        for gone in [new(COLD), old(COLD)] {
            assert!(!directory.join(&gone).exists(), "{gone} stayed");
        }
    }

    /// Puts so many mebibytes into a database and removes most of them. Returns what is in it then.
    fn lengthen(path: &Path, added: u64, removed: u64) -> Vec<(Vec<u8>, Bytes)> {
        let database = open(path, HOT);
        let keys = |range: Range<u64>| range.map(|number| keys::received(WebhookId(number)));
        for key in keys(0..added) {
            let mut batch = Batch::default();
            Database::put_new(&mut batch, &key, &vec![7; 1 << 20]);
            database.commit(batch, Purpose::Event).unwrap();
        }
        for key in keys(0..removed) {
            let mut batch = Batch::default();
            database.remove(&mut batch, &key).unwrap();
            database.commit(batch, Purpose::Upkeep).unwrap();
        }
        everything(&database)
    }

    fn check_kept(path: &Path, kept: &[(Vec<u8>, Bytes)]) {
        let is_there = everything(&open(path, HOT)) == kept;
        assert!(is_there, "it has lost something");
    }

    fn everything(database: &Database) -> Vec<(Vec<u8>, Bytes)> {
        let entries = database.everything().map(Result::unwrap);
        entries.map(|(key, value)| (key.to_vec(), value)).collect()
    }

    fn file(directory: &Path, name: &str) -> fs::Metadata {
        fs::metadata(directory.join(name).join("db")).unwrap()
    }

    #[tokio::test]
    async fn a_start_writes_anew_what_is_long_and_nearly_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fill(path).await;
        let kept = lengthen(path, 64, 60);
        let [hot_was, cold_was] = [HOT, COLD].map(|name| file(path, name));
        assert!(hot_was.len() >= WORTH_IT_FROM, "{hot_was:?}");
        check_whole(path).await;
        let [hot, cold] = [HOT, COLD].map(|name| file(path, name));
        assert!(hot.len() < hot_was.len() / WORTH_IT, "{hot:?}");
        assert_eq!(cold.ino(), cold_was.ino(), "a short one");
        check_kept(path, &kept);
    }

    #[tokio::test]
    async fn what_a_start_would_take_long_for_is_left_to_the_command() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fill(path).await;
        let kept = lengthen(path, 80, 60);
        let was = file(path, HOT);
        drop(SledStore::open(path).unwrap());
        assert_eq!(file(path, HOT).ino(), was.ino());

        let [hot, cold] = SledStore::compact(path).unwrap();
        let shorter = file(path, HOT);
        assert!(shorter.len() < was.len() / 2, "{shorter:?}");
        assert!(hot.was_bytes >= was.len(), "{hot:?}");
        assert_eq!(hot.bytes, Some(shorter.len()));
        assert_eq!((hot.name, cold.name), (HOT, COLD));
        drop(SledStore::open(path).unwrap());
        check_kept(path, &kept);
    }

    #[tokio::test]
    async fn what_a_copy_would_make_no_shorter_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fill(path).await;
        let kept = lengthen(path, 8, 0);
        let was = file(path, HOT);
        let [hot, _] = SledStore::compact(path).unwrap();
        // How long sled makes a copy is its own affair: a longer one never takes the other's place.
        assert!(hot.bytes.is_some_and(|bytes| bytes <= hot.was_bytes));
        let is_left = file(path, HOT).ino() == was.ino();
        assert_eq!(is_left, hot.bytes == Some(hot.was_bytes));
        check_whole(path).await;
        check_kept(path, &kept);
    }

    #[tokio::test]
    async fn half_a_copy_is_thrown_away() {
        let directory = tempfile::tempdir().unwrap();
        fill(directory.path()).await;
        let half = open(directory.path(), &new(COLD));
        half.commit(marks(&secrets(directory.path())), Purpose::Bookkeeping)
            .unwrap();
        drop(half);
        check_whole(directory.path()).await;
    }

    #[tokio::test]
    async fn a_key_is_rotated_wherever_that_stopped_before() {
        for steps in 0_usize..=4 {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path();
            fill(path).await;
            check_whole(path).await;
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
            check_whole(path).await;
            let rotated = secrets(path);
            assert!(!rotated.has_older(), "{steps}");
            assert_ne!(rotated.newest(), first.newest(), "{steps}");
            // What was sealed begins with the key's id; three bytes are four characters.
            let sealed = STANDARD.encode(&first.newest().id().as_bytes()[..6]);
            assert!(!holds(&path.join(COLD), sealed.as_bytes()), "{steps}");
        }
    }

    #[tokio::test]
    async fn a_store_without_its_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fill(path).await;
        check_whole(path).await;
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
        check_whole(path).await;
    }
}

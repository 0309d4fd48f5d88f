//! The keys that let a caller in, how fast each may call, and when it last did.
//!
//! When a key was last used is not written down with each call; who stores the keys asks now and
//! then what is new of them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::registry::{Found, Registered, Registry};
use crate::{
    auth::{ApiKeyInfo, KeyHash, Role},
    store::{ConfigurationStore, Entry, EntryKey, StoreError},
    system::limits::{Bucket, Rate},
};

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Keyring {
    /// How often each key may call.
    rate: Arc<RwLock<Rate>>,
    keys: Registry<ApiKeyInfo>,
}

impl Registered for ApiKeyInfo {
    type Key = u64;
    type Companion = Arc<InUse>;

    fn key(&self) -> u64 {
        self.id
    }

    fn entry_key(key: u64) -> EntryKey {
        EntryKey::ApiKey(key)
    }

    fn into_entry(self) -> Entry {
        Entry::ApiKey(self)
    }

    fn of(entry: &Entry) -> Option<&Self> {
        match entry {
            Entry::ApiKey(key) => Some(key),
            Entry::Webhook(_) | Entry::IdTag(_) | Entry::Registration(_) => None,
        }
    }

    fn of_key(key: &EntryKey) -> Option<&u64> {
        match key {
            EntryKey::ApiKey(id) => Some(id),
            EntryKey::Webhook(_) | EntryKey::IdTag(_) | EntryKey::Registration(_) => None,
        }
    }

    fn removed(key: &Arc<InUse>) {
        key.revoked.cancel();
    }
}

/// A key for as long as it lets anyone in.
#[derive(Debug, Default)]
pub struct InUse {
    usage: Mutex<Usage>,
    /// Ends what the key has opened.
    revoked: CancellationToken,
}

#[derive(Debug, Default)]
struct Usage {
    last_used_at: Option<Timestamp>,
    /// Used since it was last stored.
    unsaved: bool,
    /// None before the first call.
    calls: Option<Bucket>,
}

/// Who calls: the key that was shown.
#[derive(Debug, Clone)]
pub struct Caller {
    pub key_id: u64,
    pub name: String,
    pub role: Role,
    /// From then on the key lets nobody in.
    pub expires_at: Option<Timestamp>,
    revoked: CancellationToken,
}

impl Caller {
    /// Returns when the key is revoked.
    pub async fn revoked(&self) {
        self.revoked.cancelled().await;
    }

    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

/// Why a key does not let its caller in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    Unknown,
    Expired,
    /// It called too often: when the next call may come.
    TooFast {
        retry_after: Duration,
    },
}

impl Keyring {
    /// The stored keys, each of which may call this often.
    pub async fn open(store: Arc<dyn ConfigurationStore>, rate: Rate) -> Result<Self, StoreError> {
        Ok(Self {
            rate: Arc::new(RwLock::new(rate)),
            keys: Registry::open(store).await?,
        })
    }

    /// Waits until all keys are known here that there are anywhere.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        self.keys.store().catch_up().await
    }

    /// Who the key belongs to. Takes the same time for every key that is wrong.
    pub fn check(&self, key: &str, now: Timestamp, instant: Instant) -> Result<Caller, Refused> {
        let hash = KeyHash::of(key);
        let keys = self.keys.read();
        let mut found = None;
        for known in keys.values() {
            if known.value.hash.is(&hash) {
                found = Some(known);
            }
        }
        let known = found.ok_or(Refused::Unknown)?;
        if known.value.is_expired(now) {
            return Err(Refused::Expired);
        }
        let mut usage = known.companion.usage();
        usage.last_used_at = usage.last_used_at.max(Some(now));
        usage.unsaved = true;
        let rate = self.rate();
        let calls = usage
            .calls
            .get_or_insert_with(|| Bucket::full(rate, instant));
        let paid = calls.take(rate, instant);
        paid.map_err(|retry_after| Refused::TooFast { retry_after })?;
        Ok(Caller {
            key_id: known.value.id,
            name: known.value.name.clone(),
            expires_at: known.value.expires_at,
            role: known.value.role,
            revoked: known.companion.revoked.clone(),
        })
    }

    /// Holds every key to another rate from its next call on.
    pub fn set_rate(&self, rate: Rate) {
        *self.rate.write().unwrap_or_else(PoisonError::into_inner) = rate;
    }

    fn rate(&self) -> Rate {
        *self.rate.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub const fn keys(&self) -> &Registry<ApiKeyInfo> {
        &self.keys
    }

    pub fn list(&self) -> Vec<ApiKeyInfo> {
        self.keys.read().values().map(as_used).collect()
    }

    /// The keys that were used since the last time this was asked.
    pub fn take_unsaved(&self) -> Vec<ApiKeyInfo> {
        let keys = self.keys.read();
        let unsaved = keys
            .values()
            .filter(|key| std::mem::take(&mut key.companion.usage().unsaved));
        unsaved.map(as_used).collect()
    }
}

impl InUse {
    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn as_used(key: &Found<ApiKeyInfo>) -> ApiKeyInfo {
    let last_used_at = key.companion.usage().last_used_at;
    ApiKeyInfo {
        last_used_at: last_used_at.max(key.value.last_used_at),
        ..ApiKeyInfo::clone(&key.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth::ApiKey, store::memory::MemoryStore};

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    async fn keyring() -> Keyring {
        let store = Arc::new(MemoryStore::default());
        Keyring::open(store, Rate::new(1.0, 3.0)).await.unwrap()
    }

    async fn added(keyring: &Keyring, id: u64, expires_at: Option<Timestamp>) -> ApiKey {
        let key = ApiKey::generate().unwrap();
        let info = ApiKeyInfo {
            id,
            name: format!("key {id}"),
            created_at: NOW,
            hash: key.hash(),
            role: Role::Operator,
            expires_at,
            last_used_at: None,
        };
        keyring.keys().put(info).await.unwrap();
        key
    }

    #[tokio::test]
    async fn a_keyring_lets_in_who_is_in_it() {
        let keyring = keyring().await;
        let check = |key: &str| keyring.check(key, NOW, Instant::now());
        added(&keyring, 1, None).await;
        let two = added(&keyring, 2, None).await;
        let caller = check(two.expose()).unwrap();
        assert_eq!((caller.key_id, caller.role), (2, Role::Operator));
        assert_eq!(check("hcpms_live_wrong").err(), Some(Refused::Unknown));
        assert_eq!(check("").err(), Some(Refused::Unknown));
        keyring.keys().remove(&2).await.unwrap();
        assert_eq!(check(two.expose()).err(), Some(Refused::Unknown));
        assert!(!format!("{keyring:?}{two:?}").contains(two.expose()));
    }

    #[tokio::test]
    async fn a_key_lets_nobody_in_from_its_end_on() {
        let keyring = keyring().await;
        let end = NOW + Duration::from_mins(1);
        let key = added(&keyring, 1, Some(end)).await;
        let check = |now| keyring.check(key.expose(), now, Instant::now());
        assert!(check(end - Duration::from_millis(1)).is_ok());
        assert_eq!(check(end).err(), Some(Refused::Expired));
    }

    #[tokio::test]
    async fn one_key_is_held_back_and_others_are_not() {
        let keyring = keyring().await;
        let (one, two) = (
            added(&keyring, 1, None).await,
            added(&keyring, 2, None).await,
        );
        let start = Instant::now() + Duration::from_secs(1);
        let check = |key: &ApiKey, at| keyring.check(key.expose(), NOW, at);
        assert!((0..3).all(|_| check(&one, start).is_ok()));
        let retry_after = Duration::from_secs(1);
        let too_fast = Refused::TooFast { retry_after };
        assert_eq!(check(&one, start).err(), Some(too_fast));
        assert!(check(&two, start).is_ok());
        assert!(check(&one, start + retry_after).is_ok());
    }

    #[tokio::test]
    async fn what_was_used_is_told_once() {
        let keyring = keyring().await;
        let (key, _) = (
            added(&keyring, 1, None).await,
            added(&keyring, 2, None).await,
        );
        assert_eq!(keyring.take_unsaved(), []);
        let later = NOW + Duration::from_secs(5);
        keyring.check(key.expose(), later, Instant::now()).unwrap();
        let unsaved = keyring.take_unsaved();
        assert_eq!(unsaved.len(), 1);
        assert_eq!((unsaved[0].id, unsaved[0].last_used_at), (1, Some(later)));
        assert_eq!(keyring.take_unsaved(), []);
        assert_eq!(keyring.list()[0].last_used_at, Some(later));
    }
}

//! The keys that let a caller in, how fast each may call, and when it last did.
//!
//! Nothing here is written down; who stores the keys asks now and then what is new of them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{ApiKeyInfo, KeyHash, Role};
use crate::system::limits::{Bucket, Rate};

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Keyring(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// How often each key may call.
    rate: RwLock<Rate>,
    keys: RwLock<Vec<Known>>,
}

#[derive(Debug)]
struct Known {
    info: ApiKeyInfo,
    usage: Mutex<Usage>,
    /// Ends what the key has opened.
    revoked: CancellationToken,
}

#[derive(Debug)]
struct Usage {
    last_used_at: Option<Timestamp>,
    /// Used since it was last stored.
    unsaved: bool,
    calls: Bucket,
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
    /// An empty one, whose keys may each call this often.
    pub fn new(rate: Rate) -> Self {
        Self(Arc::new(Inner {
            rate: RwLock::new(rate),
            keys: RwLock::default(),
        }))
    }

    /// Who the key belongs to. Takes the same time for every key that is wrong.
    pub fn check(&self, key: &str, now: Timestamp, instant: Instant) -> Result<Caller, Refused> {
        let hash = KeyHash::of(key);
        let keys = self.keys();
        let mut found = None;
        for known in keys.iter() {
            if known.info.hash.is(&hash) {
                found = Some(known);
            }
        }
        let known = found.ok_or(Refused::Unknown)?;
        if known.info.is_expired(now) {
            return Err(Refused::Expired);
        }
        let mut usage = known.usage();
        usage.last_used_at = usage.last_used_at.max(Some(now));
        usage.unsaved = true;
        let paid = usage.calls.take(self.rate(), instant);
        paid.map_err(|retry_after| Refused::TooFast { retry_after })?;
        Ok(Caller {
            key_id: known.info.id,
            name: known.info.name.clone(),
            expires_at: known.info.expires_at,
            role: known.info.role,
            revoked: known.revoked.clone(),
        })
    }

    pub fn add(&self, info: ApiKeyInfo) {
        let usage = Mutex::new(Usage {
            last_used_at: info.last_used_at,
            unsaved: false,
            calls: Bucket::full(self.rate(), Instant::now()),
        });
        let mut keys = self.0.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.push(Known {
            info,
            usage,
            revoked: CancellationToken::new(),
        });
    }

    /// Holds every key to another rate from its next call on.
    pub fn set_rate(&self, rate: Rate) {
        *self.0.rate.write().unwrap_or_else(PoisonError::into_inner) = rate;
    }

    fn rate(&self) -> Rate {
        *self.0.rate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets nobody in with this key any more, and ends what it has opened.
    pub fn remove(&self, id: u64) {
        let mut keys = self.0.keys.write().unwrap_or_else(PoisonError::into_inner);
        let removed: Vec<_> = keys.extract_if(.., |key| key.info.id == id).collect();
        // Whoever is woken by it shall find the key gone.
        drop(keys);
        for key in removed {
            key.revoked.cancel();
        }
    }

    pub fn list(&self) -> Vec<ApiKeyInfo> {
        self.keys().iter().map(Known::info).collect()
    }

    /// The keys that were used since the last time this was asked.
    pub fn take_unsaved(&self) -> Vec<ApiKeyInfo> {
        let keys = self.keys();
        let unsaved = keys
            .iter()
            .filter(|key| std::mem::take(&mut key.usage().unsaved));
        unsaved.map(Known::info).collect()
    }

    fn keys(&self) -> RwLockReadGuard<'_, Vec<Known>> {
        self.0.keys.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn info(&self) -> ApiKeyInfo {
        ApiKeyInfo {
            last_used_at: self.usage().last_used_at,
            ..self.info.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::ApiKey;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn keyring() -> Keyring {
        Keyring::new(Rate::new(1.0, 3.0))
    }

    fn added(keyring: &Keyring, id: u64, expires_at: Option<Timestamp>) -> ApiKey {
        let key = ApiKey::generate().unwrap();
        keyring.add(ApiKeyInfo {
            id,
            name: format!("key {id}"),
            created_at: NOW,
            hash: key.hash(),
            role: Role::Operator,
            expires_at,
            last_used_at: None,
        });
        key
    }

    #[test]
    fn a_keyring_lets_in_who_is_in_it() {
        let keyring = keyring();
        let check = |key: &str| keyring.check(key, NOW, Instant::now());
        added(&keyring, 1, None);
        let two = added(&keyring, 2, None);
        let caller = check(two.expose()).unwrap();
        assert_eq!((caller.key_id, caller.role), (2, Role::Operator));
        assert_eq!(check("hcpms_live_wrong").err(), Some(Refused::Unknown));
        assert_eq!(check("").err(), Some(Refused::Unknown));
        keyring.remove(2);
        assert_eq!(check(two.expose()).err(), Some(Refused::Unknown));
        assert!(!format!("{keyring:?}{two:?}").contains(two.expose()));
    }

    #[test]
    fn a_key_lets_nobody_in_from_its_end_on() {
        let keyring = keyring();
        let end = NOW + Duration::from_mins(1);
        let key = added(&keyring, 1, Some(end));
        let check = |now| keyring.check(key.expose(), now, Instant::now());
        assert!(check(end - Duration::from_millis(1)).is_ok());
        assert_eq!(check(end).err(), Some(Refused::Expired));
    }

    #[test]
    fn one_key_is_held_back_and_others_are_not() {
        let keyring = keyring();
        let (one, two) = (added(&keyring, 1, None), added(&keyring, 2, None));
        let start = Instant::now() + Duration::from_secs(1);
        let check = |key: &ApiKey, at| keyring.check(key.expose(), NOW, at);
        assert!((0..3).all(|_| check(&one, start).is_ok()));
        let retry_after = Duration::from_secs(1);
        let too_fast = Refused::TooFast { retry_after };
        assert_eq!(check(&one, start).err(), Some(too_fast));
        assert!(check(&two, start).is_ok());
        assert!(check(&one, start + retry_after).is_ok());
    }

    #[test]
    fn what_was_used_is_told_once() {
        let keyring = keyring();
        let (key, _) = (added(&keyring, 1, None), added(&keyring, 2, None));
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

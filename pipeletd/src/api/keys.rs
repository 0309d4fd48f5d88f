//! API keys: made, listed and revoked. Only their hashes are kept.
//!
//! When a key was last used is written down once a minute at most, and at the shutdown: what that
//! is worth does not buy a write for each request.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use pipelet_domain::webhooks::Fault;
use tokio::{sync::Mutex, time::interval};
use tokio_util::sync::CancellationToken;

use super::error::ApiError;
use crate::{
    auth::{ApiKey, ApiKeyInfo, InvalidRole, Role},
    registries::Keyring,
    store::{Counter, StoreError},
    system::clock::Clock,
};

/// In characters.
const MAX_NAME_LEN: usize = 200;
/// Whoever wants a key to live longer wants one that doesn't expire.
const MAX_LIFE: Duration = Duration::from_hours(24 * 365 * 10);
/// How often it is written down when keys were last used.
const SAVE_INTERVAL: Duration = Duration::from_mins(1);

/// The handle. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ApiKeys {
    keyring: Keyring,
    clock: Clock,
    /// Held while one is revoked: the last of its kind stays.
    revoking: Arc<Mutex<()>>,
}

/// A key that is to be made, as its maker says it.
#[derive(Debug, Clone, Default)]
pub struct KeyDraft {
    pub name: String,
    /// An admin's where nothing is said.
    pub role: Option<String>,
    /// For ever where nothing is said.
    pub expires_in: Option<Duration>,
}

impl KeyDraft {
    /// Everything that is wrong with it.
    pub(super) fn faults(&self) -> Vec<Fault> {
        checked(self).err().unwrap_or_default()
    }
}

impl ApiKeys {
    pub fn new(keyring: Keyring, clock: Clock) -> Self {
        Self {
            keyring,
            clock,
            revoking: Arc::default(),
        }
    }

    pub fn list(&self) -> Vec<ApiKeyInfo> {
        self.keyring.list()
    }

    /// Makes a key. This is the only time that it can be seen.
    pub async fn create(&self, draft: KeyDraft) -> Result<(ApiKeyInfo, ApiKey), ApiError> {
        let (name, role, life) = checked(&draft).map_err(ApiError::Invalid)?;
        let expires_at = life.map(|life| self.clock.now() + life);
        let key = ApiKey::generate().map_err(ApiError::internal)?;
        let info = self.add(name, &key, role, expires_at).await?;
        Ok((info, key))
    }

    /// Lets a key in that was chosen elsewhere, for all and for ever.
    pub async fn add_admin(&self, name: &str, key: &ApiKey) -> Result<ApiKeyInfo, StoreError> {
        self.add(name, key, Role::Admin, None).await
    }

    async fn add(
        &self,
        name: &str,
        key: &ApiKey,
        role: Role,
        expires_at: Option<Timestamp>,
    ) -> Result<ApiKeyInfo, StoreError> {
        let keys = self.keyring.keys();
        let info = ApiKeyInfo {
            id: keys.store().reserve(Counter::ApiKey, 1).await?,
            name: name.to_owned(),
            created_at: self.clock.now(),
            hash: key.hash(),
            role,
            expires_at,
            last_used_at: None,
        };
        keys.put(info.clone()).await?;
        Ok(info)
    }

    /// The last admin's key that doesn't expire can't be revoked: a day would come when nobody
    /// could make another.
    pub async fn revoke(&self, id: u64) -> Result<(), ApiError> {
        let _revoking = self.revoking.lock().await;
        let keys = self.keyring.list();
        if !keys.iter().any(|key| key.id == id) {
            let message = format!("there is no API key {id}");
            return Err(ApiError::NotFound {
                code: "no_such_api_key",
                message,
            });
        }
        let mut others = keys.iter().filter(|key| key.id != id);
        if !others.any(ApiKeyInfo::is_lasting_admin) {
            let message =
                "this is the last admin key that does not expire; create another one first";
            return Err(ApiError::Conflict {
                code: "last_api_key",
                message: message.to_owned(),
            });
        }
        Ok(self.keyring.keys().remove(&id).await?)
    }

    /// Writes down when keys were last used, now and then, until the shutdown and once more then.
    pub async fn save_usage(self, shutdown: CancellationToken) {
        let mut ticks = interval(SAVE_INTERVAL);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            self.save().await;
        }
        self.save().await;
    }

    async fn save(&self) {
        for used in self.keyring.take_unsaved() {
            let last_used_at = used.last_used_at;
            // One that is revoked meanwhile does not come back.
            let touch = |known: Option<&ApiKeyInfo>| {
                let known = known.cloned();
                Ok::<_, StoreError>(known.map(|known| ApiKeyInfo {
                    last_used_at,
                    ..known
                }))
            };
            if let Err(error) = self.keyring.keys().change(&used.id, touch).await {
                tracing::warn!(%error, "when API keys were last used could not be written down");
                return;
            }
        }
    }
}

/// The name, the role and the life of a key, or everything that is wrong with them.
fn checked(draft: &KeyDraft) -> Result<(&str, Role, Option<Duration>), Vec<Fault>> {
    let mut faults = Vec::new();
    let mut wrong = |pointer: &str, code, message| {
        faults.push(Fault {
            pointer: pointer.to_owned(),
            code,
            message,
        });
    };
    let name = draft.name.trim();
    if name.is_empty() || name.chars().count() > MAX_NAME_LEN || name.contains(char::is_control) {
        let message = format!("a key's name has 1 to {MAX_NAME_LEN} printable characters");
        wrong("/name", "invalid_name", message);
    }
    let role = draft.role.as_deref().map_or(Ok(Role::Admin), str::parse);
    if let Err(error) = &role {
        wrong("/role", "invalid_role", InvalidRole::to_string(error));
    }
    let life = draft.expires_in;
    if life.is_some_and(|life| life.is_zero() || life > MAX_LIFE) {
        let message = "a key lives for up to ten years, or for ever".to_owned();
        wrong("/expires_in", "invalid_duration", message);
    }
    match role {
        Ok(role) if faults.is_empty() => Ok((name, role, life)),
        Ok(_) | Err(_) => Err(faults),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_wrong_with_a_key_is_told() {
        let check = |name: &str, role: Option<&str>, seconds: Option<u64>, expected: &[&str]| {
            let draft = KeyDraft {
                name: name.to_owned(),
                role: role.map(str::to_owned),
                expires_in: seconds.map(Duration::from_secs),
            };
            let faults = checked(&draft).err().unwrap_or_default();
            let pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
            assert_eq!(pointers, expected, "{draft:?}");
        };
        check("ci", None, None, &[]);
        check(" ci ", Some("read-only"), Some(1), &[]);
        check(
            "",
            Some("root"),
            Some(0),
            &["/name", "/role", "/expires_in"],
        );
        check("a\nb", None, Some(u64::MAX), &["/name", "/expires_in"]);
    }
}

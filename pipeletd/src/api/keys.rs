//! API keys: made, listed and revoked. Only their hashes are kept.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::error::ApiError;
use crate::{
    auth::{ApiKey, ApiKeyInfo, Keyring},
    clock::Clock,
    store::{Change, Store, StoreError, blocking},
};

/// In characters.
const MAX_NAME_LEN: usize = 200;

/// The handle. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ApiKeys {
    store: Arc<dyn Store>,
    keyring: Keyring,
    clock: Clock,
    /// The next key's id; held during a change.
    next: Arc<Mutex<u64>>,
}

impl ApiKeys {
    /// Takes the stored keys into the keyring.
    pub fn open(store: Arc<dyn Store>, keyring: Keyring, clock: Clock) -> Result<Self, StoreError> {
        for key in store.api_keys()? {
            keyring.add(key);
        }
        let next = Arc::new(Mutex::new(store.next_ids()?.api_key));
        Ok(Self {
            store,
            keyring,
            clock,
            next,
        })
    }

    pub fn list(&self) -> Vec<ApiKeyInfo> {
        self.keyring.list()
    }

    /// Makes a key. This is the only time that it can be seen.
    pub async fn create(&self, name: &str) -> Result<(ApiKeyInfo, ApiKey), ApiError> {
        let name = name.trim();
        if name.is_empty() || name.chars().count() > MAX_NAME_LEN || name.contains(char::is_control)
        {
            let message = format!("a key's name has 1 to {MAX_NAME_LEN} printable characters");
            return Err(ApiError::fault("/name", "invalid_name", message));
        }
        let key = ApiKey::generate().map_err(|error| ApiError::Internal(error.into()))?;
        let info = self.add(name, &key).await?;
        Ok((info, key))
    }

    /// Lets a key in that was chosen elsewhere.
    pub async fn add(&self, name: &str, key: &ApiKey) -> Result<ApiKeyInfo, StoreError> {
        let mut next = self.next.lock().await;
        let created_at = self.clock.now();
        let info = ApiKeyInfo {
            id: *next,
            name: name.to_owned(),
            created_at,
            hash: key.hash(),
        };
        self.commit(Change::ApiKey(info.clone())).await?;
        *next += 1;
        self.keyring.add(info.clone());
        Ok(info)
    }

    /// The last key can't be revoked: nobody could make another.
    pub async fn revoke(&self, id: u64) -> Result<(), ApiError> {
        let _changing = self.next.lock().await;
        let keys = self.keyring.list();
        if !keys.iter().any(|key| key.id == id) {
            let message = format!("there is no API key {id}");
            return Err(ApiError::NotFound {
                code: "no_such_api_key",
                message,
            });
        }
        if keys.len() == 1 {
            let message = "this is the last API key; create another one first".to_owned();
            return Err(ApiError::Conflict {
                code: "last_api_key",
                message,
            });
        }
        self.commit(Change::ApiKeyGone(id)).await?;
        self.keyring.remove(id);
        Ok(())
    }

    async fn commit(&self, change: Change) -> Result<(), StoreError> {
        let store = Arc::clone(&self.store);
        blocking(move || store.commit(&[change])).await
    }
}

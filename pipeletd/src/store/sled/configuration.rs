//! The configuration in the cold database: each entry behind its revision.

use std::sync::{Arc, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Inner, SledStore,
    database::{Batch, Database},
    room::Purpose,
};
use crate::store::{
    ConfigurationChange, ConfigurationStore, Counter, Entry, EntryKey, Observer, PutError,
    Revision, StoreError,
    codec::record_error,
    configuration::Observers,
    keys::{self, Kind, Meta},
    table::Table as _,
};

/// Held by whoever changes the configuration.
#[derive(Debug)]
pub(super) struct Configuration {
    pub(super) latest: Revision,
    pub(super) observers: Observers,
}

pub(super) const KINDS: [Kind; 4] = [Kind::Webhook, Kind::ApiKey, Kind::IdTag, Kind::Registration];

#[async_trait]
impl ConfigurationStore for SledStore {
    async fn watch(&self, observer: Observer) -> Result<(), StoreError> {
        self.reading(move |store| store.watch(observer)).await
    }

    async fn put_if(&self, entry: Entry, expected: Option<Revision>) -> Result<Revision, PutError> {
        let store = Arc::clone(&self.0);
        super::blocking(move || store.put_if(entry, expected)).await
    }

    async fn remove_if(&self, key: EntryKey, expected: Revision) -> Result<(), PutError> {
        let store = Arc::clone(&self.0);
        super::blocking(move || store.remove_if(key, expected)).await
    }

    async fn reserve(&self, counter: Counter, count: u32) -> Result<u64, StoreError> {
        self.reading(move |store| store.reserve(counter, count))
            .await
    }

    async fn transaction_key(&self) -> Result<[u8; 16], StoreError> {
        self.reading(Inner::transaction_key).await
    }
}

impl Inner {
    fn watch(&self, observer: Observer) -> Result<(), StoreError> {
        let mut configuration = self.configuration();
        for kind in KINDS {
            for found in self.cold.kind(kind) {
                let (key, value) = found?;
                let (revision, record) = split(&value)?;
                let key = keys::read_entry(&key);
                let key = key.ok_or_else(|| record_error("entry", "its key can't be read"))?;
                let entry = Entry::decode(&key, &record, &self.secrets)?;
                observer(&ConfigurationChange::Put(entry, revision));
            }
        }
        configuration.observers.add(observer);
        Ok(())
    }

    fn put_if(&self, entry: Entry, expected: Option<Revision>) -> Result<Revision, PutError> {
        let mut configuration = self.configuration();
        let key = keys::entry(&entry.key());
        if self.revision(&key)? != expected {
            return Err(PutError::Conflict);
        }
        let revision = Revision(configuration.latest.0 + 1);
        let record = entry.encode(&self.secrets)?;
        let mut batch = Batch::default();
        self.cold
            .put(&mut batch, &key, &joined(revision, &record))?;
        let purpose = if entry.grows() {
            Purpose::Bookkeeping
        } else {
            Purpose::Upkeep
        };
        self.commit_configuration(batch, revision, purpose)?;
        configuration.latest = revision;
        let change = ConfigurationChange::Put(entry, revision);
        configuration.observers.tell(&change);
        Ok(revision)
    }

    fn remove_if(&self, key: EntryKey, expected: Revision) -> Result<(), PutError> {
        let mut configuration = self.configuration();
        let stored = keys::entry(&key);
        if self.revision(&stored)? != Some(expected) {
            return Err(PutError::Conflict);
        }
        let revision = Revision(configuration.latest.0 + 1);
        let mut batch = Batch::default();
        self.cold.remove(&mut batch, &stored)?;
        self.commit_configuration(batch, revision, Purpose::Upkeep)?;
        configuration.latest = revision;
        let change = ConfigurationChange::Removed(key);
        configuration.observers.tell(&change);
        Ok(())
    }

    fn configuration(&self) -> MutexGuard<'_, Configuration> {
        let configuration = self.configuration.lock();
        configuration.unwrap_or_else(PoisonError::into_inner)
    }

    fn revision(&self, key: &[u8]) -> Result<Option<Revision>, StoreError> {
        let value = self.cold.get(key)?;
        value
            .map(|value| split(&value).map(|(revision, _)| revision))
            .transpose()
    }

    fn commit_configuration(
        &self,
        mut batch: Batch,
        revision: Revision,
        purpose: Purpose,
    ) -> Result<(), StoreError> {
        let key = keys::meta(Meta::ConfigurationRevision);
        Database::put_new(&mut batch, &key, &revision.0.to_be_bytes());
        self.commit_cold(batch, purpose)
    }

    fn reserve(&self, counter: Counter, count: u32) -> Result<u64, StoreError> {
        let _configuration = self.configuration();
        let meta = match counter {
            Counter::Webhook => Meta::NextWebhook,
            Counter::ApiKey => Meta::NextApiKey,
            Counter::Transaction => Meta::NextTransaction,
        };
        let first = self.meta_number(meta)?.unwrap_or(1);
        self.put_meta(meta, &(first + u64::from(count)).to_be_bytes())?;
        Ok(first)
    }

    fn transaction_key(&self) -> Result<[u8; 16], StoreError> {
        let _configuration = self.configuration();
        if let Some(key) = self.cold.get(&keys::meta(Meta::TransactionKey))? {
            let key = key.as_ref().try_into();
            return key.map_err(|_| record_error("transaction key", "it has not 16 bytes"));
        }
        let mut key = [0; 16];
        getrandom::fill(&mut key).map_err(|error| record_error("transaction key", error))?;
        self.put_meta(Meta::TransactionKey, &key)?;
        Ok(key)
    }
}

pub(super) fn joined(revision: Revision, record: &[u8]) -> Vec<u8> {
    [&revision.0.to_be_bytes(), record].concat()
}

pub(super) fn split(value: &Bytes) -> Result<(Revision, Bytes), StoreError> {
    let revision = value.first_chunk::<8>();
    let revision = revision.ok_or_else(|| record_error("entry", "it is cut short"))?;
    Ok((Revision(u64::from_be_bytes(*revision)), value.slice(8..)))
}

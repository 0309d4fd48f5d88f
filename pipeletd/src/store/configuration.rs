//! The configuration: what operators and integrators have set up, for the whole cluster.
//!
//! Anyone may write: a put names the revision that it replaces, and fails where another came before
//! it. A put is durable on return, and those who watch here have been told of it by then. A number
//! that was reserved is never given out again.

use std::fmt;

use async_trait::async_trait;
use pipelet_domain::{
    deliveries::StoredWebhook,
    events::{IdTagKey, StationId},
    id_tags::IdTagEntry,
    registration::Registration,
    webhooks::WebhookId,
};

use super::{StoreError, id_tag_record, records, registration_record, sealing::SecretKeys};
use crate::auth::ApiKeyInfo;

/// One thing that is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "they live for one change, and none is kept in a list"
)]
pub enum Entry {
    Webhook(StoredWebhook),
    ApiKey(ApiKeyInfo),
    IdTag(IdTagEntry),
    Registration(Registration),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKey {
    Webhook(WebhookId),
    ApiKey(u64),
    IdTag(IdTagKey),
    Registration(StationId),
}

impl Entry {
    pub fn key(&self) -> EntryKey {
        match self {
            Self::Webhook(stored) => EntryKey::Webhook(stored.webhook.id),
            Self::ApiKey(key) => EntryKey::ApiKey(key.id),
            Self::IdTag(entry) => EntryKey::IdTag(entry.id_tag.key()),
            Self::Registration(registration) => {
                EntryKey::Registration(registration.station.clone())
            }
        }
    }

    /// Its record, with secrets sealed.
    pub(super) fn encode(&self, secrets: &SecretKeys) -> Result<Vec<u8>, StoreError> {
        match self {
            Self::Webhook(stored) => records::encode_webhook(stored, secrets),
            Self::ApiKey(key) => Ok(records::encode_api_key(key)),
            Self::IdTag(entry) => Ok(id_tag_record::encode_id_tag(entry)),
            Self::Registration(registration) => {
                Ok(registration_record::encode_registration(registration))
            }
        }
    }

    pub(super) fn decode(
        key: &EntryKey,
        record: &[u8],
        secrets: &SecretKeys,
    ) -> Result<Self, StoreError> {
        match key {
            EntryKey::Webhook(_) => records::decode_webhook(record, secrets).map(Self::Webhook),
            EntryKey::ApiKey(id) => records::decode_api_key(*id, record).map(Self::ApiKey),
            EntryKey::IdTag(_) => id_tag_record::decode_id_tag(record).map(Self::IdTag),
            EntryKey::Registration(_) => {
                registration_record::decode_registration(record).map(Self::Registration)
            }
        }
    }

    /// Whether there is more to keep after it. A webhook that wants nothing more replaces itself,
    /// or ends, and finds room on a disk that is too full for what grows.
    pub const fn grows(&self) -> bool {
        match self {
            Self::Webhook(stored) => stored.webhook.enabled,
            Self::ApiKey(_) | Self::IdTag(_) | Self::Registration(_) => true,
        }
    }
}

/// Which change an entry comes from; a later change of it has a greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub u64);

/// A change, as those who watch are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "they live for one change, and none is kept in a list"
)]
pub enum ConfigurationChange {
    Put(Entry, Revision),
    Removed(EntryKey),
}

#[derive(Debug, thiserror::Error)]
pub enum PutError {
    #[error("it has been changed meanwhile")]
    Conflict,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What numbers are given out for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    Webhook,
    ApiKey,
    Transaction,
}

/// Is told of changes. Must be quick, and must not block.
pub type Observer = Box<dyn Fn(&ConfigurationChange) + Send + Sync>;

#[async_trait]
pub trait ConfigurationStore: fmt::Debug + Send + Sync + 'static {
    /// Tells of every entry that is there, and then of each change, in the order in which an
    /// entry's changes were stored, for as long as the store is open.
    async fn watch(&self, observer: Observer) -> Result<(), StoreError>;

    /// Creates an entry that isn't there (`None`), or replaces the revision that is.
    async fn put_if(&self, entry: Entry, expected: Option<Revision>) -> Result<Revision, PutError>;

    /// Removes an entry of this revision.
    async fn remove_if(&self, key: EntryKey, expected: Revision) -> Result<(), PutError>;

    /// Reserves `count` numbers, from 1 on; returns the first.
    async fn reserve(&self, counter: Counter, count: u32) -> Result<u64, StoreError>;

    /// Waits until whoever watches has been told of all that was changed before, wherever that was.
    async fn catch_up(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// A random key, made once for each cluster.
    async fn transaction_key(&self) -> Result<[u8; 16], StoreError>;
}

/// Those who watch an engine's configuration in this process.
#[derive(Default)]
pub(super) struct Observers(Vec<Observer>);

impl Observers {
    pub(super) fn add(&mut self, observer: Observer) {
        self.0.push(observer);
    }

    pub(super) fn tell(&self, change: &ConfigurationChange) {
        self.0.iter().for_each(|observer| observer(change));
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} observers", self.0.len())
    }
}

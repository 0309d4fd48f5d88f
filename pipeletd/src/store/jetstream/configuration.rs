//! The configuration on a stream: each entry is the last message of its subject, and its revision the
//! sequence of that.
//!
//! Every node watches the stream, and what it has seen is in memory.
//!
//! A message is a version and a record, or nothing where the entry was removed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::StreamExt as _;
use pipelet_domain::{
    events::{IdTagKey, StationId},
    webhooks::WebhookId,
};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    record_stream::failed,
    values::{PublishFailed, Values, number, value_in},
};
use crate::store::{
    ConfigurationChange, ConfigurationStore, Counter, Entry, EntryKey, Observer, PutError,
    Revision, StoreError,
    backup::Record,
    codec::record_error,
    configuration::Observers,
    keys::{self, Meta},
    sealing::SecretKeys,
};

const VERSION: u8 = 1;
const WHAT: &str = "configuration entry";
const NEXT_WEBHOOK: &str = "next_webhook";
const NEXT_KEY: &str = "next_key";
const NEXT_TRANSACTION: &str = "next_transaction";
const TRANSACTION_KEY: &str = "transaction_key";
/// Which key secrets are sealed with.
pub(super) const SECRETS_KEY: &str = "secrets_key";
/// Values that are no entries, and what they are in a store's table.
pub(super) const VALUES: [(&str, Meta); 5] = [
    (NEXT_WEBHOOK, Meta::NextWebhook),
    (NEXT_KEY, Meta::NextApiKey),
    (NEXT_TRANSACTION, Meta::NextTransaction),
    (TRANSACTION_KEY, Meta::TransactionKey),
    (SECRETS_KEY, Meta::SecretsKey),
];
/// How long a put without an acknowledgement is sent again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before the stream is watched anew, where that has ended.
const WATCH_AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct StreamConfiguration {
    values: Values,
    secrets: Arc<SecretKeys>,
    seen: Arc<Seen>,
    /// Ends the watching.
    _watching: DropGuard,
}

/// What this node has seen of the stream.
#[derive(Debug)]
struct Seen {
    contents: Mutex<Contents>,
    /// All messages up to this one.
    to: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Contents {
    entries: BTreeMap<EntryKey, (Entry, Revision)>,
    observers: Observers,
}

impl StreamConfiguration {
    /// Reads all that is there, and watches it from then on.
    pub(super) async fn open(values: Values, secrets: SecretKeys) -> Result<Self, StoreError> {
        let stop = CancellationToken::new();
        let configuration = Self {
            _watching: stop.clone().drop_guard(),
            values,
            secrets: Arc::new(secrets),
            seen: Arc::new(Seen {
                contents: Mutex::default(),
                to: watch::Sender::new(0),
            }),
        };
        let watcher = Watcher {
            values: configuration.values.clone(),
            secrets: Arc::clone(&configuration.secrets),
            seen: Arc::downgrade(&configuration.seen),
        };
        tokio::spawn(stop.run_until_cancelled_owned(watcher.run()));
        configuration.catch_up().await?;
        Ok(configuration)
    }

    /// Waits until this node has seen all that there is now.
    pub(super) async fn catch_up(&self) -> Result<(), StoreError> {
        let last = self.values.last_sequence().await?;
        self.seen(last).await
    }

    /// Waits until this node has seen all up to this message.
    async fn seen(&self, sequence: u64) -> Result<(), StoreError> {
        let mut seen = self.seen.to.subscribe();
        let seen = tokio::time::timeout(PATIENCE, seen.wait_for(|seen| *seen >= sequence)).await;
        let seen = seen.map_err(|_| failed("the configuration's changes don't come through"))?;
        seen.map(drop).map_err(failed)
    }

    /// Every entry, for a backup.
    pub(super) fn records(&self) -> Result<Vec<Record>, StoreError> {
        let contents = self.seen.contents();
        let entries = contents.entries.iter().map(|(key, (entry, _))| {
            Ok(Record {
                key: keys::entry(key),
                value: entry.encode(&self.secrets)?,
            })
        });
        entries.collect()
    }

    /// Changes an entry of this revision, and returns the next.
    async fn change(
        &self,
        key: &EntryKey,
        message: Bytes,
        expected: Option<Revision>,
    ) -> Result<Revision, PutError> {
        let name = name_of(key);
        let known = self.seen.contents().entries.get(key).map(|(_, it)| *it);
        if known != expected {
            return Err(PutError::Conflict);
        }
        let expected = match expected {
            Some(revision) => revision.0,
            // One that was removed has left a message.
            None => self.values.last(&name).await?.map_or(0, |(last, _)| last),
        };
        match self.values.replace(&name, message, expected).await {
            Ok(sequence) => {
                self.seen(sequence).await?;
                Ok(Revision(sequence))
            }
            Err(PublishFailed::Overtaken) => {
                // It is seen before it is tried again.
                if let Some((last, _)) = self.values.last(&name).await? {
                    self.seen(last).await?;
                }
                Err(PutError::Conflict)
            }
            Err(PublishFailed::Store(error)) => Err(error.into()),
        }
    }
}

#[async_trait]
impl ConfigurationStore for StreamConfiguration {
    async fn catch_up(&self) -> Result<(), StoreError> {
        Self::catch_up(self).await
    }

    async fn watch(&self, observer: Observer) -> Result<(), StoreError> {
        let mut contents = self.seen.contents();
        for (entry, revision) in contents.entries.values() {
            observer(&ConfigurationChange::Put(entry.clone(), *revision));
        }
        contents.observers.add(observer);
        Ok(())
    }

    async fn put_if(&self, entry: Entry, expected: Option<Revision>) -> Result<Revision, PutError> {
        let message = message_of(&entry.encode(&self.secrets)?);
        self.change(&entry.key(), message, expected).await
    }

    async fn remove_if(&self, key: EntryKey, expected: Revision) -> Result<(), PutError> {
        let removed = self.change(&key, Bytes::new(), Some(expected));
        removed.await.map(drop)
    }

    async fn reserve(&self, counter: Counter, count: u32) -> Result<u64, StoreError> {
        let name = match counter {
            Counter::Webhook => NEXT_WEBHOOK,
            Counter::ApiKey => NEXT_KEY,
            Counter::Transaction => NEXT_TRANSACTION,
        };
        let reserved = self.values.change(name, |next| {
            let next = next.map_or(Ok(1), number)? + u64::from(count);
            Ok(Some(next.to_be_bytes().to_vec()))
        });
        Ok(number(&reserved.await?)? - u64::from(count))
    }

    async fn transaction_key(&self) -> Result<[u8; 16], StoreError> {
        let mut new = [0; 16];
        getrandom::fill(&mut new).map_err(|error| record_error("transaction key", error))?;
        let key = self.values.change(TRANSACTION_KEY, |key| {
            Ok(key.is_none().then(|| new.to_vec()))
        });
        let key = key.await?.as_ref().try_into();
        key.map_err(|_| record_error("transaction key", "it has not 16 bytes"))
    }
}

impl Seen {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, sequence: u64, change: Option<ConfigurationChange>) {
        let mut contents = self.contents();
        if sequence <= *self.to.borrow() {
            return;
        }
        if let Some(change) = change {
            let is_news = match &change {
                ConfigurationChange::Put(entry, revision) => {
                    contents
                        .entries
                        .insert(entry.key(), (entry.clone(), *revision));
                    true
                }
                ConfigurationChange::Removed(key) => contents.entries.remove(key).is_some(),
            };
            if is_news {
                contents.observers.tell(&change);
            }
        }
        self.to.send_replace(sequence);
    }
}

/// What the value of an entry is called.
pub(super) fn name_of(key: &EntryKey) -> String {
    let (kind, name) = match key {
        EntryKey::Webhook(id) => ("webhook", id.0.to_string()),
        EntryKey::ApiKey(id) => ("key", id.to_string()),
        EntryKey::IdTag(tag) => ("tag", URL_SAFE_NO_PAD.encode(tag.as_str())),
        EntryKey::Registration(station) => ("station", URL_SAFE_NO_PAD.encode(station.as_str())),
    };
    format!("{kind}.{name}")
}

/// The message that has an entry's record.
pub(super) fn message_of(record: &[u8]) -> Bytes {
    [&[VERSION][..], record].concat().into()
}

/// Follows the stream.
struct Watcher {
    values: Values,
    secrets: Arc<SecretKeys>,
    seen: std::sync::Weak<Seen>,
}

impl Watcher {
    /// For as long as somebody has the configuration.
    async fn run(self) {
        while self.seen.strong_count() > 0 {
            if let Err(error) = self.follow().await {
                let error = error.chain();
                tracing::warn!(error, "the configuration can't be watched, trying again");
            }
            sleep(WATCH_AGAIN).await;
        }
    }

    async fn follow(&self) -> Result<(), StoreError> {
        let mut messages = self.values.follow().await?;
        while let Some(message) = messages.next().await {
            let message = message.map_err(failed)?;
            let sequence = message.info().map_err(failed)?.stream_sequence;
            let Some(seen) = self.seen.upgrade() else {
                return Ok(());
            };
            let change = match self.read(&message.subject, sequence, &message.payload) {
                Ok(change) => change,
                Err(error) => {
                    let (error, subject) = (error.chain(), &message.subject);
                    tracing::error!(error, %subject, "a configuration entry is left out");
                    None
                }
            };
            seen.apply(sequence, change);
        }
        Ok(())
    }

    fn read(
        &self,
        subject: &str,
        sequence: u64,
        message: &Bytes,
    ) -> Result<Option<ConfigurationChange>, StoreError> {
        let unknown = || record_error(WHAT, "its subject is of no known kind");
        let name = self.values.name_in(subject);
        let (kind, name) = name.and_then(|it| it.split_once('.')).ok_or_else(unknown)?;
        let number = || name.parse().map_err(|error| record_error(WHAT, error));
        let text = || {
            let bytes = URL_SAFE_NO_PAD.decode(name);
            let bytes = bytes.map_err(|error| record_error(WHAT, error))?;
            String::from_utf8(bytes).map_err(|error| record_error(WHAT, error))
        };
        let key = match kind {
            "webhook" => EntryKey::Webhook(WebhookId(number()?)),
            "key" => EntryKey::ApiKey(number()?),
            "tag" => EntryKey::IdTag(IdTagKey::of(&text()?)),
            "station" => {
                let station = StationId::new(&text()?);
                EntryKey::Registration(station.map_err(|error| record_error(WHAT, error))?)
            }
            "meta" => return Ok(None),
            _ => return Err(unknown()),
        };
        if message.is_empty() {
            return Ok(Some(ConfigurationChange::Removed(key)));
        }
        let record = value_in(message)?;
        let entry = Entry::decode(&key, &record, &self.secrets)?;
        Ok(Some(ConfigurationChange::Put(entry, Revision(sequence))))
    }
}

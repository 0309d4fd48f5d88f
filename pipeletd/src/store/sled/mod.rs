//! The store on sled: two databases in the data directory.
//!
//! `hot` holds the journal and the cursors, first in, first out; `cold` holds everything that
//! stays. Long-lived records among short-lived ones would pin the space of both.

mod backup;
mod compaction;
mod consistency_check;
mod database;
mod packed_map;
mod panics;
mod room;
mod transactions;

use std::{
    fs::{File, TryLockError},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{
        ArchivedCounts, Cursor, FailedDelivery, FailedFilter, FailedId, LedgerCounts, Received,
        Retry, RetryKey, StoredCounts, StoredWebhook, SubscriptionVersion,
    },
    events::{Event, Seq, StationId},
    id_tags::IdTagEntry,
    projection::{StationState, Transaction, TransactionFilter},
    registration::Registration,
    webhooks::WebhookId,
};

use self::{
    consistency_check::Found,
    database::{Batch, Database},
    room::{Purpose, Room},
};
use super::{
    BATCH_BYTES, Change, NextIds, Part, Progress, ReadLimit, SavedStations, Store, StoreError,
    block::{self, Block},
    codec,
    codec::record_error,
    id_tag_record,
    key_file::KeyFile,
    keys::{self, Kind, Meta},
    records, registration_record,
    sealing::{KeyId, SecretKeys},
    station_record, take_up_to,
};
use crate::{auth::ApiKeyInfo, system::private_file};

/// The version of keys and records together; no other one is read.
const FORMAT_VERSION: u64 = 6;
const HOT_CACHE_BYTES: u64 = 16 << 20;
const COLD_CACHE_BYTES: u64 = 16 << 20;

#[derive(Debug)]
pub struct SledStore {
    hot: Database,
    cold: Database,
    secrets: SecretKeys,
    directory: PathBuf,
    /// How many batches `cold` has taken; held by whoever writes to it, or needs it to stand still.
    cold_commits: Mutex<u64>,
    /// Of them, how many are durable, and how many `hot` knows of.
    cold_durable: AtomicU64,
    cold_known: AtomicU64,
    /// Held by whoever changes transactions: what is packed is read first.
    transactions: Mutex<()>,
    /// Backups that are being written; nothing is forgotten meanwhile.
    backups: AtomicUsize,
    /// Held as long as the store is open: one daemon for a data directory.
    _lock: File,
}

impl SledStore {
    /// Opens the store in a directory, which is made where it isn't there.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::open_with_key(directory, None)
    }

    /// Whether the directory has a store, or one that was begun.
    pub fn is_in(directory: &Path) -> bool {
        directory.join("cold").exists() || backup::is_decided(directory)
    }

    /// The same with a key file elsewhere than in the directory.
    pub fn open_with_key(directory: &Path, key_file: Option<&Path>) -> Result<Self, StoreError> {
        private_file::make_directory(directory).map_err(|source| StoreError::Directory {
            path: directory.to_owned(),
            source,
        })?;
        let lock = lock(directory)?;
        Self::open_locked(directory, &KeyFile::new(directory, key_file), lock)
    }

    /// Seals the secrets with a new key, and forgets the one before. What a stop interrupts is
    /// finished by the next call, or when the store is opened.
    pub fn rotate_key(directory: &Path, key_file: Option<&Path>) -> Result<(), StoreError> {
        let lock = lock(directory)?;
        let key_file = KeyFile::new(directory, key_file);
        key_file.add_key().map_err(StoreError::KeyFile)?;
        Self::open_locked(directory, &key_file, lock).map(drop)
    }

    fn open_locked(directory: &Path, key_file: &KeyFile, lock: File) -> Result<Self, StoreError> {
        backup::settle(directory)?;
        for name in [compaction::COLD, compaction::HOT] {
            compaction::settle(directory, name)?;
        }
        let found = Found::of(directory);
        let room = Arc::new(Room::of(directory)?);
        let cold = Database::open(&directory.join("cold"), COLD_CACHE_BYTES, &room)?;
        let format = meta_number(&cold, Meta::FormatVersion)?;
        if let Some(found) = format.filter(|found| *found != FORMAT_VERSION) {
            return Err(StoreError::Format {
                path: directory.to_owned(),
                found,
                known: FORMAT_VERSION,
            });
        }
        let hot = Database::open(&directory.join("hot"), HOT_CACHE_BYTES, &room)?;
        found.check(directory, &hot, &cold, bounds(&hot)?.end.0)?;
        let cold = compaction::shorten(cold, directory, compaction::COLD, COLD_CACHE_BYTES, &room)?;
        let hot = compaction::shorten(hot, directory, compaction::HOT, HOT_CACHE_BYTES, &room)?;
        let sealed_with = sealed_with(&cold)?;
        let secrets = key_file.keys_for(sealed_with);
        let secrets = secrets.map_err(StoreError::KeyFile)?;
        let is_sealed = sealed_with == Some(secrets.newest().id());
        // Marked before anything else is written.
        let cold = if is_sealed {
            cold
        } else if cold.is_empty()? {
            cold.commit(compaction::marks(&secrets), Purpose::Bookkeeping)?;
            cold
        } else {
            compaction::reseal(cold, directory, &secrets, &room)?
        };
        if secrets.has_older() {
            key_file.retire_older(&secrets);
        }
        let commits = meta_number(&cold, Meta::ColdCommits)?.unwrap_or(0);
        Ok(Self {
            hot,
            cold,
            secrets,
            directory: directory.to_owned(),
            cold_commits: Mutex::new(commits),
            cold_durable: AtomicU64::new(commits),
            cold_known: AtomicU64::new(0),
            transactions: Mutex::new(()),
            backups: AtomicUsize::new(0),
            _lock: lock,
        })
    }

    fn commit_cold(&self, mut batch: Batch, purpose: Purpose) -> Result<(), StoreError> {
        let commits = self.cold_commits.lock();
        let mut commits = commits.unwrap_or_else(PoisonError::into_inner);
        let next = *commits + 1;
        Database::put_new(
            &mut batch,
            &keys::meta(Meta::ColdCommits),
            &next.to_be_bytes(),
        );
        self.cold.commit(batch, purpose)?;
        *commits = next;
        self.cold_durable.store(next, Ordering::Release);
        Ok(())
    }

    fn meta_number(&self, meta: Meta) -> Result<Option<u64>, StoreError> {
        meta_number(&self.cold, meta)
    }

    fn put_meta(&self, meta: Meta, value: &[u8]) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        self.cold.put(&mut batch, &keys::meta(meta), value)?;
        self.commit_cold(batch, Purpose::Upkeep)
    }

    /// A number that was given out is never given out again, whatever becomes of its bearer.
    fn raise(&self, batch: &mut Batch, meta: Meta, used: u64) -> Result<(), StoreError> {
        if self.meta_number(meta)?.is_none_or(|next| next <= used) {
            Database::put_new(batch, &keys::meta(meta), &(used + 1).to_be_bytes());
        }
        Ok(())
    }

    fn add(&self, batch: &mut Batch, change: &Change) -> Result<(), StoreError> {
        let cold = &self.cold;
        match change {
            Change::Webhook(stored) => {
                let id = stored.webhook.id;
                self.raise(batch, Meta::NextWebhook, id.0)?;
                let value = records::encode_webhook(stored, &self.secrets)?;
                cold.put(batch, &keys::webhook(id), &value)?;
            }
            Change::WebhookGone(id) => {
                cold.remove(batch, &keys::webhook(*id))?;
                cold.remove(batch, &keys::ledger_counts(*id))?;
            }
            Change::ArchivedCounts(archived) => {
                let value = records::encode_archived_counts(archived);
                cold.put(batch, &keys::meta(Meta::ArchivedCounts), &value)?;
            }
            Change::LedgerCounts(webhook, counts) => {
                cold.put(
                    batch,
                    &keys::ledger_counts(*webhook),
                    &records::encode_ledger_counts(counts),
                )?;
            }
            Change::Retry(retry) => {
                cold.put(
                    batch,
                    &keys::retry(retry.key),
                    &records::encode_retry(retry),
                )?;
            }
            Change::RetryGone(key) => {
                cold.remove(batch, &keys::retry(*key))?;
            }
            Change::Failed(failed) => {
                self.raise(batch, Meta::NextFailed, failed.id.0)?;
                cold.put(
                    batch,
                    &keys::failed(failed.id),
                    &records::encode_failed(failed),
                )?;
                let index = keys::failed_by_webhook(failed.webhook, failed.id);
                Database::put_new(batch, &index, &[]);
            }
            Change::FailedGone(webhook, id) => {
                cold.remove(batch, &keys::failed(*id))?;
                cold.remove(batch, &keys::failed_by_webhook(*webhook, *id))?;
            }
            Change::OffCursorMarker(webhook, seq) => {
                Database::put_new(batch, &keys::off_cursor_marker(*webhook, *seq), &[]);
            }
            Change::OffCursorMarkerGone(webhook, seq) => {
                cold.remove(batch, &keys::off_cursor_marker(*webhook, *seq))?;
            }
            Change::ApiKey(key) => {
                self.raise(batch, Meta::NextApiKey, key.id)?;
                cold.put(batch, &keys::api_key(key.id), &records::encode_api_key(key))?;
            }
            Change::ApiKeyGone(id) => {
                cold.remove(batch, &keys::api_key(*id))?;
            }
            Change::IdTag(entry) => {
                let key = keys::id_tag(&entry.id_tag.key());
                cold.put(batch, &key, &id_tag_record::encode_id_tag(entry))?;
            }
            Change::IdTagGone(tag) => {
                cold.remove(batch, &keys::id_tag(tag))?;
            }
            Change::Registration(registration) => {
                let key = keys::registration(&registration.station);
                let value = registration_record::encode_registration(registration);
                cold.put(batch, &key, &value)?;
            }
            Change::RegistrationGone(station) => {
                cold.remove(batch, &keys::registration(station))?;
            }
            Change::RetryTime(time) => {
                Database::put_new(batch, &keys::meta(Meta::RetryTime), &time.to_be_bytes());
            }
        }
        Ok(())
    }

    /// Reads every record of a numbered kind.
    fn numbered<T>(
        database: &Database,
        kind: Kind,
        decode: impl Fn(&bytes::Bytes) -> Result<T, StoreError>,
    ) -> Result<Vec<(u64, T)>, StoreError> {
        let entries = database.kind(kind).map(|entry| {
            let (key, value) = entry?;
            Ok((number_of(&key)?, decode(&value)?))
        });
        entries.collect()
    }
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let at = |source| StoreError::Directory {
        path: directory.to_owned(),
        source,
    };
    let lock = File::create(directory.join("lock")).map_err(at)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(at(error)),
    }
}

fn meta_number(database: &Database, meta: Meta) -> Result<Option<u64>, StoreError> {
    let value = database.get(&keys::meta(meta))?;
    let number = value.map(|value| match value.as_ref().try_into() {
        Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
        Err(_) => Err(record_error("number", "it has not 8 bytes")),
    });
    number.transpose()
}

/// The journal's bounds.
fn bounds(hot: &Database) -> Result<Range<Seq>, StoreError> {
    let first = hot.keys(&keys::prefix(Kind::Event)).next().transpose()?;
    let last = hot.last(Kind::Event)?;
    match (first, last) {
        (Some(first), Some((key, value))) => {
            let end = block::end(Seq(number_of(&key)?), &value)?;
            Ok(Seq(number_of(&first)?)..end)
        }
        _ => Ok(Seq(0)..Seq(0)),
    }
}

fn sealed_with(cold: &Database) -> Result<Option<KeyId>, StoreError> {
    let id = cold.get(&keys::meta(Meta::SecretsKey))?;
    let id =
        id.map(|id| KeyId::parse(&id).ok_or_else(|| record_error("key id", "it has not 8 bytes")));
    id.transpose()
}

fn number_of(key: &[u8]) -> Result<u64, StoreError> {
    keys::last_number(key).ok_or_else(|| record_error("key", "it is cut short"))
}

impl Store for SledStore {
    fn bounds(&self) -> Result<Range<Seq>, StoreError> {
        bounds(&self.hot)
    }

    fn append(
        &self,
        first: Seq,
        events: &[Arc<Event>],
        progress: &[Progress],
    ) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for (first, block) in block::pack(first, events) {
            Database::put_new(&mut batch, &keys::event(first), &block);
        }
        for progress in progress {
            match progress {
                Progress::Cursor(webhook, cursor) => {
                    let value = codec::encode_cursor(cursor);
                    self.hot.put(&mut batch, &keys::cursor(*webhook), &value)?;
                }
                Progress::Received(webhook, received) => {
                    let value = codec::encode_received(*received);
                    Database::put_new(&mut batch, &keys::received(*webhook), &value);
                }
                Progress::Subscription(webhook, versions) => {
                    let value = records::encode_subscription(versions);
                    let key = keys::subscription(*webhook);
                    self.hot.put(&mut batch, &key, &value)?;
                }
                Progress::Gone(webhook) => {
                    self.hot.remove(&mut batch, &keys::subscription(*webhook))?;
                    self.hot.remove(&mut batch, &keys::cursor(*webhook))?;
                    self.hot.remove(&mut batch, &keys::received(*webhook))?;
                }
            }
        }
        let cold_durable = self.cold_durable.load(Ordering::Acquire);
        if cold_durable > self.cold_known.load(Ordering::Relaxed) {
            let key = keys::meta(Meta::ColdCommits);
            Database::put_new(&mut batch, &key, &cold_durable.to_be_bytes());
        }
        let purpose = if events.is_empty() {
            Purpose::Upkeep
        } else {
            Purpose::Event
        };
        self.hot.commit(batch, purpose)?;
        self.cold_known.store(cold_durable, Ordering::Relaxed);
        Ok(())
    }

    fn cut_off(&self, end: Seq) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        // What was appended together begins with a block of its own, so none reaches beyond.
        let from = keys::event(end);
        let mut found = false;
        for entry in self.hot.range(&from, &keys::prefix(Kind::Event)) {
            self.hot.remove(&mut batch, &entry?.0)?;
            found = true;
        }
        if found {
            self.hot.commit(batch, Purpose::Upkeep)?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), StoreError> {
        self.hot.check(Purpose::Event)?;
        self.cold.check(Purpose::Upkeep)
    }

    fn has_room_for_strangers(&self) -> bool {
        self.hot.check(Purpose::Stranger).is_ok()
    }

    fn check_growth(&self) -> Result<(), StoreError> {
        self.cold.check(Purpose::Outlook)
    }

    fn read_from(&self, from: Seq, limit: ReadLimit) -> Result<Vec<(Seq, Arc<Event>)>, StoreError> {
        let key = keys::event(from);
        let containing = self.hot.key_at_or_before(Kind::Event, &key)?;
        let start = containing.as_deref().unwrap_or(&key);
        let mut bytes = 0;
        let mut events = Vec::new();
        for entry in self.hot.range(start, &keys::prefix(Kind::Event)) {
            let (key, value) = entry?;
            let block = Block::unpack(Seq(number_of(&key)?), &value)?;
            for event in block.read_from(from) {
                let (seq, event) = event?;
                let size = event.memory_size();
                if !limit.admits(events.len(), bytes, size) {
                    return Ok(events);
                }
                bytes += size;
                events.push((seq, event));
            }
            // So that no further block is read for nothing.
            if events.len() >= limit.count || bytes >= limit.bytes {
                break;
            }
        }
        Ok(events)
    }

    fn event(&self, seq: Seq) -> Result<Option<Arc<Event>>, StoreError> {
        let events = self.read_from(seq, ReadLimit::part(1))?;
        let event = events.into_iter().find(|(found, _)| *found == seq);
        Ok(event.map(|(_, event)| event))
    }

    fn drop_below(&self, floor: Seq, limit: usize) -> Result<u64, StoreError> {
        if self.backups.load(Ordering::SeqCst) > 0 {
            return Ok(0);
        }
        let mut keys = self.hot.keys(&keys::prefix(Kind::Event));
        let Some(mut oldest) = keys.next().transpose()? else {
            return Ok(0);
        };
        let start = number_of(&oldest)?;
        let limit = start.saturating_add(limit as u64);
        let mut batch = Batch::default();
        let mut bytes = 0;
        // A block ends where the next one begins; the last one, which stays, has none behind it.
        for next in keys {
            let next = next?;
            let end = number_of(&next)?;
            // The first one goes even where it alone is over the limit.
            let is_full = end > limit || bytes >= BATCH_BYTES as u64;
            if end > floor.0 || (bytes > 0 && is_full) {
                break;
            }
            bytes += self.hot.remove(&mut batch, &oldest)? as u64;
            oldest = next;
        }
        self.hot.apply(batch, Purpose::Upkeep)?;
        Ok(bytes)
    }

    fn cursors(&self) -> Result<Vec<(WebhookId, Cursor)>, StoreError> {
        let all = Self::numbered(&self.hot, Kind::Cursor, |value| codec::decode_cursor(value))?;
        Ok(all
            .into_iter()
            .map(|(id, cursor)| (WebhookId(id), cursor))
            .collect())
    }

    fn received(&self) -> Result<Vec<(WebhookId, Received)>, StoreError> {
        let all = Self::numbered(&self.hot, Kind::Received, |value| {
            codec::decode_received(value)
        })?;
        Ok(all
            .into_iter()
            .map(|(id, received)| (WebhookId(id), received))
            .collect())
    }

    fn subscriptions(&self) -> Result<Vec<(WebhookId, Vec<SubscriptionVersion>)>, StoreError> {
        let all = Self::numbered(&self.hot, Kind::Subscription, |value| {
            records::decode_subscription(value)
        })?;
        let all = all.into_iter();
        Ok(all
            .map(|(id, versions)| (WebhookId(id), versions))
            .collect())
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for change in changes {
            self.add(&mut batch, change)?;
        }
        let purpose = if changes.iter().any(Change::grows) {
            Purpose::Bookkeeping
        } else {
            Purpose::Upkeep
        };
        self.commit_cold(batch, purpose)
    }

    fn next_ids(&self) -> Result<NextIds, StoreError> {
        let next = |meta| Ok::<_, StoreError>(self.meta_number(meta)?.unwrap_or(1));
        Ok(NextIds {
            webhook: WebhookId(next(Meta::NextWebhook)?),
            failed: FailedId(next(Meta::NextFailed)?),
            api_key: next(Meta::NextApiKey)?,
        })
    }

    fn retry_time(&self) -> Result<Option<i64>, StoreError> {
        let time = self.meta_number(Meta::RetryTime)?;
        Ok(time.map(u64::cast_signed))
    }

    fn webhooks(&self) -> Result<Vec<StoredWebhook>, StoreError> {
        let all = self.cold.kind(Kind::Webhook);
        all.map(|entry| records::decode_webhook(&entry?.1, &self.secrets))
            .collect()
    }

    fn archived_counts(&self) -> Result<ArchivedCounts, StoreError> {
        let value = self.cold.get(&keys::meta(Meta::ArchivedCounts))?;
        let value = value.map(|value| records::decode_archived_counts(&value));
        Ok(value.transpose()?.unwrap_or_default())
    }

    fn ledger_counts(&self) -> Result<Vec<(WebhookId, LedgerCounts)>, StoreError> {
        let all = Self::numbered(&self.cold, Kind::LedgerCounts, |value| {
            records::decode_ledger_counts(value)
        })?;
        Ok(all
            .into_iter()
            .map(|(id, counts)| (WebhookId(id), counts))
            .collect())
    }

    fn count_stored(&self, webhook: WebhookId) -> Result<StoredCounts, StoreError> {
        let count = |kind| {
            let keys = self.cold.keys(&keys::of_webhook(kind, webhook));
            keys.map(|key| key.map(|_| 1)).sum::<Result<u64, _>>()
        };
        Ok(StoredCounts {
            retries: count(Kind::Retry)?,
            failed: count(Kind::FailedByWebhook)?,
        })
    }

    fn off_cursor_markers(&self, webhook: WebhookId) -> Result<Vec<Seq>, StoreError> {
        let prefix = keys::of_webhook(Kind::OffCursorMarker, webhook);
        self.cold
            .range(&prefix, &prefix)
            .map(|entry| Ok(Seq(number_of(&entry?.0)?)))
            .collect()
    }

    fn retry_keys(
        &self,
        webhook: WebhookId,
        after: Option<RetryKey>,
        limit: usize,
    ) -> Result<Vec<RetryKey>, StoreError> {
        let prefix = keys::of_webhook(Kind::Retry, webhook);
        let from = after.map_or_else(|| prefix.clone(), |key| keys::successor(keys::retry(key)));
        let keys = self.cold.keys_from(&from, &prefix).take(limit).map(|key| {
            keys::read_retry(&key?).ok_or_else(|| record_error("retry", "its key is cut short"))
        });
        keys.collect()
    }

    fn retry(&self, key: RetryKey) -> Result<Option<Retry>, StoreError> {
        let value = self.cold.get(&keys::retry(key))?;
        value
            .map(|value| records::decode_retry(key, &value))
            .transpose()
    }

    fn failed_deliveries(
        &self,
        filter: &FailedFilter,
        after: Option<FailedId>,
        limit: ReadLimit,
    ) -> Result<Part<FailedDelivery>, StoreError> {
        let from = FailedId(after.map_or(0, |id| id.0 + 1));
        let matching = |failed: &Result<FailedDelivery, StoreError>| {
            failed
                .as_ref()
                .map_or(true, |failed| filter.matches(failed))
        };
        if let Some(webhook) = filter.webhook {
            let index = keys::of_webhook(Kind::FailedByWebhook, webhook);
            let ids = self
                .cold
                .range(&keys::failed_by_webhook(webhook, from), &index);
            let failed = ids.filter_map(|entry| {
                let id = entry.and_then(|(key, _)| number_of(&key)).map(FailedId);
                id.and_then(|id| self.failed_delivery(id)).transpose()
            });
            return take_up_to(limit, failed.filter(matching), FailedDelivery::memory_size);
        }
        let all = self
            .cold
            .range(&keys::failed(from), &keys::prefix(Kind::Failed));
        let failed = all.map(|entry| {
            let (key, value) = entry?;
            records::decode_failed(FailedId(number_of(&key)?), &value)
        });
        take_up_to(limit, failed.filter(matching), FailedDelivery::memory_size)
    }

    fn failed_delivery(&self, id: FailedId) -> Result<Option<FailedDelivery>, StoreError> {
        let value = self.cold.get(&keys::failed(id))?;
        value
            .map(|value| records::decode_failed(id, &value))
            .transpose()
    }

    fn id_tags(&self) -> Result<Vec<IdTagEntry>, StoreError> {
        let all = self.cold.kind(Kind::IdTag);
        all.map(|entry| id_tag_record::decode_id_tag(&entry?.1))
            .collect()
    }

    fn api_keys(&self) -> Result<Vec<ApiKeyInfo>, StoreError> {
        let all = Self::numbered(&self.cold, Kind::ApiKey, |value| Ok(value.clone()))?;
        all.into_iter()
            .map(|(id, value)| records::decode_api_key(id, &value))
            .collect()
    }

    fn registrations(&self) -> Result<Vec<Registration>, StoreError> {
        let all = self.cold.kind(Kind::Registration);
        all.map(|entry| registration_record::decode_registration(&entry?.1))
            .collect()
    }

    fn load_stations(&self) -> Result<SavedStations, StoreError> {
        let states = self.cold.kind(Kind::Station).map(|entry| {
            let (_, value) = entry?;
            station_record::decode(&value).map_err(|error| record_error("station", error))
        });
        let projected_to = self.meta_number(Meta::ProjectedTo)?.unwrap_or(0);
        Ok(SavedStations {
            states: states.collect::<Result<_, _>>()?,
            projected_to: Seq(projected_to),
        })
    }

    fn save_stations(
        &self,
        states: &[StationState],
        transactions: &[Arc<Transaction>],
        projected_to: Seq,
    ) -> Result<(), StoreError> {
        let _alone = self.transactions.lock();
        let mut batch = Batch::default();
        transactions::put_all(&self.cold, &mut batch, transactions)?;
        for state in states {
            let value = station_record::encode(state);
            self.cold
                .put(&mut batch, &keys::station(&state.id), &value)?;
        }
        let key = keys::meta(Meta::ProjectedTo);
        self.cold
            .put(&mut batch, &key, &projected_to.0.to_be_bytes())?;
        // It follows from events that are there, and until it is saved none of them may go.
        self.commit_cold(batch, Purpose::Upkeep)
    }

    fn forget_stations(&self, stations: &[StationId]) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for station in stations {
            self.cold.remove(&mut batch, &keys::station(station))?;
        }
        self.commit_cold(batch, Purpose::Upkeep)
    }

    fn transaction(&self, transaction_id: i64) -> Result<Option<Transaction>, StoreError> {
        transactions::by_id(&self.cold, transaction_id)
    }

    fn transactions(
        &self,
        filter: &TransactionFilter,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Transaction>, StoreError> {
        transactions::list(&self.cold, filter, before, limit)
    }

    fn open_transactions(
        &self,
        after: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Transaction>, StoreError> {
        transactions::open_after(&self.cold, after, limit)
    }

    fn forget_transactions(
        &self,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let _alone = self.transactions.lock();
        let mut batch = Batch::default();
        let forgotten = transactions::forget(&self.cold, &mut batch, ended_before, limit)?;
        if forgotten > 0 {
            self.commit_cold(batch, Purpose::Upkeep)?;
        }
        Ok(forgotten)
    }

    fn reserve_transaction_numbers(&self, count: u32) -> Result<u32, StoreError> {
        let first = self.meta_number(Meta::NextTransaction)?.unwrap_or(1);
        self.put_meta(
            Meta::NextTransaction,
            &(first + u64::from(count)).to_be_bytes(),
        )?;
        u32::try_from(first).map_err(|_| record_error("transaction number", "all are used up"))
    }

    fn transaction_key(&self) -> Result<[u8; 16], StoreError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Backup as _;

    #[test]
    fn another_format_is_refused_in_a_directory_and_in_a_backup() {
        for other in [FORMAT_VERSION - 1, FORMAT_VERSION + 1] {
            let directory = tempfile::tempdir().unwrap();
            let store = SledStore::open(directory.path()).unwrap();
            store
                .put_meta(Meta::FormatVersion, &other.to_be_bytes())
                .unwrap();
            let mut backup = Vec::new();
            store.back_up(&mut backup).unwrap();
            drop(store);
            let words = format!("format {other}, and this version reads format {FORMAT_VERSION}");
            let refused = SledStore::open(directory.path()).unwrap_err().to_string();
            assert!(refused.contains(&words), "{refused}");
            let elsewhere = tempfile::tempdir().unwrap();
            let restored = SledStore::restore(elsewhere.path(), &mut &backup[..], false);
            let refused = restored.unwrap_err().to_string();
            assert!(refused.contains(&words), "{refused}");
            assert!(!SledStore::is_in(elsewhere.path()));
        }
    }
}

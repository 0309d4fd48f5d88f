//! The store in memory: nothing survives, everything else is as on disk. For tests, and the
//! reference that the conformance suite holds the engines to.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Bound, Range},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{
        ArchivedCounts, Cursor, FailedDelivery, FailedFilter, FailedId, LedgerCounts, Received,
        Retry, RetryKey, StoredCounts, StoredWebhook, SubscriptionVersion,
    },
    events::{Event, IdTagKey, Seq, StationId},
    id_tags::IdTagEntry,
    projection::{StationState, Transaction, TransactionFilter},
    registration::Registration,
    webhooks::WebhookId,
};

use super::{
    Change, NextIds, Part, Progress, ReadLimit, SavedStations, Store, StoreError, take_up_to,
};
use crate::auth::ApiKeyInfo;

#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Contents>);

#[derive(Debug)]
struct Contents {
    events: BTreeMap<Seq, Arc<Event>>,
    cursors: BTreeMap<WebhookId, Cursor>,
    received: BTreeMap<WebhookId, Received>,
    subscriptions: BTreeMap<WebhookId, Vec<SubscriptionVersion>>,
    next: NextIds,
    webhooks: BTreeMap<WebhookId, StoredWebhook>,
    archived: ArchivedCounts,
    ledger_counts: BTreeMap<WebhookId, LedgerCounts>,
    retries: BTreeMap<RetryKey, Retry>,
    failed: BTreeMap<FailedId, FailedDelivery>,
    off_cursor_markers: BTreeSet<(WebhookId, Seq)>,
    api_keys: BTreeMap<u64, ApiKeyInfo>,
    id_tags: BTreeMap<IdTagKey, IdTagEntry>,
    retry_time: Option<i64>,
    registrations: BTreeMap<StationId, Registration>,
    stations: BTreeMap<StationId, StationState>,
    transactions: BTreeMap<Seq, Transaction>,
    projected_to: Seq,
    next_transaction: u32,
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            events: BTreeMap::new(),
            cursors: BTreeMap::new(),
            received: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            next: NextIds {
                webhook: WebhookId(1),
                failed: FailedId(1),
                api_key: 1,
            },
            webhooks: BTreeMap::new(),
            archived: ArchivedCounts::default(),
            ledger_counts: BTreeMap::new(),
            retries: BTreeMap::new(),
            failed: BTreeMap::new(),
            off_cursor_markers: BTreeSet::new(),
            api_keys: BTreeMap::new(),
            id_tags: BTreeMap::new(),
            retry_time: None,
            registrations: BTreeMap::new(),
            stations: BTreeMap::new(),
            transactions: BTreeMap::new(),
            projected_to: Seq(0),
            next_transaction: 1,
        }
    }
}

impl MemoryStore {
    /// Holds up all reads and writes until it is dropped, as a disk does that is busy.
    #[cfg(test)]
    pub fn hold(&self) -> impl Sized {
        self.contents()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn bounds(&self) -> Range<Seq> {
        match (self.events.first_key_value(), self.events.last_key_value()) {
            (Some((first, _)), Some((last, _))) => *first..last.next(),
            _ => Seq(0)..Seq(0),
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Webhook(stored) => {
                let id = stored.webhook.id;
                self.next.webhook = self.next.webhook.max(WebhookId(id.0 + 1));
                self.webhooks.insert(id, stored);
            }
            Change::WebhookGone(id) => {
                self.webhooks.remove(&id);
                self.ledger_counts.remove(&id);
            }
            Change::ArchivedCounts(archived) => self.archived = archived,
            Change::LedgerCounts(webhook, counts) => {
                self.ledger_counts.insert(webhook, counts);
            }
            Change::Retry(retry) => {
                self.retries.insert(retry.key, retry);
            }
            Change::RetryGone(key) => {
                self.retries.remove(&key);
            }
            Change::Failed(failed) => {
                self.next.failed = self.next.failed.max(FailedId(failed.id.0 + 1));
                self.failed.insert(failed.id, failed);
            }
            Change::FailedGone(_, id) => {
                self.failed.remove(&id);
            }
            Change::OffCursorMarker(webhook, seq) => {
                self.off_cursor_markers.insert((webhook, seq));
            }
            Change::OffCursorMarkerGone(webhook, seq) => {
                self.off_cursor_markers.remove(&(webhook, seq));
            }
            Change::ApiKey(key) => {
                self.next.api_key = self.next.api_key.max(key.id + 1);
                self.api_keys.insert(key.id, key);
            }
            Change::ApiKeyGone(id) => {
                self.api_keys.remove(&id);
            }
            Change::IdTag(entry) => {
                self.id_tags.insert(entry.id_tag.key(), entry);
            }
            Change::IdTagGone(tag) => {
                self.id_tags.remove(&tag);
            }
            Change::Registration(registration) => {
                let station = registration.station.clone();
                self.registrations.insert(station, registration);
            }
            Change::RegistrationGone(station) => {
                self.registrations.remove(&station);
            }
            Change::RetryTime(time) => self.retry_time = Some(time),
        }
    }
}

fn copied<K: Copy, V: Clone>(map: &BTreeMap<K, V>) -> Vec<(K, V)> {
    map.iter()
        .map(|(key, value)| (*key, value.clone()))
        .collect()
}

impl Store for MemoryStore {
    fn bounds(&self) -> Result<Range<Seq>, StoreError> {
        Ok(self.contents().bounds())
    }

    fn append(
        &self,
        first: Seq,
        events: &[Arc<Event>],
        progress: &[Progress],
    ) -> Result<(), StoreError> {
        let mut contents = self.contents();
        contents
            .events
            .extend((first.0..).map(Seq).zip(events.iter().cloned()));
        for progress in progress {
            match progress {
                Progress::Cursor(webhook, cursor) => {
                    contents.cursors.insert(*webhook, cursor.clone());
                }
                Progress::Received(webhook, received) => {
                    contents.received.insert(*webhook, *received);
                }
                Progress::Subscription(webhook, versions) => {
                    contents.subscriptions.insert(*webhook, versions.to_vec());
                }
                Progress::Gone(webhook) => {
                    contents.cursors.remove(webhook);
                    contents.subscriptions.remove(webhook);
                    contents.received.remove(webhook);
                }
            }
        }
        Ok(())
    }

    fn cut_off(&self, end: Seq) -> Result<(), StoreError> {
        self.contents().events.split_off(&end);
        Ok(())
    }

    fn check_growth(&self) -> Result<(), StoreError> {
        self.check()
    }

    fn has_room_for_strangers(&self) -> bool {
        true
    }

    fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn read_from(&self, from: Seq, limit: ReadLimit) -> Result<Vec<(Seq, Arc<Event>)>, StoreError> {
        let contents = self.contents();
        let events = contents.events.range(from..);
        let events = events.map(|(seq, event)| Ok((*seq, Arc::clone(event))));
        Ok(take_up_to(limit, events, |(_, event)| event.memory_size())?.items)
    }

    fn event(&self, seq: Seq) -> Result<Option<Arc<Event>>, StoreError> {
        Ok(self.contents().events.get(&seq).cloned())
    }

    fn drop_below(&self, floor: Seq, limit: usize) -> Result<u64, StoreError> {
        let mut contents = self.contents();
        let bounds = contents.bounds();
        let end = floor.0.min(bounds.end.0.saturating_sub(1));
        let end = end.min(bounds.start.0.saturating_add(limit as u64));
        let mut bytes = 0;
        for seq in bounds.start.0..end {
            bytes += contents
                .events
                .remove(&Seq(seq))
                .map_or(0, |event| event.size() as u64);
        }
        Ok(bytes)
    }

    fn cursors(&self) -> Result<Vec<(WebhookId, Cursor)>, StoreError> {
        Ok(copied(&self.contents().cursors))
    }

    fn received(&self) -> Result<Vec<(WebhookId, Received)>, StoreError> {
        Ok(copied(&self.contents().received))
    }

    fn subscriptions(&self) -> Result<Vec<(WebhookId, Vec<SubscriptionVersion>)>, StoreError> {
        Ok(copied(&self.contents().subscriptions))
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut contents = self.contents();
        changes
            .iter()
            .cloned()
            .for_each(|change| contents.change(change));
        Ok(())
    }

    fn next_ids(&self) -> Result<NextIds, StoreError> {
        Ok(self.contents().next)
    }

    fn retry_time(&self) -> Result<Option<i64>, StoreError> {
        Ok(self.contents().retry_time)
    }

    fn webhooks(&self) -> Result<Vec<StoredWebhook>, StoreError> {
        Ok(self.contents().webhooks.values().cloned().collect())
    }

    fn archived_counts(&self) -> Result<ArchivedCounts, StoreError> {
        Ok(self.contents().archived)
    }

    fn ledger_counts(&self) -> Result<Vec<(WebhookId, LedgerCounts)>, StoreError> {
        Ok(copied(&self.contents().ledger_counts))
    }

    fn count_stored(&self, webhook: WebhookId) -> Result<StoredCounts, StoreError> {
        let contents = self.contents();
        let retries = contents.retries.keys();
        let failed = contents.failed.values();
        Ok(StoredCounts {
            retries: retries.filter(|key| key.webhook == webhook).count() as u64,
            failed: failed.filter(|failed| failed.webhook == webhook).count() as u64,
        })
    }

    fn off_cursor_markers(&self, webhook: WebhookId) -> Result<Vec<Seq>, StoreError> {
        let contents = self.contents();
        let markers = contents
            .off_cursor_markers
            .range((webhook, Seq(0))..=(webhook, Seq(u64::MAX)));
        Ok(markers.map(|(_, seq)| *seq).collect())
    }

    fn retry_keys(
        &self,
        webhook: WebhookId,
        after: Option<RetryKey>,
        limit: usize,
    ) -> Result<Vec<RetryKey>, StoreError> {
        let first = RetryKey {
            webhook,
            due_ms: 0,
            seq: Seq(0),
        };
        let from = after.map_or(Bound::Included(first), Bound::Excluded);
        let contents = self.contents();
        let retries = contents.retries.range((from, Bound::Unbounded));
        let keys = retries.map(|(key, _)| *key);
        let of_webhook = keys.take_while(|key| key.webhook == webhook);
        Ok(of_webhook.take(limit).collect())
    }

    fn retry(&self, key: RetryKey) -> Result<Option<Retry>, StoreError> {
        Ok(self.contents().retries.get(&key).cloned())
    }

    fn failed_deliveries(
        &self,
        filter: &FailedFilter,
        after: Option<FailedId>,
        limit: ReadLimit,
    ) -> Result<Part<FailedDelivery>, StoreError> {
        let from = FailedId(after.map_or(0, |id| id.0 + 1));
        let contents = self.contents();
        let failed = contents.failed.range(from..).map(|(_, failed)| failed);
        let matching = failed.filter(|failed| filter.matches(failed)).cloned();
        take_up_to(limit, matching.map(Ok), FailedDelivery::memory_size)
    }

    fn failed_delivery(&self, id: FailedId) -> Result<Option<FailedDelivery>, StoreError> {
        Ok(self.contents().failed.get(&id).cloned())
    }

    fn id_tags(&self) -> Result<Vec<IdTagEntry>, StoreError> {
        Ok(self.contents().id_tags.values().cloned().collect())
    }

    fn api_keys(&self) -> Result<Vec<ApiKeyInfo>, StoreError> {
        Ok(self.contents().api_keys.values().cloned().collect())
    }

    fn registrations(&self) -> Result<Vec<Registration>, StoreError> {
        Ok(self.contents().registrations.values().cloned().collect())
    }

    fn load_stations(&self) -> Result<SavedStations, StoreError> {
        let contents = self.contents();
        let states = contents.stations.values().cloned().collect();
        Ok(SavedStations {
            states,
            projected_to: contents.projected_to,
        })
    }

    fn save_stations(
        &self,
        states: &[StationState],
        transactions: &[Arc<Transaction>],
        projected_to: Seq,
    ) -> Result<(), StoreError> {
        let mut contents = self.contents();
        for transaction in transactions {
            let transaction = transaction.as_ref().clone();
            contents.transactions.insert(transaction.seq, transaction);
        }
        for state in states {
            contents.stations.insert(state.id.clone(), state.clone());
        }
        contents.projected_to = projected_to;
        Ok(())
    }

    fn forget_stations(&self, stations: &[StationId]) -> Result<(), StoreError> {
        let mut contents = self.contents();
        for station in stations {
            contents.stations.remove(station);
        }
        Ok(())
    }

    fn transaction(&self, transaction_id: i64) -> Result<Option<Transaction>, StoreError> {
        let contents = self.contents();
        let mut all = contents.transactions.values();
        let found = all.find(|transaction| transaction.transaction_id == transaction_id);
        Ok(found.cloned())
    }

    fn transactions(
        &self,
        filter: &TransactionFilter,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Transaction>, StoreError> {
        let contents = self.contents();
        let until = before.map_or(Bound::Unbounded, Bound::Excluded);
        let older = contents.transactions.range((Bound::Unbounded, until));
        let latest_first = older.rev().map(|(_, transaction)| transaction);
        let matching = latest_first.filter(|transaction| filter.matches(transaction));
        Ok(matching.take(limit).cloned().collect())
    }

    fn open_transactions(
        &self,
        after: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Transaction>, StoreError> {
        let contents = self.contents();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = contents.transactions.range((from, Bound::Unbounded));
        let open = behind.filter(|(_, transaction)| transaction.is_open());
        Ok(open.take(limit).map(|(_, open)| open.clone()).collect())
    }

    fn forget_transactions(
        &self,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let mut contents = self.contents();
        let old = contents.transactions.iter();
        let old = old.filter(|(_, transaction)| transaction.ended_before(ended_before));
        let old = old.map(|(seq, transaction)| (transaction.ended_at(), *seq));
        let mut old: Vec<_> = old.collect();
        old.sort_unstable();
        old.truncate(limit);
        for (_, seq) in &old {
            contents.transactions.remove(seq);
        }
        Ok(old.len())
    }

    fn reserve_transaction_numbers(&self, count: u32) -> Result<u32, StoreError> {
        let mut contents = self.contents();
        let first = contents.next_transaction;
        contents.next_transaction += count;
        Ok(first)
    }

    fn transaction_key(&self) -> Result<[u8; 16], StoreError> {
        Ok([7; 16])
    }
}

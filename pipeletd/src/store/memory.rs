//! The store in memory: nothing survives, everything else is as on disk. For tests, and the
//! reference that the conformance suite holds the engines to.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    ops::{Bound, Range},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{
        ArchivedCounts, DeliveryCounts, FailedDelivery, FailedFilter, FailedId, LedgerCounts,
        Retry, RetryKey, StoredCounts,
    },
    events::{Event, Seq, StationId},
    projection::{StationState, Transaction, TransactionFilter},
    shards::{ShardId, Shards},
    webhooks::WebhookId,
};
use tokio::sync::Semaphore;

use super::{
    Backup, BackupError, Checkpoint, ConfigurationChange, ConfigurationStore, Counter, Engine,
    Entry, EntryKey, LedgerChange, LedgerState, LedgerStore, LogStore, Observer, Ownership, Part,
    Progress, ProjectionStore, PutError, ReadLimit, Revision, SavedStations, ShardStores,
    StoreError, configuration::Observers, take_up_to,
};

#[derive(Debug)]
pub struct MemoryStore {
    /// Where its first event stands.
    first: Seq,
    contents: Mutex<Contents>,
    /// A commit of the ledger waits for it.
    commits: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Contents {
    events: BTreeMap<Seq, Arc<Event>>,
    progress: BTreeMap<WebhookId, Progress>,
    ledger_counts: BTreeMap<WebhookId, LedgerCounts>,
    closed: BTreeMap<WebhookId, DeliveryCounts>,
    archived: ArchivedCounts,
    retries: BTreeMap<RetryKey, Retry>,
    failed: BTreeMap<FailedId, FailedDelivery>,
    last_failed: u64,
    off_cursor_markers: BTreeSet<(WebhookId, Seq)>,
    retry_time: Option<i64>,
    entries: BTreeMap<EntryKey, (Entry, Revision)>,
    latest: u64,
    observers: Observers,
    reserved: BTreeMap<Counter, u64>,
    stations: BTreeMap<StationId, StationState>,
    transactions: BTreeMap<Seq, Transaction>,
    projected_to: Seq,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::of(ShardId(0))
    }
}

impl MemoryStore {
    fn of(shard: ShardId) -> Self {
        Self {
            first: Seq::first_of(shard),
            contents: Mutex::default(),
            commits: Arc::new(Semaphore::new(1)),
        }
    }
}

impl MemoryStore {
    /// So many shards. The first one has the configuration, too.
    pub fn shards(count: u16) -> Shards<Arc<Self>> {
        Shards::new((0..count).map(|shard| Arc::new(Self::of(ShardId(shard)))))
    }

    /// With so many shards.
    pub fn engine(shards: u16) -> Engine {
        let shards = Self::shards(shards);
        let first = shards.at(Seq::first_of(ShardId(0)));
        let first = first.map_or_else(Arc::default, Arc::clone);
        Engine {
            shard_count: u16::try_from(shards.count()).unwrap_or(u16::MAX),
            shards: shards.map(Self::shard),
            configuration: Arc::<Self>::clone(&first),
            backup: first,
            ownership: Ownership::exclusive(),
        }
    }

    /// What a shard is kept in.
    pub fn shard(self: &Arc<Self>) -> ShardStores {
        ShardStores {
            log: Arc::<Self>::clone(self),
            ledger: Arc::<Self>::clone(self),
            projections: Arc::<Self>::clone(self),
        }
    }

    /// Lets no commit of the ledger come to its end while the value is held.
    #[cfg(test)]
    pub(crate) async fn hold_commits(&self) -> impl Sized + use<> {
        let held = Arc::clone(&self.commits).acquire_owned().await;
        held.expect("it is never closed")
    }

    fn bounds_in(&self, contents: &Contents) -> Range<Seq> {
        let events = &contents.events;
        match (events.first_key_value(), events.last_key_value()) {
            (Some((first, _)), Some((last, _))) => *first..last.next(),
            _ => self.first..self.first,
        }
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn commit(&mut self, change: LedgerChange) {
        match change {
            LedgerChange::Retry(retry) => {
                self.retries.insert(retry.key, retry);
            }
            LedgerChange::RetryGone(key) => {
                self.retries.remove(&key);
            }
            LedgerChange::Failed(failed) => {
                self.last_failed = self.last_failed.max(failed.id.0);
                self.failed.insert(failed.id, failed);
            }
            LedgerChange::FailedGone(_, id) => {
                self.failed.remove(&id);
            }
            LedgerChange::OffCursorMarker(webhook, seq) => {
                self.off_cursor_markers.insert((webhook, seq));
            }
            LedgerChange::OffCursorMarkerGone(webhook, seq) => {
                self.off_cursor_markers.remove(&(webhook, seq));
            }
            LedgerChange::Counts(webhook, counts) => {
                self.ledger_counts.insert(webhook, counts);
            }
            LedgerChange::Closed(webhook, books) => {
                self.closed.insert(webhook, books);
            }
            LedgerChange::Archived(webhook, archived) => {
                self.ledger_counts.remove(&webhook);
                self.closed.remove(&webhook);
                self.archived = archived;
            }
            LedgerChange::RetryTime(time) => self.retry_time = Some(time),
        }
    }

    fn checkpoint(&mut self, checkpoint: &Checkpoint) {
        let progress = self.progress.entry(checkpoint.webhook()).or_default();
        match checkpoint {
            Checkpoint::Cursor(_, cursor) => progress.cursor = Some(cursor.clone()),
            Checkpoint::Received(_, received) => progress.received = Some(*received),
            Checkpoint::Subscription(_, versions) => progress.versions = Arc::clone(versions),
            Checkpoint::Gone(webhook) => {
                self.progress.remove(webhook);
            }
        }
    }

    /// The entry's revision, where it is what is expected.
    fn expect(&self, key: &EntryKey, expected: Option<Revision>) -> Result<Revision, PutError> {
        let found = self.entries.get(key).map(|(_, revision)| *revision);
        if found == expected {
            Ok(Revision(self.latest + 1))
        } else {
            Err(PutError::Conflict)
        }
    }
}

impl Backup for MemoryStore {
    fn back_up(&self, _out: &mut dyn Write) -> Result<(), BackupError> {
        let why = "what is in memory alone has no backup";
        let why = io::Error::new(io::ErrorKind::Unsupported, why);
        Err(BackupError::Write(why))
    }
}

#[async_trait]
impl LogStore for MemoryStore {
    async fn bounds(&self) -> Result<Range<Seq>, StoreError> {
        Ok(self.bounds_in(&self.contents()))
    }

    async fn append(
        &self,
        events: Arc<[Arc<Event>]>,
        checkpoints: Arc<[Checkpoint]>,
    ) -> Result<Seq, StoreError> {
        let mut contents = self.contents();
        let first = self.bounds_in(&contents).end;
        let numbered = (first.0..).map(Seq).zip(events.iter().cloned());
        contents.events.extend(numbered);
        for checkpoint in checkpoints.iter() {
            contents.checkpoint(checkpoint);
        }
        Ok(first)
    }

    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn has_room_for_strangers(&self) -> bool {
        true
    }

    async fn read_from(
        &self,
        from: Seq,
        limit: ReadLimit,
    ) -> Result<Vec<(Seq, Arc<Event>)>, StoreError> {
        let contents = self.contents();
        let events = contents.events.range(from..);
        let events = events.map(|(seq, event)| Ok((*seq, Arc::clone(event))));
        Ok(take_up_to(limit, events, |(_, event)| event.memory_size())?.items)
    }

    async fn event(&self, seq: Seq) -> Result<Option<Arc<Event>>, StoreError> {
        Ok(self.contents().events.get(&seq).cloned())
    }

    async fn trim(&self, floor: Seq, limit: usize) -> Result<u64, StoreError> {
        let mut contents = self.contents();
        let bounds = self.bounds_in(&contents);
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

    async fn progress(&self) -> Result<BTreeMap<WebhookId, Progress>, StoreError> {
        Ok(self.contents().progress.clone())
    }
}

#[async_trait]
impl LedgerStore for MemoryStore {
    async fn state(&self) -> Result<LedgerState, StoreError> {
        let contents = self.contents();
        Ok(LedgerState {
            counts: contents.ledger_counts.clone(),
            closed: contents.closed.clone(),
            archived: contents.archived,
            next_failed: FailedId(contents.last_failed + 1),
            retry_time: contents.retry_time,
        })
    }

    async fn commit(&self, changes: Arc<[LedgerChange]>) -> Result<(), StoreError> {
        let _turn = self.commits.acquire().await;
        let mut contents = self.contents();
        let changes = changes.iter().cloned();
        changes.for_each(|change| contents.commit(change));
        Ok(())
    }

    async fn check_growth(&self, _bytes: usize) -> Result<(), StoreError> {
        Ok(())
    }

    async fn count_stored(&self, webhook: WebhookId) -> Result<StoredCounts, StoreError> {
        let contents = self.contents();
        let retries = contents.retries.keys();
        let failed = contents.failed.values();
        Ok(StoredCounts {
            retries: retries.filter(|key| key.webhook == webhook).count() as u64,
            failed: failed.filter(|failed| failed.webhook == webhook).count() as u64,
        })
    }

    async fn off_cursor_markers(&self, webhook: WebhookId) -> Result<Vec<Seq>, StoreError> {
        let contents = self.contents();
        let markers = contents
            .off_cursor_markers
            .range((webhook, Seq(0))..=(webhook, Seq(u64::MAX)));
        Ok(markers.map(|(_, seq)| *seq).collect())
    }

    async fn retry_keys(
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

    async fn retries(
        &self,
        keys: &[RetryKey],
        limit: ReadLimit,
    ) -> Result<(Vec<Retry>, usize), StoreError> {
        let contents = self.contents();
        let mut looked_at = 0;
        let retries = keys.iter().filter_map(|key| {
            looked_at += 1;
            contents.retries.get(key).cloned().map(Ok)
        });
        let read = take_up_to(limit, retries, Retry::memory_size)?;
        Ok((read.items, looked_at - usize::from(read.is_cut)))
    }

    async fn failed_deliveries(
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

    async fn failed_delivery(&self, id: FailedId) -> Result<Option<FailedDelivery>, StoreError> {
        Ok(self.contents().failed.get(&id).cloned())
    }
}

#[async_trait]
impl ConfigurationStore for MemoryStore {
    async fn watch(&self, observer: Observer) -> Result<(), StoreError> {
        let mut contents = self.contents();
        for (entry, revision) in contents.entries.values() {
            observer(&ConfigurationChange::Put(entry.clone(), *revision));
        }
        contents.observers.add(observer);
        Ok(())
    }

    async fn put_if(&self, entry: Entry, expected: Option<Revision>) -> Result<Revision, PutError> {
        let mut contents = self.contents();
        let revision = contents.expect(&entry.key(), expected)?;
        contents.latest = revision.0;
        contents
            .entries
            .insert(entry.key(), (entry.clone(), revision));
        let change = ConfigurationChange::Put(entry, revision);
        contents.observers.tell(&change);
        Ok(revision)
    }

    async fn remove_if(&self, key: EntryKey, expected: Revision) -> Result<(), PutError> {
        let mut contents = self.contents();
        contents.latest = contents.expect(&key, Some(expected))?.0;
        contents.entries.remove(&key);
        contents.observers.tell(&ConfigurationChange::Removed(key));
        Ok(())
    }

    async fn reserve(&self, counter: Counter, count: u32) -> Result<u64, StoreError> {
        let mut contents = self.contents();
        let next = contents.reserved.entry(counter).or_insert(1);
        let first = *next;
        *next += u64::from(count);
        Ok(first)
    }

    async fn transaction_key(&self) -> Result<[u8; 16], StoreError> {
        Ok([7; 16])
    }
}

#[async_trait]
impl ProjectionStore for MemoryStore {
    async fn stations(&self) -> Result<SavedStations, StoreError> {
        let contents = self.contents();
        let states = contents.stations.values().cloned().collect();
        Ok(SavedStations {
            states,
            projected_to: contents.projected_to,
        })
    }

    async fn save(
        &self,
        states: Vec<StationState>,
        transactions: Vec<Arc<Transaction>>,
        projected_to: Seq,
    ) -> Result<(), StoreError> {
        let mut contents = self.contents();
        for transaction in transactions {
            let transaction = transaction.as_ref().clone();
            contents.transactions.insert(transaction.seq, transaction);
        }
        for state in states {
            contents.stations.insert(state.id.clone(), state);
        }
        contents.projected_to = projected_to;
        Ok(())
    }

    async fn forget_stations(&self, stations: &[StationId]) -> Result<(), StoreError> {
        let mut contents = self.contents();
        for station in stations {
            contents.stations.remove(station);
        }
        Ok(())
    }

    async fn transaction(&self, transaction_id: i64) -> Result<Option<Transaction>, StoreError> {
        let contents = self.contents();
        let mut all = contents.transactions.values();
        let found = all.find(|transaction| transaction.transaction_id == transaction_id);
        Ok(found.cloned())
    }

    async fn transactions(
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

    async fn open_transactions(
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

    async fn forget_transactions(
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
}

//! The ledger: the one writer of what left the happy path.
//!
//! Retries, dead letters and each webhook's counts of them change together, in batches: what
//! arrives while one sync runs goes into the next. Who sends an entry is notified once it is
//! durable.
//!
//! While the store can't write, who waits is notified of that, and everything else waits: the batch
//! that failed is written again as it was, because a part of it may be on disk. A disk that is full
//! takes what makes room all the same: what asks for more of it is put off, and the rest goes on.
//!
//! Knows no HTTP and no journal.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    ops::RangeInclusive,
    slice,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use pipelet_domain::{
    deliveries::{
        ArchivedCounts, DeliveryCounts, FailedDelivery, FailedId, LedgerCounts, Retry, RetryKey,
    },
    events::Seq,
    shards::FailedNumbers,
    webhooks::WebhookId,
};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;

use super::retry_clock::RetryClock;
use crate::{
    store::{
        BATCH_BYTES, LedgerChange, LedgerState, LedgerStore, Outage, ReadLimit, StoreError,
        group_commit::{Closed, GroupCommit, GroupWriter, TRY_EVERY, WriterThread},
    },
    system::{
        clock::Clock,
        latencies::{Latencies, LatencySnapshot},
    },
};

/// Entries that may wait; further ones wait for room.
const QUEUE: usize = 4096;
/// Entries that are written at once, unless [`BATCH_BYTES`] are reached before.
const MAX_BATCH: usize = 1024;
/// Writes take one part in so many of the time, unless somebody waits for one. A receiver that is
/// down has something to be noted all the time, and a sync of ours holds up those of the journal,
/// which would be every receiver's delay.
const SHARE_OF_TIME: u32 = 100;
/// The time between two writes is no less, and no more, than this.
const REST: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(1);

/// What happened to a delivery outside the happy path.
#[derive(Debug, Clone)]
pub enum Entry {
    /// It left the happy path: its first attempt failed. `retry` waits for the next.
    OffCursor { retry: Retry },
    /// It left the happy path and will not be attempted again.
    OffCursorDead { failed: FailedDelivery },
    /// Another attempt failed: `retry` replaces the one at `was`.
    Again { was: RetryKey, retry: Retry },
    /// A retry was delivered. `size` is its record's, in bytes, as it is below.
    Delivered { was: RetryKey, size: usize },
    /// The attempts of a retry ran out.
    Dead {
        was: RetryKey,
        failed: FailedDelivery,
    },
    /// Events are sent again from the journal, each as a retry of this webhook's.
    Backfilled {
        webhook: WebhookId,
        retries: Vec<Retry>,
    },
    /// A failed delivery gets a new round of attempts, as `retry`.
    Replayed { id: FailedId, retry: Retry },
    /// A failed delivery is forgotten.
    Purged {
        id: FailedId,
        webhook: WebhookId,
        size: usize,
    },
    /// The webhook is deleted, and these retries with it; `size` is that of them all.
    Cancelled {
        webhook: WebhookId,
        retries: Vec<RetryKey>,
        size: usize,
    },
    /// A durable cursor no longer lists these: their markers can go.
    MarkersCleared { webhook: WebhookId, seqs: Vec<Seq> },
    /// The webhook is deleted, and these are its final books.
    Closed {
        webhook: WebhookId,
        books: DeliveryCounts,
    },
    /// Nothing is kept of a deleted webhook but what its final books add to a sum. It has no
    /// failed deliveries.
    Archived { webhook: WebhookId },
}

/// Writes entries. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger {
    writer: GroupCommit<Request>,
    books: Arc<Mutex<Books>>,
    clock: RetryClock,
    outage: Arc<Outage>,
    /// The disk is too full for what asks for more room than it gives back.
    refuses_growth: Arc<AtomicBool>,
    commits: Arc<Latencies>,
}

#[derive(Debug)]
struct Request {
    entry: Box<Entry>,
    waiting: Waiting,
}

/// Who is notified of an entry.
#[derive(Debug)]
struct Waiting {
    /// They wait for nothing else, so they are not kept waiting for the end of an outage.
    urgent: bool,
    done: oneshot::Sender<bool>,
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("the ledger of retries can't be written: {0}")]
pub struct LedgerError(Arc<str>);

/// What is counted, as of what is durable.
#[derive(Debug, Clone, Default)]
pub struct Books {
    counts: BTreeMap<WebhookId, LedgerCounts>,
    /// The final books of webhooks that are deleted, as long as they are kept one by one.
    pub closed: BTreeMap<WebhookId, DeliveryCounts>,
    pub archived: ArchivedCounts,
}

impl Books {
    /// Those of another shard added.
    #[must_use]
    pub fn plus(mut self, other: Self) -> Self {
        for (webhook, counts) in other.counts {
            let sum = self.counts.entry(webhook).or_default();
            *sum = sum.plus(counts);
        }
        for (webhook, books) in other.closed {
            let sum = self.closed.entry(webhook).or_default();
            *sum = sum.plus(books);
        }
        self.archived = self.archived.plus(other.archived);
        self
    }

    pub fn counts(&self, webhook: WebhookId) -> LedgerCounts {
        self.counts.get(&webhook).copied().unwrap_or_default()
    }
}

impl Ledger {
    /// Must be called within a runtime. Once `ending` is cancelled, an outage of the store is not
    /// waited out any more.
    pub async fn open(
        store: Arc<dyn LedgerStore>,
        numbers: FailedNumbers,
        clock: Clock,
        ending: CancellationToken,
    ) -> Result<(Self, WriterThread), StoreError> {
        let LedgerState {
            counts,
            closed,
            archived,
            next_failed,
            retry_time,
        } = store.state().await?;
        let clock = RetryClock::starting_at(clock.now(), retry_time);
        let books = Arc::new(Mutex::new(Books {
            counts,
            closed,
            archived,
        }));
        let outage = Arc::new(Outage::default());
        let refuses_growth = Arc::new(AtomicBool::new(false));
        let commits = Arc::new(Latencies::default());
        let writer = Writer {
            store,
            books: Arc::clone(&books),
            numbers,
            next_failed: numbers.from(next_failed),
            clock,
            outage: Arc::clone(&outage),
            commits: Arc::clone(&commits),
            ending: ending.clone(),
            refuses_growth: Arc::clone(&refuses_growth),
            batch: Batch::default(),
            prepared: None,
            rested: Instant::now(),
            looked_for_room: Instant::now(),
        };
        let (writer, thread) = GroupCommit::start("ledger", writer, QUEUE, ending, None)?;
        let ledger = Self {
            writer,
            books,
            clock,
            outage,
            refuses_growth,
            commits,
        };
        Ok((ledger, thread))
    }

    /// The time that retries are due in.
    pub const fn clock(&self) -> RetryClock {
        self.clock
    }

    /// Queues an entry. The receiver resolves once it is durable: with `false` where it was not
    /// recorded, because the failed delivery that it names is no longer there, or because the disk
    /// has no room for what grows.
    pub async fn record(&self, entry: Entry) -> Result<oneshot::Receiver<bool>, LedgerError> {
        self.send(entry, false).await
    }

    /// As [`Self::record`], and waits until it is durable. After an error it may have been
    /// recorded or not, or will be yet.
    pub async fn record_durably(&self, entry: Entry) -> Result<bool, LedgerError> {
        self.check(entry.grows())?;
        let durable = self.send(entry, true).await?;
        durable.await.map_err(|_| self.ended())
    }

    async fn send(
        &self,
        entry: Entry,
        urgent: bool,
    ) -> Result<oneshot::Receiver<bool>, LedgerError> {
        let (done, durable) = oneshot::channel();
        let request = Request {
            entry: Box::new(entry),
            waiting: Waiting { urgent, done },
        };
        let sent = self.writer.send(request).await;
        sent.map_err(|Closed| self.ended())?;
        Ok(durable)
    }

    /// A webhook's counts, as of what is durable.
    pub fn counts(&self, webhook: WebhookId) -> LedgerCounts {
        lock(&self.books).counts(webhook)
    }

    /// All that is counted at one moment.
    pub fn books(&self) -> Books {
        lock(&self.books).clone()
    }

    /// How long it took to have a batch on disk.
    pub fn commit_latencies(&self) -> LatencySnapshot {
        self.commits.snapshot()
    }

    /// Why nothing can be written, while nothing can.
    pub fn outage(&self) -> Option<Arc<str>> {
        self.outage.check().err()
    }

    /// Fails while nothing can be written, or while the disk has no room for what `grows`.
    pub fn check(&self, grows: bool) -> Result<(), LedgerError> {
        if !grows && self.refuses_growth.load(Ordering::Acquire) {
            return Ok(());
        }
        self.outage.check().map_err(LedgerError)
    }

    /// How many failed deliveries there are, over all webhooks.
    pub fn dead(&self) -> u64 {
        let books = lock(&self.books);
        books.counts.values().map(|counts| counts.dead).sum()
    }

    /// Writes what was sent so far and ends the writer.
    pub async fn stop(&self) {
        self.writer.stop().await;
    }

    fn ended(&self) -> LedgerError {
        let why = self.outage.check().err();
        LedgerError(why.unwrap_or_else(|| "shutting down".into()))
    }
}

fn lock(books: &Mutex<Books>) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Writer {
    store: Arc<dyn LedgerStore>,
    books: Arc<Mutex<Books>>,
    numbers: FailedNumbers,
    next_failed: FailedId,
    clock: RetryClock,
    outage: Arc<Outage>,
    commits: Arc<Latencies>,
    ending: CancellationToken,
    /// The disk is too full for what asks for more room than it gives back.
    refuses_growth: Arc<AtomicBool>,
    batch: Batch,
    /// What is being written: after an outage it is written again as it was, for a part of it may
    /// be on disk.
    prepared: Option<Prepared>,
    /// Only what is urgent is written before.
    rested: Instant,
    looked_for_room: Instant,
}

/// What is gathered for the next write.
#[derive(Debug, Default)]
struct Batch {
    entries: Vec<Entry>,
    waiting: Vec<Waiting>,
    /// What the entries add or remove.
    bytes: usize,
    urgent: bool,
}

/// A batch as it goes to disk.
#[derive(Debug)]
struct Prepared {
    changes: Arc<[LedgerChange]>,
    /// Once that is durable.
    books: Books,
    /// For each entry, who waits and whether there was something to record.
    waiting: Vec<(Waiting, bool)>,
}

impl Batch {
    /// Takes out what asks for more room than it gives back, and tells its senders.
    fn refuse_growth(&mut self) {
        let entries = mem::take(&mut self.entries);
        let waiting = mem::take(&mut self.waiting);
        for (entry, waiting) in entries.into_iter().zip(waiting) {
            if !entry.grows() {
                self.entries.push(entry);
                self.waiting.push(waiting);
            } else if !waiting.urgent {
                // Dropped instead, it would mean that nothing is written any more.
                let _ = waiting.done.send(false);
            }
        }
    }
}

#[async_trait]
impl GroupWriter for Writer {
    type Request = Request;

    fn take(&mut self, request: Request) -> Option<Request> {
        let Request { entry, waiting } = request;
        self.batch.bytes += entry.size();
        self.batch.urgent |= waiting.urgent;
        self.batch.entries.push(*entry);
        self.batch.waiting.push(waiting);
        None
    }

    fn is_empty(&self) -> bool {
        self.batch.entries.is_empty() && self.prepared.is_none()
    }

    fn is_full(&self) -> bool {
        self.batch.entries.len() >= MAX_BATCH || self.batch.bytes >= BATCH_BYTES
    }

    fn due(&self) -> Option<Instant> {
        (!self.batch.urgent).then_some(self.rested)
    }

    fn wakes_at(&self) -> Option<Instant> {
        self.refuses_growth()
            .then(|| self.looked_for_room + TRY_EVERY)
    }

    async fn write(&mut self) -> Result<(), StoreError> {
        let began = Instant::now();
        if self.prepared.is_none() {
            self.look_for_room().await;
            self.prepare().await?;
        }
        let Some(prepared) = &self.prepared else {
            return Ok(());
        };
        let committing = Instant::now();
        self.store.commit(Arc::clone(&prepared.changes)).await?;
        self.commits.record(committing.elapsed());
        let rest = began.elapsed() * (SHARE_OF_TIME - 1);
        self.rested = Instant::now() + rest.clamp(*REST.start(), *REST.end());
        if let Some(written) = self.prepared.take() {
            *lock(&self.books) = written.books;
            for (waiting, there) in written.waiting {
                // Most don't wait for it, or were notified that it may not come to this.
                let _ = waiting.done.send(there);
            }
        }
        Ok(())
    }

    fn suspend(&mut self, error: &StoreError) {
        self.outage.begin(&error.chain());
        let prepared = self.prepared.iter_mut().flat_map(|it| &mut it.waiting);
        let prepared = prepared.map(|(waiting, _)| waiting);
        let waiting = prepared.chain(&mut self.batch.waiting);
        for waiting in waiting.filter(|waiting| waiting.urgent) {
            drop(mem::replace(&mut waiting.done, oneshot::channel().0));
        }
    }

    fn resume(&mut self) {
        if !self.refuses_growth() {
            self.outage.end();
        }
    }

    fn take_suspended(&mut self, request: Request) {
        if !request.waiting.urgent {
            let _ = self.take(request);
        }
    }
}

impl Writer {
    fn refuses_growth(&self) -> bool {
        self.refuses_growth.load(Ordering::Relaxed)
    }

    /// Refuses what the disk has no room for, while it has none.
    async fn look_for_room(&mut self) {
        self.looked_for_room = Instant::now();
        if !self.refuses_growth() && !self.batch.entries.iter().any(Entry::grows) {
            return;
        }
        // Begun again for a whole batch only, so that it goes on.
        let least = if self.refuses_growth() {
            BATCH_BYTES
        } else {
            0
        };
        let bytes = self.batch.bytes.max(least);
        match self.store.check_growth(bytes).await {
            Err(error @ StoreError::Full { .. }) if !self.ending.is_cancelled() => {
                let error = error.chain();
                // Before the outage begins, which is not one for what doesn't grow.
                let refused_before = self.refuses_growth.swap(true, Ordering::AcqRel);
                self.outage.begin(&error);
                if !refused_before {
                    tracing::error!(
                        error,
                        "no retries and dead letters are kept until the disk has room"
                    );
                }
                self.batch.refuse_growth();
            }
            // Other errors come again with the write.
            Ok(()) | Err(_) if self.refuses_growth() => {
                self.outage.end();
                self.refuses_growth.store(false, Ordering::Release);
                tracing::info!("retries and dead letters are kept again");
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Makes of the batch what is to be written.
    async fn prepare(&mut self) -> Result<(), StoreError> {
        if self.batch.entries.is_empty() {
            self.batch = Batch::default();
            return Ok(());
        }
        let there = self.those_there().await?;
        let retries = self.batch.entries.iter_mut().flat_map(Entry::retries_mut);
        let keys: Vec<_> = retries.map(|retry| retry.key).collect();
        let keys = keep_apart(self.store.as_ref(), keys).await?;
        let Batch {
            mut entries,
            waiting,
            ..
        } = mem::take(&mut self.batch);
        let retries = entries.iter_mut().flat_map(Entry::retries_mut);
        for (retry, key) in retries.zip(keys) {
            retry.key = key;
        }
        let mut books = lock(&self.books).clone();
        let mut touched = BTreeSet::new();
        let mut changes = Vec::with_capacity(entries.len() * 3);
        for (entry, there) in entries.into_iter().zip(&there) {
            if *there {
                touched.insert(entry.webhook());
                self.enter(entry, &mut books, &mut changes);
            }
        }
        let counts = touched.into_iter().filter_map(|webhook| {
            let counts = books.counts.get(&webhook)?;
            Some(LedgerChange::Counts(webhook, *counts))
        });
        changes.extend(counts);
        let now = self.clock.now().as_millisecond();
        changes.push(LedgerChange::RetryTime(now));
        self.prepared = Some(Prepared {
            changes: changes.into(),
            books,
            waiting: waiting.into_iter().zip(there).collect(),
        });
        Ok(())
    }

    /// For each entry, whether there is something to record: two callers may take one failed
    /// delivery, or archive one webhook.
    async fn those_there(&self) -> Result<Vec<bool>, StoreError> {
        let (mut taken, mut archived) = (BTreeSet::new(), BTreeSet::new());
        let mut there = Vec::with_capacity(self.batch.entries.len());
        for entry in &self.batch.entries {
            there.push(match (entry, entry.takes()) {
                (Entry::Archived { webhook }, _) => {
                    archived.insert(*webhook) && lock(&self.books).closed.contains_key(webhook)
                }
                (_, Some(id)) => {
                    taken.insert(id) && self.store.failed_delivery(id).await?.is_some()
                }
                (_, None) => true,
            });
        }
        Ok(there)
    }

    fn enter(&mut self, entry: Entry, books: &mut Books, changes: &mut Vec<LedgerChange>) {
        let webhook = entry.webhook();
        if let Entry::Archived { .. } = entry {
            books.counts.remove(&webhook);
            let closed = books.closed.remove(&webhook).unwrap_or_default();
            books.archived = books.archived.with(closed);
            return changes.push(LedgerChange::Archived(webhook, books.archived));
        }
        let counts = books.counts.entry(webhook).or_default();
        match entry {
            Entry::OffCursor { retry } => {
                counts.off_cursor += 1;
                counts.retrying += 1;
                changes.push(LedgerChange::OffCursorMarker(
                    retry.key.webhook,
                    retry.key.seq,
                ));
                changes.push(LedgerChange::Retry(retry));
            }
            Entry::OffCursorDead { failed } => {
                counts.off_cursor += 1;
                counts.dead += 1;
                changes.push(LedgerChange::OffCursorMarker(failed.webhook, failed.seq));
                changes.push(self.numbered(failed));
            }
            Entry::Again { was, retry } => {
                changes.push(LedgerChange::RetryGone(was));
                changes.push(LedgerChange::Retry(retry));
            }
            Entry::Delivered { was, .. } => {
                counts.retrying -= 1;
                counts.delivered += 1;
                changes.push(LedgerChange::RetryGone(was));
            }
            Entry::Dead { was, failed } => {
                counts.retrying -= 1;
                counts.dead += 1;
                changes.push(LedgerChange::RetryGone(was));
                changes.push(self.numbered(failed));
            }
            Entry::Backfilled { retries, .. } => {
                counts.backfilled += retries.len() as u64;
                counts.retrying += retries.len() as u64;
                changes.extend(retries.into_iter().map(LedgerChange::Retry));
            }
            Entry::Replayed { id, retry } => {
                counts.dead -= 1;
                counts.retrying += 1;
                changes.push(LedgerChange::FailedGone(retry.key.webhook, id));
                changes.push(LedgerChange::Retry(retry));
            }
            Entry::Purged { id, webhook, .. } => {
                counts.dead -= 1;
                counts.purged += 1;
                changes.push(LedgerChange::FailedGone(webhook, id));
            }
            Entry::Cancelled {
                webhook: _,
                retries,
                size: _,
            } => {
                counts.retrying -= retries.len() as u64;
                counts.cancelled += retries.len() as u64;
                changes.extend(retries.into_iter().map(LedgerChange::RetryGone));
            }
            Entry::MarkersCleared { webhook, seqs } => {
                changes.extend(
                    seqs.into_iter()
                        .map(|seq| LedgerChange::OffCursorMarkerGone(webhook, seq)),
                );
            }
            Entry::Closed { webhook, books: of } => {
                books.closed.insert(webhook, of);
                changes.push(LedgerChange::Closed(webhook, of));
            }
            Entry::Archived { .. } => {}
        }
    }

    /// Gives a failed delivery its number.
    fn numbered(&mut self, mut failed: FailedDelivery) -> LedgerChange {
        failed.id = self.next_failed;
        self.next_failed = self.numbers.after(failed.id);
        LedgerChange::Failed(failed)
    }
}

/// Keys for the retries that come, in their order, so that none has that of another: copies of an
/// event, as backfills make them, may fail in the same millisecond.
async fn keep_apart(
    store: &dyn LedgerStore,
    mut keys: Vec<RetryKey>,
) -> Result<Vec<RetryKey>, StoreError> {
    let mut taken = BTreeSet::new();
    // Of those that were moved, the next may be taken, too.
    let mut moved: Vec<_> = (0..keys.len()).collect();
    while !moved.is_empty() {
        for index in &moved {
            while !taken.insert(keys[*index]) {
                keys[*index].due_ms += 1;
            }
        }
        let asked: Vec<_> = moved.iter().map(|index| keys[*index]).collect();
        let limit = ReadLimit::part(asked.len());
        let mut stored = BTreeSet::new();
        let mut looked_at = 0;
        while looked_at < asked.len() {
            let (found, more) = store.retries(&asked[looked_at..], limit).await?;
            stored.extend(found.into_iter().map(|retry| retry.key));
            looked_at += more;
        }
        moved.retain(|index| stored.contains(&keys[*index]));
        for index in &moved {
            keys[*index].due_ms += 1;
        }
    }
    Ok(keys)
}

impl Entry {
    /// Those that are to be kept.
    fn retries_mut(&mut self) -> &mut [Retry] {
        match self {
            Self::OffCursor { retry }
            | Self::Again { retry, .. }
            | Self::Replayed { retry, .. } => slice::from_mut(retry),
            Self::Backfilled { retries, .. } => retries,
            Self::OffCursorDead { .. }
            | Self::Delivered { .. }
            | Self::Dead { .. }
            | Self::Purged { .. }
            | Self::Cancelled { .. }
            | Self::MarkersCleared { .. }
            | Self::Closed { .. }
            | Self::Archived { .. } => &mut [],
        }
    }

    /// The failed delivery that it takes away, which two callers may try at once.
    fn takes(&self) -> Option<FailedId> {
        match self {
            Self::Replayed { id, .. } | Self::Purged { id, .. } => Some(*id),
            Self::OffCursor { .. }
            | Self::OffCursorDead { .. }
            | Self::Again { .. }
            | Self::Delivered { .. }
            | Self::Dead { .. }
            | Self::Backfilled { .. }
            | Self::Cancelled { .. }
            | Self::MarkersCleared { .. }
            | Self::Closed { .. }
            | Self::Archived { .. } => None,
        }
    }

    /// Whether there is more to keep after it: a [`LedgerChange`] that it makes grows.
    const fn grows(&self) -> bool {
        match self {
            Self::OffCursor { .. }
            | Self::OffCursorDead { .. }
            | Self::Again { .. }
            | Self::Dead { .. }
            | Self::Backfilled { .. }
            | Self::Replayed { .. } => true,
            Self::Delivered { .. }
            | Self::Purged { .. }
            | Self::Cancelled { .. }
            | Self::MarkersCleared { .. }
            | Self::Closed { .. }
            | Self::Archived { .. } => false,
        }
    }

    /// Of the records that it adds or removes, about and in bytes. To remove one is as much work for
    /// an engine as to add it.
    fn size(&self) -> usize {
        match self {
            Self::OffCursor { retry }
            | Self::Again { retry, .. }
            | Self::Replayed { retry, .. } => retry.size(),
            Self::OffCursorDead { failed } | Self::Dead { failed, .. } => failed.size(),
            Self::Backfilled { retries, .. } => retries.iter().map(Retry::size).sum(),
            Self::Delivered { size, .. }
            | Self::Purged { size, .. }
            | Self::Cancelled { size, .. } => *size,
            Self::MarkersCleared { .. } | Self::Closed { .. } | Self::Archived { .. } => 0,
        }
    }

    fn webhook(&self) -> WebhookId {
        match self {
            Self::OffCursor { retry }
            | Self::Again { retry, .. }
            | Self::Replayed { retry, .. } => retry.key.webhook,
            Self::OffCursorDead { failed } | Self::Dead { failed, .. } => failed.webhook,
            Self::Delivered { was, .. } => was.webhook,
            Self::Purged { webhook, .. }
            | Self::Backfilled { webhook, .. }
            | Self::Cancelled { webhook, .. }
            | Self::MarkersCleared { webhook, .. }
            | Self::Closed { webhook, .. }
            | Self::Archived { webhook } => *webhook,
        }
    }
}

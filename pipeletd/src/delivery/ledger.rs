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
    thread,
    time::Duration,
};

use pipelet_domain::{
    deliveries::{
        ArchivedCounts, DeliveryCounts, FailedDelivery, FailedId, LedgerCounts, Retry, RetryKey,
    },
    events::Seq,
    webhooks::WebhookId,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::retry_clock::RetryClock;
use crate::{
    store::{BATCH_BYTES, Change, Outage, Store, StoreError},
    system::latencies::{Latencies, LatencySnapshot},
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
/// How often a store that can't write is tried again.
const TRY_EVERY: Duration = Duration::from_millis(250);

/// What happened to a delivery outside the happy path.
#[derive(Debug, Clone)]
pub enum Entry {
    /// It left the happy path: its first attempt failed. `retry` waits for the next.
    OffCursor { retry: Retry },
    /// It left the happy path and will not be attempted again.
    OffCursorDead { failed: FailedDelivery },
    /// Another attempt failed: `retry` replaces the one at `was`.
    Again { was: RetryKey, retry: Retry },
    /// A retry was delivered. `size` is its event's, in bytes, as it is below.
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
    /// The webhook is deleted, and these retries with it.
    Cancelled {
        webhook: WebhookId,
        retries: Vec<RetryKey>,
    },
    /// A durable cursor no longer lists these: their markers can go.
    MarkersCleared { webhook: WebhookId, seqs: Vec<Seq> },
    /// Nothing is kept of a deleted webhook but what its final books add to a sum. It has no
    /// failed deliveries.
    Archived {
        webhook: WebhookId,
        books: DeliveryCounts,
    },
}

/// Writes entries. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger {
    requests: mpsc::Sender<Request>,
    counts: Arc<CountsByWebhook>,
    outage: Arc<Outage>,
    /// The disk is too full for what asks for more room than it gives back.
    refuses_growth: Arc<AtomicBool>,
    commits: Arc<Latencies>,
}

#[derive(Debug)]
enum Request {
    Record {
        entry: Box<Entry>,
        /// Somebody waits for it.
        urgent: bool,
        done: oneshot::Sender<bool>,
    },
    Stop {
        done: oneshot::Sender<()>,
    },
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("the ledger of retries can't be written: {0}")]
pub struct LedgerError(Arc<str>);

#[derive(Debug, Default)]
struct CountsByWebhook(Mutex<BTreeMap<WebhookId, LedgerCounts>>);

impl CountsByWebhook {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<WebhookId, LedgerCounts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends when the ledger's thread does: without an error only after [`Ledger::stop`].
#[derive(Debug)]
pub struct LedgerThread(oneshot::Receiver<Result<(), StoreError>>);

impl LedgerThread {
    pub async fn ended(self) -> Result<(), StoreError> {
        self.0.await.unwrap_or(Ok(()))
    }
}

impl Ledger {
    /// Must be called within a runtime. Once `ending` is cancelled, an outage of the store is not
    /// waited out any more.
    pub fn open(
        store: Arc<dyn Store>,
        clock: RetryClock,
        ending: CancellationToken,
    ) -> Result<(Self, LedgerThread), StoreError> {
        let counts = Arc::new(CountsByWebhook(Mutex::new(
            store.ledger_counts()?.into_iter().collect(),
        )));
        let outage = Arc::new(Outage::default());
        let refuses_growth = Arc::new(AtomicBool::new(false));
        let commits = Arc::new(Latencies::default());
        let next_failed = store.next_ids()?.failed;
        let (requests, queue) = mpsc::channel(QUEUE);
        let (done, ended) = oneshot::channel();
        let mut writer = Writer {
            counts: Arc::clone(&counts),
            next_failed,
            clock,
            runtime: Handle::current(),
            outage: Arc::clone(&outage),
            commits: Arc::clone(&commits),
            ending,
            archived: store.archived_counts()?,
            store,
            refuses_growth: Arc::clone(&refuses_growth),
        };
        let thread = thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || {
                let result = writer.run(queue);
                // Nobody listens any more when the process is ending anyway.
                let _ = done.send(result);
            });
        thread.map_err(StoreError::Sync)?;
        Ok((
            Self {
                requests,
                counts,
                outage,
                refuses_growth,
                commits,
            },
            LedgerThread(ended),
        ))
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
        let request = Request::Record {
            entry: Box::new(entry),
            urgent,
            done,
        };
        self.requests
            .send(request)
            .await
            .map_err(|_| self.ended())?;
        Ok(durable)
    }

    /// A webhook's counts, as of what is durable.
    pub fn counts(&self, webhook: WebhookId) -> LedgerCounts {
        self.counts
            .lock()
            .get(&webhook)
            .copied()
            .unwrap_or_default()
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
        self.counts.lock().values().map(|counts| counts.dead).sum()
    }

    /// Writes what was sent so far and ends the thread.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.requests.send(Request::Stop { done }).await.is_ok() {
            // An error means that it ended by itself, which is the same here.
            let _ = stopped.await;
        }
    }

    fn ended(&self) -> LedgerError {
        let why = self.outage.check().err();
        LedgerError(why.unwrap_or_else(|| "shutting down".into()))
    }
}

struct Writer {
    store: Arc<dyn Store>,
    counts: Arc<CountsByWebhook>,
    archived: ArchivedCounts,
    next_failed: FailedId,
    clock: RetryClock,
    runtime: Handle,
    outage: Arc<Outage>,
    commits: Arc<Latencies>,
    ending: CancellationToken,
    /// The disk is too full for what asks for more room than it gives back.
    refuses_growth: Arc<AtomicBool>,
}

/// Who is notified of an entry.
struct Waiting {
    /// They wait for nothing else, so they are not kept waiting for the end of an outage.
    urgent: bool,
    done: oneshot::Sender<bool>,
}

/// What is gathered for the next write.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    waiting: Vec<Waiting>,
    /// The size of the events in the entries.
    bytes: usize,
    urgent: bool,
    stopped: Option<oneshot::Sender<()>>,
}

impl Batch {
    fn take(&mut self, request: Request) {
        match request {
            Request::Record {
                entry,
                urgent,
                done,
            } => {
                self.bytes += entry.size();
                self.entries.push(*entry);
                self.waiting.push(Waiting { urgent, done });
                self.urgent |= urgent;
            }
            Request::Stop { done } => self.stopped = Some(done),
        }
    }

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

    fn is_due(&self) -> bool {
        self.urgent || self.stopped.is_some() || self.is_full()
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= MAX_BATCH || self.bytes >= BATCH_BYTES
    }
}

impl Writer {
    fn run(&mut self, mut queue: mpsc::Receiver<Request>) -> Result<(), StoreError> {
        let mut stopped = None;
        let mut rested = Instant::now();
        while stopped.is_none() {
            let Some(mut batch) = self.gather(&mut queue, rested) else {
                break;
            };
            stopped = batch.stopped.take();
            if stopped.is_some() {
                queue.close();
            }
            self.look_for_room(&mut batch);
            let began = Instant::now();
            self.write(batch)?;
            let rest = began.elapsed() * (SHARE_OF_TIME - 1);
            rested = Instant::now() + rest.clamp(*REST.start(), *REST.end());
        }
        // Those that were queued behind a full batch.
        let mut rest = Batch::default();
        while let Ok(request) = queue.try_recv() {
            rest.take(request);
        }
        self.write(rest)?;
        if let Some(stopped) = stopped {
            let _ = stopped.send(());
        }
        Ok(())
    }

    /// Waits for entries, and then until `rested` for more, unless they are urgent; takes what is
    /// there. `None` once nobody can send any more.
    fn gather(&self, queue: &mut mpsc::Receiver<Request>, rested: Instant) -> Option<Batch> {
        let mut batch = Batch::default();
        if self.refuses_growth() {
            let next = async { timeout(TRY_EVERY, queue.recv()).await };
            match self.runtime.block_on(next) {
                Ok(request) => batch.take(request?),
                Err(_) => return Some(batch),
            }
        } else {
            batch.take(queue.blocking_recv()?);
        }
        while !batch.is_due() {
            let next = async { timeout_at(rested, queue.recv()).await };
            match self.runtime.block_on(next) {
                Ok(Some(request)) => batch.take(request),
                Ok(None) | Err(_) => break,
            }
        }
        while batch.stopped.is_none() && !batch.is_full() {
            let Ok(request) = queue.try_recv() else { break };
            batch.take(request);
        }
        Some(batch)
    }

    fn refuses_growth(&self) -> bool {
        self.refuses_growth.load(Ordering::Relaxed)
    }

    /// Refuses what the disk has no room for, while it has none.
    fn look_for_room(&mut self, batch: &mut Batch) {
        if !self.refuses_growth() && !batch.entries.iter().any(Entry::grows) {
            return;
        }
        match self.store.check_growth() {
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
                batch.refuse_growth();
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

    /// Writes entries together and notifies those who wait whether there was something to record.
    fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
        let Batch {
            mut entries,
            mut waiting,
            ..
        } = batch;
        if entries.is_empty() {
            return Ok(());
        }
        let there = self.persist(&mut waiting, |store| those_there(store, &entries))?;
        let retries = entries.iter_mut().flat_map(Entry::retries_mut);
        let keys: Vec<_> = retries.map(|retry| retry.key).collect();
        let keys = self.persist(&mut waiting, |store| keep_apart(store, &keys))?;
        let retries = entries.iter_mut().flat_map(Entry::retries_mut);
        for (retry, key) in retries.zip(keys) {
            retry.key = key;
        }
        let mut counts = self.counts.lock().clone();
        let mut touched = BTreeSet::new();
        let mut changes = Vec::with_capacity(entries.len() * 3);
        for (entry, there) in entries.into_iter().zip(&there) {
            if *there {
                let webhook = entry.webhook();
                let is_last = matches!(entry, Entry::Archived { .. });
                let of_webhook = counts.entry(webhook).or_default();
                self.enter(entry, of_webhook, &mut changes);
                if is_last {
                    counts.remove(&webhook);
                    touched.remove(&webhook);
                } else {
                    touched.insert(webhook);
                }
            }
        }
        for webhook in touched {
            changes.push(Change::LedgerCounts(webhook, counts[&webhook]));
        }
        changes.push(Change::RetryTime(self.clock.now().as_millisecond()));
        self.persist(&mut waiting, |store| {
            let began = Instant::now();
            store.commit(&changes)?;
            self.commits.record(began.elapsed());
            Ok(())
        })?;
        *self.counts.lock() = counts;
        for (waiting, there) in waiting.into_iter().zip(there) {
            // Most don't wait for it, or were notified that it may not come to this.
            let _ = waiting.done.send(there);
        }
        Ok(())
    }

    /// Does this with the store, again and again while that has an outage.
    fn persist<T>(
        &self,
        waiting: &mut [Waiting],
        run: impl Fn(&dyn Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        loop {
            let error = match run(self.store.as_ref()) {
                Err(error) if error.is_outage() && !self.ending.is_cancelled() => error,
                done => {
                    // Who finds the queue closed asks for the reason.
                    match &done {
                        Err(error) => self.outage.begin(&error.chain()),
                        Ok(_) if !self.refuses_growth() => self.outage.end(),
                        Ok(_) => {}
                    }
                    return done;
                }
            };
            self.outage.begin(&error.chain());
            for waiting in waiting.iter_mut().filter(|waiting| waiting.urgent) {
                drop(mem::replace(&mut waiting.done, oneshot::channel().0));
            }
            // Cut short by the daemon's end, which is looked at above.
            let _ = self
                .runtime
                .block_on(async { timeout(TRY_EVERY, self.ending.cancelled()).await });
        }
    }

    fn enter(&mut self, entry: Entry, counts: &mut LedgerCounts, changes: &mut Vec<Change>) {
        match entry {
            Entry::OffCursor { retry } => {
                counts.off_cursor += 1;
                counts.retrying += 1;
                changes.push(Change::OffCursorMarker(retry.key.webhook, retry.key.seq));
                changes.push(Change::Retry(retry));
            }
            Entry::OffCursorDead { failed } => {
                counts.off_cursor += 1;
                counts.dead += 1;
                changes.push(Change::OffCursorMarker(failed.webhook, failed.seq));
                changes.push(self.numbered(failed));
            }
            Entry::Again { was, retry } => {
                changes.push(Change::RetryGone(was));
                changes.push(Change::Retry(retry));
            }
            Entry::Delivered { was, .. } => {
                counts.retrying -= 1;
                counts.delivered += 1;
                changes.push(Change::RetryGone(was));
            }
            Entry::Dead { was, failed } => {
                counts.retrying -= 1;
                counts.dead += 1;
                changes.push(Change::RetryGone(was));
                changes.push(self.numbered(failed));
            }
            Entry::Backfilled { retries, .. } => {
                counts.backfilled += retries.len() as u64;
                counts.retrying += retries.len() as u64;
                changes.extend(retries.into_iter().map(Change::Retry));
            }
            Entry::Replayed { id, retry } => {
                counts.dead -= 1;
                counts.retrying += 1;
                changes.push(Change::FailedGone(retry.key.webhook, id));
                changes.push(Change::Retry(retry));
            }
            Entry::Purged { id, webhook, .. } => {
                counts.dead -= 1;
                counts.purged += 1;
                changes.push(Change::FailedGone(webhook, id));
            }
            Entry::Cancelled {
                webhook: _,
                retries,
            } => {
                counts.retrying -= retries.len() as u64;
                counts.cancelled += retries.len() as u64;
                changes.extend(retries.into_iter().map(Change::RetryGone));
            }
            Entry::MarkersCleared { webhook, seqs } => {
                changes.extend(
                    seqs.into_iter()
                        .map(|seq| Change::OffCursorMarkerGone(webhook, seq)),
                );
            }
            Entry::Archived { webhook, books } => {
                self.archived = self.archived.with(books);
                changes.push(Change::WebhookGone(webhook));
                changes.push(Change::ArchivedCounts(self.archived));
            }
        }
    }

    /// Gives a failed delivery its number.
    fn numbered(&mut self, mut failed: FailedDelivery) -> Change {
        failed.id = self.next_failed;
        self.next_failed = FailedId(failed.id.0 + 1);
        Change::Failed(failed)
    }
}

/// For each entry, whether there is something to record: two callers may take one failed delivery.
fn those_there(store: &dyn Store, entries: &[Entry]) -> Result<Vec<bool>, StoreError> {
    let mut taken = BTreeSet::new();
    let there = |entry: &Entry| match entry.takes() {
        Some(id) => Ok(taken.insert(id) && store.failed_delivery(id)?.is_some()),
        None => Ok(true),
    };
    entries.iter().map(there).collect()
}

/// Keys for the retries that come, in their order, so that none has that of another: copies of an
/// event, as backfills make them, may fail in the same millisecond.
fn keep_apart(store: &dyn Store, keys: &[RetryKey]) -> Result<Vec<RetryKey>, StoreError> {
    let mut taken = BTreeSet::new();
    let apart = keys.iter().map(|key| {
        let mut key = *key;
        while !taken.insert(key) || store.retry(key)?.is_some() {
            key.due_ms += 1;
        }
        Ok(key)
    });
    apart.collect()
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
            | Self::Archived { .. } => None,
        }
    }

    /// Whether there is more to keep after it: a [`Change`] that it makes grows.
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
            | Self::Archived { .. } => false,
        }
    }

    /// Of the events in it, in bytes. To remove one is as much work for an engine as to add it.
    fn size(&self) -> usize {
        match self {
            Self::OffCursor { retry }
            | Self::Again { retry, .. }
            | Self::Replayed { retry, .. } => retry.event.size(),
            Self::OffCursorDead { failed } | Self::Dead { failed, .. } => failed.event.size(),
            Self::Backfilled { retries, .. } => {
                retries.iter().map(|retry| retry.event.size()).sum()
            }
            Self::Delivered { size, .. } | Self::Purged { size, .. } => *size,
            Self::Cancelled { .. } | Self::MarkersCleared { .. } | Self::Archived { .. } => 0,
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
            | Self::Archived { webhook, .. } => *webhook,
        }
    }
}

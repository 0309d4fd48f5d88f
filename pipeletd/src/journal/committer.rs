//! The one writer of the journal: batches, flushes, and only then notifies.
//!
//! What arrives while one flush runs goes into the next batch. A batch is one atomic write of
//! its events and of the progress that webhooks reported, one flush, one sync.
//!
//! Where the store has an outage, no sender in the batch was notified, and what the store may have
//! kept of its events is cut off before the next: their senders learn that they failed. A disk
//! that is too full for events may have room for progress, which is what lets events be forgotten.

use std::{
    collections::BTreeMap,
    mem,
    ops::Range,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use pipelet_domain::{
    deliveries::{Cursor, Received, Subscription, SubscriptionVersion, is_owed},
    events::{Event, EventType, Seq},
    webhooks::WebhookId,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{ConsumerQueue, OnCommit, Request, Shared};
use crate::store::{BATCH_BYTES, Progress, ReadLimit, Store, StoreError};

/// A batch is closed at this many events, or at [`BATCH_BYTES`] of them.
const MAX_EVENTS: usize = 4096;
/// The counts of received events are written down at least this often, in events: so many
/// have to be counted again at a start.
const COUNT_EVERY: u64 = 8192;
/// Events read at once while counting again.
const STRIDE: usize = 1024;
/// How often a store that can't write is tried again.
const TRY_EVERY: Duration = Duration::from_millis(250);

pub(super) struct Committer {
    shared: Arc<Shared>,
    next: Seq,
    webhooks: BTreeMap<WebhookId, Subscribed>,
    /// For each event type's code, who may want it.
    by_kind: Vec<Vec<WebhookId>>,
    counted_to: Seq,
    batch: Batch,
}

/// Ends when the committer does: without an error only after [`super::Journal::stop`].
#[derive(Debug)]
pub struct CommitterThread(oneshot::Receiver<Result<(), StoreError>>);

impl CommitterThread {
    pub async fn ended(self) -> Result<(), StoreError> {
        self.0.await.unwrap_or(Ok(()))
    }
}

struct Subscribed {
    queue: Arc<ConsumerQueue>,
    /// The last one is in force; none before the first subscription.
    versions: Arc<[SubscriptionVersion]>,
    /// As it was last written down.
    cursor: Cursor,
    /// Matched in the batch that is being committed.
    matched: Vec<Seq>,
}

/// What is gathered for the next write.
#[derive(Default)]
struct Batch {
    events: Vec<Arc<Event>>,
    callbacks: Vec<OnCommit>,
    bytes: usize,
    progress: Vec<Progress>,
    /// Called once the progress is durable.
    progressed: Vec<Box<dyn FnOnce() + Send>>,
}

impl Batch {
    /// Adds progress; who waits for it gets `value` once it is durable.
    fn note<T: Send + 'static>(&mut self, progress: Progress, done: oneshot::Sender<T>, value: T) {
        self.progress.push(progress);
        // Who has ended meanwhile needs no answer.
        self.progressed
            .push(Box::new(move || drop(done.send(value))));
    }

    fn is_full(&self) -> bool {
        self.events.len() >= MAX_EVENTS || self.bytes >= BATCH_BYTES
    }

    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.progress.is_empty()
    }
}

impl Committer {
    /// Finds every webhook's progress and counts again what it received since.
    pub(super) fn recover(
        shared: Arc<Shared>,
        webhooks: Vec<(WebhookId, Subscription)>,
    ) -> Result<Self, StoreError> {
        let next = Seq(shared.head.load(Ordering::Acquire));
        let mut cursors: BTreeMap<_, _> = shared.store.cursors()?.into_iter().collect();
        let counts: BTreeMap<_, _> = shared.store.received()?.into_iter().collect();
        let mut versions: BTreeMap<_, _> = shared.store.subscriptions()?.into_iter().collect();
        let mut found = Vec::new();
        for (id, _) in &webhooks {
            let versions: Arc<[_]> = versions.remove(id).unwrap_or_default().into();
            // One that was never written down has read nothing since it was created.
            let created = versions.first().map_or(next, |version| version.from);
            let cursor = cursors.remove(id).unwrap_or_else(|| Cursor::at(created));
            let unknown = Received {
                count: 0,
                counted_to: created,
            };
            let received = counts.get(id).copied().unwrap_or(unknown);
            found.push((*id, versions, cursor, received));
        }
        let counted = found.iter().map(|(_, _, _, received)| received.counted_to);
        let counted_to = counted.min().unwrap_or(next).min(next);
        count_again(shared.store.as_ref(), &mut found, counted_to..next)?;
        let subscribed = found.into_iter().map(|(id, versions, cursor, received)| {
            let queue = ConsumerQueue::lagging(Arc::clone(&versions), received.count);
            let subscribed = Subscribed {
                queue: Arc::new(queue),
                versions,
                cursor,
                matched: Vec::new(),
            };
            (id, subscribed)
        });
        let mut committer = Self {
            shared,
            next,
            webhooks: subscribed.collect(),
            by_kind: Vec::new(),
            // What was counted again just now is not written down.
            counted_to,
            batch: Batch::default(),
        };
        for (id, subscription) in webhooks {
            committer.subscribe(id, subscription, oneshot::channel().0);
        }
        // Of webhooks that were deleted, where a crash came before this was.
        for id in versions.into_keys().chain(cursors.into_keys()) {
            committer.batch.progress.push(Progress::Gone(id));
        }
        committer.index();
        Ok(committer)
    }

    pub(super) fn cursors(&self) -> impl Iterator<Item = (WebhookId, Arc<ConsumerQueue>, Cursor)> {
        let webhooks = self.webhooks.iter();
        webhooks.map(|(id, webhook)| (*id, Arc::clone(&webhook.queue), webhook.cursor.clone()))
    }

    pub(super) fn start(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        ending: CancellationToken,
    ) -> Result<CommitterThread, StoreError> {
        let (done, ended) = oneshot::channel();
        let runtime = Handle::current();
        let thread = thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                let result = self.run(&mut requests, &runtime, &ending);
                if let Err(error) = &result {
                    // Before the queue is dropped: who finds it closed asks for the reason.
                    self.shared.outage.begin(&error.chain());
                }
                // Nobody listens any more when the process is ending anyway.
                let _ = done.send(result);
            });
        thread.map_err(StoreError::Sync)?;
        Ok(CommitterThread(ended))
    }

    fn run(
        &mut self,
        requests: &mut mpsc::Receiver<Request>,
        runtime: &Handle,
        ending: &CancellationToken,
    ) -> Result<(), StoreError> {
        while let Some(request) = requests.blocking_recv() {
            let stopped = match self.round(request, requests) {
                Err(error) if error.is_outage() => {
                    runtime.block_on(self.wait_for_recovery(error, requests, ending))?
                }
                ended => ended?,
            };
            if let Some(stopped) = stopped {
                // Nobody waits for a stop any longer than for this.
                let _ = stopped.send(());
                return Ok(());
            }
        }
        Ok(())
    }

    /// Commits a request and what has come behind it meanwhile.
    fn round(
        &mut self,
        mut request: Request,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Result<Option<oneshot::Sender<()>>, StoreError> {
        loop {
            if let Some(stopped) = self.take(request)? {
                self.finish(requests)?;
                return Ok(Some(stopped));
            }
            if self.batch.is_full() {
                break;
            }
            match requests.try_recv() {
                Ok(next) => request = next,
                Err(_) => break,
            }
        }
        self.commit()?;
        Ok(None)
    }

    /// Refuses what can't be written down now, until the store works again. Once the daemon is
    /// `ending`, there is nobody left to wait for, as after a [`Request::Stop`].
    async fn wait_for_recovery(
        &mut self,
        error: StoreError,
        requests: &mut mpsc::Receiver<Request>,
        ending: &CancellationToken,
    ) -> Result<Option<oneshot::Sender<()>>, StoreError> {
        tracing::error!(
            error = error.chain(),
            "the journal takes no events until the store works again"
        );
        self.shared.outage.begin(&error.chain());
        loop {
            let next_try = sleep(TRY_EVERY);
            tokio::pin!(next_try);
            loop {
                tokio::select! {
                    () = &mut next_try => break,
                    () = ending.cancelled() => return Ok(Some(oneshot::channel().0)),
                    request = requests.recv() => match request {
                        Some(request) => {
                            if let Some(stopped) = self.handle_while_unavailable(request) {
                                return Ok(Some(stopped));
                            }
                        }
                        None => return Ok(None),
                    },
                }
            }
            match self.resume() {
                Ok(()) => break,
                Err(error) if error.is_outage() => self.shared.outage.begin(&error.chain()),
                Err(error) => return Err(error),
            }
        }
        self.shared.outage.end();
        tracing::info!("the journal takes events again");
        Ok(None)
    }

    fn resume(&mut self) -> Result<(), StoreError> {
        self.shared.store.cut_off(self.next)?;
        self.commit()?;
        self.shared.store.check()
    }

    /// Takes a request while no event can be written: what would be answered is refused, by
    /// dropping it, and what is only noted waits in the batch.
    fn handle_while_unavailable(&mut self, request: Request) -> Option<oneshot::Sender<()>> {
        match request {
            Request::Append { .. } => {}
            Request::Subscribe { .. } => {
                // A disk that is full for events may have room for it. Else it waits in the batch.
                let _ = self.take(request);
            }
            Request::Floor { done } => {
                // No events come that would have the counts written down.
                if self.counted_to < self.next {
                    self.write_counts();
                }
                // Where nothing at all can be written, the next try to go on says so.
                let _ = self.answer_floor(done);
            }
            Request::Checkpoint {
                webhook,
                cursor,
                done,
            } => self.note_cursor(webhook, cursor, done),
            Request::Unsubscribe { webhook, done } => self.unsubscribe(webhook, done),
            Request::Stop { done } => return Some(done),
        }
        None
    }

    /// Commits what is still queued, and writes the counts down.
    fn finish(&mut self, requests: &mut mpsc::Receiver<Request>) -> Result<(), StoreError> {
        requests.close();
        while let Ok(request) = requests.try_recv() {
            let _ = self.take(request)?;
            if self.batch.is_full() {
                self.commit()?;
            }
        }
        self.commit()?;
        self.write_counts();
        self.commit()
    }

    /// Takes a request into the batch. One that needs a settled journal commits it first.
    fn take(&mut self, request: Request) -> Result<Option<oneshot::Sender<()>>, StoreError> {
        match request {
            Request::Append { event, on_commit } => {
                self.batch.bytes += event.size();
                self.batch.events.push(Arc::new(event));
                self.batch.callbacks.push(on_commit);
            }
            Request::Checkpoint {
                webhook,
                cursor,
                done,
            } => self.note_cursor(webhook, cursor, done),
            Request::Subscribe {
                webhook,
                subscription,
                done,
            } => {
                // What came before it is owed by what held then.
                let committed = self.commit();
                self.subscribe(webhook, subscription, done);
                committed.and_then(|()| self.commit())?;
            }
            Request::Unsubscribe { webhook, done } => {
                let committed = self.commit();
                self.unsubscribe(webhook, done);
                committed?;
            }
            Request::Floor { done } => self.answer_floor(done)?,
            Request::Stop { done } => return Ok(Some(done)),
        }
        Ok(None)
    }

    fn answer_floor(&mut self, done: oneshot::Sender<Seq>) -> Result<(), StoreError> {
        // What was only noted may be forgotten in a crash, and then needs its events.
        self.commit()?;
        let floors = self.webhooks.values().map(|webhook| webhook.cursor.floor());
        let floor = floors.min().unwrap_or(self.next).min(self.counted_to);
        // A retention that has to end asks no more.
        let _ = done.send(floor);
        Ok(())
    }

    /// One for a webhook that was deleted meanwhile is dropped, and `done` with it.
    fn note_cursor(&mut self, webhook: WebhookId, cursor: Cursor, done: oneshot::Sender<()>) {
        if let Some(subscribed) = self.webhooks.get_mut(&webhook) {
            subscribed.cursor = cursor.clone();
            self.batch.note(Progress::Cursor(webhook, cursor), done, ());
        }
    }

    fn unsubscribe(&mut self, webhook: WebhookId, done: oneshot::Sender<()>) {
        self.webhooks.remove(&webhook);
        self.index();
        // Whatever else was to be written of it would outlive it.
        let of_others = |progress: &Progress| match progress {
            Progress::Cursor(id, _)
            | Progress::Received(id, _)
            | Progress::Subscription(id, _)
            | Progress::Gone(id) => *id != webhook,
        };
        self.batch.progress.retain(of_others);
        self.batch.note(Progress::Gone(webhook), done, ());
    }

    /// Has a webhook want this from the next event on. The events before must be committed.
    fn subscribe(
        &mut self,
        id: WebhookId,
        subscription: Subscription,
        done: oneshot::Sender<(Arc<ConsumerQueue>, Cursor)>,
    ) {
        let next = self.next;
        let oldest = Seq(self.shared.oldest.load(Ordering::Relaxed));
        let webhook = self.webhooks.entry(id).or_insert_with(|| Subscribed {
            queue: Arc::new(ConsumerQueue::lagging(Arc::default(), 0)),
            versions: Arc::default(),
            cursor: Cursor::at(next),
            matched: Vec::new(),
        });
        let answer = (Arc::clone(&webhook.queue), webhook.cursor.clone());
        let is_known =
            |last: &SubscriptionVersion| subscription.revision <= last.subscription.revision;
        if webhook.versions.last().is_some_and(is_known) {
            let _ = done.send(answer);
            return;
        }
        let changed = SubscriptionVersion {
            from: next,
            subscription,
        };
        let versions = changed.after(&webhook.versions, webhook.cursor.floor(), oldest);
        webhook.versions = versions.into();
        webhook.queue.set_versions(Arc::clone(&webhook.versions));
        let received = Received {
            count: webhook.queue.received(),
            counted_to: next,
        };
        // Counted to here: the versions that counting again after a crash would need may be gone.
        self.batch.progress.push(Progress::Received(id, received));
        let versions = Arc::clone(&webhook.versions);
        let changed = Progress::Subscription(id, versions);
        self.batch.note(changed, done, answer);
        self.index();
    }

    fn index(&mut self) {
        let mut by_kind = vec![Vec::new(); usize::from(u8::MAX)];
        for (id, webhook) in &self.webhooks {
            let Some(version) = webhook
                .versions
                .last()
                .filter(|version| version.subscription.enabled)
            else {
                continue;
            };
            for kind in EventType::ALL
                .iter()
                .filter(|kind| version.subscription.events.contains(**kind))
            {
                by_kind[usize::from(kind.code())].push(*id);
            }
        }
        self.by_kind = by_kind;
    }

    /// Writes the batch, and once it is durable notifies everyone who is in it.
    fn commit(&mut self) -> Result<(), StoreError> {
        let store = &self.shared.store;
        let takes_strangers = store.has_room_for_strangers();
        self.shared
            .takes_strangers
            .store(takes_strangers, Ordering::Relaxed);
        if self.next.0 - self.counted_to.0 >= COUNT_EVERY {
            self.write_counts();
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        let events = mem::take(&mut self.batch.events);
        let callbacks = mem::take(&mut self.batch.callbacks);
        self.batch.bytes = 0;
        let store = &self.shared.store;
        let began = Instant::now();
        if let Err(error) = store.append(self.next, &events, &self.batch.progress) {
            // Before `callbacks` are dropped: who learns of it by that asks for the reason.
            self.shared.outage.begin(&error.chain());
            return Err(error);
        }
        self.shared.counts.commits.record(began.elapsed());
        self.batch.progress.clear();
        self.publish(&events, callbacks);
        for notify in self.batch.progressed.drain(..) {
            notify();
        }
        Ok(())
    }

    /// The order matters: readers rely on the head standing before the queues are filled.
    fn publish(&mut self, events: &[Arc<Event>], callbacks: Vec<OnCommit>) {
        let shared = &self.shared;
        let first = self.next;
        self.next = Seq(first.0 + events.len() as u64);
        shared.recent.push(events, shared.clock.now());
        shared.durable.store(self.next.0, Ordering::Release);
        for ((seq, event), on_commit) in (first.0..).zip(events).zip(callbacks) {
            shared.counts.count(event.kind);
            on_commit(Seq(seq), event);
        }
        shared.head.store(self.next.0, Ordering::Release);

        for (seq, event) in (first.0..).map(Seq).zip(events) {
            for id in &self.by_kind[usize::from(event.kind.code())] {
                if let Some(webhook) = self.webhooks.get_mut(id)
                    && webhook
                        .versions
                        .last()
                        .is_some_and(|version| version.subscription.wants(*id, event))
                {
                    webhook.matched.push(seq);
                }
            }
        }
        for webhook in self
            .webhooks
            .values_mut()
            .filter(|webhook| !webhook.matched.is_empty())
        {
            webhook.queue.push(&webhook.matched);
            webhook.matched.clear();
        }
        shared.queued.store(self.next.0, Ordering::Release);

        shared.grown.send_replace(self.next);
    }

    /// Adds every webhook's count, as of the events committed so far, to the batch.
    fn write_counts(&mut self) {
        let counted_to = self.next;
        let counts = self.webhooks.iter().map(|(id, webhook)| {
            let received = Received {
                count: webhook.queue.received(),
                counted_to,
            };
            Progress::Received(*id, received)
        });
        self.batch.progress.extend(counts);
        self.counted_to = counted_to;
    }
}

type Found = (WebhookId, Arc<[SubscriptionVersion]>, Cursor, Received);

/// Counts what was received since the counts were written down.
fn count_again(
    store: &dyn Store,
    webhooks: &mut [Found],
    range: Range<Seq>,
) -> Result<(), StoreError> {
    let mut from = range.start;
    while from < range.end {
        let events = store.read_from(from, ReadLimit::part(STRIDE))?;
        let Some((last, _)) = events.last() else {
            break;
        };
        from = last.next();
        for (id, versions, _, received) in webhooks.iter_mut() {
            let owed = events.iter().filter(|(seq, event)| {
                *seq >= received.counted_to && is_owed(*id, versions, *seq, event)
            });
            received.count += owed.count() as u64;
        }
    }
    Ok(())
}

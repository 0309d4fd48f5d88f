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
    fmt, mem,
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use async_trait::async_trait;
use pipelet_domain::{
    deliveries::{Cursor, Received, Subscription, SubscriptionVersion, is_owed},
    events::{Event, EventType, Seq},
    webhooks::WebhookId,
};
use tokio::{sync::oneshot, time::Instant};

use super::{ConsumerQueue, OnCommit, Request, Shared};
use crate::store::{
    BATCH_BYTES, Checkpoint, LogStore, ReadLimit, StoreError, group_commit::GroupWriter,
};

/// A batch is closed at this many events, or at [`BATCH_BYTES`] of them.
const MAX_EVENTS: usize = 4096;
/// The counts of received events are written down at least this often, in events: so many
/// have to be counted again at a start.
const COUNT_EVERY: u64 = 8192;
/// Events read at once while counting again.
const STRIDE: usize = 1024;

#[derive(Debug)]
pub(super) struct Committer {
    shared: Arc<Shared>,
    /// The position of the next event.
    next: Seq,
    webhooks: BTreeMap<WebhookId, Subscribed>,
    /// The webhooks that want a type, at its code.
    by_kind: Vec<Vec<WebhookId>>,
    /// Up to here, what every webhook received is written down.
    counted_to: Seq,
    batch: Batch,
    /// During an outage.
    suspended: bool,
}

#[derive(Debug)]
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
    checkpoints: Vec<Checkpoint>,
    /// Called once those are durable.
    progressed: Vec<Box<dyn FnOnce() + Send>>,
    /// Who asks how far every durable cursor has come.
    floors: Vec<oneshot::Sender<Seq>>,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events", self.events.len())
    }
}

impl Batch {
    /// Adds a checkpoint; who waits for it gets `value` once it is durable.
    fn note<T: Send + 'static>(
        &mut self,
        checkpoint: Checkpoint,
        done: oneshot::Sender<T>,
        value: T,
    ) {
        self.checkpoints.push(checkpoint);
        // Who has ended meanwhile needs no answer.
        self.progressed
            .push(Box::new(move || drop(done.send(value))));
    }
}

impl Committer {
    /// Finds every webhook's progress and counts again what it received since.
    pub(super) async fn recover(
        shared: Arc<Shared>,
        webhooks: Vec<(WebhookId, Subscription)>,
    ) -> Result<Self, StoreError> {
        let next = Seq(shared.head.load(Ordering::Acquire));
        let mut progress = shared.log.progress().await?;
        let mut found = Vec::new();
        for (id, _) in &webhooks {
            let known = progress.remove(id).unwrap_or_default();
            // One that was never written down has read nothing since it was created.
            let created = known.versions.first().map_or(next, |version| version.from);
            let cursor = known.cursor.unwrap_or_else(|| Cursor::at(created));
            let received = known.received.unwrap_or(Received {
                count: 0,
                counted_to: created,
            });
            found.push((*id, known.versions, cursor, received));
        }
        let counted = found.iter().map(|(_, _, _, received)| received.counted_to);
        let counted_to = counted.min().unwrap_or(next).min(next);
        count_again(shared.log.as_ref(), &mut found, counted_to..next).await?;
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
            suspended: false,
        };
        for (id, subscription) in webhooks {
            committer.subscribe(id, subscription, oneshot::channel().0);
        }
        // Of webhooks that were deleted, where a crash came before this was.
        let gone = progress.into_keys().map(Checkpoint::Gone);
        committer.batch.checkpoints.extend(gone);
        committer.index();
        Ok(committer)
    }

    pub(super) fn cursors(&self) -> impl Iterator<Item = (WebhookId, Arc<ConsumerQueue>, Cursor)> {
        let webhooks = self.webhooks.iter();
        webhooks.map(|(id, webhook)| (*id, Arc::clone(&webhook.queue), webhook.cursor.clone()))
    }

    /// One for a webhook that was deleted meanwhile is dropped, and `done` with it.
    fn note_cursor(&mut self, webhook: WebhookId, cursor: Cursor, done: oneshot::Sender<()>) {
        if let Some(subscribed) = self.webhooks.get_mut(&webhook) {
            subscribed.cursor = cursor.clone();
            self.batch
                .note(Checkpoint::Cursor(webhook, cursor), done, ());
        }
    }

    fn unsubscribe(&mut self, webhook: WebhookId, done: oneshot::Sender<()>) {
        self.webhooks.remove(&webhook);
        self.index();
        // Whatever else was to be written of it would outlive it.
        let checkpoints = &mut self.batch.checkpoints;
        checkpoints.retain(|checkpoint| checkpoint.webhook() != webhook);
        self.batch.note(Checkpoint::Gone(webhook), done, ());
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
        self.batch
            .checkpoints
            .push(Checkpoint::Received(id, received));
        let versions = Arc::clone(&webhook.versions);
        let changed = Checkpoint::Subscription(id, versions);
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

    async fn commit(&mut self) -> Result<(), StoreError> {
        let shared = &self.shared;
        let takes_strangers = shared.log.has_room_for_strangers();
        shared
            .takes_strangers
            .store(takes_strangers, Ordering::Relaxed);
        if self.next.0 - self.counted_to.0 >= COUNT_EVERY {
            self.write_counts();
        }
        let events: Arc<[_]> = mem::take(&mut self.batch.events).into();
        let callbacks = mem::take(&mut self.batch.callbacks);
        self.batch.bytes = 0;
        if !events.is_empty() || !self.batch.checkpoints.is_empty() {
            let checkpoints: Arc<[_]> = mem::take(&mut self.batch.checkpoints).into();
            let began = Instant::now();
            let log = &self.shared.log;
            let appended = log.append(Arc::clone(&events), Arc::clone(&checkpoints));
            match appended.await {
                Ok(first) => {
                    self.shared.counts.commits.record(began.elapsed());
                    self.publish(first, &events, callbacks);
                }
                Err(error) => {
                    self.batch.checkpoints = checkpoints.to_vec();
                    // Before `callbacks` are dropped: who learns of it by that asks for the reason.
                    self.shared.outage.begin(&error.chain());
                    return Err(error);
                }
            }
        }
        for notify in self.batch.progressed.drain(..) {
            notify();
        }
        self.answer_floors();
        Ok(())
    }

    fn answer_floors(&mut self) {
        let floors = self.webhooks.values().map(|webhook| webhook.cursor.floor());
        let floor = floors.min().unwrap_or(self.next).min(self.counted_to);
        for done in self.batch.floors.drain(..) {
            // A retention that has to end asks no more.
            let _ = done.send(floor);
        }
    }

    /// The order matters: readers rely on the head standing before the queues are filled.
    fn publish(&mut self, first: Seq, events: &[Arc<Event>], callbacks: Vec<OnCommit>) {
        let shared = &self.shared;
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
            Checkpoint::Received(*id, received)
        });
        self.batch.checkpoints.extend(counts);
        self.counted_to = counted_to;
    }
}

#[async_trait]
impl GroupWriter for Committer {
    type Request = Request;

    fn take(&mut self, request: Request) -> Option<Request> {
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
            // What came before it is owed by what held then.
            Request::Subscribe { .. } if !self.batch.events.is_empty() => return Some(request),
            Request::Subscribe {
                webhook,
                subscription,
                done,
            } => self.subscribe(webhook, subscription, done),
            Request::Unsubscribe { webhook, done } => self.unsubscribe(webhook, done),
            Request::Floor { done } => {
                // No events come that would have the counts written down.
                if self.suspended && self.counted_to < self.next {
                    self.write_counts();
                }
                self.batch.floors.push(done);
            }
        }
        None
    }

    fn is_empty(&self) -> bool {
        let Batch {
            events,
            checkpoints,
            floors,
            ..
        } = &self.batch;
        events.is_empty() && checkpoints.is_empty() && floors.is_empty()
    }

    fn is_full(&self) -> bool {
        self.batch.events.len() >= MAX_EVENTS || self.batch.bytes >= BATCH_BYTES
    }

    async fn write(&mut self) -> Result<(), StoreError> {
        self.commit().await?;
        if self.suspended {
            // A disk that is too full for events may have had room for checkpoints.
            self.shared.log.check().await?;
        }
        Ok(())
    }

    fn suspend(&mut self, error: &StoreError) {
        let error = error.chain();
        if !self.suspended {
            tracing::error!(
                error,
                "the journal takes no events until the store works again"
            );
        }
        self.suspended = true;
        self.shared.outage.begin(&error);
        // They ask the reason.
        self.batch.floors.clear();
    }

    fn resume(&mut self) {
        self.suspended = false;
        self.shared.outage.end();
        tracing::info!("the journal takes events again");
    }

    /// Events are refused. What is only noted waits in the batch.
    fn take_suspended(&mut self, request: Request) {
        if !matches!(request, Request::Append { .. }) {
            // Without events in the batch nothing has to wait for it.
            let _ = self.take(request);
        }
    }

    fn finish(&mut self) {
        self.write_counts();
    }
}

type Found = (WebhookId, Arc<[SubscriptionVersion]>, Cursor, Received);

/// Counts what was received since the counts were written down.
async fn count_again(
    log: &dyn LogStore,
    webhooks: &mut [Found],
    range: Range<Seq>,
) -> Result<(), StoreError> {
    let mut from = range.start;
    while from < range.end {
        let events = log.read_from(from, ReadLimit::part(STRIDE)).await?;
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

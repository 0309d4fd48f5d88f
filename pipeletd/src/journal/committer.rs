//! The one writer of the journal: batches, flushes, and only then tells.
//!
//! What arrives while one flush runs goes into the next batch. A batch is one atomic write of
//! its events and of the progress that webhooks reported, one flush, one sync.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, atomic::Ordering},
    thread,
};

use tokio::sync::{mpsc, oneshot};

use super::{Feed, Position, Request, Shared, Then};
use crate::{
    delivery::record::{Cursor, Epoch, Received, is_owed},
    events::{Event, EventType, Seq},
    store::{Progress, Store, StoreError},
    webhooks::WebhookId,
};

/// A batch is closed at this many events, or at this many bytes of them.
const MAX_EVENTS: usize = 4096;
const MAX_BYTES: usize = 4 << 20;
/// The counts of received events are written down at least this often, in events: so many
/// have to be counted again at a start.
const COUNT_EVERY: u64 = 8192;
/// Events read at once while counting again.
const STRIDE: usize = 1024;

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
    feed: Arc<Feed>,
    /// The last one is in force.
    epochs: Vec<Epoch>,
    /// As it was last written down.
    cursor: Cursor,
    /// Matched in the batch that is being committed.
    matched: Vec<Seq>,
}

/// What is gathered for the next write.
#[derive(Default)]
struct Batch {
    events: Vec<Arc<Event>>,
    thens: Vec<Then>,
    bytes: usize,
    progress: Vec<Progress>,
    checkpointed: Vec<oneshot::Sender<()>>,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.events.len() >= MAX_EVENTS || self.bytes >= MAX_BYTES
    }

    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.progress.is_empty()
    }
}

impl Committer {
    /// Finds every webhook's progress and counts again what it received since.
    pub(super) fn recover(
        shared: Arc<Shared>,
        webhooks: Vec<(WebhookId, Vec<Epoch>)>,
    ) -> Result<Self, StoreError> {
        let next = Seq(shared.head.load(Ordering::Acquire));
        let cursors: BTreeMap<_, _> = shared.store.cursors()?.into_iter().collect();
        let counts: BTreeMap<_, _> = shared.store.received()?.into_iter().collect();
        let mut found = Vec::new();
        for (id, epochs) in webhooks {
            // One that was never written down has read nothing since it was created.
            let created = epochs.first().map_or(next, |epoch| epoch.from);
            let cursor = cursors
                .get(&id)
                .cloned()
                .unwrap_or_else(|| Cursor::at(created));
            let unknown = Received {
                count: 0,
                counted_to: created,
            };
            let received = counts.get(&id).copied().unwrap_or(unknown);
            found.push((id, epochs, cursor, received));
        }
        count_again(shared.store.as_ref(), &mut found, next)?;
        let subscribed = found.into_iter().map(|(id, epochs, cursor, received)| {
            let feed = Arc::new(Feed::lagging(epochs.clone(), received.count));
            (
                id,
                Subscribed {
                    feed,
                    epochs,
                    cursor,
                    matched: Vec::new(),
                },
            )
        });
        let mut committer = Self {
            shared,
            next,
            webhooks: subscribed.collect(),
            by_kind: Vec::new(),
            counted_to: next,
            batch: Batch::default(),
        };
        committer.index();
        Ok(committer)
    }

    pub(super) fn cursors(&self) -> impl Iterator<Item = (WebhookId, Arc<Feed>, Cursor)> {
        let webhooks = self.webhooks.iter();
        webhooks.map(|(id, webhook)| (*id, Arc::clone(&webhook.feed), webhook.cursor.clone()))
    }

    pub(super) fn start(
        mut self,
        mut queue: mpsc::Receiver<Request>,
    ) -> Result<CommitterThread, StoreError> {
        let (done, ended) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                let result = self.run(&mut queue);
                if let Err(error) = &result {
                    // Before the queue is dropped: who finds it closed asks for the reason.
                    let _ = self.shared.failure.set(error.to_string());
                }
                // Nobody listens any more when the process is ending anyway.
                let _ = done.send(result);
            });
        thread.map_err(StoreError::Sync)?;
        Ok(CommitterThread(ended))
    }

    fn run(&mut self, queue: &mut mpsc::Receiver<Request>) -> Result<(), StoreError> {
        while let Some(mut request) = queue.blocking_recv() {
            loop {
                if let Some(stopped) = self.take(request)? {
                    self.finish(queue)?;
                    let _ = stopped.send(());
                    return Ok(());
                }
                if self.batch.is_full() {
                    break;
                }
                match queue.try_recv() {
                    Ok(next) => request = next,
                    Err(_) => break,
                }
            }
            self.commit()?;
        }
        Ok(())
    }

    /// Commits what is still queued, and writes the counts down.
    fn finish(&mut self, queue: &mut mpsc::Receiver<Request>) -> Result<(), StoreError> {
        queue.close();
        while let Ok(request) = queue.try_recv() {
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
            Request::Append { event, then } => {
                self.batch.bytes += event.size();
                self.batch.events.push(Arc::new(event));
                self.batch.thens.push(then);
            }
            Request::Checkpoint {
                webhook,
                cursor,
                done,
            } => {
                // One for a webhook that was deleted meanwhile is dropped, and `done` with it.
                if let Some(subscribed) = self.webhooks.get_mut(&webhook) {
                    subscribed.cursor = cursor.clone();
                    self.batch.progress.push(Progress::Cursor(webhook, cursor));
                    self.batch.checkpointed.push(done);
                }
            }
            Request::Subscribe {
                webhook,
                persist,
                done,
            } => {
                self.commit()?;
                let cursor = self.webhooks.get(&webhook).map(|webhook| &webhook.cursor);
                let floor = cursor.map_or(self.next, Cursor::floor);
                if let Some(epochs) = persist(Position {
                    at: self.next,
                    floor,
                }) {
                    let _ = done.send(self.subscribe(webhook, epochs));
                }
            }
            Request::Unsubscribe { webhook, done } => {
                self.commit()?;
                self.webhooks.remove(&webhook);
                self.index();
                self.batch.progress.push(Progress::Gone(webhook));
                self.commit()?;
                let _ = done.send(());
            }
            Request::Floor { done } => {
                let floors = self.webhooks.values().map(|webhook| webhook.cursor.floor());
                let floor = floors.min().unwrap_or(self.next).min(self.counted_to);
                let _ = done.send(floor);
            }
            Request::Stop { done } => return Ok(Some(done)),
        }
        Ok(None)
    }

    fn subscribe(&mut self, id: WebhookId, epochs: Vec<Epoch>) -> Arc<Feed> {
        let next = self.next;
        let webhook = self.webhooks.entry(id).or_insert_with(|| Subscribed {
            feed: Arc::new(Feed::lagging(Vec::new(), 0)),
            epochs: Vec::new(),
            cursor: Cursor::at(next),
            matched: Vec::new(),
        });
        webhook.feed.set_epochs(epochs.clone());
        webhook.epochs = epochs;
        let feed = Arc::clone(&webhook.feed);
        self.index();
        feed
    }

    fn index(&mut self) {
        let mut by_kind = vec![Vec::new(); usize::from(u8::MAX)];
        for (id, webhook) in &self.webhooks {
            let Some(epoch) = webhook.epochs.last().filter(|epoch| epoch.enabled) else {
                continue;
            };
            for kind in EventType::ALL
                .iter()
                .filter(|kind| epoch.events.contains(**kind))
            {
                by_kind[usize::from(kind.code())].push(*id);
            }
        }
        self.by_kind = by_kind;
    }

    /// Writes the batch, and once it is durable tells everyone who is in it.
    fn commit(&mut self) -> Result<(), StoreError> {
        if self.next.0 - self.counted_to.0 >= COUNT_EVERY {
            self.write_counts();
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        let Batch {
            events,
            thens,
            progress,
            checkpointed,
            bytes: _,
        } = mem::take(&mut self.batch);
        self.shared.store.append(self.next, &events, &progress)?;
        self.publish(&events, thens);
        for done in checkpointed {
            // A dispatcher that has ended meanwhile needs no answer.
            let _ = done.send(());
        }
        Ok(())
    }

    /// The order matters: readers rely on the head standing before the feeds are filled.
    fn publish(&mut self, events: &[Arc<Event>], thens: Vec<Then>) {
        let shared = &self.shared;
        shared.recent.push(events);
        for ((seq, event), then) in (self.next.0..).zip(events).zip(thens) {
            then(Seq(seq), event);
        }
        let first = self.next;
        self.next = Seq(first.0 + events.len() as u64);
        shared.head.store(self.next.0, Ordering::Release);

        for (seq, event) in (first.0..).map(Seq).zip(events) {
            for id in &self.by_kind[usize::from(event.kind.code())] {
                if let Some(webhook) = self.webhooks.get_mut(id)
                    && webhook
                        .epochs
                        .last()
                        .is_some_and(|epoch| epoch.wants(event))
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
            webhook.feed.push(&webhook.matched);
            webhook.matched.clear();
        }
        shared.fed.store(self.next.0, Ordering::Release);

        if shared.tail.receiver_count() > 0 {
            for (seq, event) in (first.0..).map(Seq).zip(events) {
                let _ = shared.tail.send((seq, Arc::clone(event)));
            }
        }
    }

    /// Adds every webhook's count, as of the events committed so far, to the batch.
    fn write_counts(&mut self) {
        let counted_to = self.next;
        let counts = self.webhooks.iter().map(|(id, webhook)| {
            let received = Received {
                count: webhook.feed.received(),
                counted_to,
            };
            Progress::Received(*id, received)
        });
        self.batch.progress.extend(counts);
        self.counted_to = counted_to;
    }
}

type Found = (WebhookId, Vec<Epoch>, Cursor, Received);

/// Counts what was received since the counts were written down.
fn count_again(store: &dyn Store, webhooks: &mut [Found], head: Seq) -> Result<(), StoreError> {
    let counted = webhooks
        .iter()
        .map(|(_, _, _, received)| received.counted_to);
    let mut from = counted.min().unwrap_or(head);
    while from < head {
        let events = store.read_from(from, STRIDE)?;
        let Some((last, _)) = events.last() else {
            break;
        };
        from = last.next();
        for (_, epochs, _, received) in webhooks.iter_mut() {
            let owed = events
                .iter()
                .filter(|(seq, event)| *seq >= received.counted_to && is_owed(epochs, *seq, event));
            received.count += owed.count() as u64;
        }
    }
    Ok(())
}

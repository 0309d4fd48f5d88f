//! The journal: every event once, on disk before anyone is notified.
//!
//! [`Journal`] is the handle. Behind it one thread, the committer, gathers what arrives while a
//! flush runs into the next batch, writes it with the progress that webhooks made meanwhile, and
//! then notifies everyone in the batch. While the store can't write, events are refused at once and
//! everything else waits. A webhook reads through a [`Reader`]: live from a bounded
//! ring of recent events, from the store once it has fallen behind. Whoever only looks [follows]
//! the journal, or [looks things up](Journal::latest) in it.
//!
//! [follows]: Journal::follow
//!
//! Knows what a webhook wants, but nothing of its URL, of HTTP, of OCPP or of the API.

mod committer;
mod consumer_queue;
mod counts;
mod fetch;
mod follower;
mod journals;
mod query;
mod reader;
mod recent;
pub mod retention;

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{Cursor, Subscription},
    events::{Event, EventType, Seq},
    webhooks::WebhookId,
};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::{committer::Committer, consumer_queue::ConsumerQueue, counts::Counts, recent::Recent};
pub use self::{
    fetch::Fetched,
    follower::{Followed, Follower},
    journals::{FollowerOfAll, Journals, LatestOfAll},
    query::Latest,
    reader::{Read, Reader, Subscriber},
};
use crate::{
    store::{
        LogStore, Outage, StoreError,
        group_commit::{GroupCommit, WriterThread},
    },
    system::{
        clock::Clock,
        latencies::LatencySnapshot,
        limits::memory::{FifoPool, MemoryBudget},
    },
};

/// Requests that may wait for the committer; further ones wait for room.
const QUEUE: usize = 16 * 1024;

/// Appends events and opens readers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    committer: GroupCommit<Request>,
    shared: Arc<Shared>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    #[error("the journal has stopped")]
    Stopped,
    #[error("the journal can't take events: {0}")]
    Failing(Arc<str>),
}

/// A journal that was opened, with each webhook's place in it and the end of the committer.
#[derive(Debug)]
pub struct Opened {
    pub journal: Journal,
    pub subscribers: Vec<(Subscriber, Cursor)>,
    pub committer: WriterThread,
}

/// What the committer, the handles and the readers share.
#[derive(Debug)]
struct Shared {
    log: Arc<dyn LogStore>,
    /// Events below are forgotten, and some more may be.
    oldest: AtomicU64,
    /// Events below are on disk. Who looks things up sees all of them, so that whoever was notified
    /// of an event finds it.
    durable: AtomicU64,
    /// Events below are on disk, and those who waited for that were notified.
    head: AtomicU64,
    /// Events below were handed to every queue that wants them; never above `head`.
    queued: AtomicU64,
    recent: Recent,
    incoming: FifoPool,
    /// Tells followers what `head` has become.
    grown: watch::Sender<Seq>,
    /// Whether the disk has room for what strangers send.
    takes_strangers: AtomicBool,
    /// Why no events are taken now, or why the committer has ended.
    outage: Outage,
    counts: Counts,
    clock: Clock,
}

/// Runs on the committer's thread once the event is durable.
type OnCommit = Box<dyn FnOnce(Seq, &Event) + Send>;

enum Request {
    Append {
        event: Event,
        on_commit: OnCommit,
    },
    Checkpoint {
        webhook: WebhookId,
        cursor: Cursor,
        done: oneshot::Sender<()>,
    },
    Subscribe {
        webhook: WebhookId,
        subscription: Subscription,
        done: oneshot::Sender<(Arc<ConsumerQueue>, Cursor)>,
    },
    Unsubscribe {
        webhook: WebhookId,
        done: oneshot::Sender<()>,
    },
    Floor {
        done: oneshot::Sender<Seq>,
    },
}

impl Journal {
    /// Opens the journal of a log for these webhooks and starts the committer. Must be called
    /// within a runtime. Once `ending` is cancelled, an outage of the store is not waited out
    /// any more.
    ///
    /// A subscription that the journal doesn't know yet takes effect at its end. Where the store
    /// has an outage now, the journal begins with it.
    ///
    /// Counts again what each webhook received since it was last written down, which is a
    /// bounded number of events however long the journal is.
    pub async fn open(
        log: Arc<dyn LogStore>,
        webhooks: Vec<(WebhookId, Subscription)>,
        memory: &MemoryBudget,
        clock: Clock,
        ending: CancellationToken,
    ) -> Result<Opened, StoreError> {
        let Range { start, end: head } = log.bounds().await?;
        let shared = Arc::new(Shared {
            takes_strangers: AtomicBool::new(log.has_room_for_strangers()),
            log,
            oldest: AtomicU64::new(start.0),
            durable: AtomicU64::new(head.0),
            head: AtomicU64::new(head.0),
            queued: AtomicU64::new(head.0),
            recent: Recent::starting_at(head, memory.recent),
            incoming: memory.incoming.clone(),
            grown: watch::Sender::new(head),
            outage: Outage::default(),
            counts: Counts::default(),
            clock,
        });
        let committer = Committer::recover(Arc::clone(&shared), webhooks).await?;
        let outage = match shared.log.check().await {
            Err(error) if error.is_outage() => Some(error),
            checked => checked.map(|()| None)?,
        };
        let cursors: Vec<_> = committer.cursors().collect();
        let started = GroupCommit::start("journal", committer, QUEUE, ending, outage);
        let (committer, thread) = started?;
        let journal = Self { committer, shared };
        let subscribers = cursors.into_iter();
        let subscribers = subscribers
            .map(|(webhook, queue, cursor)| (journal.subscriber(webhook, queue), cursor))
            .collect();
        Ok(Opened {
            journal,
            subscribers,
            committer: thread,
        })
    }

    /// Appends an event and waits until it is durable.
    ///
    /// `then` runs on the committer's thread once the event is on disk, in the journal's order,
    /// before `head` counts it and before any reader sees it. It must be quick and must not
    /// block. Its value is what the caller gets.
    pub async fn append<T, F>(&self, event: Event, then: F) -> Result<T, AppendError>
    where
        T: Send + 'static,
        F: FnOnce(Seq, &Event) -> T + Send + 'static,
    {
        self.check()?;
        let memory = self.shared.incoming.take(event.memory_size()).await;
        let (done, committed) = oneshot::channel();
        let on_commit: OnCommit = Box::new(move |seq, event| {
            // Held until then, whatever becomes of the caller.
            drop(memory);
            // A caller that went away doesn't undo what is on disk.
            let _ = done.send(then(seq, event));
        });
        self.send(Request::Append { event, on_commit }).await?;
        committed.await.map_err(|_| self.ended())
    }

    /// In bytes: what the ring of recent events takes.
    pub fn recent_bytes(&self) -> usize {
        self.shared.recent.bytes()
    }

    /// When the event at this position came to disk; known of recent ones.
    pub fn durable_at(&self, seq: Seq) -> Option<Timestamp> {
        self.shared.recent.durable_at(seq)
    }

    /// Whether stations may append that nobody has registered: they leave some of the disk to the
    /// others. Looked at with every batch, and every ten seconds; once there was no room, whenever
    /// it is asked, since there may be no batch before they are let in again.
    pub fn takes_strangers(&self) -> bool {
        let shared = &self.shared;
        shared.takes_strangers.load(Ordering::Relaxed) || shared.log.has_room_for_strangers()
    }

    /// The position that the next event will have.
    pub fn head(&self) -> Seq {
        Seq(self.shared.head.load(Ordering::Acquire))
    }

    /// Adds a webhook, or changes what it wants, from the next event on. A revision before the one
    /// that holds changes nothing. Returns once that is durable, with the webhook's cursor; during
    /// an outage, once that is over.
    pub async fn subscribe(
        &self,
        webhook: WebhookId,
        subscription: Subscription,
    ) -> Result<(Subscriber, Cursor), AppendError> {
        let (done, subscribed) = oneshot::channel();
        self.send(Request::Subscribe {
            webhook,
            subscription,
            done,
        })
        .await?;
        let (queue, cursor) = subscribed.await.map_err(|_| self.ended())?;
        Ok((self.subscriber(webhook, queue), cursor))
    }

    fn subscriber(&self, webhook: WebhookId, queue: Arc<ConsumerQueue>) -> Subscriber {
        Subscriber {
            webhook,
            journal: self.clone(),
            queue,
        }
    }

    /// Forgets a webhook and its progress, durably.
    pub async fn unsubscribe(&self, webhook: WebhookId) -> Result<(), AppendError> {
        let (done, forgotten) = oneshot::channel();
        self.send(Request::Unsubscribe { webhook, done }).await?;
        forgotten.await.map_err(|_| self.ended())
    }

    /// Writes a webhook's cursor down with the next batch. The receiver resolves once it is
    /// durable.
    pub async fn checkpoint(
        &self,
        webhook: WebhookId,
        cursor: Cursor,
    ) -> Result<oneshot::Receiver<()>, AppendError> {
        let (done, durable) = oneshot::channel();
        self.send(Request::Checkpoint {
            webhook,
            cursor,
            done,
        })
        .await?;
        Ok(durable)
    }

    /// From the oldest event that is kept to the position of the next one.
    pub async fn bounds(&self) -> Result<Range<Seq>, StoreError> {
        self.shared.log.bounds().await
    }

    /// Below this, no webhook needs an event any more.
    pub async fn floor(&self) -> Result<Seq, AppendError> {
        let (done, floor) = oneshot::channel();
        self.send(Request::Floor { done }).await?;
        floor.await.map_err(|_| self.ended())
    }

    /// Commits what was sent so far and ends the committer.
    pub async fn stop(&self) {
        self.committer.stop().await;
    }

    /// How many events of each type were committed since the daemon started.
    pub fn committed(&self) -> impl Iterator<Item = (EventType, u64)> {
        let counts = &self.shared.counts;
        EventType::ALL.iter().map(|kind| (*kind, counts.of(*kind)))
    }

    /// How long it took to have a batch on disk: written, flushed and synced.
    pub fn commit_latencies(&self) -> LatencySnapshot {
        self.shared.counts.commits.snapshot()
    }

    /// Why the journal takes no events, if it doesn't.
    pub fn outage(&self) -> Option<Arc<str>> {
        self.shared.outage.check().err()
    }

    /// Fails while no events are taken.
    pub fn check(&self) -> Result<(), AppendError> {
        self.shared.outage.check().map_err(AppendError::Failing)
    }

    async fn send(&self, request: Request) -> Result<(), AppendError> {
        self.committer.send(request).await.map_err(|_| self.ended())
    }

    fn ended(&self) -> AppendError {
        let outage = self.shared.outage.check();
        outage.map_or_else(AppendError::Failing, |()| AppendError::Stopped)
    }
}

#[cfg(test)]
mod tests;

//! One webhook's way through the journal, forward.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use pipelet_domain::{
    deliveries::{Cursor, SubscriptionVersion, is_owed},
    events::{Event, Seq},
    webhooks::WebhookId,
};

use super::{
    Journal,
    consumer_queue::{ConsumerBatch, ConsumerQueue},
    fetch::Fetched,
};
use crate::store::{ReadLimit, StoreError};

/// Reads what one webhook is owed, each event once and in order.
#[derive(Debug)]
pub struct Reader {
    subscriber: Subscriber,
    /// The cursor that it started with.
    start: Cursor,
    position: Seq,
    /// Taken out of the queue and not read yet, in ascending order.
    taken: VecDeque<Seq>,
}

/// What a reader found.
#[derive(Debug)]
pub struct Read {
    /// Owed events, in order.
    pub events: Vec<(Seq, Arc<Event>)>,
    /// There is nothing more to read now.
    pub caught_up: bool,
}

impl Reader {
    /// The cursor that was found at the start.
    pub fn start(&self) -> &Cursor {
        &self.start
    }

    pub const fn subscriber(&self) -> &Subscriber {
        &self.subscriber
    }

    /// Everything that is owed below this position was returned by [`Self::read`].
    pub fn position(&self) -> Seq {
        self.position
    }

    /// Resolves when there may be more to read.
    pub async fn woken(&self) {
        self.subscriber.queue.wake.notified().await;
    }

    /// Reads events forward; fewer than there is room for where it had to pass many that are not
    /// owed.
    pub async fn read(&mut self, limit: ReadLimit) -> Result<Read, StoreError> {
        if !self.taken.is_empty() {
            return self.read_taken(limit, false).await;
        }
        // Loaded before the queue is looked into: what is below it was pushed before.
        let queued = Seq(self
            .subscriber
            .journal
            .shared
            .queued
            .load(Ordering::Acquire));
        // Loaded before the versions are: they hold for every event below it.
        let head = self.subscriber.journal.head();
        let Subscriber {
            webhook,
            journal,
            queue,
        } = &self.subscriber;
        match queue.take(self.position, limit.count, || journal.head()) {
            ConsumerBatch::Live { seqs, drained } => {
                self.taken.extend(seqs);
                let read = self.read_taken(limit, drained).await?;
                if read.caught_up {
                    self.position = self.position.max(queued);
                }
                Ok(read)
            }
            ConsumerBatch::Lagging(versions) => {
                let mut events = journal.read_from(self.position, limit).await?;
                events.retain(|(seq, _)| *seq < head);
                if let Some((last, _)) = events.last() {
                    self.position = last.next();
                }
                events.retain(|(seq, event)| is_owed(*webhook, &versions, *seq, event));
                Ok(Read {
                    events,
                    caught_up: false,
                })
            }
        }
    }

    /// Reads of what was taken out of the queue, which is all that is owed where that is `drained`.
    async fn read_taken(&mut self, limit: ReadLimit, drained: bool) -> Result<Read, StoreError> {
        let seqs = self.taken.make_contiguous();
        let seqs = &seqs[..seqs.len().min(limit.count)];
        let fetched = self.subscriber.journal.fetch(seqs, limit).await?;
        if let Some(last) = self.taken.drain(..fetched.looked_at).next_back() {
            self.position = last.next();
        }
        Ok(Read {
            events: fetched.events,
            caught_up: drained && self.taken.is_empty(),
        })
    }

    /// Of the events at these positions, which ascend, those that there is room for, wherever
    /// they are kept.
    pub async fn fetch(&self, seqs: &[Seq], limit: ReadLimit) -> Result<Fetched, StoreError> {
        self.subscriber.journal.fetch(seqs, limit).await
    }
}

/// A webhook's place in the journal: what it wants, and how much it has been owed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Subscriber {
    pub(super) webhook: WebhookId,
    pub(super) journal: Journal,
    pub(super) queue: Arc<ConsumerQueue>,
}

impl Subscriber {
    pub const fn webhook(&self) -> WebhookId {
        self.webhook
    }

    /// What the webhook wants, and as long as it is kept what it wanted before; by ascending
    /// position, and never empty.
    pub fn versions(&self) -> Arc<[SubscriptionVersion]> {
        self.queue.versions()
    }

    /// How many events the webhook has been owed in all.
    pub fn received(&self) -> u64 {
        self.queue.received()
    }

    /// Reads what the webhook is owed from this cursor on. A webhook has one reader at a time.
    pub fn read_from(&self, start: Cursor) -> Reader {
        Reader {
            subscriber: self.clone(),
            position: start.read_to,
            start,
            taken: VecDeque::new(),
        }
    }
}

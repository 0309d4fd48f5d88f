//! One webhook's way through the journal, forward.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use pipelet_domain::{
    deliveries::{Cursor, is_owed},
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
    webhook: WebhookId,
    journal: Journal,
    queue: Arc<ConsumerQueue>,
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
    pub(super) fn new(
        webhook: WebhookId,
        journal: Journal,
        queue: Arc<ConsumerQueue>,
        start: Cursor,
    ) -> Self {
        let position = start.read_to;
        Self {
            webhook,
            journal,
            queue,
            start,
            position,
            taken: VecDeque::new(),
        }
    }

    /// The cursor that was found at the start.
    pub fn start(&self) -> &Cursor {
        &self.start
    }

    /// Everything that is owed below this position was returned by [`Self::read`].
    pub fn position(&self) -> Seq {
        self.position
    }

    /// How many events the webhook has been owed in all.
    pub fn received(&self) -> ReceivedCount {
        ReceivedCount(Arc::clone(&self.queue))
    }

    /// Resolves when there may be more to read.
    pub async fn woken(&self) {
        self.queue.wake.notified().await;
    }

    /// Reads events forward; fewer than there is room for where it had to pass many that are not
    /// owed.
    pub async fn read(&mut self, limit: ReadLimit) -> Result<Read, StoreError> {
        if !self.taken.is_empty() {
            return self.read_taken(limit, false).await;
        }
        // Loaded before the queue is looked into: what is below it was pushed before.
        let queued = Seq(self.journal.shared.queued.load(Ordering::Acquire));
        // Loaded before the versions are: they hold for every event below it.
        let head = self.journal.head();
        match self
            .queue
            .take(self.position, limit.count, || self.journal.head())
        {
            ConsumerBatch::Live { seqs, drained } => {
                self.taken.extend(seqs);
                let read = self.read_taken(limit, drained).await?;
                if read.caught_up {
                    self.position = self.position.max(queued);
                }
                Ok(read)
            }
            ConsumerBatch::Lagging(versions) => {
                let mut events = self.journal.read_from(self.position, limit).await?;
                events.retain(|(seq, _)| *seq < head);
                if let Some((last, _)) = events.last() {
                    self.position = last.next();
                }
                events.retain(|(seq, event)| is_owed(self.webhook, &versions, *seq, event));
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
        let fetched = self.journal.fetch(seqs, limit).await?;
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
        self.journal.fetch(seqs, limit).await
    }
}

/// A live count of what a webhook has been owed in all. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ReceivedCount(Arc<ConsumerQueue>);

impl ReceivedCount {
    pub fn count(&self) -> u64 {
        self.0.received()
    }
}

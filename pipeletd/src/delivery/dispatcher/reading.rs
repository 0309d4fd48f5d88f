//! How a dispatcher gets its jobs: forward from the cursor, and from the retries that are due.
//!
//! Nothing is loaded that was not reserved in the memory budget before.

use std::sync::Arc;

use pipelet_domain::{
    deliveries::{DeadReason, FailedDelivery, FailedId, Retry, RetryKey},
    events::{Event, Seq},
};

use super::{
    DispatchError, Dispatcher, Durable, Job, MAX_RETRYING, Origin, RETRY_WINDOW, STRIDE, WINDOW,
    due_time,
};
use crate::{
    delivery::ledger::Entry,
    store::{ReadLimit, StoreError},
};

impl Dispatcher {
    pub(super) fn wants_to_read(&self) -> bool {
        let is_behind = self.may_read || !self.unloaded.is_empty();
        // A disabled webhook that is owed nothing goes along, so that the journal is free to go.
        let is_wanted = self.webhook.enabled || self.owed.is_empty();
        is_behind
            && is_wanted
            && self.has_room()
            && self.context.ledger.counts(self.id()).retrying < MAX_RETRYING
    }

    pub(super) async fn read_forward(&mut self) -> Result<(), DispatchError> {
        if self.wants_to_read() {
            self.read_stride().await?;
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.store_rests.is_none() && self.queues.len() < WINDOW && !self.memory.is_exhausted()
    }

    /// Loads what is owed and was read before; where there is none, what comes next.
    async fn read_stride(&mut self) -> Result<(), DispatchError> {
        let Some(reserved) = self.memory.reserve() else {
            return Ok(());
        };
        let read = self.read(reserved.bytes).await;
        let loaded = read.as_ref().map_or(&[][..], Vec::as_slice);
        let loaded = loaded.iter().map(|(_, event)| event.memory_size()).sum();
        self.memory.settle(reserved, loaded);
        let oldest = self.context.clock.ago(self.settings.backlog_age);
        for (seq, event) in read? {
            if self.off_cursor_ahead.remove(&seq) {
                self.memory.give_back(event.memory_size());
                self.off_cursor.push(seq);
                self.dirty = true;
            } else if event.time <= oldest {
                self.give_up_unattempted(seq, event).await?;
            } else {
                self.load(seq, event);
            }
        }
        Ok(())
    }

    /// Reads so many bytes of what [`Self::read_stride`] loads.
    async fn read(&mut self, bytes: usize) -> Result<Vec<(Seq, Arc<Event>)>, StoreError> {
        let count = WINDOW.saturating_sub(self.queues.len()).min(STRIDE);
        let limit = ReadLimit { count, bytes };
        if self.unloaded.is_empty() {
            let read = self.reader.read(limit).await?;
            self.may_read = !read.caught_up;
            return Ok(read.events);
        }
        let seqs: Vec<_> = self.unloaded.iter().copied().take(count).collect();
        let fetched = self.reader.fetch(&seqs, limit).await?;
        // Those that are no longer kept are owed no longer; the others are loaded now.
        for seq in &seqs[..fetched.looked_at] {
            self.unloaded.remove(seq);
            self.owed.remove(seq);
        }
        Ok(fetched.events)
    }

    fn load(&mut self, seq: Seq, event: Arc<Event>) {
        self.owed.insert(seq);
        self.enqueue(event, Origin::Live(seq));
    }

    fn enqueue(&mut self, event: Arc<Event>, origin: Origin) {
        let station = event.station.clone();
        self.queues.push(&station, Job { event, origin });
    }

    /// Lets go of what is not in flight: it is loaded again once it is needed.
    pub(super) fn unload(&mut self) {
        for job in self.queues.remove(|_| true) {
            let bytes = job.memory_size();
            match job.origin {
                Origin::Live(seq) => {
                    self.memory.give_back(bytes);
                    self.unloaded.insert(seq);
                }
                Origin::Retry(retry) => self.unload_retry(retry.key, bytes),
            }
        }
    }

    /// The retry waits for its time again.
    pub(super) fn unload_retry(&mut self, key: RetryKey, bytes: usize) {
        self.retry_memory.give_back(bytes);
        self.loaded_retries.remove(&key);
        // The last look for what is due passed it over.
        self.expect(due_time(key));
    }

    /// Of an event that was read, and its memory counted.
    pub(super) async fn give_up_unattempted(
        &mut self,
        seq: Seq,
        event: Arc<Event>,
    ) -> Result<(), DispatchError> {
        self.owed.insert(seq);
        let failed = FailedDelivery {
            // The ledger gives it its number.
            id: FailedId(0),
            webhook: self.id(),
            seq,
            event,
            attempts: Vec::new(),
            reason: DeadReason::TooOld,
            failed_at: self.context.clock.now(),
            last_response: None,
        };
        let (webhook, event) = (self.id().0, Arc::clone(&failed.event));
        let progress = Arc::clone(&self.progress);
        let notify = move || {
            progress.stats.gave_up();
            tracing::warn!(
                webhook, event_id = %event.id, event = %event.kind, station = %event.station,
                error = "it could not be attempted for too long", "dead-lettered"
            );
        };
        let bytes = failed.event.memory_size();
        let due = None;
        let then = Durable::OffCursor { seq, due, bytes };
        let entry = Entry::OffCursorDead { failed };
        self.record_and_notify(entry, then, notify).await
    }

    pub(super) fn may_load_retries(&self) -> bool {
        self.webhook.enabled
            && self.store_rests.is_none()
            && self.next_due.is_some()
            && self.loaded_retries.len() <= RETRY_WINDOW / 2
            && !self.retry_memory.is_exhausted()
    }

    pub(super) async fn load_due(&mut self) -> Result<(), DispatchError> {
        let id = self.id();
        // Those that are loaded still have their records: they come first, and are passed over.
        let limit = self.loaded_retries.len() + RETRY_WINDOW;
        let keys = self.context.store.retry_keys(id, None, limit).await?;
        let now = self.context.retry_clock.now();
        self.next_due = (keys.len() == limit).then_some(now);
        let mut due = Vec::new();
        let room = RETRY_WINDOW.saturating_sub(self.loaded_retries.len());
        for key in keys {
            if self.loaded_retries.contains(&key) {
                continue;
            }
            if key.due_ms > now.as_millisecond() || due.len() == room {
                self.next_due = due_time(key);
                break;
            }
            due.push(key);
        }
        let rest = self.load_retries(&due).await?;
        if let Some(key) = due.get(rest) {
            self.next_due = due_time(*key);
        }
        Ok(())
    }

    /// Loads the retries at these keys as far as there is room, and says how many of the keys it has
    /// dealt with.
    pub(super) async fn load_retries(&mut self, keys: &[RetryKey]) -> Result<usize, DispatchError> {
        if keys.is_empty() {
            return Ok(0);
        }
        let Some(reserved) = self.retry_memory.reserve() else {
            return Ok(0);
        };
        let limit = ReadLimit {
            count: keys.len(),
            bytes: reserved.bytes,
        };
        let read = self.context.store.retries(keys, limit).await;
        let loaded = read.as_ref().map_or(&[][..], |(retries, _)| retries);
        let loaded = loaded.iter().map(Retry::memory_size).sum();
        self.retry_memory.settle(reserved, loaded);
        let (retries, dealt_with) = read?;
        for retry in retries {
            self.loaded_retries.insert(retry.key);
            self.enqueue(Arc::clone(&retry.event), Origin::Retry(Box::new(retry)));
        }
        Ok(dealt_with)
    }

    /// Moves an idle webhook's cursor along, and gives up what a stalled one has owed too long.
    pub(super) async fn tend(&mut self) -> Result<(), DispatchError> {
        self.may_read = true;
        self.dirty |= self.reader.position() > self.written_to;
        // Nothing is loaded while it is disabled or has too many retries: the backlog ages in the
        // journal.
        while !self.wants_to_read() && self.has_room() && self.next_is_too_old().await? {
            self.read_stride().await?;
        }
        if !self.webhook.enabled {
            self.unload();
        }
        Ok(())
    }

    /// Whether what [`Self::read_stride`] would load first could not be attempted for too long.
    async fn next_is_too_old(&mut self) -> Result<bool, DispatchError> {
        let next = match self.unloaded.first() {
            Some(seq) => *seq,
            None if self.may_read => self.reader.position(),
            None => return Ok(false),
        };
        let event = self.context.journal.event(next).await?;
        let oldest = self.context.clock.ago(self.settings.backlog_age);
        Ok(event.is_some_and(|event| event.time <= oldest))
    }
}

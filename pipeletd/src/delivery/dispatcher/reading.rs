//! How a dispatcher gets its jobs: forward from the cursor, and from the retries that are due.

use std::sync::Arc;

use super::{
    DispatchError, Dispatcher, Durable, Job, MAX_RETRYING, Origin, RETRY_WINDOW, STRIDE, WINDOW,
    WINDOW_BYTES, due_time,
};
use crate::{
    delivery::{
        ledger::Entry,
        record::{DeadReason, FailedDelivery, FailedId, Retry},
    },
    events::{Event, Seq},
    store::blocking,
};

impl Dispatcher {
    pub(super) fn wants_to_read(&self) -> bool {
        self.may_read
            && self.store_rests.is_none()
            && self.has_room()
            && self.means.ledger.account(self.id()).retrying < MAX_RETRYING
    }

    pub(super) async fn read_forward(&mut self) -> Result<(), DispatchError> {
        if self.wants_to_read() {
            self.read_stride().await?;
        }
        Ok(())
    }

    pub(super) async fn read_stride(&mut self) -> Result<(), DispatchError> {
        let room = WINDOW.saturating_sub(self.lanes.len()).min(STRIDE);
        let read = self.reader.read(room).await?;
        self.may_read = !read.caught_up;
        let oldest = self.means.clock.ago(self.terms.backlog_age);
        for (seq, event) in read.events {
            if self.moved_ahead.remove(&seq) {
                self.moved.push(seq);
                self.dirty = true;
            } else if event.time < oldest {
                self.give_up_unattempted(seq, event).await?;
            } else {
                self.load(seq, event);
            }
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.lanes.len() < WINDOW && self.loaded_bytes < WINDOW_BYTES
    }

    pub(super) fn load(&mut self, seq: Seq, event: Arc<Event>) {
        self.owed.insert(seq);
        self.enqueue(event, Origin::Live(seq));
    }

    fn enqueue(&mut self, event: Arc<Event>, origin: Origin) {
        self.loaded_bytes += event.size();
        let station = event.station.clone();
        self.lanes.push(&station, Job { event, origin });
    }

    pub(super) async fn give_up_unattempted(
        &mut self,
        seq: Seq,
        event: Arc<Event>,
    ) -> Result<(), DispatchError> {
        self.owed.insert(seq);
        self.progress.stats.gave_up();
        let failed = FailedDelivery {
            // The ledger gives it its number.
            id: FailedId(0),
            webhook: self.id(),
            seq,
            event,
            attempts: Vec::new(),
            reason: DeadReason::TooOld,
            failed_at: self.means.clock.now(),
            last_response: None,
        };
        let (webhook, event) = (self.id().0, &failed.event);
        tracing::warn!(
            webhook, event_id = %event.id, event = %event.kind, station = %event.station,
            error = "it could not be attempted for too long", "dead-lettered"
        );
        self.record(
            Entry::MovedDead { failed },
            Durable::Moved { seq, due: None },
        )
        .await
    }

    pub(super) fn may_load_retries(&self) -> bool {
        // Each look reads what is loaded again, so it has to be worth it.
        self.webhook.enabled
            && self.store_rests.is_none()
            && self.next_due.is_some()
            && self.loaded_retries.len() <= RETRY_WINDOW / 2
    }

    pub(super) async fn load_due(&mut self) -> Result<(), DispatchError> {
        let id = self.id();
        let store = Arc::clone(&self.means.store);
        // Those that are loaded still have their records: they come first, and are passed over.
        let limit = self.loaded_retries.len() + RETRY_WINDOW;
        let retries = blocking(move || store.retries(id, None, limit)).await?;
        let now_ms = self.means.retry_clock.now().as_millisecond();
        let cut_off = retries.len() == limit;
        self.next_due = cut_off.then(|| self.means.retry_clock.now());
        for retry in retries {
            if self.loaded_retries.contains(&retry.key) {
                continue;
            }
            if retry.key.due_ms > now_ms || self.loaded_retries.len() >= RETRY_WINDOW {
                self.next_due = due_time(retry.key);
                break;
            }
            self.loaded_retries.insert(retry.key);
            self.enqueue_retry(retry);
        }
        Ok(())
    }

    pub(super) fn enqueue_retry(&mut self, retry: Retry) {
        self.enqueue(Arc::clone(&retry.event), Origin::Retry(Box::new(retry)));
    }

    /// Moves an idle webhook's cursor along, and gives up what a stalled one has owed too long.
    pub(super) async fn tend(&mut self) -> Result<(), DispatchError> {
        self.may_read = true;
        self.dirty |= self.reader.position() > self.written_to;
        let oldest = self.means.clock.ago(self.terms.backlog_age);
        if !self.webhook.enabled {
            let too_old = self
                .lanes
                .remove(|job| job.is_live() && job.event.time < oldest);
            for job in too_old {
                self.loaded_bytes -= job.event.size();
                self.give_up_unattempted(job.seq(), job.event).await?;
            }
        }
        // Too many retries hold the reading up: the backlog ages in the journal.
        while self.may_read && !self.wants_to_read() && self.has_room() {
            let store = Arc::clone(&self.means.store);
            let position = self.reader.position();
            let next = blocking(move || store.event(position)).await?;
            if next.is_none_or(|event| event.time >= oldest) {
                break;
            }
            self.read_stride().await?;
        }
        Ok(())
    }
}

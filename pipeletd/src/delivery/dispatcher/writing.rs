//! What a dispatcher writes down: entries of the ledger, and its cursor.
//!
//! An event leaves the cursor's list only when its retry or dead letter is durable.

use std::sync::atomic::Ordering;

use jiff::Timestamp;
use pipelet_domain::deliveries::Cursor;
use tokio::time::Instant;

use super::{CHECKPOINT_EVERY, DispatchError, Dispatcher, Durable, FULL_DISK_REST};
use crate::delivery::ledger::Entry;

impl Dispatcher {
    pub(super) async fn record(
        &mut self,
        entry: Entry,
        then: Durable,
    ) -> Result<(), DispatchError> {
        self.record_and_notify(entry, then, || ()).await
    }

    /// The same, and calls `notify` then: on a disk that is full it may not come to that.
    pub(super) async fn record_and_notify(
        &mut self,
        entry: Entry,
        then: Durable,
        notify: impl FnOnce() + Send + 'static,
    ) -> Result<(), DispatchError> {
        let durable = self.context.ledger.record(entry).await?;
        self.durable.push(Box::pin(async move {
            match durable.await {
                Ok(true) => {
                    notify();
                    then
                }
                Ok(false) => Durable::Refused(Box::new(then)),
                Err(_) => Durable::Lost,
            }
        }));
        Ok(())
    }

    pub(super) async fn on_durable(&mut self, durable: Durable) -> Result<(), DispatchError> {
        match durable {
            Durable::OffCursor { seq, due, bytes } => {
                self.memory.give_back(bytes);
                self.expect(due);
                self.owed.remove(&seq);
                self.off_cursor.push(seq);
                self.dirty = true;
            }
            Durable::Replaced { was, due, bytes } => {
                self.retry_memory.give_back(bytes);
                self.expect(due);
                self.loaded_retries.remove(&was);
            }
            Durable::Checkpoint { off_cursor } => {
                self.checkpointing = false;
                if !off_cursor.is_empty() {
                    let entry = Entry::MarkersCleared {
                        webhook: self.id(),
                        seqs: off_cursor,
                    };
                    self.record(entry, Durable::Written).await?;
                }
            }
            Durable::Refused(then) => self.on_refused(&then),
            Durable::Written => {}
            Durable::Lost => self.checkpointing = false,
        }
        Ok(())
    }

    /// What was attempted waits as it did before, as if it had not been.
    fn on_refused(&mut self, then: &Durable) {
        self.store_rests = Some(Instant::now() + FULL_DISK_REST);
        match *then {
            Durable::OffCursor { seq, bytes, .. } => {
                self.memory.give_back(bytes);
                self.unloaded.insert(seq);
            }
            Durable::Replaced { was, bytes, .. } => self.unload_retry(was, bytes),
            Durable::Checkpoint { .. } | Durable::Written | Durable::Refused(_) | Durable::Lost => {
            }
        }
    }

    /// Takes note of a retry that is due then. Only now that it is durable: a look at the store
    /// for due retries, which sets the next time anew, would not have found it before.
    pub(super) fn expect(&mut self, due: Option<Timestamp>) {
        self.next_due = self.next_due.into_iter().chain(due).min();
    }

    pub(super) async fn checkpoint_if_due(&mut self) -> Result<(), DispatchError> {
        if self.dirty && !self.checkpointing && Instant::now() >= self.next_checkpoint {
            self.checkpoint().await?;
        }
        Ok(())
    }

    pub(super) async fn checkpoint(&mut self) -> Result<(), DispatchError> {
        let cursor = Cursor {
            read_to: self.reader.position(),
            owed: self.owed.iter().copied().collect(),
            delivered: self.progress.delivered.load(Ordering::Relaxed),
        };
        self.written_to = cursor.read_to;
        let off_cursor = std::mem::take(&mut self.off_cursor);
        let durable = self.context.journal.checkpoint(self.id(), cursor).await?;
        self.dirty = false;
        self.checkpointing = true;
        self.next_checkpoint = Instant::now() + CHECKPOINT_EVERY;
        self.durable.push(Box::pin(async move {
            if durable.await.is_ok() {
                Durable::Checkpoint { off_cursor }
            } else {
                Durable::Lost
            }
        }));
        Ok(())
    }
}

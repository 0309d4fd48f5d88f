//! Somebody who looks on: every event from a position on, as it comes.
//!
//! A follower is owed nothing, so nothing waits for it: one that is slow reads the store, and one
//! that retention has overtaken is told how many events it missed.

use std::sync::Arc;

use pipelet_domain::events::{Event, Seq};
use tokio::sync::watch;

use super::Journal;
use crate::store::{ReadLimit, StoreError};

#[derive(Debug)]
pub struct Follower {
    journal: Journal,
    grown: watch::Receiver<Seq>,
    position: Seq,
}

/// What came next.
#[derive(Debug)]
pub struct Followed {
    /// How many events between the last ones and these are no longer kept.
    pub missed: u64,
    /// In order.
    pub events: Vec<(Seq, Arc<Event>)>,
}

impl Journal {
    /// Follows the journal from a position on, or from now on where that is not reached yet.
    pub fn follow(&self, from: Seq) -> Follower {
        let grown = self.shared.grown.subscribe();
        let position = from.min(*grown.borrow());
        Follower {
            journal: self.clone(),
            grown,
            position,
        }
    }
}

impl Follower {
    /// What comes next is not before this.
    pub const fn position(&self) -> Seq {
        self.position
    }

    /// Waits until there is something to read.
    pub async fn ready(&mut self) {
        self.wait().await;
    }

    /// Waits until there is something to read, and returns it up to the limit. Nothing is lost
    /// where this is dropped meanwhile.
    pub async fn next(&mut self, limit: ReadLimit) -> Result<Followed, StoreError> {
        let head = self.wait().await;
        let mut events = self.journal.read_from(self.position, limit).await?;
        events.retain(|(seq, _)| *seq < head);
        let first = events.first().map_or(head, |(seq, _)| *seq);
        let missed = first.0 - self.position.0;
        self.position = events.last().map_or(head, |(seq, _)| seq.next());
        Ok(Followed { missed, events })
    }

    /// The head, once it is beyond what was read.
    async fn wait(&mut self) -> Seq {
        loop {
            let head = *self.grown.borrow_and_update();
            if self.position < head {
                return head;
            }
            // The journal's handle that we have keeps the sender.
            if self.grown.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

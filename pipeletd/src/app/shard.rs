//! A shard: a journal and a ledger with the threads that write them, as one value.
//!
//! The daemon runs one. What hangs on it, projections and dispatchers, is given its handles.

use std::sync::Arc;

use pipelet_domain::deliveries::{Cursor, StoredWebhook};
use tokio_util::sync::CancellationToken;

use super::RunError;
use crate::{
    delivery::{self, ledger::Ledger},
    journal::{Journal, Opened, Subscriber},
    registries::Registry,
    store::{LedgerStore, LogStore, StoreError, group_commit::WriterThread},
    system::{clock::Clock, limits::memory::MemoryBudget},
};

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) journal: Journal,
    pub(super) ledger: Ledger,
    pub(super) ledger_store: Arc<dyn LedgerStore>,
    committer: WriterThread,
    ledger_writer: WriterThread,
}

impl Shard {
    /// Recovers what is stored, and each webhook's place in it. Once `ending` is cancelled, an
    /// outage of the store is not waited out any more.
    pub(super) async fn open(
        (log, ledger_store): (Arc<dyn LogStore>, Arc<dyn LedgerStore>),
        webhooks: &Registry<StoredWebhook>,
        memory: &MemoryBudget,
        clock: Clock,
        ending: &CancellationToken,
    ) -> Result<(Self, Vec<(Subscriber, Cursor)>), StoreError> {
        let subscriptions = delivery::subscriptions(webhooks);
        let opened = Journal::open(log, subscriptions, memory, clock, ending.clone());
        let Opened {
            journal,
            subscribers,
            committer,
        } = opened.await?;
        let ledger = Ledger::open(Arc::clone(&ledger_store), clock, ending.clone());
        let (ledger, ledger_writer) = ledger.await?;
        let shard = Self {
            journal,
            ledger,
            ledger_store,
            committer,
            ledger_writer,
        };
        Ok((shard, subscribers))
    }

    /// Why it can't go on, once it can't; never after [`Self::stop`].
    pub(super) async fn failed(&mut self) -> RunError {
        tokio::select! {
            ended = self.committer.ended() => {
                ended.map_or_else(RunError::Journal, |()| RunError::Ended("journal"))
            }
            ended = self.ledger_writer.ended() => {
                ended.map_or_else(RunError::Ledger, |()| RunError::Ended("ledger"))
            }
        }
    }

    /// Writes what was sent so far. Nothing is taken from then on.
    pub(super) async fn stop(&self) {
        self.journal.stop().await;
        self.ledger.stop().await;
    }
}

//! All webhooks at a glance, read from where each thing is counted.
//!
//! The books survive a restart, and go back a little in a crash; what counts up from the daemon's
//! start never does. Nothing is counted here.

use std::sync::{Arc, PoisonError, atomic::Ordering};

use jiff::Timestamp;
use pipelet_domain::deliveries::{DeliveryCounts, StoredWebhook};

use super::{
    stats::StatsSnapshot,
    webhooks::{Delivery, Running},
};
use crate::{store::StoreError, system::latencies::LatencySnapshot};

/// One webhook.
#[derive(Debug)]
pub struct Observation {
    pub stored: Arc<StoredWebhook>,
    pub books: DeliveryCounts,
    pub stats: StatsSnapshot,
    /// Events that it was owed since the daemon started.
    pub received: u64,
    /// When the oldest event happened that waits for its first attempt, or has it in flight.
    pub oldest: Option<Timestamp>,
}

/// All of them.
#[derive(Debug)]
pub struct Observations {
    pub webhooks: Vec<Observation>,
    /// In the table now; those of deleted webhooks too.
    pub failed_deliveries: u64,
    /// Deliveries that were cancelled with their webhooks since the daemon started.
    pub cancelled: u64,
    /// How long attempts took since the daemon started, those of deleted webhooks too.
    pub attempts: LatencySnapshot,
    /// How long it took to have retries and dead letters on disk.
    pub ledger_commits: LatencySnapshot,
}

impl Delivery {
    pub async fn observe(&self) -> Result<Observations, StoreError> {
        let inner = &self.0;
        let webhooks = inner.running.read();
        let running: Vec<_> = {
            let webhooks = webhooks.unwrap_or_else(PoisonError::into_inner);
            webhooks.values().cloned().collect()
        };
        let mut observed = Vec::with_capacity(running.len());
        for running in running {
            let oldest = self.oldest(&running);
            observed.push(self.of(&running, oldest.await?));
        }
        Ok(Observations {
            webhooks: observed,
            failed_deliveries: inner.dead(),
            cancelled: inner.cancelled.load(Ordering::Relaxed),
            attempts: inner.attempts.snapshot(),
            ledger_commits: inner
                .shards
                .iter()
                .map(|shard| shard.ledger.commit_latencies())
                .fold(LatencySnapshot::default(), |sum, of| sum.plus(&of)),
        })
    }

    /// Why no retry or dead letter can be written down, while none can.
    pub fn outage(&self) -> Option<Arc<str>> {
        self.0.shards.iter().find_map(|shard| shard.ledger.outage())
    }

    fn of(&self, running: &Running, oldest: Option<Timestamp>) -> Observation {
        let stored = running.stored();
        let books = self.0.books(running, stored.webhook.id);
        let before = running
            .dispatchers
            .iter()
            .map(|it| it.received_before)
            .sum();
        Observation {
            books,
            stats: running.stats.snapshot(),
            received: books.received.saturating_sub(before),
            stored,
            oldest,
        }
    }

    /// When the first event of the webhook's backlog happened, if it has one.
    async fn oldest(&self, running: &Running) -> Result<Option<Timestamp>, StoreError> {
        let mut oldest = None;
        let id = running.stored().webhook.id;
        for (shard, dispatcher) in self.0.shards.iter().zip(&running.dispatchers) {
            let at = dispatcher.progress.oldest();
            let books = dispatcher.books(shard, id);
            if books.pending > books.retrying {
                let event = shard.journal.event(at).await?;
                let time = event.map(|event| event.time);
                oldest = oldest.into_iter().chain(time).min();
            }
        }
        Ok(oldest)
    }
}

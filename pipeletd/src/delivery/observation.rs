//! All webhooks at a glance, read from where each thing is counted.
//!
//! The books survive a restart, and go back a little in a crash; what counts up from the daemon's
//! start never does. Nothing is counted here.

use std::sync::{Arc, PoisonError, atomic::Ordering};

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{DeliveryCounts, StoredWebhook},
    events::Seq,
};

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
        let mut observed: Vec<_> = running.iter().map(|running| self.of(running)).collect();
        let backlogs: Vec<Seq> = running
            .iter()
            .map(|running| running.progress.oldest())
            .collect();
        let times = self.times(&observed, backlogs).await?;
        for (observation, oldest) in observed.iter_mut().zip(times) {
            observation.oldest = oldest;
        }
        Ok(Observations {
            webhooks: observed,
            failed_deliveries: inner.context.ledger.dead(),
            cancelled: inner.cancelled.load(Ordering::Relaxed),
            attempts: inner.context.attempts.snapshot(),
            ledger_commits: inner.context.ledger.commit_latencies(),
        })
    }

    /// Why no retry or dead letter can be written down, while none can.
    pub fn outage(&self) -> Option<Arc<str>> {
        self.0.context.ledger.outage()
    }

    fn of(&self, running: &Running) -> Observation {
        let stored = running.stored();
        let books = self.0.books(running, stored.webhook.id);
        Observation {
            books,
            stats: running.progress.stats.snapshot(),
            received: books.received.saturating_sub(running.received_before),
            stored,
            oldest: None,
        }
    }

    /// When the events at these positions happened, for the webhooks that have a backlog there.
    async fn times(
        &self,
        observed: &[Observation],
        backlogs: Vec<Seq>,
    ) -> Result<Vec<Option<Timestamp>>, StoreError> {
        let has_backlog = |books: &DeliveryCounts| books.pending > books.retrying;
        let wanted: Vec<_> = observed
            .iter()
            .zip(backlogs)
            .map(|(observation, seq)| has_backlog(&observation.books).then_some(seq))
            .collect();
        let mut times = Vec::with_capacity(wanted.len());
        for seq in wanted {
            let event = match seq {
                Some(seq) => self.0.context.journal.event(seq).await?,
                None => None,
            };
            times.push(event.map(|event| event.time));
        }
        Ok(times)
    }
}

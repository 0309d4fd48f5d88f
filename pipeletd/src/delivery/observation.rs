//! All webhooks at a glance, read from where each thing is counted.
//!
//! The books survive a restart, and go back a little in a crash; what counts up from the daemon's
//! start never does. Nothing is counted here.

use std::{
    mem,
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{DeliveryCounts, RetryKey, StoredWebhook},
    webhooks::WebhookId,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{
    health::{Health, Owed},
    stats::StatsSnapshot,
    webhooks::{Delivery, Inner, Running},
};
use crate::{
    store::{LedgerStore, ReadLimit, StoreError},
    system::latencies::LatencySnapshot,
};

/// So many keys of retries are read at once.
const STRIDE: usize = 4_096;
/// A look at all retries holds for so many times as long as it took, and for so long at least.
const REST: u32 = 100;
const AT_MOST_EVERY: Duration = Duration::from_millis(500);
/// So long somebody waits for such a look; until it has ended, the one before holds.
const PATIENCE: Duration = Duration::from_millis(500);

/// With more webhooks than this, all of them are observed without a look at their retries.
const MOST_RETRIES_LOOKED_AT: usize = 1_000;

/// When the oldest event happened that waits for a retry, as of the last look.
#[derive(Debug, Default)]
pub(super) struct OldestRetry {
    time: Option<Timestamp>,
    /// No look before.
    until: Option<Instant>,
    is_looking: bool,
}

/// One webhook.
#[derive(Debug)]
pub struct Observation {
    pub stored: Arc<StoredWebhook>,
    pub books: DeliveryCounts,
    pub stats: StatsSnapshot,
    /// Events that it was owed since the daemon started.
    pub received: u64,
    pub health: Health,
}

/// All of them.
#[derive(Debug, Default)]
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

impl Observations {
    /// Those of two who deliver to the same webhooks.
    #[must_use]
    pub fn plus(mut self, other: Self) -> Self {
        for of in other.webhooks {
            let id = of.stored.webhook.id;
            let known = self
                .webhooks
                .binary_search_by_key(&id, |known| known.stored.webhook.id);
            match known {
                Ok(at) => self.webhooks[at].add(of),
                Err(at) => self.webhooks.insert(at, of),
            }
        }
        Self {
            webhooks: self.webhooks,
            failed_deliveries: self.failed_deliveries + other.failed_deliveries,
            cancelled: self.cancelled + other.cancelled,
            attempts: self.attempts.plus(&other.attempts),
            ledger_commits: self.ledger_commits.plus(&other.ledger_commits),
        }
    }
}

impl Observation {
    fn add(&mut self, other: Self) {
        self.books = self.books.plus(other.books);
        self.stats = mem::take(&mut self.stats).plus(&other.stats);
        self.received += other.received;
        self.health = mem::take(&mut self.health).plus(other.health);
    }
}

impl Delivery {
    pub async fn observe(&self) -> Result<Observations, StoreError> {
        let inner = &self.0;
        let webhooks = inner.running.read();
        let running: Vec<_> = {
            let webhooks = webhooks.unwrap_or_else(PoisonError::into_inner);
            webhooks.values().cloned().collect()
        };
        let with_retries = running.len() <= MOST_RETRIES_LOOKED_AT;
        let mut observed = Vec::with_capacity(running.len());
        for running in running {
            observed.push(inner.observe(&running, with_retries).await);
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
}

impl Inner {
    async fn observe(&self, running: &Arc<Running>, with_retries: bool) -> Observation {
        let stored = running.stored();
        let before = running
            .dispatchers
            .iter()
            .map(|it| it.received_before)
            .sum();
        let books = self.books(running, stored.webhook.id);
        Observation {
            books,
            stats: running.stats.snapshot(),
            received: books.received.saturating_sub(before),
            health: self.health(running, with_retries).await,
            stored,
        }
    }

    /// How a webhook is doing; of its retries, when the oldest event happened only if asked for. What
    /// can't be read is left out.
    pub(super) async fn health(&self, running: &Arc<Running>, with_retries: bool) -> Health {
        let webhook = &running.stored().webhook;
        let is_retrying = self.books(running, webhook.id).retrying > 0;
        let first_attempt = self.oldest_first_attempt(running).await;
        let first_attempt = first_attempt.unwrap_or_else(|error| {
            tracing::warn!(webhook = webhook.id.0, %error, "its oldest event can't be read");
            None
        });
        let retry = if is_retrying && with_retries {
            self.oldest_retry(running).await
        } else {
            None
        };
        let owed = Owed {
            first_attempt,
            retry,
            is_retrying,
        };
        let (stats, now) = (&running.stats, self.clock.now());
        stats.health(webhook.enabled, owed, now)
    }

    /// When the first event of the webhook's backlog happened, if it has one.
    async fn oldest_first_attempt(
        &self,
        running: &Running,
    ) -> Result<Option<Timestamp>, StoreError> {
        let mut oldest = None;
        let id = running.stored().webhook.id;
        for (shard, dispatcher) in self.shards.iter().zip(&running.dispatchers) {
            let at = dispatcher.progress.oldest();
            let books = dispatcher.books(shard, id);
            if books.pending > books.retrying {
                // The semaphore is never closed.
                let _alone = self.looking.acquire().await;
                let event = shard.journal.event(at).await?;
                let time = event.map(|event| event.time);
                oldest = oldest.into_iter().chain(time).min();
            }
        }
        Ok(oldest)
    }

    /// When the first event happened that waits for a retry. Retries are kept by when they are due,
    /// so all of them are looked at, beside all else; who asks waits for that only so long.
    async fn oldest_retry(&self, running: &Arc<Running>) -> Option<Timestamp> {
        let look = {
            let mut known = running.oldest_retry();
            let is_due =
                !known.is_looking && known.until.is_none_or(|until| Instant::now() >= until);
            known.is_looking |= is_due;
            is_due.then(|| {
                let stores = self.shards.iter().map(|shard| Arc::clone(&shard.store));
                let alone = Arc::clone(&self.looking);
                let looking = look(stores.collect(), Arc::clone(running), alone);
                self.tracker.spawn(looking)
            })
        };
        if let Some(look) = look {
            let _ = timeout(PATIENCE, look).await;
        }
        running.oldest_retry().time
    }
}

impl Running {
    fn oldest_retry(&self) -> MutexGuard<'_, OldestRetry> {
        let known = self.oldest_retry.lock();
        known.unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look(stores: Vec<Arc<dyn LedgerStore>>, running: Arc<Running>, alone: Arc<Semaphore>) {
    let began = Instant::now();
    let id = running.stored().webhook.id;
    let mut time = None;
    for store in stores {
        match oldest_in(&*store, id, &alone).await {
            Ok(of_shard) => time = time.into_iter().chain(of_shard).min(),
            Err(error) => tracing::warn!(webhook = id.0, %error, "its retries can't be read"),
        }
    }
    let rest = (began.elapsed() * REST).max(AT_MOST_EVERY);
    *running.oldest_retry() = OldestRetry {
        time,
        until: Some(Instant::now() + rest),
        is_looking: false,
    };
}

async fn oldest_in(
    store: &dyn LedgerStore,
    id: WebhookId,
    alone: &Semaphore,
) -> Result<Option<Timestamp>, StoreError> {
    let (mut first, mut after): (Option<RetryKey>, _) = (None, None);
    loop {
        let keys = store.retry_keys(id, after, STRIDE).await?;
        let all = first.into_iter().chain(keys.iter().copied());
        first = all.min_by_key(|key| key.seq);
        after = keys.last().copied();
        if keys.len() < STRIDE {
            break;
        }
    }
    let Some(key) = first else {
        return Ok(None);
    };
    let _alone = alone.acquire().await;
    let (retries, _) = store.retries(&[key], ReadLimit::part(1)).await?;
    Ok(retries.first().map(|retry| retry.event.time))
}

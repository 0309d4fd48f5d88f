//! A shard: a journal and a ledger with the threads that write them, and what is known of its
//! stations, as one value.
//!
//! The daemon runs a set of them, one in the embedded engine. What hangs on a shard, projections and
//! dispatchers, is given its handles; what asks from outside is given those of all.

use std::sync::Arc;

use futures_util::future::{join_all, select_all};
use pipelet_domain::{
    deliveries::{Cursor, StoredWebhook, Subscription},
    shards::{FailedNumbers, ShardId, Shards},
    webhooks::WebhookId,
};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::RunError;
use crate::{
    delivery::{self, DispatcherContext, ledger::Ledger},
    journal::{Journal, Journals, Opened, Subscriber},
    registries::Registry,
    store::{
        LedgerStore, Ownership, ProjectionStore, ShardStores, StoreError,
        group_commit::WriterThread,
    },
    system::{clock::Clock, latencies::Latencies, limits::memory::MemoryBudget},
};

#[derive(Debug)]
pub(super) struct Shard {
    journal: Journal,
    ledger: Ledger,
    ledger_store: Arc<dyn LedgerStore>,
    projections: Arc<dyn ProjectionStore>,
    committer: WriterThread,
    ledger_writer: WriterThread,
}

/// What the shards of a daemon have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Common<'a> {
    pub(super) memory: &'a MemoryBudget,
    pub(super) clock: Clock,
    /// Once it is cancelled, an outage of the store is not waited out any more.
    pub(super) ending: &'a CancellationToken,
    pub(super) ownership: &'a Ownership,
}

/// A webhook's place in the journal of a shard.
pub(super) type Place = (Subscriber, Cursor);

/// The shards that an owner runs.
#[derive(Debug)]
pub(super) struct RunningShards {
    first: ShardId,
    shards: Vec<Shard>,
}

impl Shard {
    /// Recovers what is stored, and each webhook's place in it.
    async fn open(
        stores: ShardStores,
        numbers: FailedNumbers,
        subscriptions: Vec<(WebhookId, Subscription)>,
        Common {
            memory,
            clock,
            ending,
            ..
        }: Common<'_>,
    ) -> Result<(Self, Vec<Place>), StoreError> {
        let opened = Journal::open(stores.log, subscriptions, memory, clock, ending.clone());
        let Opened {
            journal,
            subscribers,
            committer,
        } = opened.await?;
        let ledger_store = stores.ledger;
        let ledger = Ledger::open(Arc::clone(&ledger_store), numbers, clock, ending.clone());
        let (ledger, ledger_writer) = ledger.await?;
        let shard = Self {
            journal,
            ledger,
            ledger_store,
            projections: stores.projections,
            committer,
            ledger_writer,
        };
        Ok((shard, subscribers))
    }

    /// Why it can't go on, once it can't; never after [`Self::stop`].
    async fn failed(&mut self) -> RunError {
        let (ended, failed, what): (_, fn(_) -> _, _) = tokio::select! {
            ended = self.committer.ended() => (ended, RunError::Journal, "journal"),
            ended = self.ledger_writer.ended() => (ended, RunError::Ledger, "ledger"),
        };
        match ended {
            Ok(()) => RunError::Ended(what),
            Err(StoreError::Fenced) => RunError::Overtaken,
            Err(error) => failed(error),
        }
    }

    async fn stop(&self) {
        self.journal.stop().await;
        self.ledger.stop().await;
    }
}

impl RunningShards {
    /// Recovers what is stored of each, and each webhook's place in it.
    pub(super) async fn open(
        stores: Shards<ShardStores>,
        count: u16,
        webhooks: &Registry<StoredWebhook>,
        common: Common<'_>,
    ) -> Result<(Self, Vec<Vec<Place>>), StoreError> {
        let memory = common.memory.for_one_of(count.into());
        let common = Common {
            memory: &memory,
            ..common
        };
        // The same ones in each.
        let subscriptions = delivery::subscriptions(webhooks);
        let (mut shards, mut places) = (Vec::new(), Vec::new());
        for (shard, stores) in stores.ids().zip(&stores) {
            let numbers = FailedNumbers { shard, count };
            let (stores, subscriptions) = (stores.clone(), subscriptions.clone());
            let (shard, of_shard) = Shard::open(stores, numbers, subscriptions, common).await?;
            shards.push(shard);
            places.push(of_shard);
        }
        let first = stores.ids().next().unwrap_or(ShardId(0));
        Ok((Self { first, shards }, places))
    }

    pub(super) const fn first(&self) -> ShardId {
        self.first
    }

    /// Something of each.
    fn each<T>(&self, of: impl FnMut(&Shard) -> T) -> Shards<T> {
        Shards::from(self.first, self.shards.iter().map(of))
    }

    pub(super) fn journals(&self) -> Journals {
        Journals::new(self.each(|shard| shard.journal.clone()))
    }

    /// What is known of stations is made of the one and kept in the other.
    pub(super) fn projected(&self) -> Shards<(Journal, Arc<dyn ProjectionStore>)> {
        self.each(|it| (it.journal.clone(), Arc::clone(&it.projections)))
    }

    /// What the dispatchers of each work with, who run on this runtime.
    pub(super) fn dispatched(
        &self,
        runtime: &Handle,
        attempts: &Arc<Latencies>,
        common: Common<'_>,
    ) -> Shards<DispatcherContext> {
        self.each(|shard| DispatcherContext {
            journal: shard.journal.clone(),
            ledger: shard.ledger.clone(),
            store: Arc::clone(&shard.ledger_store),
            clock: common.clock,
            retry_clock: shard.ledger.clock(),
            memory: common.memory.deliveries.clone(),
            runtime: runtime.clone(),
            attempts: Arc::clone(attempts),
            ownership: common.ownership.clone(),
        })
    }

    /// Why one of them can't go on, once it can't; never after [`Self::stop`].
    pub(super) async fn failed(&mut self) -> RunError {
        let failed = self.shards.iter_mut().map(|shard| Box::pin(shard.failed()));
        select_all(failed).await.0
    }

    /// Writes what was sent so far. Nothing is taken from then on.
    pub(super) async fn stop(&self) {
        join_all(self.shards.iter().map(Shard::stop)).await;
    }
}

//! What runs where shards are owned: their journals, what hangs on them, and what they answer.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use axum::Router;
use pipelet_domain::shards::ShardId;
use tokio::{sync::watch, task::JoinSet, time};
use tokio_util::sync::CancellationToken;

use super::{
    Base, OpenError, RunError, finished,
    node::Node,
    shard::{Common, RunningShards},
};
use crate::{
    api::{
        self, Daemon, EventStreams, NodeHandles, ShardFigures, StationDirectory, Trigger, Webhooks,
        grpc::{ShardHandles, ShardServices},
    },
    auth::{self, ApiKey},
    delivery::Delivery,
    journal::{Journals, retention::Retention},
    ocpp::{GatewayHandle, Ocpp, OtherShards, Stations},
    store::{Backup, Engine, Ownership, StoreError},
    system::clock::Clock,
};

/// Within this time, it is known whether a dispatcher has failed because another node owns its shard.
const FAILURE_IS_KNOWN: Duration = Duration::from_secs(1);
/// How long the writers may take to find out that they write no more.
const OVERTAKEN_GRACE: Duration = Duration::from_secs(5);

/// Recovered, but not yet running.
#[derive(Debug)]
pub(super) struct Owner {
    ocpp: Ocpp,
    delivery: Delivery,
    shards: RunningShards,
    /// How many there are.
    shard_count: u16,
    backup: Arc<dyn Backup>,
    ownership: Ownership,
    /// Cancelled when it serves nobody any more.
    serving: CancellationToken,
    /// Cancelled when it ends: whoever sits an outage of the store out gives up.
    ending: CancellationToken,
    /// Cancelled when a part fails that it can't go on without.
    failed: CancellationToken,
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// With the daemon, whose stations were sent away before.
    WithDaemon,
    /// Another node goes on at once.
    HandedOver,
}

/// Of an owner, for those that outlive it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Current {
    pub(super) ownership: Ownership,
    pub(super) delivery: Delivery,
    pub(super) stations: Stations,
    pub(super) journals: Journals,
    /// What it answers to nodes.
    pub(super) router: Router,
}

/// The owners that there are here, by their first shards.
pub(super) type Owners = BTreeMap<ShardId, Current>;

impl Owner {
    /// Recovers from what the engine keeps.
    pub(super) async fn open(
        engine: Engine,
        base: &Base,
        gateway: &GatewayHandle,
        others: Option<Arc<dyn OtherShards>>,
        shutdown: &CancellationToken,
    ) -> Result<Self, OpenError> {
        let Engine {
            configuration,
            shards: stores,
            shard_count,
            backup,
            ownership,
        } = engine;
        let ending = CancellationToken::new();
        let common = Common {
            memory: &base.memory,
            clock: base.process.clock,
            ending: &ending,
            ownership: &ownership,
        };
        let opened = RunningShards::open(
            stores,
            shard_count,
            &base.registries.webhooks.registry,
            common,
        );
        let (running, places) = opened.await?;
        // Not of each shard one.
        if running.first() == ShardId(0) {
            first_key(base).await?;
        }
        let ocpp = Ocpp::open(
            gateway,
            configuration,
            base.registries.id_tags.clone(),
            running.projected(),
            shard_count,
            others,
            &base.settings.transaction_retention,
        )
        .await?;
        let failed = CancellationToken::new();
        let attempts = Arc::default();
        let contexts = running.dispatched(&base.process.delivering, &attempts, common);
        let settings = base.settings.delivery.borrow().clone();
        let delivery = Delivery::start(
            contexts,
            places,
            settings,
            base.registries.webhooks.registry.clone(),
            base.process.clock,
            attempts,
            failed.clone(),
        );
        let delivery = delivery.await?;
        Ok(Self {
            ocpp,
            delivery,
            shards: running,
            shard_count,
            backup,
            ownership,
            serving: shutdown.child_token(),
            ending,
            failed,
        })
    }

    /// What answers for its shards; `daemon` is the process, where it answers for that, too.
    pub(super) fn services(
        &self,
        base: &Base,
        webhooks: Webhooks,
        daemon: Option<Daemon>,
    ) -> ShardServices {
        let (stations, journals) = (self.ocpp.stations(), self.shards.journals());
        let clock = base.process.clock;
        let serving = self.serving.clone();
        let streams = match &daemon {
            Some(_) => EventStreams::new(journals.clone(), serving),
            None => EventStreams::for_nodes(journals.clone(), serving),
        };
        ShardServices::new(ShardHandles {
            webhooks,
            delivery: self.delivery.clone(),
            transactions: self.ocpp.transactions(),
            directory: StationDirectory::new(
                stations.clone(),
                base.registries.registrations.clone(),
                self.part(),
            ),
            journals: journals.clone(),
            figures: ShardFigures {
                delivery: self.delivery.clone(),
                stations,
                journals: journals.clone(),
                clock,
            },
            daemon,
            backup: Arc::clone(&self.backup),
            streams,
            trigger: Trigger::new(journals, self.delivery.clone(), clock),
        })
    }

    /// What others need of it.
    pub(super) fn current(&self, base: &Base) -> Current {
        let (delivery, journals) = (self.delivery.clone(), self.shards.journals());
        let webhooks = base.webhooks(Arc::new(delivery.clone()));
        let clock = base.process.clock;
        let services = self.services(base, webhooks, None);
        let handles = NodeHandles {
            delivery: delivery.clone(),
            journals: journals.clone(),
            stations: self.ocpp.stations(),
            webhooks: base.registries.webhooks.clone(),
            id_tags: base.registries.id_tags.clone(),
        };
        let router = api::shard_router(&services, handles, base.readers.clone(), clock);
        Current {
            ownership: self.ownership.clone(),
            delivery,
            stations: self.ocpp.stations(),
            journals,
            router,
        }
    }

    /// The one shard that it owns, of so many; none where it owns all.
    fn part(&self) -> Option<(ShardId, u16)> {
        let journals = self.shards.journals();
        let is_part = journals.iter().count() < usize::from(self.shard_count);
        is_part.then(|| (self.first_shard(), self.shard_count))
    }

    pub(super) fn first_shard(&self) -> ShardId {
        self.shards.first()
    }

    /// Cancelled when it serves nobody any more.
    pub(super) const fn serving(&self) -> &CancellationToken {
        &self.serving
    }

    /// Runs until it is told how to stop, or until a part fails that it can't go on without.
    pub(super) async fn run(
        self,
        node: Node<'_>,
        stop: impl Future<Output = Stopped>,
    ) -> Result<(), RunError> {
        let Self {
            ocpp,
            delivery,
            mut shards,
            ownership,
            serving,
            ending,
            failed,
            ..
        } = self;
        let (stations, journals) = (ocpp.stations(), shards.journals());
        let (finish, hand_over) = (CancellationToken::new(), CancellationToken::new());
        let ocpp = tokio::spawn(ocpp.run(finish.clone(), hand_over.clone()));
        let base = node.base;
        let mut retention = retain(
            &base.settings.retention,
            &journals,
            &stations,
            base.process.clock,
            &serving,
        );
        let stopped = tokio::select! {
            // First, because the servers end by themselves at a shutdown.
            biased;
            stopped = stop => Ok(stopped),
            () = ownership.lost() => Err(RunError::Overtaken),
            failure = shards.failed() => Err(failure),
            () = failed.cancelled() => Err(failure_of_dispatcher(&mut shards, &ownership).await),
        };
        serving.cancel();
        let grace = *base.settings.shutdown_grace.borrow();
        match stopped {
            Err(RunError::Overtaken) => {
                // Another node goes on: nothing that is in memory here counts any more, and whoever
                // would write it finds out. Its stations' connections go on there.
                ending.cancel();
                hand_over.cancel();
                let abort = ocpp.abort_handle();
                let ended = async {
                    let _ = tokio::join!(delivery.abandon(), ocpp, shards.stop());
                };
                if time::timeout(OVERTAKEN_GRACE, ended).await.is_err() {
                    abort.abort();
                }
                retention.shutdown().await;
                ownership.give_up().await;
                return Err(RunError::Overtaken);
            }
            // Another node takes events in at once: so this one does until all else is done.
            Ok(Stopped::HandedOver) => {
                delivery.stop(grace).await;
                ending.cancel();
                hand_over.cancel();
                finished("OCPP side", ocpp.await);
            }
            // Who takes events in goes first, who hands them out next, who keeps them last.
            Ok(Stopped::WithDaemon) | Err(_) => {
                node.shutdown.cancel();
                ending.cancel();
                node.closed.cancelled().await;
                finish.cancel();
                finished("OCPP side", ocpp.await);
                delivery.stop(grace).await;
            }
        }
        while let Some(ended) = retention.join_next().await {
            finished("retention", ended);
        }
        shards.stop().await;
        ownership.give_up().await;
        stopped.map(drop)
    }

    pub(super) const fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    pub(super) const fn delivery(&self) -> &Delivery {
        &self.delivery
    }
}

/// A dispatcher can't write any more where another node has taken the shard over: that is known by
/// somebody else in a moment.
async fn failure_of_dispatcher(shards: &mut RunningShards, ownership: &Ownership) -> RunError {
    tokio::select! {
        () = ownership.lost() => RunError::Overtaken,
        failure = shards.failed() => failure,
        () = time::sleep(FAILURE_IS_KNOWN) => RunError::Dispatcher,
    }
}

/// Forgets what need not be kept of each journal.
fn retain(
    kept: &watch::Sender<Retention>,
    journals: &Journals,
    stations: &Stations,
    clock: Clock,
    serving: &CancellationToken,
) -> JoinSet<Result<(), StoreError>> {
    let mut retention = JoinSet::new();
    for (index, journal) in journals.iter().enumerate() {
        let stations = stations.clone();
        let saved_to = move || stations.saved_to(index);
        let (kept, journal) = (kept.subscribe(), journal.clone());
        retention.spawn(Retention::run(
            kept,
            journal,
            saved_to,
            clock,
            serving.clone(),
        ));
    }
    retention
}

/// A fresh store gets a key: the given one, or one that is made and written down.
async fn first_key(base: &Base) -> Result<(), OpenError> {
    let keys = &base.keys;
    if !keys.list().is_empty() {
        return Ok(());
    }
    if let Some(key) = &base.bootstrap_key {
        keys.add_admin("admin", key).await?;
        return Ok(());
    }
    let path: &Path = &base.key_file;
    let key = ApiKey::generate()?;
    // Written before it is stored: a crash in between leaves a key that the next start replaces.
    auth::write_admin_key(path, &key).map_err(|source| OpenError::AdminKey {
        path: path.to_owned(),
        source,
    })?;
    keys.add_admin("admin", &key).await?;
    tracing::info!(path = %path.display(), "wrote the first API key");
    Ok(())
}

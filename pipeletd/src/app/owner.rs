//! What runs at the node that owns the shards: their journals, what hangs on them, and the API.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet, time};
use tokio_util::sync::CancellationToken;

use super::{
    Base, OpenError, RunError, finished,
    node::Node,
    shard::{Common, RunningShards},
};
use crate::{
    api::{
        Daemon, EventStreams, Part, Readiness, Routers, StationDirectory, Trigger, grpc, metrics,
        rest,
    },
    auth::{self, ApiKey},
    delivery::Delivery,
    journal::{Journals, retention::Retention},
    ocpp::{GatewayHandle, Ocpp, Stations},
    store::{Backup, Engine, Ownership, StoreError},
    system::clock::Clock,
};

/// How long the writers may take to find out that they write no more.
const OVERTAKEN_GRACE: Duration = Duration::from_secs(5);

/// Recovered, but not yet running.
#[derive(Debug)]
pub(super) struct Owner {
    ocpp: Ocpp,
    delivery: Delivery,
    shards: RunningShards,
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

/// Of the owner, for those that outlive it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Current {
    pub(super) ownership: Ownership,
    pub(super) delivery: Delivery,
    pub(super) journals: Journals,
    pub(super) routers: Routers,
}

impl Owner {
    /// Recovers from what the engine keeps.
    pub(super) async fn open(
        engine: Engine,
        base: &Base,
        gateway: &GatewayHandle,
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
        let opened = RunningShards::open(stores, shard_count, &base.registries.webhooks, common);
        let (running, places) = opened.await?;
        first_key(base).await?;
        let ocpp = Ocpp::open(
            gateway,
            configuration,
            base.registries.id_tags.clone(),
            running.projected(),
            shard_count,
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
            base.registries.webhooks.clone(),
            base.process.clock,
            attempts,
            failed.clone(),
        );
        let delivery = delivery.await?;
        Ok(Self {
            ocpp,
            delivery,
            shards: running,
            backup,
            ownership,
            serving: shutdown.child_token(),
            ending,
            failed,
        })
    }

    /// What others need of it.
    pub(super) fn current(&self, node: Node<'_>) -> Result<Current, RunError> {
        let base = node.base;
        let (stations, journals) = (self.ocpp.stations(), self.shards.journals());
        let readiness = Readiness {
            part: Part::Owner {
                ownership: self.ownership.clone(),
                journals: journals.clone(),
                delivery: self.delivery.clone(),
            },
            shutdown: self.serving.clone(),
        };
        let daemon = Daemon {
            delivery: self.delivery.clone(),
            stations: stations.clone(),
            connections: base.connections.clone(),
            journals: journals.clone(),
            readiness: readiness.clone(),
            addresses: base.addresses,
            started_at: base.process.started,
            clock: base.process.clock,
            data_dir: base.data_dir.clone(),
            certificates: base.certificates.clone(),
        };
        let owner = metrics::Owner {
            delivery: self.delivery.clone(),
            stations: stations.clone(),
            journals: journals.clone(),
        };
        let metrics = base.metrics(Some(owner), node.cluster, readiness.clone());
        let directory = StationDirectory::new(stations, base.registries.registrations.clone());
        let streams = EventStreams::new(journals.clone(), self.serving.clone());
        let trigger = Trigger::new(journals.clone(), self.delivery.clone(), base.process.clock);
        let grpc = grpc::router(grpc::Handles {
            delivery: self.delivery.clone(),
            directory: directory.clone(),
            transactions: self.ocpp.transactions(),
            id_tags: base.registries.id_tags.clone(),
            journals: journals.clone(),
            keys: base.keys.clone(),
            authenticator: base.authenticator.clone(),
            clock: base.process.clock,
            daemon,
            backup: Arc::clone(&self.backup),
            streams,
            trigger,
            cluster: node.cluster.clone(),
        });
        let (grpc, services) = grpc.map_err(|source| RunError::Server {
            what: "gRPC server",
            source,
        })?;
        let rest = rest::router(rest::Handles {
            services,
            delivery: self.delivery.clone(),
            directory,
            id_tags: base.registries.id_tags.clone(),
            authenticator: base.authenticator.clone(),
            readiness,
            metrics,
            keys: base.keys.clone(),
            clock: base.process.clock,
            cluster: node.cluster.clone(),
        });
        Ok(Current {
            ownership: self.ownership.clone(),
            delivery: self.delivery.clone(),
            journals,
            routers: Routers { rest, grpc },
        })
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
            () = failed.cancelled() => Err(RunError::Dispatcher),
        };
        serving.cancel();
        let grace = *base.settings.shutdown_grace.borrow();
        match stopped {
            Err(RunError::Overtaken) => {
                // Another node goes on: nothing that is in memory here counts any more, and whoever
                // would write it finds out.
                ending.cancel();
                let _ = time::timeout(OVERTAKEN_GRACE, shards.stop()).await;
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

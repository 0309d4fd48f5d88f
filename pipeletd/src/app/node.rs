//! A daemon's time as the owner of shards: all of it, or in a cluster, of each shard, whenever it has
//! the lease.

use std::{sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use pipelet_domain::shards::ShardId;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Base, OpenError, RunError,
    owner::{Owner, Owners, Stopped},
};
use crate::{
    api::{self, AllShards, nodes},
    cluster::{Peers, Requests, drain, members::Seen},
    ocpp::GatewayHandle,
    store::{Engine, StoreError, jetstream::Cluster},
};

/// After a node has come, until the others have said that they are there.
const HEAR_OTHERS: Duration = Duration::from_millis(300);

/// What it works with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a> {
    pub(super) base: &'a Base,
    pub(super) gateway: &'a GatewayHandle,
    /// The owners that there are here.
    pub(super) current: &'a watch::Sender<Owners>,
    pub(super) shutdown: &'a CancellationToken,
    /// Cancelled when, after the shutdown, all sockets are closed.
    pub(super) closed: &'a CancellationToken,
}

/// What a node of a cluster has besides.
#[derive(Clone, Copy)]
pub(super) struct Others<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) peers: &'a Peers,
    /// For its API.
    pub(super) api: &'a api::Cluster,
    pub(super) all: &'a AllShards,
    /// What it answers to other nodes.
    pub(super) answering: &'a nodes::Answering,
}

impl Node<'_> {
    /// Is the owner of all shards from now on until the shutdown.
    pub(super) async fn own(self, owner: Owner) -> Result<(), RunError> {
        self.publish(&owner).await;
        let stop = async {
            self.shutdown.cancelled().await;
            Stopped::WithDaemon
        };
        owner.run(self, stop).await
    }

    /// Has the others find the owner. Its settings may have changed while it recovered.
    async fn publish(self, owner: &Owner) {
        let current = owner.current(self.base);
        let delivery = current.delivery.clone();
        self.change(|owners| {
            owners.insert(owner.first_shard(), current);
        });
        let settings = self.base.settings.delivery.borrow().clone();
        delivery.change_settings(settings).await;
    }

    fn change(self, change: impl FnOnce(&mut Owners)) {
        self.current.send_modify(change);
    }

    /// Owns shards whenever their leases are this node's, until the shutdown.
    pub(super) async fn run(self, others: Others<'_>) -> Result<(), RunError> {
        let Others { peers, .. } = others;
        let requests = peers.requests(drain::TOPIC).await.map_err(RunError::Join)?;
        let leaving = async {
            self.shutdown.cancelled().await;
            // Others take the shards over, where there are any.
            if peers.seen().borrow().able.len() > 1 {
                peers.members().announce(|about| about.drained = true);
            }
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = self.own_shards(others) => ended,
            ended = nodes::serve(peers, others.answering) => ended.map_err(RunError::Join).and(Err(RunError::Ended("connection to NATS"))),
            () = others.api.watch_servers() => Ok(()),
            () = receive_drains(requests, peers) => Err(RunError::Ended("connection to NATS")),
            () = leaving => Ok(()),
        };
        self.shutdown.cancel();
        // Stations that are here are forwarded until they are sent away.
        self.closed.cancelled().await;
        peers.members().leave().await;
        ended
    }

    async fn own_shards(self, others: Others<'_>) -> Result<(), RunError> {
        sleep(HEAR_OTHERS).await;
        let shards = (0..others.cluster.shards()).map(ShardId);
        let owning = shards.map(|shard| self.own_in_turn(others, shard));
        try_join_all(owning).await.map(drop)
    }

    /// Owns the shard whenever it is to be this node's.
    async fn own_in_turn(self, others: Others<'_>, shard: ShardId) -> Result<(), RunError> {
        let Others { cluster, peers, .. } = others;
        let (members, me, count) = (peers.members(), peers.me(), cluster.shards());
        let is_home = |seen: &Seen| seen.home(shard, count) == Some(me);
        let mut seen = peers.seen();
        loop {
            let engine = tokio::select! {
                () = self.closed.cancelled() => return Ok(()),
                engine = async {
                    let _ = seen.wait_for(is_home).await;
                    let mut seen = seen.clone();
                    tokio::select! {
                        _ = seen.wait_for(|seen| !is_home(seen)) => None,
                        engine = lease(cluster, shard) => Some(engine),
                    }
                } => engine,
            };
            let owner = match engine {
                None | Some(Err(StoreError::Fenced)) => continue,
                Some(Ok(engine)) => self.take_over(engine, others.all).await,
                Some(Err(error)) => Err(error.into()),
            };
            let Some(owner) = owner.map_err(|error| RunError::TakeOver(Box::new(error)))? else {
                continue;
            };
            let term = owner.ownership().term();
            self.publish(&owner).await;
            members.announce(|about| {
                about.owned.insert(shard, term);
            });
            self.follow(others, &owner);
            let mut moved = seen.clone();
            let stop = async {
                tokio::select! {
                    // At the latest: stations that are here have been sent away by then.
                    () = self.closed.cancelled() => {}
                    _ = moved.wait_for(|seen| !is_home(seen)) => {}
                }
                // Calls go to the next owner, as soon as there is one.
                self.change(|owners| {
                    owners.remove(&shard);
                });
                Stopped::HandedOver
            };
            let ended = owner.run(self, stop).await;
            self.change(|owners| {
                owners.remove(&shard);
            });
            members.announce(|about| {
                about.owned.remove(&shard);
            });
            match ended {
                Ok(()) => {}
                Err(RunError::Overtaken) => {
                    tracing::error!(shard = shard.0, "another node has taken the shard over");
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Has it take up what is changed elsewhere; the owner of the first shard ends deletions.
    fn follow(self, others: Others<'_>, owner: &Owner) {
        let serving = owner.serving();
        let following = owner.delivery().clone().follow();
        tokio::spawn(serving.clone().run_until_cancelled_owned(following));
        if owner.first_shard() == ShardId(0) {
            let deliverers = Arc::new(others.all.clone());
            let tending = self.base.webhooks(deliverers).tend_deletions();
            tokio::spawn(serving.clone().run_until_cancelled_owned(tending));
        }
    }

    /// Takes a shard over, once the lease is this node's. None where that can't be just now.
    async fn take_over(self, engine: Engine, all: &AllShards) -> Result<Option<Owner>, OpenError> {
        let ownership = engine.ownership.clone();
        let others = Arc::new(all.clone());
        let opened = Owner::open(engine, self.base, self.gateway, Some(others), self.shutdown);
        let error = tokio::select! {
            opened = opened => match opened {
                Ok(owner) => return Ok(Some(owner)),
                Err(error) => error,
            },
            () = ownership.lost() => return Ok(None),
        };
        if !error.is_outage() {
            return Err(error);
        }
        let error = format!("{:#}", anyhow::Error::from(error));
        tracing::warn!(error, "a shard can't be taken over now");
        ownership.give_up().await;
        Ok(None)
    }
}

/// Waits for it.
async fn lease(cluster: &Cluster, shard: ShardId) -> Result<Engine, StoreError> {
    let waiting = |owner: &str| {
        tracing::info!(
            owner,
            shard = shard.0,
            "waiting for the shard: another node owns it"
        );
    };
    cluster.engine(shard, waiting).await
}

async fn receive_drains(mut requests: Requests, peers: &Peers) {
    while let Some(request) = requests.next().await {
        if let Some(asked) = drain::DrainRequest::parse(&request.message) {
            let drained = asked == drain::DrainRequest::Drain;
            peers.members().announce(|about| about.drained = drained);
            request.respond.with("").await;
        } else {
            tracing::warn!("a node wants something that this version doesn't understand");
        }
    }
}

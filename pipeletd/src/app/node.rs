//! A daemon's time as the owner of the shards: all of it, or in a cluster whenever it has the lease.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Base, OpenError, RunError,
    owner::{Current, Owner, Stopped},
    service_manager,
};
use crate::{
    api::{self, Switch, nodes},
    cluster::{Peers, Requests, drain},
    ocpp::GatewayHandle,
    store::{Engine, StoreError, jetstream::Cluster},
};

/// What it works with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a> {
    pub(super) base: &'a Base,
    /// For its API.
    pub(super) cluster: &'a api::Cluster,
    pub(super) gateway: &'a GatewayHandle,
    /// Answers calls that other nodes forward.
    pub(super) switch: &'a Switch,
    /// The owner, where that is this node.
    pub(super) current: &'a watch::Sender<Option<Current>>,
    pub(super) shutdown: &'a CancellationToken,
    /// Cancelled when, after the shutdown, all sockets are closed.
    pub(super) closed: &'a CancellationToken,
}

impl Node<'_> {
    /// Is the owner from now on until the shutdown.
    pub(super) async fn own(self, owner: Owner) -> Result<(), RunError> {
        self.publish(owner.current(self)?).await;
        let stop = async {
            self.shutdown.cancelled().await;
            Stopped::WithDaemon
        };
        owner.run(self, stop).await
    }

    /// Has the others find the owner. Its settings may have changed while it recovered.
    async fn publish(self, current: Current) {
        let delivery = current.delivery.clone();
        self.current.send_replace(Some(current));
        let settings = self.base.settings.delivery.borrow().clone();
        delivery.change_settings(settings).await;
    }

    /// Is the owner whenever the lease is this node's, until the shutdown.
    pub(super) async fn run(self, cluster: &Cluster, peers: &Peers) -> Result<(), RunError> {
        let requests = peers.requests(drain::TOPIC).await.map_err(RunError::Join)?;
        let drained = watch::Sender::new(false);
        let ended = tokio::select! {
            ended = self.own_in_turn(cluster, peers, drained.subscribe()) => ended,
            ended = nodes::serve(peers, self.switch) => ended.map_err(RunError::Join).and(Err(RunError::Ended("connection to NATS"))),
            () = self.cluster.watch_servers() => Ok(()),
            () = receive_drains(requests, &drained) => Err(RunError::Ended("connection to NATS")),
        };
        self.shutdown.cancel();
        // Stations that are here are forwarded until they are sent away.
        self.closed.cancelled().await;
        peers.members().leave().await;
        ended
    }

    async fn own_in_turn(
        self,
        cluster: &Cluster,
        peers: &Peers,
        mut drained: watch::Receiver<bool>,
    ) -> Result<(), RunError> {
        let members = peers.members();
        loop {
            let is_drained = *drained.borrow_and_update();
            members.announce(|about| about.drained = is_drained);
            let engine = tokio::select! {
                () = self.shutdown.cancelled() => return Ok(()),
                _ = drained.changed() => continue,
                engine = lease(cluster), if !is_drained => engine,
            };
            let owner = match engine {
                Ok(engine) => self.take_over(engine).await,
                Err(error) => Err(error.into()),
            };
            let Some(owner) = owner.map_err(|error| RunError::TakeOver(Box::new(error)))? else {
                continue;
            };
            let term = owner.ownership().term();
            self.publish(owner.current(self)?).await;
            members.announce(|about| about.term = Some(term));
            let stop = async {
                tokio::select! {
                    // Stations that are here are sent away first.
                    () = self.closed.cancelled() => {}
                    _ = drained.wait_for(|drained| *drained) => {}
                }
                // Calls go to the next owner, as soon as there is one.
                self.current.send_replace(None);
                Stopped::HandedOver
            };
            let ended = owner.run(self, stop).await;
            self.current.send_replace(None);
            members.announce(|about| about.term = None);
            ended?;
            if self.shutdown.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// Takes the shards over, once the lease is this node's. None where that can't be just now.
    async fn take_over(self, engine: Engine) -> Result<Option<Owner>, OpenError> {
        let ownership = engine.ownership.clone();
        let opened = Owner::open(engine, self.base, self.gateway, self.shutdown);
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
        tracing::warn!(error, "the shards can't be taken over now");
        ownership.give_up().await;
        Ok(None)
    }
}

/// Waits for it.
async fn lease(cluster: &Cluster) -> Result<Engine, StoreError> {
    let waiting = |owner: &str| {
        tracing::info!(owner, "standing by: another node owns the shards");
        service_manager::standing_by(owner);
    };
    cluster.engine(waiting).await
}

async fn receive_drains(mut requests: Requests, drained: &watch::Sender<bool>) {
    while let Some(request) = requests.next().await {
        if let Some(asked) = drain::DrainRequest::parse(&request.message) {
            drained.send_replace(asked == drain::DrainRequest::Drain);
            request.respond.with("").await;
        } else {
            tracing::warn!("a node wants something that this version doesn't understand");
        }
    }
}

//! The cluster, as the node that is asked sees it: the same for gRPC and REST.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use pipelet_domain::shards::ShardId;
use pipelet_proto::v1;
use tokio::{
    sync::watch,
    time::{Instant, interval, sleep, timeout, timeout_at},
};

use super::{error::ApiError, wire::time};
use crate::{
    cluster::{
        Member, Peers, Unanswered,
        drain::{DrainRequest, TOPIC},
    },
    store::jetstream,
    system::clock::Clock,
};

/// How long servers may take to tell how they do.
const SERVERS_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a node may take to answer, and then to hand its shards over.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);
const HAND_OVER_TIMEOUT: Duration = Duration::from_mins(1);
/// Between two looks at whether it has: nodes say so at once.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How often the servers are asked by themselves, for the metrics.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// None where the daemon is no node.
    node: Option<(Arc<jetstream::Cluster>, Peers)>,
    /// As they were seen last.
    servers: Arc<watch::Sender<Vec<jetstream::ServerHealth>>>,
    clock: Clock,
}

impl Cluster {
    /// `node` is none where the daemon is no node of one.
    pub fn new(node: Option<(Arc<jetstream::Cluster>, Peers)>, clock: Clock) -> Self {
        Self {
            node,
            servers: Arc::default(),
            clock,
        }
    }

    pub(super) fn peers(&self) -> Option<&Peers> {
        self.node.as_ref().map(|(_, peers)| peers)
    }

    /// The servers, as they were seen last by [`Self::watch_servers`].
    pub(super) fn last_seen(&self) -> Vec<jetstream::ServerHealth> {
        self.servers.borrow().clone()
    }

    /// Looks at the servers now and then, for as long as it is polled.
    pub async fn watch_servers(&self) {
        let Some((cluster, _)) = &self.node else {
            return std::future::pending().await;
        };
        let mut turns = interval(LOOK_EVERY);
        loop {
            turns.tick().await;
            // Whether they answer is what the outages tell.
            if let Ok(Ok(servers)) = timeout(SERVERS_TIMEOUT, cluster.servers()).await {
                self.servers.send_replace(servers);
            }
        }
    }

    fn node(&self) -> Result<&(Arc<jetstream::Cluster>, Peers), ApiError> {
        self.node.as_ref().ok_or_else(|| ApiError::Conflict {
            code: "no_cluster",
            message: "this daemon is no node of a cluster: --store makes it one".to_owned(),
        })
    }

    pub(super) async fn get(&self) -> Result<v1::GetClusterResponse, ApiError> {
        let (cluster, peers) = self.node()?;
        let servers = timeout(SERVERS_TIMEOUT, cluster.servers()).await;
        let (servers, nats_error) = match servers {
            Ok(Ok(servers)) => (servers, None),
            Ok(Err(error)) => (Vec::new(), Some(error.chain())),
            Err(_) => (Vec::new(), Some("they don't answer".to_owned())),
        };
        let owners = peers.seen().borrow().owners.clone();
        let members = peers.members().list();
        let shard_owners = (0..cluster.shards()).map(|shard| {
            let owner = owners.get(&ShardId(shard)).and_then(|owner| {
                let mut found = members.iter();
                found.find(|it| it.incarnation == owner.node && it.is_there())
            });
            v1::ClusterShard {
                shard: shard.into(),
                owner: owner.map(|it| it.about.node.clone()),
            }
        });
        Ok(v1::GetClusterResponse {
            name: cluster.name().to_owned(),
            shards: cluster.shards().into(),
            shard_owners: shard_owners.collect(),
            nodes: members.iter().map(|it| self.shown(it)).collect(),
            nats_servers: servers.into_iter().map(server).collect(),
            nats_error,
        })
    }

    /// Has a node drained, or taken back, and waits until it is.
    pub(super) async fn drain(
        &self,
        name: &str,
        request: DrainRequest,
    ) -> Result<v1::ClusterNode, ApiError> {
        let (_, peers) = self.node()?;
        let node = || {
            let members = peers.members().list();
            // The last of that name.
            let mut named = members.into_iter().rev().filter(|it| it.about.node == name);
            named.next().ok_or_else(|| ApiError::NotFound {
                code: "no_such_node",
                message: format!("the cluster has no node {name:?}"),
            })
        };
        let incarnation = node()?.incarnation;
        let address = peers.address(incarnation, TOPIC);
        let asked = peers.ask(&address, request.message(), NODE_TIMEOUT);
        asked.await.map_err(|why| silent(name, &why))?;
        let deadline = Instant::now() + HAND_OVER_TIMEOUT;
        loop {
            let node = node()?;
            let is_done = match request {
                DrainRequest::Drain => node.about.drained && node.about.owned.is_empty(),
                DrainRequest::Undrain => !node.about.drained,
            };
            if is_done {
                return Ok(self.shown(&node));
            }
            if timeout_at(deadline, sleep(LOOK_AGAIN)).await.is_err() {
                let why = format!("node {name} has not done it in {HAND_OVER_TIMEOUT:?}");
                return Err(ApiError::Unavailable(why));
            }
        }
    }

    fn shown(&self, member: &Member) -> v1::ClusterNode {
        let about = &member.about;
        let state = match (member.is_there(), about.drained) {
            (false, _) => "silent",
            (true, true) => "drained",
            (true, false) => "up",
        };
        let silent_for = SignedDuration::try_from(member.silent_for()).unwrap_or_default();
        let owners = self.node.as_ref().map(|(_, peers)| peers.seen());
        let owners = owners.map(|seen| seen.borrow().owners.clone());
        let owners = owners.unwrap_or_default();
        let owns = owners.values().filter(|it| it.node == member.incarnation);
        let shards = u32::try_from(owns.count()).unwrap_or(u32::MAX);
        let me = self.node.as_ref().map(|(_, peers)| peers.me());
        v1::ClusterNode {
            name: about.node.clone(),
            state: state.to_owned(),
            shards,
            stations: about.load.stations,
            // Of one that owned them before it died, another one tells.
            pending: if shards > 0 { about.load.pending } else { 0 },
            version: about.version.clone(),
            started_at: Timestamp::from_millisecond(about.started_ms).ok().map(time),
            last_heard_at: Some(time(self.clock.now() - silent_for)),
            http_address: about.http.clone(),
            grpc_address: about.grpc.clone(),
            ocpp_address: about.ocpp.clone(),
            answers: me == Some(member.incarnation),
        }
    }
}

fn server(health: jetstream::ServerHealth) -> v1::NatsServer {
    v1::NatsServer {
        name: health.name,
        leads: health.leads,
        follows: health.follows,
        lag: health.lag,
        offline: health.offline,
    }
}

fn silent(node: &str, why: &Unanswered) -> ApiError {
    ApiError::Unavailable(format!("node {node} can't be asked: {why}"))
}

//! What a node tells of its cluster; a daemon that is none tells nothing.

use prometheus::proto::MetricFamily;

use super::{
    super::{cluster::Cluster, status::Part},
    family::Family,
};

pub(super) fn families(cluster: &Cluster, part: &Part) -> Vec<MetricFamily> {
    let Some(peers) = cluster.peers() else {
        return Vec::new();
    };
    let seen = peers.seen();
    let owner = seen.borrow().owner;
    let members = peers.members().list();
    let mut nodes = Family::gauge(
        "pipelet_cluster_nodes",
        "Nodes that this one knows, by state.",
    );
    let silent = members.iter().filter(|it| !it.is_there()).count();
    nodes.add(&[("state", "there")], members.len() - silent);
    nodes.add(&[("state", "silent")], silent);
    let mut lag = Family::gauge(
        "pipelet_nats_server_lag",
        "How many operations a NATS server is behind, in the stream where it is most.",
    );
    let mut offline = Family::gauge(
        "pipelet_nats_server_offline",
        "Whether a NATS server that has streams of the cluster is gone.",
    );
    for server in cluster.last_seen() {
        lag.add(&[("server", &server.name)], server.lag);
        offline.add(&[("server", &server.name)], server.offline);
    }
    vec![
        nodes.done(),
        lag.done(),
        offline.done(),
        Family::gauge(
            "pipelet_cluster_owner",
            "Whether this node owns the shards of its cluster.",
        )
        .of(part.is_owner()),
        Family::gauge(
            "pipelet_cluster_has_owner",
            "Whether this node knows one that owns the shards.",
        )
        .of(part.has_owner()),
        Family::gauge(
            "pipelet_cluster_term",
            "The term of the owner that this node knows: it changes with the owner.",
        )
        .of(owner.map_or(0, |owner| owner.term)),
    ]
}

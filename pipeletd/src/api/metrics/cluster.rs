//! What a node tells of its cluster; a daemon that is none tells nothing.

use prometheus::proto::MetricFamily;

use super::{
    super::{cluster::Cluster, status::Readiness},
    family::Family,
};

pub(super) fn families(
    cluster: &Cluster,
    readiness: &Readiness,
    owned: usize,
) -> Vec<MetricFamily> {
    let Some(peers) = cluster.peers() else {
        return Vec::new();
    };
    let seen = peers.seen();
    let terms = seen.borrow().owners.values().map(|it| it.term).max();
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
            "pipelet_cluster_shards_owned",
            "How many shards of its cluster this node owns.",
        )
        .of(owned),
        Family::gauge(
            "pipelet_cluster_has_owner",
            "Whether this node knows an owner of each shard.",
        )
        .of(readiness.without_owner().is_empty()),
        Family::gauge(
            "pipelet_cluster_term",
            "The highest term of an owner that this node knows: it changes when a shard's owner does.",
        )
        .of(terms.unwrap_or(0)),
    ]
}

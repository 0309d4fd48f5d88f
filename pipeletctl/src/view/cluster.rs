//! A cluster: its nodes, and the servers of NATS that keep everything.

use std::collections::BTreeMap;

use pipelet_proto::v1::{ClusterNode, ClusterShard, GetClusterResponse, NatsServer};

use super::time::shown;
use crate::{
    output::Describe,
    table::{self, Details},
};

impl Describe for GetClusterResponse {
    fn describe(&self) -> Details {
        let nats = match &self.nats_error {
            Some(error) => format!("  no answer: {error}\n"),
            None => servers(&self.nats_servers),
        };
        Details::default()
            .line("cluster", &self.name)
            .line("shards", self.shards.to_string())
            .section("nodes", nodes(&self.nodes))
            .section("owners", owners(&self.shard_owners))
            .section("nats servers", nats)
    }
}

fn nodes(nodes: &[ClusterNode]) -> String {
    let rows: Vec<Vec<String>> = nodes
        .iter()
        .map(|node| {
            let name = if node.answers {
                format!("{} *", node.name)
            } else {
                node.name.clone()
            };
            vec![
                name,
                node.state.clone(),
                node.shards.to_string(),
                node.stations.to_string(),
                node.pending.to_string(),
                node.version.clone(),
                shown(node.started_at),
                shown(node.last_heard_at),
                node.ocpp_address.clone(),
            ]
        })
        .collect();
    let headers = [
        "NODE",
        "STATE",
        "SHARDS",
        "STATIONS",
        "PENDING",
        "VERSION",
        "STARTED",
        "LAST HEARD",
        "OCPP",
    ];
    table::section(
        &headers,
        &rows,
        &["STARTED", "OCPP", "VERSION", "LAST HEARD"],
    )
}

fn owners(shards: &[ClusterShard]) -> String {
    let mut of: BTreeMap<Option<&str>, Vec<u32>> = BTreeMap::new();
    for shard in shards {
        let owner = shard.owner.as_deref();
        of.entry(owner).or_default().push(shard.shard);
    }
    let rows: Vec<Vec<String>> = of
        .into_iter()
        .map(|(owner, shards)| vec![owner.unwrap_or("nobody").to_owned(), numbers(&shards)])
        .collect();
    table::section(&["OWNER", "SHARDS"], &rows, &[])
}

/// As in "0-2, 7".
pub(crate) fn numbers(shards: &[u32]) -> String {
    let runs = shards.chunk_by(|one, next| one + 1 == *next);
    let runs = runs.filter_map(|run| match run {
        [] => None,
        [one] => Some(one.to_string()),
        [first, .., last] => Some(format!("{first}-{last}")),
    });
    runs.collect::<Vec<_>>().join(", ")
}

/// Those that no node owns.
pub(crate) fn without_owner(cluster: &GetClusterResponse) -> Vec<u32> {
    let without = cluster.shard_owners.iter().filter(|it| it.owner.is_none());
    without.map(|it| it.shard).collect()
}

fn servers(servers: &[NatsServer]) -> String {
    let rows: Vec<Vec<String>> = servers
        .iter()
        .map(|server| {
            let state = match (server.offline, server.lag) {
                (true, _) => "offline",
                (false, 0) => "current",
                (false, _) => "behind",
            };
            vec![
                server.name.clone(),
                state.to_owned(),
                server.leads.to_string(),
                server.follows.to_string(),
                server.lag.to_string(),
            ]
        })
        .collect();
    table::section(&["SERVER", "STATE", "LEADS", "FOLLOWS", "LAG"], &rows, &[])
}

//! A cluster: its nodes, and the servers of NATS that keep everything.

use pipelet_proto::v1::{ClusterNode, GetClusterResponse, NatsServer};

use super::time::shown;
use crate::{
    output::Describe,
    table::{self, Details},
    words::or_dash,
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
            .line("owner", or_dash(self.owner.as_ref()))
            .section("nodes", nodes(&self.nodes))
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

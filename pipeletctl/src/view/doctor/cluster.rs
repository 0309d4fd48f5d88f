//! Findings about the cluster that the daemon is a node of.

use std::collections::BTreeMap;

use pipelet_proto::v1;

use super::finding::{Finding, moment};
use crate::{
    view::{
        cluster::{numbers, without_owner},
        time::Time,
    },
    words::counted,
};

/// So many messages behind, a server would be of no use if the others died: the shipped alert has
/// the same.
const BEHIND: u64 = 1000;

/// What is found of it, whether or not the shards have an owner.
pub(super) fn cluster(cluster: &v1::GetClusterResponse) -> Vec<Finding> {
    let mut findings = vec![owner(cluster)];
    let up: Vec<_> = nodes(cluster, "up").collect();
    if let [alone] = up[..] {
        let message = format!("{} is the only node that is up", alone.name);
        let finding = Finding::warning("cluster", "cluster_one_node", message);
        findings.push(finding.hint("start another one: nobody goes on when this one dies"));
    }
    findings.extend(nodes(cluster, "silent").map(silent));
    findings.extend(versions(cluster));
    if let Some(error) = &cluster.nats_error {
        let message = format!("the NATS servers don't answer: {error}");
        let finding = Finding::problem("cluster", "nats_silent", message);
        findings.push(finding.hint(
            "most of them must run and reach each other (`systemctl status nats`); until then events \
             are refused, and stations keep them",
        ));
    }
    findings.extend(cluster.nats_servers.iter().filter_map(server));
    findings
}

fn nodes<'a>(
    cluster: &'a v1::GetClusterResponse,
    state: &str,
) -> impl Iterator<Item = &'a v1::ClusterNode> {
    cluster.nodes.iter().filter(move |node| node.state == state)
}

fn owner(cluster: &v1::GetClusterResponse) -> Finding {
    let name = &cluster.name;
    let without = without_owner(cluster);
    if without.is_empty() {
        let up = cluster.nodes.iter().filter(|it| it.state != "silent");
        let nodes = counted(up.count() as u64, "node", "nodes");
        let shards = counted(cluster.shards.into(), "shard", "shards");
        let servers = cluster.nats_servers.len() as u64;
        let servers = counted(servers, "NATS server", "NATS servers");
        let message = format!("{name}: {shards}, each with its owner; {nodes} and {servers}");
        return Finding::ok("cluster", message);
    }
    let message = match without.len() {
        1 => format!("{name}: no node owns shard {}", without[0]),
        _ => format!("{name}: no node owns the shards {}", numbers(&without)),
    };
    let finding = Finding::problem("cluster", "cluster_without_owner", message);
    let drained: Vec<_> = nodes(cluster, "drained").collect();
    match drained[..] {
        [first, ..] if nodes(cluster, "up").next().is_none() => {
            let undo = format!("pipeletctl cluster drain {} --undo", first.name);
            finding.hint(format!(
                "every node is drained: `{undo}` lets one own them again"
            ))
        }
        _ => finding.hint(
            "others take them over within seconds, as soon as most NATS servers answer: `pipeletctl \
             cluster status`, and the nodes' logs",
        ),
    }
}

fn silent(node: &v1::ClusterNode) -> Finding {
    let name = &node.name;
    let since = moment(node.last_heard_at);
    let since = since.map_or_else(String::new, |since| format!(" since {}", Time::at(since)));
    let message = format!("nothing was heard of node {name}{since}");
    Finding::warning("cluster", "node_silent", message)
        .hint("the others go on without it; start it again, or see whether it is cut off from NATS")
}

fn versions(cluster: &v1::GetClusterResponse) -> Option<Finding> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in cluster.nodes.iter().filter(|it| it.state != "silent") {
        versions.entry(&node.version).or_default().push(&node.name);
    }
    if versions.len() < 2 {
        return None;
    }
    let versions = versions.iter();
    let versions = versions.map(|(version, nodes)| format!("{version} ({})", nodes.join(", ")));
    let versions = versions.collect::<Vec<_>>().join(", ");
    let message = format!("nodes run different versions: {versions}");
    let finding = Finding::warning("cluster", "node_versions", message);
    Some(finding.hint("finish the upgrade, one node after the other"))
}

fn server(server: &v1::NatsServer) -> Option<Finding> {
    let name = &server.name;
    let (code, message) = if server.offline {
        ("nats_server_offline", format!("NATS server {name} is gone"))
    } else if server.lag > BEHIND {
        let message = format!("NATS server {name} is {} messages behind", server.lag);
        ("nats_server_behind", message)
    } else {
        return None;
    };
    let finding = Finding::warning("cluster", code, message);
    Some(finding.hint("the next server that dies may stop the cluster: look at this one first"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, state: &str, version: &str) -> v1::ClusterNode {
        v1::ClusterNode {
            name: name.to_owned(),
            state: state.to_owned(),
            version: version.to_owned(),
            ..v1::ClusterNode::default()
        }
    }

    fn codes(cluster: &v1::GetClusterResponse) -> Vec<String> {
        let found = super::cluster(cluster).into_iter();
        found.map(|finding| finding.code.into_owned()).collect()
    }

    #[test]
    fn each_thing_that_is_wrong_is_found() {
        let mut cluster = v1::GetClusterResponse {
            shard_owners: vec![v1::ClusterShard {
                shard: 0,
                owner: Some("a".to_owned()),
            }],
            nodes: vec![node("a", "up", "1"), node("b", "up", "1")],
            nats_servers: vec![v1::NatsServer::default()],
            ..v1::GetClusterResponse::default()
        };
        assert_eq!(codes(&cluster), ["ok"]);
        cluster.nodes[1] = node("b", "silent", "0");
        cluster.nodes.push(node("c", "drained", "2"));
        cluster.nats_servers[0].lag = BEHIND + 1;
        let expected = [
            "ok",
            "cluster_one_node",
            "node_silent",
            "node_versions",
            "nats_server_behind",
        ];
        assert_eq!(codes(&cluster), expected);
        cluster.shard_owners[0].owner = None;
        cluster.nodes = vec![node("a", "drained", "1"), node("b", "drained", "1")];
        cluster.nats_servers[0].offline = true;
        cluster.nats_error = Some("timed out".to_owned());
        let found = super::cluster(&cluster);
        let hint = found[0].hint.as_deref().unwrap();
        assert!(hint.contains("cluster drain a --undo"), "{hint}");
        let expected = [
            "cluster_without_owner",
            "nats_silent",
            "nats_server_offline",
        ];
        assert_eq!(codes(&cluster), expected);
    }
}

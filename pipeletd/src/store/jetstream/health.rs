//! How the servers do that have the cluster's streams.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::try_join_all;
use pipelet_domain::shards::ShardId;

use super::{Cluster, record_stream::in_time};
use crate::store::StoreError;

/// A server that a stream's leader has heard nothing of for so long is gone: servers themselves take
/// much longer to say so.
const SILENT: Duration = Duration::from_secs(5);

/// What one server has of the cluster's streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerHealth {
    pub name: String,
    /// Streams that it leads.
    pub leads: u32,
    /// Streams that it has a further copy of.
    pub follows: u32,
    /// How many operations it is behind, in the stream where it is most.
    pub lag: u64,
    pub offline: bool,
}

impl Cluster {
    /// All of them, by name, as the streams' leaders know them.
    pub async fn servers(&self) -> Result<Vec<ServerHealth>, StoreError> {
        let of_shards = (0..self.shards).flat_map(|shard| {
            ["log", "table"].map(|what| super::stream_of_shard(self.name(), what, ShardId(shard)))
        });
        let of_all = ["config", "leases"].map(|what| format!("{}_{what}", self.name()));
        let streams = of_all.into_iter().chain(of_shards);
        let found = streams.map(async |name| {
            let stream = in_time(self.streams.jetstream.get_stream(&name)).await?;
            Ok::<_, StoreError>(stream.cached_info().cluster.clone())
        });
        let mut servers: BTreeMap<String, ServerHealth> = BTreeMap::new();
        let mut server = |name: &str, change: &dyn Fn(&mut ServerHealth)| {
            let known = servers.entry(name.to_owned()).or_default();
            name.clone_into(&mut known.name);
            change(known);
        };
        // One server alone is no group, and leads all.
        let alone = self.streams.jetstream.client().server_info().server_name;
        for group in try_join_all(found).await? {
            let (leader, replicas) = match group {
                Some(group) => (group.leader, group.replicas),
                None => (Some(alone.clone()), Vec::new()),
            };
            if let Some(leader) = leader.filter(|name| !name.is_empty()) {
                server(&leader, &|it| it.leads += 1);
            }
            for peer in replicas {
                server(&peer.name, &|it| {
                    it.follows += 1;
                    it.lag = it.lag.max(peer.lag.unwrap_or(0));
                    let is_silent = !peer.current && peer.active > SILENT;
                    it.offline |= peer.offline || is_silent;
                });
            }
        }
        Ok(servers.into_values().collect())
    }
}

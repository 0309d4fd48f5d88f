//! What is known of the stations of all shards.

use std::sync::Arc;

use jiff::Timestamp;
use pipelet_domain::{
    events::{IdTagKey, Seq, StationId},
    shards::Shards,
};

use super::{
    command_queue::{CommandQueue, End},
    command_stats::{CommandCounts, CommandStats},
    commands::CommandError,
    stations::{At, ShardStations, StationCounts, StationView, UnstableStation},
    transactions::Connector,
};

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stations {
    shards: Shards<ShardStations>,
    commands: Arc<CommandStats>,
}

impl Stations {
    pub(super) fn new(shards: Shards<ShardStations>) -> Self {
        let commands = Arc::default();
        Self { shards, commands }
    }

    pub(super) fn of(&self, station: &StationId) -> &ShardStations {
        self.shards.of(station)
    }

    pub(super) const fn shards(&self) -> &Shards<ShardStations> {
        &self.shards
    }

    /// Below this position, no event of its shard is needed any more to know what is known of
    /// stations. By shard.
    pub fn saved_to(&self, shard: usize) -> Seq {
        let shard = self.shards.iter().nth(shard);
        shard.map_or(Seq(0), ShardStations::saved_to)
    }

    pub fn get(&self, id: &StationId) -> Option<StationView> {
        self.of(id).get(id)
    }

    /// Whether it has ever connected.
    pub fn knows(&self, id: &StationId) -> bool {
        self.of(id).knows(id)
    }

    /// Those after `after` in the ids' order, connected or not as asked for.
    pub fn list(
        &self,
        after: Option<&StationId>,
        connected: Option<bool>,
        limit: usize,
    ) -> Vec<StationView> {
        let shards = self.shards.iter();
        let mut found: Vec<_> = shards
            .flat_map(|shard| shard.list(after, connected, limit))
            .collect();
        if self.shards.count() > 1 {
            found.sort_unstable_by(|one, other| one.state.id.cmp(&other.state.id));
            found.truncate(limit);
        }
        found
    }

    pub fn counts(&self) -> StationCounts {
        let counts = self.shards.iter().map(ShardStations::counts);
        let none = StationCounts {
            connected: 0,
            known: 0,
        };
        counts.fold(none, |sum, counts| StationCounts {
            connected: sum.connected + counts.connected,
            known: sum.known + counts.known,
        })
    }

    /// How many were forgotten to make room.
    pub fn forgotten(&self) -> u64 {
        self.shards.iter().map(ShardStations::forgotten).sum()
    }

    /// At most `limit` stations that can't settle, those with the most boots or connections first.
    pub fn unstable(&self, now: Timestamp, limit: usize) -> Vec<UnstableStation> {
        let shards = self.shards.iter();
        let mut found: Vec<_> = shards.flat_map(|shard| shard.unstable(now)).collect();
        found.sort_by_key(|unstable| std::cmp::Reverse(unstable.count));
        found.truncate(limit);
        found
    }

    /// One that is not registered any more can be forgotten.
    pub fn unregistered(&self, id: &StationId) {
        self.of(id).unregistered(id);
    }

    /// How commands ended, by action.
    pub fn commands(&self) -> Vec<CommandCounts> {
        self.commands.snapshot()
    }

    pub(super) fn command_stats(&self) -> &CommandStats {
        &self.commands
    }

    /// Asks every connection to end that is there.
    pub(super) fn end_all(&self, places: &[At], end: End) {
        self.shards
            .iter()
            .for_each(|shard| shard.end_all(places, end));
    }

    /// As [`ShardStations::dismiss`].
    pub(super) fn dismiss(&self, id: &StationId) -> Option<bool> {
        self.of(id).dismiss(id)
    }

    /// Where commands for a station wait for their turn, while it is connected.
    pub(super) fn command_queue(&self, id: &StationId) -> Result<CommandQueue, CommandError> {
        self.of(id).command_queue(id)
    }

    /// Whether the tag charges at another place than this connector.
    pub fn charges_beside(
        &self,
        tag: &IdTagKey,
        station: &StationId,
        connector_id: Option<u32>,
    ) -> bool {
        let here = Connector {
            station,
            connector_id,
        };
        self.charges_elsewhere(tag, here)
    }

    /// Whether the tag charges at another place, by a transaction that was accepted there.
    pub(super) fn charges_elsewhere(&self, tag: &IdTagKey, here: Connector<'_>) -> bool {
        let mut shards = self.shards.iter();
        shards.any(|shard| shard.transactions().charges_elsewhere(tag, here))
    }
}

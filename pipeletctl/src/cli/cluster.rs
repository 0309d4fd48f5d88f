//! `cluster`, as clap reads it.

use clap::Subcommand;

use super::candidates::Candidates;

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Its nodes, the shards that each owns, and its NATS servers; fails where a shard has no owner
    ///
    /// As the node sees it that is asked. It answers where shards have no owner, too.
    Status,
    /// Has a node hand its shards over and take none from then on, as before an upgrade
    ///
    /// Returns once another node may go on. Stations stay connected to the node. A node that is told
    /// to end (SIGTERM) drains by itself, and one that is started again is no longer drained.
    Drain {
        #[arg(value_name = "NODE", add = Candidates::Nodes)]
        node: String,
        /// Lets it own shards again
        #[arg(long)]
        undo: bool,
    },
}

//! `transactions`, as clap reads it.

use clap::{Args, Subcommand};

use super::{candidates::Candidates, limit::Limit};
use crate::system::when::When;

#[derive(Debug, Subcommand)]
pub(crate) enum Transactions {
    /// Shows transactions, the latest first
    List {
        #[command(flatten)]
        filter: TransactionFilter,
        #[command(flatten)]
        limit: Limit,
    },
    /// Shows one transaction with its last meter values
    #[command(alias = "get")]
    Show { id: i64 },
}

/// Which transactions are meant; all that is given must hold.
#[derive(Debug, Args)]
pub(crate) struct TransactionFilter {
    /// Of this station
    #[arg(long, add = Candidates::Stations)]
    pub(crate) station: Option<String>,
    /// Of this id tag
    #[arg(long, value_name = "TAG", add = Candidates::IdTags)]
    pub(crate) id_tag: Option<String>,
    /// Only those that have not ended
    #[arg(long, conflicts_with = "stopped")]
    pub(crate) open: bool,
    /// Only those that were stopped
    #[arg(long)]
    pub(crate) stopped: bool,
    /// Only those whose station has sent nothing about them for too long
    #[arg(long, conflicts_with_all = ["open", "stopped"])]
    pub(crate) abandoned: bool,
    /// Started from then on: 2026-04-14T12:00:00Z, or how long ago, like 2h
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<When>,
    /// Started before then
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<When>,
}

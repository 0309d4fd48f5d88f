//! `deliveries`, as clap reads it.

use clap::{Subcommand, ValueEnum};

use super::{dlq::Filter, limit::Limit};

#[derive(Debug, Subcommand)]
pub(crate) enum Deliveries {
    /// Shows deliveries of all webhooks, or of one
    ///
    /// Pending ones wait for a retry; what was not attempted yet is shown as a number. Failed ones
    /// are the dead letters. Of delivered ones the latest of each webhook are known.
    List {
        /// What became of them so far [default: first the pending, then failed, then delivered]
        #[arg(long, value_enum, value_name = "STATUS")]
        status: Option<DeliveryStatus>,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        limit: Limit,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeliveryStatus {
    /// Waiting for a retry
    Pending,
    /// Dead letters
    #[value(alias = "dead")]
    Failed,
    /// The latest that were delivered
    Delivered,
}

//! `dlq`, as clap reads it.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::{
    assume_yes::AssumeYes,
    candidates::Candidates,
    limit::Limit,
    named::{Named, parse_id},
};
use crate::system::{rate::Rate, when::When};

#[derive(Debug, Subcommand)]
pub(crate) enum Dlq {
    /// Shows dead letters
    List {
        #[command(flatten)]
        filter: Filter,
        /// Counts them instead: by what their last attempt failed of, by webhook and so on
        #[arg(long, value_enum, value_name = "WHAT")]
        group_by: Option<GroupBy>,
        #[command(flatten)]
        limit: Limit,
    },
    /// Shows one dead letter with its attempts
    #[command(alias = "get")]
    Show {
        #[arg(value_parser = parse_id, add = Candidates::FailedDeliveries)]
        id: u64,
    },
    /// Gives dead letters a new round of attempts
    ///
    /// The daemon goes on with it when this command is interrupted. Fails where no first attempt
    /// succeeds, and ends with 6 where only some do; what failed again is retried as usual. With
    /// --rate or --canary it goes from webhook to webhook, stops where 3 of the last 10 fail, and
    /// ends when it is interrupted; the same command goes on with what is left.
    #[command(group(which()), override_usage = REPLAY_USAGE)]
    Replay {
        #[command(flatten)]
        selection: Selection,
        #[command(flatten)]
        pace: Pace,
    },
    /// Deletes dead letters for good; asks first
    #[command(group(which()), override_usage = PURGE_USAGE)]
    Purge {
        #[command(flatten)]
        selection: Selection,
        #[command(flatten)]
        assume: AssumeYes,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GroupBy {
    Code,
    Webhook,
    Event,
    Station,
}

/// Which dead letters are meant; all that is given must hold.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Filter {
    /// Of this webhook
    #[arg(long, value_name = "WEBHOOK", add = Candidates::Webhooks)]
    pub(crate) webhook: Option<Named>,
    /// Of this event type
    #[arg(long, add = Candidates::EventTypes)]
    pub(crate) event: Option<String>,
    /// Of this station
    #[arg(long, add = Candidates::Stations)]
    pub(crate) station: Option<String>,
    /// Events from then on: 2026-04-14T12:00:00Z, or how long ago, like 2h
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<When>,
    /// Events before then
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<When>,
}

/// Ids, or a filter, or all.
#[derive(Debug, Args)]
pub(crate) struct Selection {
    /// These dead letters
    #[arg(
        value_name = "ID",
        value_parser = parse_id,
        add = Candidates::FailedDeliveries,
        conflicts_with_all = ["all", "webhook", "event", "station", "since", "until"]
    )]
    pub(crate) ids: Vec<u64>,
    /// All of them, or all that the other flags leave
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) filter: Filter,
}

/// How fast a replay goes; nothing said: as fast as the daemon can.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Pace {
    /// At most this many, like 50/s or 600/m
    #[arg(long, value_name = "RATE")]
    pub(crate) rate: Option<Rate>,
    /// To each webhook one first; once that is delivered 2, 4, 8 and so on, up to the rate
    #[arg(long)]
    pub(crate) canary: bool,
}

const REPLAY_USAGE: &str = "pipeletctl dlq replay [OPTIONS] <ID>...
       pipeletctl dlq replay [OPTIONS] --all
       pipeletctl dlq replay [OPTIONS] [--webhook <WEBHOOK>] [--event <EVENT>] [--station <STATION>] \
[--since <TIME>] [--until <TIME>]";

const PURGE_USAGE: &str = "pipeletctl dlq purge [OPTIONS] <ID>...
       pipeletctl dlq purge [OPTIONS] --all
       pipeletctl dlq purge [OPTIONS] [--webhook <WEBHOOK>] [--event <EVENT>] [--station <STATION>] \
[--since <TIME>] [--until <TIME>]";

/// To say nothing is not to say all.
fn which() -> ArgGroup {
    ArgGroup::new("which")
        .args([
            "ids", "all", "webhook", "event", "station", "since", "until",
        ])
        .required(true)
        .multiple(true)
}

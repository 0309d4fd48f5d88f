//! `events`, as clap reads it.

use clap::{Args, Subcommand};

use super::{
    candidates::Candidates,
    limit::{EndAfter, Limit},
};
use crate::system::when::When;

#[derive(Debug, Subcommand)]
pub(crate) enum Events {
    /// Shows the event types that a webhook can subscribe to
    Types,
    /// Shows what happened, the latest first
    List {
        #[command(flatten)]
        filter: EventFilter,
        /// Events before then
        #[arg(long, value_name = "TIME")]
        until: Option<When>,
        #[command(flatten)]
        limit: Limit,
    },
    /// Shows one event with its payload
    #[command(alias = "get")]
    Show {
        #[arg(value_name = "EVENT_ID", add = Candidates::Events)]
        id: String,
    },
    /// Shows events as they happen, until Ctrl-C (with -o json one object per line)
    ///
    /// Where the connection breaks, it goes on behind the last event as soon as the daemon is
    /// there again.
    Tail {
        #[command(flatten)]
        filter: EventFilter,
        #[command(flatten)]
        end: EndAfter,
    },
}

/// Which events are meant; all that is given must hold.
#[derive(Debug, Default, Args)]
pub(crate) struct EventFilter {
    /// Only this type (repeat it, or separate by commas)
    #[arg(long = "event", value_name = "EVENT", value_delimiter = ',', add = Candidates::EventTypes)]
    pub(crate) events: Vec<String>,
    /// Only this station (repeat it)
    #[arg(long = "station", value_name = "STATION", add = Candidates::Stations)]
    pub(crate) stations: Vec<String>,
    /// Events from then on: 2026-04-14T12:00:00Z, or how long ago, like 2h
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<When>,
}

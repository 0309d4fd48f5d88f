//! `events`, as clap reads it.

use clap::Subcommand;

use super::Limit;
use crate::completing;

#[derive(Debug, Subcommand)]
pub(crate) enum Events {
    /// Shows the event types that a webhook can subscribe to
    Types,
    /// Shows events as they happen, until Ctrl-C (with -o json one object per line)
    Tail {
        /// Only this type (repeat it, or separate by commas)
        #[arg(long = "event", value_name = "EVENT", value_delimiter = ',', add = completing::event_types())]
        events: Vec<String>,
        /// Only this station (repeat it)
        #[arg(long = "station", value_name = "STATION", add = completing::stations())]
        stations: Vec<String>,
        #[command(flatten)]
        limit: Limit,
    },
}

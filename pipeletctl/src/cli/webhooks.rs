//! `webhooks`, as clap reads it.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueHint};

use super::{
    assume_yes::AssumeYes,
    candidates::Candidates,
    limit::Limit,
    named::Named,
    webhook::{CreateWebhook, UpdateWebhook},
};
use crate::system::when::{When, parse_timeout};

#[derive(Debug, Subcommand)]
pub(crate) enum Webhooks {
    /// Subscribes a URL to events
    Create(Box<CreateWebhook>),
    /// Shows all webhooks
    List {
        #[command(flatten)]
        limit: Limit,
    },
    /// Shows one webhook
    #[command(alias = "show")]
    Get {
        /// Its id or its name
        #[arg(value_name = "WEBHOOK", add = Candidates::Webhooks)]
        id: Named,
    },
    /// Changes what is given and leaves the rest
    Update(Box<UpdateWebhook>),
    /// Deletes a webhook and cancels what it was owed; asks first
    Delete {
        /// Its id or its name
        #[arg(value_name = "WEBHOOK", add = Candidates::Webhooks)]
        id: Named,
        #[command(flatten)]
        assume: AssumeYes,
    },
    /// POSTs one synthetic event to the webhook's URL; fails where the receiver does
    Test {
        /// Its id or its name
        #[arg(value_name = "WEBHOOK", add = Candidates::Webhooks)]
        id: Named,
        /// The event type to send [default: the webhook's first]
        #[arg(long, add = Candidates::EventTypes)]
        event: Option<String>,
    },
    /// Sends what waits for a retry now, instead of when it is due
    ///
    /// One delivery goes out first, then more as long as none fails. What has not gone out by then
    /// waits as it did. Dead letters are replayed with `dlq replay`.
    Retry {
        /// Its id or its name
        #[arg(value_name = "WEBHOOK", add = Candidates::Webhooks)]
        id: Named,
    },
    /// Enables a webhook: new events are delivered to it
    Enable {
        /// Its id or its name
        #[arg(value_name = "WEBHOOK", add = Candidates::Webhooks)]
        id: Named,
    },
    /// Disables a webhook: it gets no new events, and its retries wait
    Disable {
        /// Its id or its name
        #[arg(value_name = "WEBHOOK", add = Candidates::Webhooks)]
        id: Named,
    },
    /// Signs with a new secret, which is shown this once; the one before signs for 24 h, too
    RotateSecret {
        /// Its id or its name
        #[arg(value_name = "WEBHOOK", add = Candidates::Webhooks)]
        id: Named,
        /// A secret of your own instead: a file with it, or "-" for standard input
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        signing_secret_file: Option<PathBuf>,
    },
    /// Sends events that the journal still keeps to a webhook again
    ///
    /// Says how many there are, and asks. It goes no faster than the webhook takes them. Where it is
    /// interrupted, what it has sent stays sent; to send the rest, begin later with --since.
    Backfill(Box<Backfill>),
    /// Shows backlog, success rate and latency of each webhook
    Stats {
        /// Only this one
        #[arg(value_name = "WEBHOOK", add = Candidates::Webhooks)]
        id: Option<Named>,
        /// Over the next so long, instead of since the daemon's start
        #[arg(long, value_name = "DURATION", value_parser = parse_timeout)]
        over: Option<Duration>,
    },
    /// Shows the deliveries that wait for a retry, then the latest ones that were settled
    Deliveries {
        /// Its id or its name
        #[arg(value_name = "WEBHOOK", add = Candidates::Webhooks)]
        id: Named,
        #[command(flatten)]
        limit: Limit,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Backfill {
    /// Its id or its name
    #[arg(value_name = "WEBHOOK", add = Candidates::Webhooks)]
    pub(crate) id: Named,
    /// Events from then on: 2026-04-14T12:00:00Z, or how long ago, like 2h
    #[arg(long, value_name = "TIME")]
    pub(crate) since: When,
    /// Events before then
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<When>,
    /// These types, instead of what the webhook is subscribed to (repeat it, or separate by commas)
    #[arg(long = "event", value_name = "EVENT", value_delimiter = ',', add = Candidates::EventTypes)]
    pub(crate) events: Vec<String>,
    /// Of these stations, instead of the webhook's (repeat it)
    #[arg(long = "station", value_name = "STATION", add = Candidates::Stations)]
    pub(crate) stations: Vec<String>,
    /// Only says how many there are
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) assume: AssumeYes,
}

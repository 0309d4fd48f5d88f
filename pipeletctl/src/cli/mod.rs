//! The command line, as clap reads it: what holds for every command here, each noun in its file.
//!
//! Invariant: what parses is complete in itself; only the daemon knows whether it is right (no
//! list of event types here, so a newer daemon's types work with an older tool).

#![expect(
    clippy::doc_markdown,
    reason = "the comments are the help text, where backticks would show"
)]

mod assume_yes;
mod candidates;
mod cluster;
mod contexts;
mod deliveries;
mod demo;
mod dlq;
mod documented;
mod events;
mod global;
mod id_tags;
mod keys;
mod limit;
mod listen;
mod named;
mod simulate;
mod stations;
#[cfg(test)]
mod tests;
mod transactions;
mod trigger;
mod webhook;
mod webhooks;

use std::path::PathBuf;

use clap::{
    Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum, ValueHint,
};

pub(crate) use self::{
    assume_yes::AssumeYes,
    candidates::Candidates,
    cluster::Cluster,
    contexts::Contexts,
    deliveries::{Deliveries, DeliveryStatus},
    demo::Demo,
    dlq::{Dlq, Filter, GroupBy, Pace, Selection},
    documented::{EXIT_STATUS, examples},
    events::{EventFilter, Events},
    global::{Format, Global, ServerUrl, ServerUrlError},
    id_tags::{AddIdTag, IdTags, SetIdTag},
    keys::Keys,
    limit::{EndAfter, Limit},
    listen::{ForwardUrl, Listen},
    named::Named,
    simulate::{Scenario, Simulate},
    stations::{CallStation, Registration, Stations},
    transactions::{TransactionFilter, Transactions},
    trigger::{Setting, Trigger},
    webhook::{CreateWebhook, mask, settings},
    webhooks::{Backfill, Webhooks},
};
use crate::system::when::When;

/// Drives pipeletd: webhooks, dead letters, stations, keys.
#[derive(Debug, Parser)]
#[command(name = "pipeletctl", bin_name = "pipeletctl", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// The command line of this process.
    ///
    /// # Errors
    ///
    /// Also where help was asked for.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        let matches = documented::documented(Self::command()).try_get_matches()?;
        Self::from_arg_matches(&matches)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Subscriptions: which URL gets which events
    #[command(subcommand, alias = "webhook")]
    Webhooks(Webhooks),
    /// Deliveries of all webhooks: pending, failed and delivered
    #[command(subcommand, alias = "delivery")]
    Deliveries(Deliveries),
    /// Dead letters: deliveries whose attempts ran out
    #[command(subcommand)]
    Dlq(Dlq),
    /// Events of the stations, and their types
    #[command(subcommand, alias = "event")]
    Events(Events),
    /// What became of one event: each webhook's attempts and their outcome
    Trace {
        /// As in `events list`, in a delivery's webhook-id, or in the log
        #[arg(value_name = "EVENT_ID", add = Candidates::Events)]
        id: String,
    },
    /// Sends a synthetic event the whole way, to see how receivers take it
    ///
    /// It is journaled and delivered like a charger's, with the header pipelet-synthetic, and
    /// changes nothing of what is known of the charger.
    Trigger(Trigger),
    /// Stations (chargers): their state, commands to them, their registration
    #[command(subcommand, alias = "station")]
    Stations(Stations),
    /// Charging transactions, the latest first
    #[command(subcommand, alias = "transaction")]
    Transactions(Transactions),
    /// Id tags that may charge, where the daemon runs with --authorize registered
    #[command(subcommand, alias = "id-tag")]
    IdTags(IdTags),
    /// API keys
    #[command(subcommand, alias = "key")]
    Keys(Keys),
    /// Sends events to an application on this machine, as a webhook would, until Ctrl-C
    ///
    /// Without --forward-to they are printed. The application needs no address that the daemon can reach. Its answers change nothing at
    /// the daemon. Where it is down, events wait for it; where the daemon is, it goes on from the
    /// event that came last.
    Listen(Listen),
    /// How the daemon is doing; fails where it is not ready
    Status,
    /// The daemon at a glance, live: webhooks, rates, what fails
    Top,
    /// What is wrong, and what to do about it: the daemon, the key, the disk, webhooks that fail
    ///
    /// Changes nothing. Warnings don't fail it; a problem does.
    Doctor,
    /// Whether every delivery is accounted for; fails where one is not
    ///
    /// For each webhook, deleted ones included: received = delivered + pending + dead + cancelled,
    /// since it was created.
    Audit(Audit),
    /// Writes everything that the daemon keeps to a file, for `pipeletd restore`
    ///
    /// The daemon works on meanwhile. The webhooks' secrets are sealed in the file: keep the
    /// daemon's secrets.key, too, and elsewhere.
    Backup(Backup),
    /// The nodes of a cluster: who owns the shards, and handing them over
    #[command(subcommand)]
    Cluster(Cluster),
    /// Named daemons, and which of them is used
    #[command(subcommand, alias = "contexts")]
    Context(Contexts),
    /// Shows it all in less than a minute: a daemon, chargers, failures, a replay, on free ports
    ///
    /// Needs no configuration and no network, and leaves nothing behind.
    Demo(Demo),
    /// Lets simulated stations charge at a daemon: real OCPP over real sockets
    ///
    /// Ends with a summary: what was sent, how it was answered, and how long that took.
    Simulate(Simulate),
    /// Prints a completion script for a shell
    ///
    /// It completes live ids, too. For bash: source <(pipeletctl completions bash)
    Completions { shell: Shell },
    /// Writes the manual's pages, one for each command
    #[command(hide = true)]
    Manual {
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
}

impl Command {
    /// Whether it hears of an interruption itself, as it has something to put away then.
    pub(crate) const fn ends_itself(&self) -> bool {
        matches!(self, Self::Simulate(_))
    }

    /// What to do where what this one names is not there.
    pub(crate) fn when_missing(&self) -> Option<String> {
        let listing = match self {
            Self::Stations(Stations::Set { id, .. }) => {
                return Some(format!("`pipeletctl stations add {id}` registers it"));
            }
            Self::IdTags(IdTags::Set(args)) => {
                return Some(format!(
                    "`pipeletctl id-tags add {}` registers it",
                    args.tag
                ));
            }
            Self::Webhooks(_) | Self::Audit(_) | Self::Deliveries(_) | Self::Trigger(_) => {
                "pipeletctl webhooks list"
            }
            Self::Dlq(_) => "pipeletctl dlq list",
            Self::Stations(_) => "pipeletctl stations list",
            Self::Transactions(_) => "pipeletctl transactions list",
            Self::IdTags(_) => "pipeletctl id-tags list",
            Self::Keys(_) => "pipeletctl keys list",
            Self::Cluster(_) => "pipeletctl cluster status",
            Self::Context(_) => "pipeletctl context list",
            Self::Events(_) | Self::Trace { .. } => "pipeletctl events list",
            Self::Listen(_)
            | Self::Status
            | Self::Top
            | Self::Doctor
            | Self::Backup(_)
            | Self::Demo(_)
            | Self::Simulate(_)
            | Self::Completions { .. }
            | Self::Manual { .. } => return None,
        };
        Some(format!("`{listing}` shows what there is"))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Only this webhook
    #[arg(long, value_name = "WEBHOOK", add = Candidates::Webhooks)]
    pub(crate) webhook: Option<Named>,
    /// Shows what became of the events since then: 2026-04-14T12:00:00Z, or how long ago, like 2h.
    /// The check covers all of them anyway
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<When>,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The file, which must not exist yet
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Replaces a file that exists, once the new one is whole
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

//! The command line, as clap reads it.
//!
//! Invariant: what parses is complete in itself; only the daemon knows whether it is right (no
//! list of event types here, so a newer daemon's types work with an older tool).

#![expect(
    clippy::doc_markdown,
    reason = "the comments are the help text, where backticks would show"
)]

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use jiff::Timestamp;

use crate::{
    commands::call::Parameter,
    output::Format,
    secret::Secret,
    settings::ServerUrl,
    when::{When, parse_timeout},
};

/// Drives pipeletd: webhooks, dead letters, stations, keys.
#[derive(Debug, Parser)]
#[command(name = "pipeletctl", bin_name = "pipeletctl", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The daemon's gRPC address, with https:// where it speaks TLS
    #[arg(
        long,
        global = true,
        env = "PIPELET_SERVER",
        hide_env_values = true,
        default_value = "http://127.0.0.1:50051",
        value_name = "URL"
    )]
    pub(crate) server: ServerUrl,
    /// The authorities (PEM) that vouch for an https:// daemon, instead of the system's
    #[arg(
        long,
        global = true,
        env = "PIPELET_CA_FILE",
        hide_env_values = true,
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    pub(crate) ca_file: Option<PathBuf>,
    /// A file with the API key [otherwise: PIPELET_API_KEY, then the local daemon's admin.key]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) api_key_file: Option<PathBuf>,
    /// How data is printed
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value = "table",
        value_name = "FORMAT"
    )]
    pub(crate) output: Format,
    /// How long to wait for an answer
    #[arg(
        long,
        global = true,
        default_value = "30s",
        value_parser = parse_timeout,
        value_name = "DURATION"
    )]
    pub(crate) timeout: Duration,
    /// No colours (NO_COLOR does the same)
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Who is told about which events, and where
    #[command(subcommand, visible_alias = "webhook")]
    Webhooks(Webhooks),
    /// Dead letters: deliveries whose attempts ran out
    #[command(subcommand)]
    Dlq(Dlq),
    /// What happens on the stations
    #[command(subcommand, visible_alias = "event")]
    Events(Events),
    /// The chargers
    #[command(subcommand, visible_alias = "station")]
    Stations(Stations),
    /// What was charged, the latest first
    #[command(subcommand, visible_alias = "transaction")]
    Transactions(Transactions),
    /// Who may charge, where the daemon runs with --authorize registered
    #[command(subcommand, visible_alias = "id-tag")]
    IdTags(IdTags),
    /// API keys
    #[command(subcommand, visible_alias = "key")]
    Keys(Keys),
    /// How the daemon is doing; fails where it is not ready
    Status,
    /// Writes everything that the daemon keeps to a file, for `pipeletd restore`
    ///
    /// The daemon works on meanwhile. The webhooks' secrets are sealed in the file: keep the
    /// daemon's secrets.key, too, and elsewhere.
    Backup(Backup),
    /// Prints a completion script for a shell
    Completions { shell: Shell },
}

impl Command {
    /// The command that shows what this one could have meant.
    pub(crate) fn listing(&self) -> Option<&'static str> {
        match self {
            Self::Webhooks(_) => Some("pipeletctl webhooks list"),
            Self::Dlq(_) => Some("pipeletctl dlq list"),
            Self::Stations(_) => Some("pipeletctl stations list"),
            Self::Transactions(_) => Some("pipeletctl transactions list"),
            Self::IdTags(_) => Some("pipeletctl id-tags list"),
            Self::Keys(_) => Some("pipeletctl keys list"),
            Self::Events(_) | Self::Status | Self::Backup(_) | Self::Completions { .. } => None,
        }
    }
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

#[derive(Debug, Subcommand)]
pub(crate) enum Webhooks {
    /// Subscribes a URL to events
    Create(CreateWebhook),
    /// Shows all webhooks
    List {
        #[command(flatten)]
        limit: Limit,
    },
    /// Shows one webhook
    Get { id: u64 },
    /// Changes what is given and leaves the rest
    Update(Box<UpdateWebhook>),
    /// Deletes a webhook and cancels what it was owed
    Delete { id: u64 },
    /// POSTs one synthetic event to the webhook's URL; fails where the receiver does
    Test {
        id: u64,
        /// The event type to send [default: the webhook's first]
        #[arg(long)]
        event: Option<String>,
    },
    /// Lets new events in
    Enable { id: u64 },
    /// Keeps new events out; retries wait
    Disable { id: u64 },
    /// Shows the deliveries that wait for a retry, then the latest ones that were settled
    Deliveries {
        id: u64,
        #[command(flatten)]
        limit: Limit,
    },
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("secret").args(["secret_value", "secret_value_file"])))]
pub(crate) struct CreateWebhook {
    /// A name for people
    #[arg(long)]
    pub(crate) name: String,
    /// Where events are POSTed
    #[arg(long, value_hint = ValueHint::Url)]
    pub(crate) url: String,
    /// An event type, a group like "group:security", or "*" for all (repeat it, or separate by
    /// commas)
    #[arg(
        long = "event",
        required = true,
        value_name = "EVENT",
        value_delimiter = ','
    )]
    pub(crate) events: Vec<String>,
    /// Only events of this station, or of all that a pattern like "WALLBOX_*" means (repeat it)
    #[arg(long = "station", value_name = "STATION")]
    pub(crate) stations: Vec<String>,
    /// The header that carries the secret
    #[arg(long, value_name = "HEADER", requires = "secret")]
    pub(crate) secret_header: Option<String>,
    /// The secret; a file keeps it out of the process list
    #[arg(
        long,
        value_name = "VALUE",
        requires = "secret_header",
        allow_hyphen_values = true
    )]
    pub(crate) secret_value: Option<Secret>,
    /// A file with the secret, or "-" for standard input
    #[arg(
        long,
        value_name = "FILE",
        requires = "secret_header",
        value_hint = ValueHint::FilePath
    )]
    pub(crate) secret_value_file: Option<PathBuf>,
    /// Don't send events yet
    #[arg(long)]
    pub(crate) disabled: bool,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("secret").args(["secret_value", "secret_value_file"])))]
pub(crate) struct UpdateWebhook {
    pub(crate) id: u64,
    /// A name for people
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where events are POSTed
    #[arg(long, value_hint = ValueHint::Url)]
    pub(crate) url: Option<String>,
    /// The event types that replace the old ones (repeat it, or separate by commas)
    #[arg(long = "event", value_name = "EVENT", value_delimiter = ',')]
    pub(crate) events: Vec<String>,
    /// The stations that replace the old ones (repeat it)
    #[arg(long = "station", value_name = "STATION")]
    pub(crate) stations: Vec<String>,
    /// Send the events of all stations again
    #[arg(long, conflicts_with = "stations")]
    pub(crate) all_stations: bool,
    /// The header that carries the secret
    #[arg(long, value_name = "HEADER")]
    pub(crate) secret_header: Option<String>,
    /// The secret; a file keeps it out of the process list
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) secret_value: Option<Secret>,
    /// A file with the secret, or "-" for standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) secret_value_file: Option<PathBuf>,
    /// Send no secret any more
    #[arg(long, conflicts_with_all = ["secret_header", "secret"])]
    pub(crate) clear_secret: bool,
    /// Let new events in
    #[arg(long, conflicts_with = "disabled")]
    pub(crate) enabled: bool,
    /// Keep new events out
    #[arg(long)]
    pub(crate) disabled: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Dlq {
    /// Shows failed deliveries
    List {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        limit: Limit,
    },
    /// Shows one failed delivery with its attempts
    Show { id: u64 },
    /// Gives failed deliveries a new round of attempts
    ///
    /// The daemon goes on with it when this command is interrupted. Fails where no first attempt
    /// succeeds, and ends with 6 where only some do; what failed again is retried as usual.
    #[command(group(which()), override_usage = REPLAY_USAGE)]
    Replay {
        #[command(flatten)]
        selection: Selection,
    },
    /// Deletes failed deliveries for good
    #[command(group(which()), override_usage = PURGE_USAGE)]
    Purge {
        #[command(flatten)]
        selection: Selection,
        /// Don't ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Which failed deliveries are meant; all that is given must hold.
#[derive(Debug, Default, Args)]
pub(crate) struct Filter {
    /// Of this webhook
    #[arg(long, value_name = "ID")]
    pub(crate) webhook: Option<u64>,
    /// Of this event type
    #[arg(long)]
    pub(crate) event: Option<String>,
    /// Of this station
    #[arg(long)]
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
    /// These failed deliveries
    #[arg(
        value_name = "ID",
        conflicts_with_all = ["all", "webhook", "event", "station", "since", "until"]
    )]
    pub(crate) ids: Vec<u64>,
    /// All of them, or all that the other flags leave
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) filter: Filter,
}

const REPLAY_USAGE: &str = "pipeletctl dlq replay [OPTIONS] <ID>...
       pipeletctl dlq replay [OPTIONS] --all
       pipeletctl dlq replay [OPTIONS] [--webhook <ID>] [--event <EVENT>] [--station <STATION>] \
[--since <TIME>] [--until <TIME>]";

const PURGE_USAGE: &str = "pipeletctl dlq purge [OPTIONS] <ID>...
       pipeletctl dlq purge [OPTIONS] --all
       pipeletctl dlq purge [OPTIONS] [--webhook <ID>] [--event <EVENT>] [--station <STATION>] \
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

#[derive(Debug, Subcommand)]
pub(crate) enum Events {
    /// Shows the event types that a webhook can subscribe to
    Types,
    /// Shows events as they happen, until Ctrl-C (with -o json one object per line)
    Tail {
        /// Only this type (repeat it, or separate by commas)
        #[arg(long = "event", value_name = "EVENT", value_delimiter = ',')]
        events: Vec<String>,
        /// Only this station (repeat it)
        #[arg(long = "station", value_name = "STATION")]
        stations: Vec<String>,
        #[command(flatten)]
        limit: Limit,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Stations {
    /// Shows the stations that have ever connected
    List {
        /// Only those that are connected now
        #[arg(long)]
        connected: bool,
        #[command(flatten)]
        limit: Limit,
    },
    /// Shows one station with its connectors and open transactions
    Show { id: String },
    /// Sends an OCPP command to a station and shows its answer
    ///
    /// --timeout is how long the station has. Ends with 5 where the station is not connected, and
    /// with 1 where it answers with an error or not in time.
    Call(CallStation),
    /// Ends a station's connection; it may dial again at once
    Disconnect { id: String },
    /// Registers a station
    Add {
        id: String,
        #[command(flatten)]
        registration: Registration,
    },
    /// Changes what is given of a registration and leaves the rest
    Set {
        id: String,
        #[command(flatten)]
        registration: Registration,
        /// Ask for no password any more
        #[arg(long, conflicts_with = "station_password")]
        clear_password: bool,
        /// Take any security profile
        #[arg(long, conflicts_with = "security_profile")]
        clear_security_profile: bool,
    },
    /// Ends a registration; where stations have to be registered, the connection too
    Remove { id: String },
}

#[derive(Debug, Args)]
pub(crate) struct CallStation {
    pub(crate) id: String,
    /// An OCPP 1.6 action, like RemoteStartTransaction
    pub(crate) action: String,
    /// A field of the request, like idTag=RFID_42 (repeat it; a list is a field repeated, an
    /// object is JSON)
    #[arg(long = "param", value_name = "NAME=VALUE", conflicts_with = "json")]
    pub(crate) parameters: Vec<Parameter>,
    /// The whole request: JSON text, @FILE, or "-" for standard input
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    pub(crate) json: Option<String>,
}

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
    Show { id: i64 },
}

/// Which transactions are meant; all that is given must hold.
#[derive(Debug, Args)]
pub(crate) struct TransactionFilter {
    /// Of this station
    #[arg(long)]
    pub(crate) station: Option<String>,
    /// Of this id tag
    #[arg(long, value_name = "TAG")]
    pub(crate) id_tag: Option<String>,
    /// Only those that have not ended
    #[arg(long, conflicts_with = "stopped")]
    pub(crate) open: bool,
    /// Only those that have ended
    #[arg(long)]
    pub(crate) stopped: bool,
    /// Started from then on: 2026-04-14T12:00:00Z, or how long ago, like 2h
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<When>,
    /// Started before then
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<When>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdTags {
    /// Registers a tag
    Add(AddIdTag),
    /// Shows all registered tags
    List {
        #[command(flatten)]
        limit: Limit,
    },
    /// Shows one tag
    Show { tag: String },
    /// Changes what is given and leaves the rest
    Set(SetIdTag),
    /// Ends a tag's registration
    Remove { tag: String },
}

#[derive(Debug, Args)]
pub(crate) struct AddIdTag {
    /// As it is on the card; upper and lower case are the same
    pub(crate) tag: String,
    /// Accepted, Blocked or Invalid [default: Accepted]
    #[arg(long)]
    pub(crate) status: Option<String>,
    /// When it expires: 2026-04-14T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: Option<Timestamp>,
    /// The tag of the group that it belongs to
    #[arg(long, value_name = "TAG")]
    pub(crate) parent: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SetIdTag {
    pub(crate) tag: String,
    /// Accepted, Blocked or Invalid
    #[arg(long)]
    pub(crate) status: Option<String>,
    /// When it expires: 2026-04-14T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: Option<Timestamp>,
    /// It never expires
    #[arg(long, conflicts_with = "expires")]
    pub(crate) no_expiry: bool,
    /// The tag of the group that it belongs to
    #[arg(long, value_name = "TAG")]
    pub(crate) parent: Option<String>,
    /// It belongs to no group
    #[arg(long, conflicts_with = "parent")]
    pub(crate) no_parent: bool,
}

/// What is agreed on with a station beforehand.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("station_password").args(["password", "password_file"])))]
pub(crate) struct Registration {
    /// What the station shows with HTTP Basic: 16 to 64 bytes, raw ones as hexadecimal digits
    #[arg(long, value_name = "PASSWORD", allow_hyphen_values = true)]
    pub(crate) password: Option<Secret>,
    /// A file with the password, or "-" for standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) password_file: Option<PathBuf>,
    /// The only one that will do: 0 none, 1 password, 2 password and TLS, 3 client certificate
    #[arg(long, value_name = "0..3")]
    pub(crate) security_profile: Option<u32>,
    /// What its boot is answered with: Accepted, Pending or Rejected
    #[arg(long, value_name = "STATUS")]
    pub(crate) boot_policy: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Makes a key and shows it this once
    Create {
        /// What the key is for
        #[arg(long)]
        name: String,
        /// What it allows: each role may do all that the ones behind it may
        #[arg(long, value_enum, default_value_t = Role::Admin)]
        role: Role,
        /// How long it lets its bearer in, such as 90d [default: for ever]
        #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
        expires_in: Option<Duration>,
    },
    /// Shows all keys, without their secret part
    List,
    /// Ends a key's life
    Revoke { id: u64 },
}

/// What a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Everything, API keys included
    Admin,
    /// Webhooks, dead letters, stations, id tags and commands
    Operator,
    /// Nothing but to look
    ReadOnly,
}

impl Role {
    /// As the daemon calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::ReadOnly => "read-only",
        }
    }
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Limit {
    /// At most this many
    #[arg(id = "limit", long = "limit", value_name = "N")]
    pub(crate) count: Option<u64>,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Cli, ErrorKind> {
        let words = std::iter::once("pipeletctl").chain(line.split_whitespace());
        Cli::try_parse_from(words).map_err(|error| error.kind())
    }

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_accepted() {
        for line in [
            "webhooks create --name N --url http://h --event A,B --event C",
            "webhooks create --name N --url http://h --event A --secret-header H --secret-value -v",
            "webhooks create --name N --url http://h --event A --secret-header H --secret-value-file -",
            "webhooks create --name N --url http://h --event * --station A --station B*",
            "webhooks update 7 --secret-value V",
            "webhooks update 7 --all-stations",
            "webhooks update 7 --clear-secret --disabled",
            "webhooks deliveries 7 --limit 3",
            "dlq list",
            "dlq replay 1 2 3",
            "dlq replay --all --webhook 7 --since 2h",
            "dlq purge --station S --yes",
            "events tail --event A --station S -o jsonl",
            "stations list --connected",
            "stations call S Reset --param type=Soft --timeout 5s",
            "stations call S Reset --json -",
            "stations disconnect S",
            "transactions list --station S --id-tag T --open --since 2h --limit 3",
            "transactions show 42",
            "id-tags add T --status Blocked --expires 2026-04-14T12:00:00Z --parent P",
            "id-tags set T --no-expiry --no-parent",
            "stations add S --password-file - --security-profile 1 --boot-policy Pending",
            "stations set S --clear-password --clear-security-profile",
            "stations remove S",
            "keys create --name ci --role read-only --expires-in 90d --ca-file ca.pem",
            "keys revoke 1 --server http://localhost:1 --timeout 5s --no-color",
            "status -o yaml",
            "completions zsh",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_is_refused() {
        use ErrorKind::{
            ArgumentConflict, InvalidSubcommand, MissingRequiredArgument, ValueValidation,
        };
        for (line, kind) in [
            (
                "webhooks create --name N --url http://h",
                MissingRequiredArgument,
            ),
            (
                "webhooks create --name N --url http://h --event A --secret-header H",
                MissingRequiredArgument,
            ),
            (
                "webhooks create --name N --url http://h --event A --secret-value V",
                MissingRequiredArgument,
            ),
            (
                "webhooks update 7 --clear-secret --secret-value V",
                ArgumentConflict,
            ),
            ("webhooks update 7 --enabled --disabled", ArgumentConflict),
            (
                "webhooks update 7 --all-stations --station A",
                ArgumentConflict,
            ),
            ("webhooks get seven", ValueValidation),
            ("transactions list --open --stopped", ArgumentConflict),
            ("id-tags set T --parent P --no-parent", ArgumentConflict),
            ("id-tags add T --expires soon", ValueValidation),
            (
                "stations add S --password P --password-file F",
                ArgumentConflict,
            ),
            (
                "stations set S --password P --clear-password",
                ArgumentConflict,
            ),
            ("dlq replay", MissingRequiredArgument),
            ("dlq purge --yes", MissingRequiredArgument),
            ("dlq replay 1 --all", ArgumentConflict),
            ("dlq replay 1 --webhook 7", ArgumentConflict),
            ("dlq list --since soon", ValueValidation),
            ("stations call S", MissingRequiredArgument),
            ("stations call S Reset --param type", ValueValidation),
            (
                "stations call S Reset --param type=Soft --json {}",
                ArgumentConflict,
            ),
            ("status --server ftp://h", ValueValidation),
            ("status --timeout 0s", ValueValidation),
            ("nonsense", InvalidSubcommand),
        ] {
            assert_eq!(parse(line).err(), Some(kind), "{line}");
        }
    }

    #[test]
    fn a_parsed_secret_is_not_in_debug() {
        let line = "webhooks create --name N --url http://h --event A --secret-header H --secret-value hush";
        assert!(!format!("{:?}", parse(line).unwrap()).contains("hush"));
    }
}

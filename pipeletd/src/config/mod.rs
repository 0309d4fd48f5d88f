//! Settings: flag, then `PIPELETD_*` variable, then configuration file, then default.
//!
//! | module | |
//! |---|---|
//! | `arguments` | what may be said: every setting once, for flags and file alike |
//! | `file` | the file's texts, and where they stand in it |
//! | `sources` | who is heard of those who say something, and where a value comes from |
//! | `resolve` | what settings mean together |
//! | `show` | what holds, for people and for machines |
//!
//! [`Config`] is what holds. The process environment is read here and nowhere else.

mod arguments;
mod byte_size;
mod file;
pub(crate) mod fuzzing;
mod manual;
mod resolve;
pub mod show;
mod sources;
mod store_choice;

use std::{fmt, io, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Subcommand, ValueEnum};
use pipelet_domain::webhooks::AllowedTarget;

pub use self::{
    byte_size::{ByteSize, InvalidByteSize},
    file::Position,
    manual::write as write_manual,
    sources::{Loaded, Origin, Setting, Sources, variable_at_fault},
};
use crate::{
    auth::{ApiKey, InvalidApiKey},
    delivery::policy::RetrySchedule,
    ocpp::TlsOptions,
    store::jetstream::ClusterOptions,
    system::{limits::Rate, tls::TlsFiles},
    telemetry::{Endpoint, LogFormat},
};

/// What holds.
#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    pub secrets_key_file: Option<PathBuf>,
    /// None where everything is in the data directory.
    pub cluster: Option<ClusterOptions>,
    pub http_listen: SocketAddr,
    pub grpc_listen: SocketAddr,
    pub api_tls: Option<TlsFiles>,
    pub api_rate: Rate,
    pub api_max_connections: usize,
    pub ocpp_listen: SocketAddr,
    pub ocpp_tls: Option<TlsOptions>,
    pub ocpp_rate: Rate,
    pub ocpp_handshake_timeout: Duration,
    pub ocpp_max_unfinished: ByteSize,
    pub stations: StationsPolicy,
    pub retry_schedule: RetrySchedule,
    pub max_attempts: u32,
    pub delivery_timeout: Duration,
    pub webhook_concurrency: usize,
    pub backlog_age: Duration,
    pub ca_file: Option<PathBuf>,
    pub allow_private_targets: bool,
    pub allow_targets: Vec<AllowedTarget>,
    /// Of events.
    pub memory_budget: ByteSize,
    pub retention: Duration,
    pub retention_size: ByteSize,
    /// Of transactions that have ended.
    pub transaction_retention: Duration,
    pub transaction_abandon_after: Duration,
    pub heartbeat_interval: Duration,
    pub ping_interval: Duration,
    pub ocpp_strict: bool,
    pub authorize: Authorize,
    pub max_connections: usize,
    pub max_stations: usize,
    pub shutdown_grace: Duration,
    pub log_level: String,
    pub log_format: LogFormat,
    /// Where spans are exported to.
    pub otlp_endpoint: Option<Endpoint>,
    pub bootstrap_key: Option<ApiKey>,
}

/// What to do, where it is not to run as the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Default, Subcommand)]
pub enum Task {
    #[default]
    #[command(skip)]
    Run,
    /// Seals the webhooks' secrets with a new key, and forgets the one before
    ///
    /// For a daemon that does not run. Interrupted, it is finished by the next call or start.
    RotateSecretsKey,
    /// Makes a store of a backup, in a data directory that has none, or a cluster (--store)
    ///
    /// The key that the secrets were sealed with (secrets.key) is no part of a backup, and has to
    /// be put into the data directory, too, before the daemon starts. A cluster gets as many shards
    /// as the backup has.
    Restore {
        /// What `pipeletctl backup` has written
        file: PathBuf,
        /// Renames a store that is there, as a damaged one, instead of refusing
        #[arg(long)]
        set_aside: bool,
    },
    /// Makes the store's files as short as what is in them allows
    ///
    /// For a daemon that does not run. Each database is written anew, for which the disk must have
    /// twice as much free space as is in it; where it has less, the database stays as it was, and the
    /// exit code is 1. Interrupted, it is finished or undone by the next call or start.
    Compact,
    /// Reads everything that a start reads, and says what is wrong with it
    #[command(skip)]
    Check,
    /// What the settings are
    #[command(subcommand)]
    Config(ShowConfig),
    /// Writes the manual's pages, for packages
    #[command(hide = true)]
    Manual { directory: PathBuf },
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ShowConfig {
    /// Prints every setting as it holds, as a configuration file
    ///
    /// Flags that are settings stand before it: `pipeletd --dev config show`.
    Show {
        /// Also prints where each value comes from: flag, variable, line of the file or default
        #[arg(long)]
        origin: bool,
        /// How
        #[arg(short, long, value_enum, default_value = "toml")]
        output: ShownAs,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShownAs {
    Toml,
    Json,
}

/// Whose id tags may charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Authorize {
    /// Everybody's
    AcceptAll,
    /// Those that are registered, as their entries say
    Registered,
}

/// Which stations may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StationsPolicy {
    Open,
    Registered,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A flag or variable can't be read, or help was asked for.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    #[error("{}", one_a_line(.0))]
    Faults(Vec<Fault>),
}

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("can't read the configuration file {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{at}: {why}")]
    Syntax { at: Position, why: String },
    #[error("{at}: there is no setting {name:?}{}", hint(.meant.as_deref()))]
    Unknown {
        at: Position,
        name: String,
        meant: Option<String>,
    },
    #[error("{at}: {name}: a {kind} can't be its value")]
    Kind {
        at: Position,
        name: String,
        kind: &'static str,
    },
    #[error("{origin}: {name}: {why}")]
    Value {
        name: String,
        origin: Origin,
        why: String,
    },
    #[error("{origin}: {name} goes together with {}", .missing.join(" and "))]
    Incomplete {
        name: String,
        origin: Origin,
        missing: Vec<&'static str>,
    },
    #[error("PIPELETD_BOOTSTRAP_KEY is not usable: {0}")]
    BootstrapKey(InvalidApiKey),
    #[error("there is no home directory to keep data in; name one with --data-dir")]
    NoDataDir,
}

impl Fault {
    /// Where it stands in the file: line and column.
    const fn place(&self) -> Option<(usize, usize)> {
        match self {
            Self::Syntax { at, .. }
            | Self::Unknown { at, .. }
            | Self::Kind { at, .. }
            | Self::Value {
                origin: Origin::File(at),
                ..
            }
            | Self::Incomplete {
                origin: Origin::File(at),
                ..
            } => Some((at.line, at.column)),
            Self::Read { .. }
            | Self::Value { .. }
            | Self::Incomplete { .. }
            | Self::BootstrapKey(_)
            | Self::NoDataDir => None,
        }
    }

    /// Whether the configuration file is what is wrong, rather than the command line.
    pub const fn is_of_file(&self) -> bool {
        match self {
            Self::Read { .. } | Self::Syntax { .. } | Self::Unknown { .. } | Self::Kind { .. } => {
                true
            }
            Self::Value { origin, .. } | Self::Incomplete { origin, .. } => {
                matches!(origin, Origin::File(_))
            }
            Self::BootstrapKey(_) | Self::NoDataDir => false,
        }
    }
}

fn one_a_line(faults: &[Fault]) -> String {
    let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn hint(meant: Option<&str>) -> impl fmt::Display {
    meant.map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}

/// What the process environment says beside flags and their variables.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Never a flag: others on the machine could read it.
    pub bootstrap_key: Option<String>,
    pub xdg_data_home: Option<PathBuf>,
    pub home: Option<PathBuf>,
    pub stderr_is_terminal: bool,
}

impl Surroundings {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn of_process() -> Self {
        let path = |name| {
            std::env::var_os(name)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        };
        Self {
            bootstrap_key: std::env::var("PIPELETD_BOOTSTRAP_KEY").ok(),
            xdg_data_home: path("XDG_DATA_HOME"),
            home: path("HOME"),
            stderr_is_terminal: io::IsTerminal::is_terminal(&io::stderr()),
        }
    }
}

#[cfg(test)]
mod tests;

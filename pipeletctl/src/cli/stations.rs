//! `stations`, as clap reads it.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueHint};

use super::Limit;
use crate::{commands::call::Parameter, completing, secret::Secret};

#[derive(Debug, Subcommand)]
pub(crate) enum Stations {
    /// Shows the stations that have ever connected, or are registered
    List {
        /// Only those that are connected now
        #[arg(long)]
        connected: bool,
        #[command(flatten)]
        limit: Limit,
    },
    /// Shows one station with its connectors and open transactions
    #[command(alias = "get")]
    Show {
        #[arg(add = completing::stations())]
        id: String,
    },
    /// Sends an OCPP command to a station and shows its answer
    ///
    /// --timeout is how long the station has. Ends with 5 where the station is not connected, and
    /// with 1 where it answers with an error or not in time.
    Call(CallStation),
    /// Ends a station's connection; it may dial again at once
    Disconnect {
        #[arg(add = completing::stations())]
        id: String,
    },
    /// Registers a station; `set` changes a registration
    Add {
        #[arg(add = completing::stations())]
        id: String,
        #[command(flatten)]
        registration: Registration,
    },
    /// Changes what is given of a registration and leaves the rest
    Set {
        #[arg(add = completing::stations())]
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
    Remove {
        #[arg(add = completing::stations())]
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CallStation {
    #[arg(add = completing::stations())]
    pub(crate) id: String,
    /// An OCPP 1.6 action, like RemoteStartTransaction
    #[arg(add = completing::commands())]
    pub(crate) action: String,
    /// A field of the request, like idTag=RFID_42 (repeat it; a list is a field repeated, an
    /// object is JSON)
    #[arg(long = "param", value_name = "NAME=VALUE", conflicts_with = "json")]
    pub(crate) parameters: Vec<Parameter>,
    /// The whole request: JSON text, @FILE, or "-" for standard input
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    pub(crate) json: Option<String>,
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

//! `stations`, as clap reads it.

use std::{path::PathBuf, str::FromStr};

use clap::{ArgGroup, Args, Subcommand, ValueHint};

use super::{assume_yes::AssumeYes, candidates::Candidates, limit::Limit};
use crate::system::secret::Secret;

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
        #[arg(add = Candidates::Stations)]
        id: String,
    },
    /// Sends an OCPP command to a station and shows its answer
    ///
    /// --timeout is how long the station has. Ends with 5 where the station is not connected, and
    /// with 1 where it answers with an error or not in time.
    Call(CallStation),
    /// Ends a station's connection; it may dial again at once
    Disconnect {
        #[arg(add = Candidates::Stations)]
        id: String,
    },
    /// Registers a station; `set` changes a registration
    Add {
        #[arg(add = Candidates::Stations)]
        id: String,
        #[command(flatten)]
        registration: Registration,
    },
    /// Changes what is given of a registration and leaves the rest
    Set {
        #[arg(add = Candidates::Stations)]
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
    /// Ends a registration; where stations have to be registered, the connection too; asks first
    Remove {
        #[arg(add = Candidates::Stations)]
        id: String,
        #[command(flatten)]
        assume: AssumeYes,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CallStation {
    #[arg(add = Candidates::Stations)]
    pub(crate) id: String,
    /// An OCPP 1.6 action, like RemoteStartTransaction
    #[arg(add = Candidates::Commands)]
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

/// `name=value`: what kind of value it is, the daemon knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write it as NAME=VALUE")]
pub(crate) struct InvalidParameter;

impl FromStr for Parameter {
    type Err = InvalidParameter;

    fn from_str(text: &str) -> Result<Self, InvalidParameter> {
        let (name, value) = text.split_once('=').ok_or(InvalidParameter)?;
        if name.is_empty() {
            return Err(InvalidParameter);
        }
        Ok(Self {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_split_at_the_first_sign() {
        let parameter = |name: &str, value: &str| Parameter {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        for (text, expected) in [
            ("a=b", Ok(parameter("a", "b"))),
            ("a=", Ok(parameter("a", ""))),
            ("a=b=c", Ok(parameter("a", "b=c"))),
            ("a", Err(InvalidParameter)),
            ("=b", Err(InvalidParameter)),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
    }
}

//! `keys`, as clap reads it.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};

use super::{assume_yes::AssumeYes, candidates::Candidates, named::Named};
use crate::system::when::parse_timeout;

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
        /// How long it is valid, such as 90d [default: for ever]
        #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
        expires_in: Option<Duration>,
    },
    /// Shows all keys, without their secret part
    List,
    /// Revokes a key; asks first
    Revoke {
        /// Its id or its name
        #[arg(value_name = "KEY", add = Candidates::ApiKeys)]
        id: Named,
        #[command(flatten)]
        assume: AssumeYes,
    },
}

/// What a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Everything, API keys included
    Admin,
    /// Webhooks, dead letters, stations, id tags and commands
    Operator,
    /// Read only
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

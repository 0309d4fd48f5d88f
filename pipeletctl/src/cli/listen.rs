//! `listen`, as clap reads it.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::Limit;
use crate::{completing, forward::Target, secret::Secret, when::When};

#[derive(Debug, Args)]
pub(crate) struct Listen {
    /// Where the application listens, like http://localhost:3000/hooks
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) forward_to: Target,
    /// Only this type (repeat it, or separate by commas)
    #[arg(long = "event", value_name = "EVENT", value_delimiter = ',', add = completing::event_types())]
    pub(crate) events: Vec<String>,
    /// Only this station (repeat it)
    #[arg(long = "station", value_name = "STATION", add = completing::stations())]
    pub(crate) stations: Vec<String>,
    /// Begins with what came since then: a time, or how long ago, like 2h
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<When>,
    /// The header that the application looks for its secret in
    #[arg(long, value_name = "HEADER", requires = "secret")]
    pub(crate) secret_header: Option<String>,
    /// The secret
    #[arg(
        long,
        value_name = "VALUE",
        group = "secret",
        requires = "secret_header"
    )]
    pub(crate) secret_value: Option<Secret>,
    /// A file with the secret, or - for standard input
    #[arg(
        long,
        value_name = "FILE",
        group = "secret",
        requires = "secret_header",
        value_hint = ValueHint::FilePath
    )]
    pub(crate) secret_value_file: Option<PathBuf>,
    /// Signs with this secret, whsec_ and base64 [otherwise: one that is made and shown]
    #[arg(long, value_name = "SECRET", conflicts_with = "signing_secret_file")]
    pub(crate) signing_secret: Option<Secret>,
    /// A file with it, or "-" for standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) signing_secret_file: Option<PathBuf>,
    /// Prints a line for each attempt, on a terminal, too
    #[arg(long)]
    pub(crate) plain: bool,
    #[command(flatten)]
    pub(crate) limit: Limit,
}

//! `listen`, as clap reads it.

use std::{fmt, path::PathBuf, str::FromStr};

use clap::{Args, ValueHint};
use http::Uri;

use super::{candidates::Candidates, limit::EndAfter};
use crate::system::{secret::Secret, when::When};

#[derive(Debug, Args)]
pub(crate) struct Listen {
    /// Where the application listens over plain HTTP, like localhost:3000/hooks [otherwise: events are
    /// printed]
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) forward_to: Option<ForwardUrl>,
    /// Only this type (repeat it, or separate by commas)
    #[arg(long = "event", value_name = "EVENT", value_delimiter = ',', add = Candidates::EventTypes)]
    pub(crate) events: Vec<String>,
    /// Only this station (repeat it)
    #[arg(long = "station", value_name = "STATION", add = Candidates::Stations)]
    pub(crate) stations: Vec<String>,
    /// Begins with what came since then: a time, or how long ago, like 2h
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<When>,
    /// The header that the application looks for its secret in
    #[arg(
        long,
        value_name = "HEADER",
        requires = "secret",
        requires = "forward_to"
    )]
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
    /// Signs with this secret, whsec_ and base64 [otherwise: one that is shown, always the same for
    /// an API key]
    #[arg(
        long,
        value_name = "SECRET",
        conflicts_with = "signing_secret_file",
        requires = "forward_to"
    )]
    pub(crate) signing_secret: Option<Secret>,
    /// A file with it, or "-" for standard input
    #[arg(
        long,
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        requires = "forward_to"
    )]
    pub(crate) signing_secret_file: Option<PathBuf>,
    /// Prints a line for each attempt, on a terminal, too
    #[arg(long)]
    pub(crate) plain: bool,
    #[command(flatten)]
    pub(crate) end: EndAfter,
}

/// Where events are sent.
#[derive(Debug, Clone)]
pub(crate) struct ForwardUrl(Uri);

#[derive(Debug, thiserror::Error)]
#[error("write an address like http://localhost:3000/hooks; https:// is not spoken here")]
pub(crate) struct ForwardUrlError;

impl fmt::Display for ForwardUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ForwardUrl {
    type Err = ForwardUrlError;

    fn from_str(text: &str) -> Result<Self, ForwardUrlError> {
        let whole = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let uri: Uri = whole.parse().map_err(|_| ForwardUrlError)?;
        let is_plain = uri.scheme_str() == Some("http") && uri.host().is_some();
        is_plain.then_some(Self(uri)).ok_or(ForwardUrlError)
    }
}

impl ForwardUrl {
    pub(crate) fn into_uri(self) -> Uri {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_address_is_a_target() {
        for (text, is_one) in [
            ("http://localhost:3000/hooks", true),
            ("http://[::1]:3000", true),
            ("https://localhost:3000/hooks", false),
            ("localhost:3000/hooks", true),
            ("localhost:3000", true),
            ("/hooks", false),
            ("", false),
        ] {
            assert_eq!(text.parse::<ForwardUrl>().is_ok(), is_one, "{text}");
        }
    }
}

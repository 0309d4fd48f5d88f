//! What holds for every command: which daemon, with which key, and how data is printed.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, ValueEnum, ValueHint};
use tonic::transport::Uri;

use super::candidates::Candidates;
use crate::system::when::parse_timeout;

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The daemon's gRPC address, with https:// where it speaks TLS [otherwise: PIPELET_SERVER,
    /// then the context's, then http://127.0.0.1:50051]
    #[arg(long, global = true, value_name = "URL", conflicts_with = "context")]
    pub(crate) server: Option<ServerUrl>,
    /// A daemon by its name: see `pipeletctl context` [otherwise: PIPELET_CONTEXT, then the one in
    /// use]
    #[arg(long, global = true, value_name = "NAME", add = Candidates::Contexts)]
    pub(crate) context: Option<String>,
    /// The authorities (PEM) that vouch for an https:// daemon [otherwise: PIPELET_CA_FILE, then
    /// the context's, then the system's]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) ca_file: Option<PathBuf>,
    /// A file with the API key [otherwise: PIPELET_API_KEY, then the context's, then the local
    /// daemon's admin.key]
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// One document.
    Json,
    /// One object per line.
    Jsonl,
    /// One document.
    Yaml,
}

/// Where the daemon's gRPC interface is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    uri: Uri,
    text: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerUrlError {
    #[error("write it as http://HOST:PORT, or https://HOST:PORT")]
    Malformed,
}

impl ServerUrl {
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(crate) fn speaks_tls(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    pub(crate) fn is_loopback(&self) -> bool {
        let host = self.uri.host().unwrap_or_default();
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost")
            || literal
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for ServerUrl {
    type Err = ServerUrlError;

    fn from_str(text: &str) -> Result<Self, ServerUrlError> {
        let uri: Uri = text.parse().map_err(|_| ServerUrlError::Malformed)?;
        let bare = uri.path_and_query().is_none_or(|path| path == "/");
        match uri.scheme_str() {
            Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) && bare => {
                Ok(Self {
                    uri,
                    text: text.trim_end_matches('/').to_owned(),
                })
            }
            Some(_) | None => Err(ServerUrlError::Malformed),
        }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_urls() {
        for (text, loopback) in [
            ("http://127.0.0.1:50051", true),
            ("http://localhost:1", true),
            ("http://[::1]:50051/", true),
            ("http://10.0.0.1:50051", false),
            ("https://127.0.0.1:50051", true),
            ("https://example.com:50051", false),
            ("http://localhost.example.com", false),
        ] {
            let url: ServerUrl = text.parse().unwrap();
            assert_eq!(url.is_loopback(), loopback, "{text}");
        }
        for text in ["", "127.0.0.1:50051", "ftp://h", "http://h/api"] {
            assert!(text.parse::<ServerUrl>().is_err(), "{text}");
        }
    }
}

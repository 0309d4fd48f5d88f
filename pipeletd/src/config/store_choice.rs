//! What everything is kept in.

use std::{fmt, str::FromStr};

use async_nats::ServerAddr;

/// `sled`, or `nats://HOST[:PORT][,HOST…]`.
#[derive(Debug, Clone)]
pub(crate) enum StoreChoice {
    Sled,
    Nats(Vec<ServerAddr>),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write sled, or nats://HOST[:PORT], with further servers behind a comma")]
pub(crate) struct InvalidStoreChoice;

impl FromStr for StoreChoice {
    type Err = InvalidStoreChoice;

    fn from_str(text: &str) -> Result<Self, InvalidStoreChoice> {
        if text == "sled" {
            return Ok(Self::Sled);
        }
        let (scheme, servers) = text.split_once("://").ok_or(InvalidStoreChoice)?;
        if !matches!(scheme, "nats" | "tls") {
            return Err(InvalidStoreChoice);
        }
        let servers = servers.split(',').map(|server| {
            // Each may have the scheme before it, too.
            let server = server.rsplit("://").next().unwrap_or(server);
            let server: ServerAddr = format!("{scheme}://{server}")
                .parse()
                .map_err(|_| InvalidStoreChoice)?;
            if server.host().is_empty() {
                return Err(InvalidStoreChoice);
            }
            Ok(server)
        });
        servers.collect::<Result<_, _>>().map(Self::Nats)
    }
}

impl fmt::Display for StoreChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Nats(servers) = self else {
            return f.write_str("sled");
        };
        let servers = servers
            .iter()
            .map(|it| format!("{}:{}", it.host(), it.port()));
        write!(f, "nats://{}", servers.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_or_several() {
        for (text, shown) in [
            ("sled", "sled"),
            ("nats://a", "nats://a:4222"),
            ("nats://a:1,b:2", "nats://a:1,b:2"),
            ("nats://a,nats://b", "nats://a:4222,b:4222"),
            ("nats://user:secret@a", "nats://a:4222"),
        ] {
            let choice: StoreChoice = text.parse().unwrap();
            assert_eq!(choice.to_string(), shown);
        }
        for text in ["", "sledge", "nats://", "nats:a", "http://a", "nats://a,,b"] {
            assert!(text.parse::<StoreChoice>().is_err(), "{text}");
        }
    }
}

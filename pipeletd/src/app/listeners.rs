//! The sockets of the API, bound before anything runs.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::OpenError;
use crate::{api::Listener, config::Config, system::tls::Certificates};

#[derive(Debug)]
pub(super) struct ApiListeners {
    pub(super) http: Listener,
    pub(super) http_address: SocketAddr,
    pub(super) grpc: Listener,
    pub(super) grpc_address: SocketAddr,
}

impl ApiListeners {
    /// Each with room for so many connections.
    pub(super) async fn bind(config: &Config, max_connections: usize) -> Result<Self, OpenError> {
        const HTTP: &str = "--http-listen";
        const GRPC: &str = "--grpc-listen";
        let listen = async |flag, address, protocols| {
            let listener = listen(flag, address, protocols, config, max_connections).await?;
            let bound = local_addr(&listener, flag, address)?;
            Ok::<_, OpenError>((listener, bound))
        };
        let (http, http_address) = listen(HTTP, config.http_listen, &[b"http/1.1"]).await?;
        let (grpc, grpc_address) = listen(GRPC, config.grpc_listen, &[b"h2"]).await?;
        Ok(Self {
            http,
            http_address,
            grpc,
            grpc_address,
        })
    }
}

/// Listens for callers, who agree on one of these protocols within TLS.
async fn listen(
    flag: &'static str,
    address: SocketAddr,
    protocols: &'static [&'static [u8]],
    config: &Config,
    max_connections: usize,
) -> Result<Listener, OpenError> {
    let socket = bind(flag, address).await?;
    let certificates = match &config.api_tls {
        Some(files) => {
            let loaded = Certificates::load(files.clone(), protocols).await;
            Some(loaded.map_err(OpenError::ApiTls)?)
        }
        None => None,
    };
    if certificates.is_none() && is_exposed(address) {
        tracing::warn!(
            flag,
            %address,
            "API keys travel unencrypted here: give --api-tls-cert and --api-tls-key, or listen on \
             a loopback address behind a proxy that speaks TLS"
        );
    }
    Ok(Listener {
        socket,
        certificates,
        max_connections,
        connections: TaskTracker::new(),
    })
}

/// Whether others than this machine can get there.
fn is_exposed(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// Where it is bound, with the real port.
fn local_addr(
    listener: &Listener,
    flag: &'static str,
    asked: SocketAddr,
) -> Result<SocketAddr, OpenError> {
    let bound = listener.socket.local_addr();
    bound.map_err(|source| OpenError::Listen {
        flag,
        address: asked,
        source,
    })
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, OpenError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| OpenError::Listen {
        flag,
        address,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_gets_to_the_loopback_interface() {
        for (address, exposed) in [
            ("127.0.0.1:1", false),
            ("127.1.2.3:1", false),
            ("[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("0.0.0.0:1", true),
            ("[::]:1", true),
            ("10.0.0.1:1", true),
        ] {
            assert_eq!(is_exposed(address.parse().unwrap()), exposed, "{address}");
        }
    }
}

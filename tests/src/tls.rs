//! HTTPS for a receiver: an authority of its own, and a listener that speaks TLS.

use std::{io, net::SocketAddr, sync::Arc};

use axum::serve::Listener;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::Authority;

/// What a server of 127.0.0.1 needs, and the authority that vouches for it.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) authority_pem: String,
    pub(crate) server: Arc<ServerConfig>,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let authority = Authority::new();
        Self {
            authority_pem: authority.pem(),
            server: authority.server().server_config(&[]),
        }
    }
}

/// A listener whose connections have finished their handshake.
pub(crate) struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl TlsListener {
    pub(crate) fn new(listener: TcpListener, server: Arc<ServerConfig>) -> Self {
        Self {
            listener,
            acceptor: TlsAcceptor::from(server),
        }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            // A client that does not trust us hangs up here.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

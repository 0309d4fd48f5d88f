//! Where stations connect: the listeners, and a task for each connection.
//!
//! The listeners are bound before anything runs, so a port of 0 has its real number. A connection
//! is accepted only when there is room for it and for its handshake; the rest wait in the kernel's
//! queues.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    OpenError, Services,
    conversation::{Conversation, Opening},
    entrance::{self, Visitor},
    session::{self, Ended, Session},
    tls::{Certificates, TlsOptions},
};

/// After a failed accept, as when the process has run out of descriptors.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Gateway {
    plain: Listener,
    tls: Option<(Listener, Certificates)>,
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// A connection that nothing has been read from.
struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
}

impl Listener {
    async fn bind(address: SocketAddr) -> Result<Self, OpenError> {
        let bound = async {
            let socket = TcpListener::bind(address).await?;
            let address = socket.local_addr()?;
            Ok(Self { socket, address })
        };
        let bound: io::Result<Self> = bound.await;
        bound.map_err(|source| OpenError::Listen { address, source })
    }
}

impl Gateway {
    pub(super) async fn bind(
        listen: SocketAddr,
        tls: Option<TlsOptions>,
    ) -> Result<Self, OpenError> {
        let plain = Listener::bind(listen).await?;
        let tls = match tls {
            Some(TlsOptions { listen, files }) => {
                let certificates = Certificates::load(files).await?;
                Some((Listener::bind(listen).await?, certificates))
            }
            None => None,
        };
        Ok(Self { plain, tls })
    }

    pub(super) const fn local_addr(&self) -> SocketAddr {
        self.plain.address
    }

    pub(super) fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls.as_ref().map(|(listener, _)| listener.address)
    }

    pub(super) fn certificates(&self) -> Option<Certificates> {
        self.tls
            .as_ref()
            .map(|(_, certificates)| certificates.clone())
    }

    /// Accepts stations until the shutdown, and returns when every connection has ended.
    pub(super) async fn run(self, services: Arc<Services>, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        let accepting = self.accept_all(&services, &connections, &shutdown);
        shutdown.run_until_cancelled(accepting).await;
        drop(self);
        connections.close();
        connections.wait().await;
    }

    async fn accept_all(
        &self,
        services: &Arc<Services>,
        connections: &TaskTracker,
        shutdown: &CancellationToken,
    ) {
        let room = Arc::new(Semaphore::new(services.config.max_connections));
        let handshakes = Arc::new(Semaphore::new(services.config.max_handshakes));
        // The semaphores are never closed, so this goes on until it is dropped.
        while let (Ok(place), Ok(turn)) = (
            Arc::clone(&room).acquire_owned().await,
            Arc::clone(&handshakes).acquire_owned().await,
        ) {
            let accepted = self.accept().await;
            let services = Arc::clone(services);
            let shutdown = shutdown.clone();
            connections.spawn(async move {
                serve(accepted, turn, services, &shutdown).await;
                drop(place);
            });
        }
    }

    async fn accept(&self) -> Accepted {
        loop {
            match self.next().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_BACK_OFF).await;
                }
            }
        }
    }

    /// The next connection of either listener, neither before the other.
    async fn next(&self) -> io::Result<Accepted> {
        let Some((listener, certificates)) = &self.tls else {
            let (stream, peer) = self.plain.socket.accept().await?;
            return Ok(Accepted {
                stream,
                peer,
                tls: None,
            });
        };
        let (accepted, tls) = tokio::select! {
            accepted = self.plain.socket.accept() => (accepted?, None),
            accepted = listener.socket.accept() => (accepted?, Some(certificates.acceptor())),
        };
        let (stream, peer) = accepted;
        Ok(Accepted { stream, peer, tls })
    }
}

async fn serve(
    accepted: Accepted,
    turn: OwnedSemaphorePermit,
    services: Arc<Services>,
    shutdown: &CancellationToken,
) {
    let Accepted { stream, peer, tls } = accepted;
    let shaking = timeout(
        services.config.handshake_timeout,
        entrance::shake_hands(stream, peer, tls, &services),
    );
    let visitor = match shutdown.run_until_cancelled(shaking).await {
        Some(Ok(Ok(visitor))) => visitor,
        Some(Ok(Err(error))) => {
            tracing::info!(%peer, reason = %error, "handshake failed");
            return;
        }
        Some(Err(_)) => {
            tracing::info!(%peer, reason = "it took too long", "handshake failed");
            return;
        }
        None => return,
    };
    drop(turn);
    let Visitor {
        stream,
        rest,
        station,
        subprotocol,
        profile,
        seat,
        revoked,
    } = visitor;
    let mut socket = session::upgraded(stream, rest, &services.config).await;
    let Some(seat) = seat else {
        let ended = Ended::NoSubprotocol;
        tracing::info!(%station, %peer, reason = ended.reason(), detail = %ended, "connection ended");
        return session::close(&mut socket, &ended).await;
    };
    let opening = Opening {
        peer,
        subprotocol,
        profile,
    };
    let conversation = Conversation::new(seat, Arc::clone(&services));
    Session::new(
        socket,
        conversation,
        &services.config,
        revoked,
        services.clock,
    )
    .run(opening, shutdown)
    .await;
}

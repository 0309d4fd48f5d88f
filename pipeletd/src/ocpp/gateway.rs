//! Where stations connect: the listeners, and a task for each connection.
//!
//! The listeners are bound before anything runs, so a port of 0 has its real number. A connection
//! is served only when there is room for it; the rest wait in the kernel's queues. When everybody
//! comes back together, a limited number of handshakes at once have their turn, and addresses share
//! the turns: see `limits`. Connections that say nothing take none, and neither does a request whose
//! head has come whole, because nothing is waited for then. Where there is no room, an unfinished
//! handshake makes some.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    OpenError, Services, TlsOptions,
    accept::{self, Accepted},
    call_handler::{CallHandler, Opening},
    command_queue::End,
    ended::Ended,
    handshake::{self, HandshakeError},
    link::{Link as _, WebSocketLink},
    refusals::Failure,
    session::Session,
};
use crate::system::{
    limits::{Pending, Turns},
    tls::{Certificates, Stream},
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
struct TcpConnection {
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
}

impl Listener {
    async fn bind(flag: &'static str, address: SocketAddr) -> Result<Self, OpenError> {
        let bound = async {
            let socket = TcpListener::bind(address).await?;
            let address = socket.local_addr()?;
            Ok(Self { socket, address })
        };
        let bound: io::Result<Self> = bound.await;
        bound.map_err(|source| OpenError::Listen {
            flag,
            address,
            source,
        })
    }
}

impl Gateway {
    pub(super) async fn bind(
        listen: SocketAddr,
        tls: Option<TlsOptions>,
    ) -> Result<Self, OpenError> {
        let plain = Listener::bind("--ocpp-listen", listen).await?;
        let tls = match tls {
            Some(TlsOptions { listen, files }) => {
                let certificates = Certificates::load(files, &[]).await?;
                Some((
                    Listener::bind("--ocpp-tls-listen", listen).await?,
                    certificates,
                ))
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
        services.stations.end_all();
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
        let turns = Turns::new(services.config.max_handshakes);
        loop {
            let connection = self.accept(&turns).await;
            // The semaphore is never closed, so this goes on until it is dropped.
            let Some(place) = turns.place(&room).await else {
                return;
            };
            let pending = turns.arrive(connection.peer.ip());
            let services = Arc::clone(services);
            connections.spawn(serve(
                connection,
                place,
                pending,
                services,
                shutdown.clone(),
            ));
        }
    }

    async fn accept(&self, turns: &Turns) -> TcpConnection {
        loop {
            match self.next().await {
                Ok(connection) => return connection,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Where descriptors are short, one of those that show nothing has one.
                    turns.drop_one();
                    sleep(ACCEPT_BACK_OFF).await;
                }
            }
        }
    }

    /// The next connection of either listener, neither before the other.
    async fn next(&self) -> io::Result<TcpConnection> {
        let Some((listener, certificates)) = &self.tls else {
            let (stream, peer) = self.plain.socket.accept().await?;
            return Ok(TcpConnection {
                stream,
                peer,
                tls: None,
            });
        };
        let ((stream, peer), tls) = tokio::select! {
            plain = self.plain.socket.accept() => (plain?, None),
            secure = listener.socket.accept() => (secure?, Some(certificates.acceptor())),
        };
        Ok(TcpConnection { stream, peer, tls })
    }
}

/// Serves a connection from its first byte on; `place` is its room among all of them.
///
/// A session lives long, and its task keeps whatever the future has ever had: what comes before it
/// is on the heap, arguments included.
fn serve(
    connection: TcpConnection,
    place: OwnedSemaphorePermit,
    pending: Pending,
    services: Arc<Services>,
    shutdown: CancellationToken,
) -> impl Future<Output = ()> + Send {
    let session = Box::pin(await_session(connection, pending, services, shutdown));
    async move {
        let _place = place;
        if let Some(mut session) = session.await {
            session.run().await;
        }
    }
}

/// The session of a station that has come in before the shutdown.
async fn await_session(
    connection: TcpConnection,
    pending: Pending,
    services: Arc<Services>,
    shutdown: CancellationToken,
) -> Option<Box<Session<WebSocketLink<Stream>>>> {
    let peer = connection.peer;
    let (stats, clock) = (services.stats.clone(), services.clock);
    let entered = shutdown.run_until_cancelled(enter(connection, pending, services));
    match entered.await {
        Some(Ok(Entered::Station(session))) => {
            // It may have come in after all the others were asked to end.
            if shutdown.is_cancelled() {
                session.end(End::Shutdown);
            }
            return Some(session);
        }
        Some(Ok(Entered::NotOcpp(mut link))) => link.close(&Ended::NoSubprotocol).await,
        // Those with an answer were recorded when it was given.
        Some(Err(HandshakeError::Refused { .. })) | None => {}
        Some(Err(error)) => {
            let why = Failure::of(&error, peer);
            stats.refusals.record(&why, clock.now());
        }
    }
    None
}

/// A connection after its handshake.
enum Entered {
    Station(Box<Session<WebSocketLink<Stream>>>),
    /// It speaks another protocol, and learns so.
    NotOcpp(Box<WebSocketLink<Stream>>),
}

/// Waits for the handshake, which others may cut short.
async fn enter(
    connection: TcpConnection,
    pending: Pending,
    services: Arc<Services>,
) -> Result<Entered, HandshakeError> {
    let peer = connection.peer;
    let accepted = tokio::select! {
        accepted = shake_hands(connection, &pending, &services) => accepted?,
        () = pending.dropped() => return Err(HandshakeError::CrowdedOut),
    };
    drop(pending);
    Ok(open_session(accepted, peer, services).await)
}

/// Waits for the first bytes, then for a turn, then for the rest of the handshake.
async fn shake_hands(
    connection: TcpConnection,
    pending: &Pending,
    services: &Services,
) -> Result<Accepted, HandshakeError> {
    let TcpConnection { stream, peer, tls } = connection;
    let limit = services.config.handshake_timeout;
    let late = |_| HandshakeError::TooLate;
    // A look at the first byte: that a socket seems readable need not mean that anything is there.
    let first = timeout(limit, stream.peek(&mut [0])).await;
    first.map_err(late)??;
    if tls.is_some() || !handshake::is_whole(&stream).await? {
        pending.turn().await;
    }
    let shaking = accept::shake_hands(stream, peer, tls, pending, services);
    timeout(limit, shaking).await.map_err(late)?
}

async fn open_session(accepted: Accepted, peer: SocketAddr, services: Arc<Services>) -> Entered {
    let link = WebSocketLink::new(
        accepted.stream,
        accepted.rest,
        &services.config,
        services.stats.unfinished.clone(),
        services.timing.subscribe(),
    )
    .await;
    let Some(lease) = accepted.lease else {
        return Entered::NotOcpp(Box::new(link));
    };
    let opening = Opening {
        peer,
        subprotocol: accepted.subprotocol,
        profile: accepted.profile,
    };
    let call_handler = CallHandler::new(lease, Arc::clone(&services));
    let session = Session::new(link, call_handler, opening, accepted.revoked, &services);
    Entered::Station(Box::new(session))
}

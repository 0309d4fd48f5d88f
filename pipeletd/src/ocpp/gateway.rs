//! Where stations connect: the listeners, and a task for each connection.
//!
//! The listeners are bound before anything runs, so a port of 0 has its real number. A connection
//! is served only when there is room for it; the rest wait in the kernel's queues. When everybody
//! comes back together, a limited number of handshakes at once have their turn, and addresses share
//! the turns: see `limits`. Connections that say nothing take none, and neither does a request whose
//! head has come whole, because nothing is waited for then. Where there is no room, an unfinished
//! handshake makes some.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use pipelet_domain::{events::StationId, shards::Shards};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Config, OpenError, Services, TimingConfig, TlsOptions,
    accept::{self, Accepted, Place},
    call_handler::{CallHandler, Opening},
    command_queue::End,
    connection_stats::{ConnectionStats, OpenConnection},
    ended::Ended,
    handshake::{self, HandshakeError},
    link::{Link as _, WebSocketLink},
    refusals::Failure,
    remote::{Forward, Inboxes},
    session::{Served, Session, Unserved},
    stations::{At, ConnectionLease},
};
use crate::{
    cluster::Peers,
    registries::Registrations,
    system::{
        clock::Clock,
        limits::{PasswordGuesses, Pending, Turns},
        tls::{Certificates, Stream},
    },
};

/// After a failed accept, as when the process has run out of descriptors.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(200);
/// What a forwarded message takes besides its text, in bytes at most.
const FORWARDING: usize = 4096;

/// Where stations connect, whoever owns their shards. Bound, and not yet running.
#[derive(Debug)]
pub struct Gateway {
    plain: Listener,
    tls: Option<(Listener, Certificates)>,
    context: Arc<Context>,
}

/// A gateway, for who is the owner where it is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GatewayHandle(pub(super) Arc<Context>);

/// The owner of a shard, where that is this node.
pub(super) type Local = Option<Arc<Services>>;

/// What connections work with that have yet to find the owner of their station's shard.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) config: Arc<Config>,
    pub(super) timing: watch::Sender<TimingConfig>,
    pub(super) registry: Registrations,
    pub(super) guesses: PasswordGuesses,
    pub(super) stats: ConnectionStats,
    pub(super) clock: Clock,
    pub(super) owners: Shards<watch::Sender<Local>>,
    /// The way to those that are others; none where there is no other.
    pub(super) peers: Option<Peers>,
    pub(super) inboxes: Inboxes,
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
    /// Binds the listeners. Nothing is accepted before [`Self::run`].
    pub async fn bind(
        mut config: Config,
        registry: Registrations,
        clock: Clock,
        shard_count: u16,
        peers: Option<Peers>,
        stats: ConnectionStats,
    ) -> Result<Self, OpenError> {
        let plain = Listener::bind("--ocpp-listen", config.listen).await?;
        let tls = match config.tls.clone() {
            Some(TlsOptions { listen, files }) => {
                let certificates = Certificates::load(files, &[]).await?;
                Some((
                    Listener::bind("--ocpp-tls-listen", listen).await?,
                    certificates,
                ))
            }
            None => None,
        };
        if let Some(peers) = &peers {
            // What is forwarded has to fit into a message.
            let room = peers.max_message().saturating_sub(FORWARDING);
            config.max_frame = config.max_frame.min(room);
        }
        let context = Arc::new(Context {
            timing: watch::Sender::new(config.timing),
            stats,
            config: Arc::new(config),
            registry,
            guesses: PasswordGuesses::default(),
            clock,
            owners: Shards::new((0..shard_count).map(|_| watch::Sender::default())),
            peers,
            inboxes: Inboxes::default(),
        });
        Ok(Self {
            plain,
            tls,
            context,
        })
    }

    /// Changes the intervals and rates.
    pub fn timing(&self) -> watch::Sender<TimingConfig> {
        self.context.timing.clone()
    }

    /// For the owners that there will be at this node.
    pub fn handle(&self) -> GatewayHandle {
        GatewayHandle(Arc::clone(&self.context))
    }

    /// Where stations connect, with the real port.
    pub const fn local_addr(&self) -> SocketAddr {
        self.plain.address
    }

    /// Where stations connect over TLS, where they can.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls.as_ref().map(|(listener, _)| listener.address)
    }

    /// What we show to stations over TLS.
    pub fn certificates(&self) -> Option<Certificates> {
        self.tls
            .as_ref()
            .map(|(_, certificates)| certificates.clone())
    }

    /// Accepts stations until the shutdown, and returns when every connection has ended.
    pub async fn run(self, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        let context = Arc::clone(&self.context);
        let accepting = async {
            match &context.peers {
                None => self.accept_all(&connections, &shutdown).await,
                Some(peers) => {
                    tokio::select! {
                        () = self.accept_all(&connections, &shutdown) => {}
                        ended = context.inboxes.run(peers) => {
                            let error = ended.err().map(tracing::field::display);
                            tracing::error!(error, "what other nodes want of connections is not heard");
                        }
                    }
                }
            }
        };
        shutdown.run_until_cancelled(accepting).await;
        drop(self);
        for owner in &context.owners {
            let owner = owner.borrow().clone();
            let Some(services) = owner else { continue };
            services.stations.end_all(&[At::ThisNode], End::Shutdown);
        }
        connections.close();
        connections.wait().await;
    }

    async fn accept_all(&self, connections: &TaskTracker, shutdown: &CancellationToken) {
        let room = Arc::new(Semaphore::new(self.context.config.max_connections));
        let turns = Turns::new(self.context.config.max_handshakes);
        loop {
            let connection = self.accept(&turns).await;
            // The semaphore is never closed, so this goes on until it is dropped.
            let Some(place) = turns.place(&room).await else {
                return;
            };
            let pending = turns.arrive(connection.peer.ip());
            let context = Arc::clone(&self.context);
            connections.spawn(serve(connection, place, pending, context, shutdown.clone()));
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
    context: Arc<Context>,
    shutdown: CancellationToken,
) -> impl Future<Output = ()> + Send {
    let entering = Box::pin(await_station(connection, pending, context, shutdown));
    async move {
        let _place = place;
        let mut station = entering.await;
        while let Some(connected) = station {
            station = match connected {
                Connected::Here(mut session, node) => match session.run().await {
                    Served::Ended => None,
                    Served::HandedOver => Box::pin(node.look(session.into_parts())).await,
                },
                Connected::Elsewhere(forward, node) => Box::pin(node.run(forward)).await,
            };
        }
    }
}

/// A station that has come in: where its session is.
enum Connected {
    Here(Box<Session<WebSocketLink<Stream>>>, Node),
    Elsewhere(Box<Forward<WebSocketLink<Stream>>>, Node),
}

/// What a connection needs of the node that it is at.
struct Node {
    context: Arc<Context>,
    shutdown: CancellationToken,
    _open: OpenConnection,
}

/// The session of a station that has come in before the shutdown.
async fn await_station(
    connection: TcpConnection,
    pending: Pending,
    context: Arc<Context>,
    shutdown: CancellationToken,
) -> Option<Connected> {
    let peer = connection.peer;
    let entered = shutdown.run_until_cancelled(enter(connection, pending, &context));
    match entered.await {
        Some(Ok((place, unserved))) => {
            let node = Node {
                _open: context.stats.opened(),
                context,
                shutdown,
            };
            match place {
                Place::Here(lease, services) => {
                    return Some(node.serve(unserved, lease, &services));
                }
                Place::Elsewhere => return node.look(unserved).await,
                // It speaks another protocol, and learns so.
                Place::Nowhere => {
                    let mut link = unserved.link;
                    link.close(&Ended::NoSubprotocol).await;
                }
            }
        }
        // Those with an answer were recorded when it was given.
        Some(Err(HandshakeError::Refused { .. })) | None => {}
        Some(Err(error)) => {
            let why = Failure::of(&error, peer);
            context.stats.refusals.record(&why, context.clock.now());
        }
    }
    None
}

impl Node {
    /// The session that the lease is for.
    fn serve(
        self,
        unserved: Unserved<WebSocketLink<Stream>>,
        lease: ConnectionLease,
        services: &Arc<Services>,
    ) -> Connected {
        let station = lease.station().clone();
        let revoked = services.revoked(&station);
        let call_handler = CallHandler::new(lease, Arc::clone(services));
        let ended = Some(self.context.stats.ended.clone());
        let session = Session::new(unserved, call_handler, revoked, ended);
        // It may have come in after all the others were asked to end.
        if self.shutdown.is_cancelled() {
            session.end(End::Shutdown);
        } else if !self.context.is_owner(services, &station) {
            session.end(End::HandedOver);
        }
        Connected::Here(Box::new(session), self)
    }

    /// Finds the owner of a station's shard.
    async fn look(self, mut unserved: Unserved<WebSocketLink<Stream>>) -> Option<Connected> {
        let owner = self.context.owners.of(&unserved.station);
        let services = owner.borrow().clone();
        if let Some(services) = services {
            let protocol = unserved.opening.subprotocol.as_deref();
            let lease = services.acquire_lease(&unserved.station, protocol, At::ThisNode);
            if let Ok(lease) = lease {
                return Some(self.serve(unserved, lease, &services));
            }
            self.context.stats.ended.count(Ended::Full.reason());
            unserved.link.close(&Ended::Full).await;
            return None;
        }
        let forward = Forward::new(unserved, Arc::clone(&self.context))?;
        Some(Connected::Elsewhere(Box::new(forward), self))
    }

    async fn run(self, mut forward: Box<Forward<WebSocketLink<Stream>>>) -> Option<Connected> {
        match forward.run(&self.shutdown).await {
            Served::Ended => None,
            Served::HandedOver => self.look(forward.into_parts()).await,
        }
    }
}

impl Context {
    fn is_owner(&self, services: &Arc<Services>, station: &StationId) -> bool {
        let owner = self.owners.of(station).borrow();
        owner
            .as_ref()
            .is_some_and(|owner| Arc::ptr_eq(owner, services))
    }
}

/// Waits for the handshake, which others may cut short.
async fn enter(
    connection: TcpConnection,
    pending: Pending,
    context: &Context,
) -> Result<(Place, Unserved<WebSocketLink<Stream>>), HandshakeError> {
    let peer = connection.peer;
    let accepted = tokio::select! {
        accepted = shake_hands(connection, &pending, context) => accepted?,
        () = pending.dropped() => return Err(HandshakeError::CrowdedOut),
    };
    drop(pending);
    let link = WebSocketLink::new(
        accepted.stream,
        accepted.rest,
        &context.config,
        context.stats.unfinished.clone(),
        context.timing.subscribe(),
    )
    .await;
    let opening = Opening {
        peer,
        subprotocol: accepted.subprotocol,
        profile: accepted.profile,
        resumed: false,
    };
    let station = accepted.station;
    let unserved = Unserved {
        link,
        opening,
        station,
        unanswered: None,
    };
    Ok((accepted.place, unserved))
}

/// Waits for the first bytes, then for a turn, then for the rest of the handshake.
async fn shake_hands(
    connection: TcpConnection,
    pending: &Pending,
    context: &Context,
) -> Result<Accepted, HandshakeError> {
    let TcpConnection { stream, peer, tls } = connection;
    let limit = context.config.handshake_timeout;
    let late = |_| HandshakeError::TooLate;
    // A look at the first byte: that a socket seems readable need not mean that anything is there.
    let first = timeout(limit, stream.peek(&mut [0])).await;
    first.map_err(late)??;
    if tls.is_some() || !handshake::is_whole(&stream).await? {
        pending.turn().await;
    }
    let shaking = accept::shake_hands(stream, peer, tls, pending, context);
    timeout(limit, shaking).await.map_err(late)?
}

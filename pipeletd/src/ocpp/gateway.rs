//! Where stations connect: the listener, the handshake, and a task for each connection.
//!
//! The listener is bound before anything runs, so a port of 0 has its real number. A connection
//! is accepted only when there is room for it; the rest wait in the kernel's queue.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Services,
    conversation::Conversation,
    handshake::{self, HandshakeError, Refusal, Subprotocol, Upgrade},
    outbox::Outbox,
    session::{self, Ended, Session},
    stations::Seat,
};

/// After a failed accept, as when the process has run out of descriptors.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Gateway {
    listener: TcpListener,
    address: SocketAddr,
}

impl Gateway {
    pub(super) async fn bind(listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    pub(super) const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Accepts stations until the shutdown, and returns when every connection has ended.
    pub(super) async fn run(self, services: Arc<Services>, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        let accepting = self.accept_all(&services, &connections, &shutdown);
        shutdown.run_until_cancelled(accepting).await;
        drop(self.listener);
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
        // The semaphore is never closed, so this goes on until it is dropped.
        while let Ok(place) = Arc::clone(&room).acquire_owned().await {
            let (stream, peer) = self.accept().await;
            let services = Arc::clone(services);
            let shutdown = shutdown.clone();
            connections.spawn(async move {
                serve(stream, peer, services, &shutdown).await;
                drop(place);
            });
        }
    }

    async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_BACK_OFF).await;
                }
            }
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    peer: SocketAddr,
    services: Arc<Services>,
    shutdown: &CancellationToken,
) {
    let shaking = timeout(
        services.config.handshake_timeout,
        shake_hands(&mut stream, &services),
    );
    let (upgrade, rest, seat) = match shutdown.run_until_cancelled(shaking).await {
        Some(Ok(Ok(done))) => done,
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
    let mut socket = session::upgraded(stream, rest, &services.config).await;
    let Some(mut seat) = seat else {
        let (station, ended) = (&upgrade.station, Ended::NoSubprotocol);
        tracing::info!(%station, %peer, reason = ended.reason(), detail = %ended, "connection ended");
        return session::close(&mut socket, &ended).await;
    };
    let Some(commands) = seat.take_commands() else {
        return;
    };
    let conversation = Conversation::new(seat, Arc::clone(&services));
    let outbox = Outbox::new(commands);
    Session::new(
        socket,
        conversation,
        outbox,
        &services.config,
        services.clock,
    )
    .run(peer, shutdown)
    .await;
}

type Agreed = (Upgrade, Vec<u8>, Option<Seat>);

async fn shake_hands(
    stream: &mut TcpStream,
    services: &Services,
) -> Result<Agreed, HandshakeError> {
    // Frames are small and answers are waited for; Nagle's algorithm would only delay them.
    stream.set_nodelay(true)?;
    let agreed = agree(stream, services).await;
    if let Err(HandshakeError::Refused(refusal)) = &agreed {
        handshake::refuse(stream, *refusal).await?;
    }
    let agreed = agreed?;
    handshake::accept(stream, &agreed.0).await?;
    Ok(agreed)
}

/// There is no seat for a station that speaks another protocol.
async fn agree(stream: &mut TcpStream, services: &Services) -> Result<Agreed, HandshakeError> {
    let (request, rest) = handshake::read(stream).await?;
    let upgrade = handshake::decide(&request)?;
    let seat = match upgrade.subprotocol {
        Subprotocol::Agreed(_) | Subprotocol::NotOffered => {
            let (stations, max) = (&services.stations, services.config.max_stations);
            let seat = stations.seat(&upgrade.station, services.clock.now(), max);
            Some(seat.map_err(|_| Refusal::Full)?)
        }
        Subprotocol::NoneCommon => None,
    };
    Ok((upgrade, rest, seat))
}

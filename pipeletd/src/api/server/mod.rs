//! Where callers come in: a listener with room for so many connections, with or without TLS.
//!
//! Connections beyond that wait for their turn, and where there is no room for those that wait, in
//! the kernel's queue. One on which no key was shown yet holds its turn by leave of the others: see
//! `limits`. Whoever takes too long, in the handshake, with a request's head or in reading an
//! answer, is dropped, so that a slow caller holds a place for a short time and costs nobody else
//! anything.
//! What is asked for is none of this module's business.

mod connection;
mod http1;
pub mod nodes;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(super) use self::{connection::Connection, http1::serve};
use super::key_places::KeyPlaces;
use crate::system::{
    limits::Turns,
    tls::{Certificates, Stream},
};

/// After a failed accept, as when the process has run out of descriptors.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(200);
/// Connections that wait for their turn: so many that a burst of callers is served without a word.
const MAX_WAITING: usize = 200;
/// From a connection's turn to the end of the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A bound socket, and how its connections are served.
#[derive(Debug)]
pub struct Listener {
    pub socket: TcpListener,
    pub certificates: Option<Certificates>,
    /// At once; more wait for their turn.
    pub max_connections: usize,
    /// Those there are: a clone tells how many.
    pub connections: TaskTracker,
}

impl Listener {
    /// Accepts connections until the shutdown, and returns when all have been served.
    pub(super) async fn run<F>(
        self,
        shutdown: CancellationToken,
        serve: impl Fn(Connection) -> F + Clone + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let connections = self.connections.clone();
        let accepting = self.accept_all(&serve);
        shutdown.run_until_cancelled(accepting).await;
        drop((self, serve));
        connections.close();
        connections.wait().await;
    }

    async fn accept_all<F>(&self, serve: &(impl Fn(Connection) -> F + Clone + Send + 'static))
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let room = Arc::new(Semaphore::new(self.max_connections + MAX_WAITING));
        let turns = Turns::new(self.max_connections);
        let keys = KeyPlaces::new(self.max_connections.div_ceil(2));
        loop {
            let (stream, peer) = self.accept(&turns).await;
            // The semaphore is never closed, so this goes on until it is dropped.
            let Some(place) = turns.place(&room).await else {
                return;
            };
            let pending = Arc::new(turns.arrive(peer.ip()));
            let (certificates, serve) = (self.certificates.clone(), serve.clone());
            let keys = keys.clone();
            self.connections.spawn(async move {
                let shaking = async {
                    pending.turn().await;
                    timeout(HANDSHAKE_TIMEOUT, shake_hands(stream, certificates)).await
                };
                let shaken = tokio::select! {
                    shaken = shaking => shaken,
                    () = pending.dropped() => return,
                };
                match shaken {
                    Ok(Ok(stream)) => {
                        serve(Connection::new(stream, peer, pending, keys, place)).await;
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(%peer, %error, "an API caller's handshake failed");
                    }
                    Err(_) => tracing::debug!(%peer, "an API caller's handshake took too long"),
                }
            });
        }
    }

    async fn accept(&self, turns: &Turns) -> (TcpStream, SocketAddr) {
        loop {
            match self.socket.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!(%error, "an API caller's connection could not be accepted");
                    // Where descriptors are short, one of those that show nothing has one.
                    turns.drop_one();
                    sleep(ACCEPT_BACK_OFF).await;
                }
            }
        }
    }
}

async fn shake_hands(stream: TcpStream, tls: Option<Certificates>) -> io::Result<Stream> {
    // Answers are small and waited for; Nagle's algorithm would only delay them.
    stream.set_nodelay(true)?;
    Ok(match tls {
        Some(certificates) => Stream::Tls(Box::new(certificates.acceptor().accept(stream).await?)),
        None => Stream::Plain(stream),
    })
}

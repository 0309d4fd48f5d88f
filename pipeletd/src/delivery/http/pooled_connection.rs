//! One webhook's connections, and where each is kept between two attempts.
//!
//! Nothing here is shared with another webhook, not even where both lead to the same receiver: one
//! whose requests are never answered takes the connections and the streams that it has, and no
//! others.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::Uri;
use rustls::{ClientConfig, client::Resumption};
use tokio::{sync, time::Instant};
use tokio_rustls::TlsConnector;

use super::{
    http1::Http1,
    http2::{Http2, StreamSlot},
    sockets::{Share, Socket},
};

/// Shorter than the five seconds after which common servers close an idle connection, so that
/// a request seldom crosses such a close.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// One that has rested for longer is looked at before it is used. In a burst of attempts that look
/// would cost more than it could find.
const RESTED: Duration = Duration::from_millis(1);
/// Receivers of one webhook whose TLS sessions are kept to be resumed: one, and those that it has
/// been turned to.
const SESSIONS: usize = 4;

/// The connections of one webhook, made by [`Sender::pool`](super::Sender::pool).
#[derive(Debug)]
pub struct ConnectionPool {
    shared: Arc<Shared>,
    sockets: Arc<Share>,
    /// That no attempt uses.
    idle: Vec<PooledConnection>,
}

impl ConnectionPool {
    pub(super) fn new(tls: Arc<ClientConfig>, sockets: Arc<Share>) -> Self {
        let shared = Shared {
            tls,
            own_tls: OnceLock::new(),
            http2: Mutex::default(),
            is_http1: AtomicBool::new(false),
            connecting: sync::Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
            sockets,
            idle: Vec::new(),
        }
    }

    /// One for an attempt; none while other webhooks have the sockets.
    pub fn take(&mut self) -> Option<PooledConnection> {
        match self.idle.pop() {
            Some(idle) => Some(idle),
            None => Some(self.pooled(self.sockets.take()?)),
        }
    }

    /// Waits for one. Who needs it no more drops it, and another webhook has the socket.
    pub async fn wait(&self) -> PooledConnection {
        self.pooled(self.sockets.wait().await)
    }

    fn pooled(&self, socket: Socket) -> PooledConnection {
        PooledConnection {
            kept: None,
            shared: Arc::clone(&self.shared),
            _socket: socket,
        }
    }

    /// Keeps it for the next attempt, if it is one of these and has something to be kept.
    pub fn put(&mut self, mut connection: PooledConnection) {
        connection.used();
        if connection.is_fresh() && Arc::ptr_eq(&connection.shared, &self.shared) {
            self.idle.push(connection);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.idle.is_empty()
    }

    /// Closes what has been idle for too long.
    pub fn sweep(&mut self) {
        self.idle.retain(PooledConnection::is_fresh);
    }
}

/// Room for one connection, and what is kept in it between two attempts; at most one attempt uses
/// it at a time.
#[derive(Debug)]
pub struct PooledConnection {
    kept: Option<Kept>,
    pub(super) shared: Arc<Shared>,
    /// Given back when the connection is closed. One that speaks HTTP/2 is held by all of these
    /// that use it, so there are never more connections than sockets.
    _socket: Socket,
}

/// What the connections of one pool have in common.
#[derive(Debug)]
pub(super) struct Shared {
    tls: Arc<ClientConfig>,
    /// The same with sessions of its own to be resumed, once it is needed.
    own_tls: OnceLock<Arc<ClientConfig>>,
    /// Those that speak HTTP/2, held by whatever has used them.
    http2: Mutex<Vec<Weak<Http2>>>,
    /// The receiver has chosen HTTP/1.1, where each attempt needs a connection of its own.
    is_http1: AtomicBool,
    connecting: sync::Mutex<()>,
}

#[derive(Debug)]
struct Kept {
    what: What,
    since: Instant,
}

#[derive(Debug)]
enum What {
    Http1 { connection: Http1, origin: Uri },
    Http2(Arc<Http2>),
}

/// A connection that an attempt uses.
#[derive(Debug)]
pub(super) enum Connection {
    Http1(Http1),
    Http2(StreamSlot),
}

impl PooledConnection {
    /// Whether there is a connection that may still be used.
    pub fn is_fresh(&self) -> bool {
        let fresh = |kept: &Kept| kept.since.elapsed() < IDLE_TIMEOUT;
        self.kept.as_ref().is_some_and(fresh)
    }

    /// A connection to this origin that has been used before, unless something came over it, or
    /// it was closed, while it rested.
    pub(super) async fn take(&mut self, origin: &Uri) -> Option<Connection> {
        let fresh = self.is_fresh();
        let kept = self.kept.take().filter(|_| fresh);
        let rested = kept.as_ref().map(|kept| kept.since.elapsed());
        match kept.map(|kept| kept.what) {
            Some(What::Http1 {
                connection,
                origin: kept,
            }) if kept == *origin => {
                let connection = if rested > Some(RESTED) {
                    connection.if_silent().await
                } else {
                    Some(connection)
                };
                connection.map(Connection::Http1)
            }
            Some(What::Http2(connection)) if connection.origin == *origin => {
                connection.slot().map(Connection::Http2)
            }
            Some(What::Http1 { .. } | What::Http2(_)) | None => None,
        }
    }

    /// An HTTP/2 connection has been in use until now, however its stream ended.
    fn used(&mut self) {
        if let Some(Kept {
            what: What::Http2(connection),
            since,
        }) = &mut self.kept
            && !connection.has_ended()
        {
            *since = Instant::now();
        }
    }

    pub(super) fn keep_http1(&mut self, connection: Http1, origin: &Uri) {
        let origin = origin.clone();
        self.put(What::Http1 { connection, origin });
    }

    pub(super) fn keep_http2(&mut self, connection: &Arc<Http2>) {
        self.put(What::Http2(Arc::clone(connection)));
    }

    fn put(&mut self, what: What) {
        let since = Instant::now();
        self.kept = Some(Kept { what, since });
    }
}

impl Shared {
    pub(super) fn tls(&self) -> TlsConnector {
        let own = self.own_tls.get_or_init(|| {
            let mut config = ClientConfig::clone(&self.tls);
            config.resumption = Resumption::in_memory_sessions(SESSIONS);
            Arc::new(config)
        });
        TlsConnector::from(Arc::clone(own))
    }

    /// A stream of a connection that speaks HTTP/2.
    pub(super) fn slot(&self, origin: &Uri) -> Option<StreamSlot> {
        let mut found = None;
        self.http2().retain(|connection| {
            let Some(connection) = connection.upgrade() else {
                return false;
            };
            if found.is_none() && connection.origin == *origin {
                found = connection.slot();
            }
            true
        });
        found
    }

    /// A stream of it, and further ones for the others.
    pub(super) fn add(&self, connection: &Arc<Http2>) -> Option<StreamSlot> {
        self.is_http1.store(false, Relaxed);
        let slot = Arc::clone(connection).slot();
        self.http2().push(Arc::downgrade(connection));
        slot
    }

    pub(super) fn chose_http1(&self) {
        self.is_http1.store(true, Relaxed);
    }

    /// The turn of the first that connects. Others wait until it has connected or failed, because
    /// there may be a stream for each of them then; none where they have.
    pub(super) async fn turn(&self) -> Option<sync::MutexGuard<'_, ()>> {
        if self.is_http1.load(Relaxed) {
            return None;
        }
        let Ok(turn) = self.connecting.try_lock() else {
            drop(self.connecting.lock().await);
            return None;
        };
        Some(turn)
    }

    fn http2(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Http2>>> {
        self.http2.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

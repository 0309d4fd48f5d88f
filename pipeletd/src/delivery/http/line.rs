//! A connection of our own to a receiver without TLS, kept from one attempt to the next.
//!
//! It is driven by the attempt that uses it, within that attempt's task: no pool, no task for the
//! connection, and nobody to be woken on another thread. Measured against reqwest in the same
//! daemon, that halves what a POST costs.
//!
//! Connections with TLS are in reqwest's pool; of those a line only knows that one was left there.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use tokio::{net::TcpStream, time::Instant};

use super::{AttemptError, heard::Heard};

/// Shorter than the five seconds after which common servers close an idle connection, so that
/// a request seldom crosses such a close.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// One that has rested for longer is looked at before it is used. In a burst of attempts that look
/// would cost more than it could find.
const RESTED: Duration = Duration::from_millis(1);
/// Of an answer's head and what is read ahead of its body, in bytes.
const READ_BUFFER: usize = 64 * 1024;

pub(super) type PlainRequest = Request<Full<Bytes>>;

/// A place for a connection between two attempts; at most one attempt uses it at a time.
#[derive(Debug, Default)]
pub struct Line(Option<Kept>);

#[derive(Debug)]
struct Kept {
    what: What,
    since: Instant,
}

#[derive(Debug)]
enum What {
    Own { connection: Connection, origin: Uri },
    Pooled,
}

impl Line {
    /// Whether there is a connection that may still be used.
    pub fn is_fresh(&self) -> bool {
        let fresh = |kept: &Kept| kept.since.elapsed() < IDLE_TIMEOUT;
        self.0.as_ref().is_some_and(fresh)
    }

    /// The connection to this origin, unless something came over it, or it was closed, while it
    /// rested.
    pub(super) async fn take(&mut self, origin: &Uri) -> Option<Connection> {
        let kept = self.take_fresh()?;
        let rested = kept.since.elapsed() > RESTED;
        match kept.what {
            What::Own {
                connection,
                origin: kept,
            } if kept == *origin => {
                if rested {
                    return connection.if_silent().await;
                }
                Some(connection)
            }
            What::Own { .. } | What::Pooled => None,
        }
    }

    pub(super) fn keep(&mut self, connection: Connection, origin: Uri) {
        self.put(What::Own { connection, origin });
    }

    /// Whether the pool may have a connection that has been used before.
    pub(super) fn take_pooled(&mut self) -> bool {
        let kept = self.take_fresh();
        kept.is_some_and(|kept| matches!(kept.what, What::Pooled))
    }

    pub(super) fn keep_pooled(&mut self) {
        self.put(What::Pooled);
    }

    fn take_fresh(&mut self) -> Option<Kept> {
        let fresh = self.is_fresh();
        self.0.take().filter(|_| fresh)
    }

    fn put(&mut self, what: What) {
        let since = Instant::now();
        self.0 = Some(Kept { what, since });
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// On the heap: it is moved with every attempt.
    driver: Box<Driver>,
}

/// None once the connection has ended.
#[derive(Debug)]
struct Driver(Option<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>);

impl Connection {
    pub(super) async fn begin(stream: TokioIo<TcpStream>) -> Result<Self, AttemptError> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(READ_BUFFER);
        let (sender, connection) = builder.handshake(stream).await?;
        let driver = Box::new(Driver(Some(connection)));
        Ok(Self { sender, driver })
    }

    /// The same connection, where nothing is there to be read. The socket itself is asked, because
    /// what the runtime knows of it may be older, and what is read behind the next request would
    /// pass for its answer.
    async fn if_silent(self) -> Option<Self> {
        let parts = self.driver.0?.into_parts();
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let there = recv(parts.io.inner(), &mut [0], peek);
        if !parts.read_buf.is_empty() || there.err() != Some(Errno::WOULDBLOCK) {
            return None;
        }
        Self::begin(parts.io).await.ok()
    }

    /// Sends the request and hears the answer; tells whether the connection can be used again.
    pub(super) async fn exchange(
        &mut self,
        request: Box<PlainRequest>,
        heard: &mut Heard,
    ) -> Result<bool, AttemptError> {
        let Self { sender, driver } = self;
        let exchange = async {
            sender.ready().await?;
            let sent = sender.try_send_request(*request).await;
            let response = sent.map_err(|mut error| match error.take_message() {
                // Nothing of it was written, whatever it was that ended the connection.
                Some(_) => AttemptError::BrokenOff,
                None => error.into_error().into(),
            })?;
            let whole = heard.listen(response).await?;
            // A receiver may answer before it has read everything: then the rest is still to be
            // written.
            Ok(whole && sender.ready().await.is_ok())
        };
        driver.along(exchange).await
    }
}

impl Driver {
    /// Lets the connection do its reading and writing for as long as the exchange takes.
    async fn along<T>(&mut self, exchange: impl Future<Output = T>) -> T {
        let mut exchange = pin!(exchange);
        poll_fn(|context| {
            if let Poll::Ready(done) = exchange.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            // What ends the connection also ends the exchange, which says why.
            if let Some(connection) = &mut self.0
                && Pin::new(connection).poll(context).is_ready()
            {
                self.0 = None;
            }
            exchange.as_mut().poll(context)
        })
        .await
    }
}

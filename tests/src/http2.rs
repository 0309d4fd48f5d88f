//! A receiver that speaks HTTP/2 within TLS, and does to each stream what a script says: by their
//! order, or by the path that they are for.
//!
//! A connection has room for [`Http2::STREAMS`], as is usual.

use std::{
    future::poll_fn,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{Connection, SendResponse},
};
use http::Response;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::yield_now,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{deadline::within, flood::let_others_first, server::Server};

const BEGINNING: &[u8] = b"half";

/// What is done to a stream once its request's head has come.
#[derive(Debug, Clone)]
pub enum Stream {
    /// Reads the request and answers it.
    Answer(u16),
    /// Answers without having read the request's body, and asks for no more of it.
    AnswerEarly(u16),
    /// Resets the stream instead of an answer.
    Reset(Reason),
    /// Answers 200, begins with the body, and resets the stream.
    ResetWithin(Reason),
    /// Answers, and says that the connection takes no further streams (GOAWAY).
    AnswerAndGo(u16),
    /// Gives the whole connection up with this reason (GOAWAY).
    GoAway(Reason),
    /// Closes the connection without a word.
    Close,
    Hang,
    /// So many interim answers (1xx), and then that one.
    Interim(usize, u16),
    /// Interim answers without end.
    InterimFlood,
}

/// One stream, as it came.
#[derive(Debug, Clone)]
pub struct SeenStream {
    /// The connection that it came over, counted from 1.
    pub connection: usize,
    pub path: String,
    pub arrived: Instant,
}

/// A receiver, which stops when it is dropped.
#[derive(Debug)]
pub struct Http2 {
    seen: watch::Sender<Vec<SeenStream>>,
    server: Server,
}

#[derive(Debug, Clone)]
struct Script {
    /// For streams to these paths.
    paths: Arc<[(&'static str, Stream)]>,
    /// One for each other stream, whatever its connection; the last one repeats.
    streams: Arc<[Stream]>,
    seen: watch::Sender<Vec<SeenStream>>,
}

impl Http2 {
    /// How many streams there may be at once on a connection.
    pub const STREAMS: u32 = 100;

    pub async fn start(tls: Arc<ServerConfig>, streams: &[Stream]) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), tls, streams).await
    }

    /// Does to a stream what stands beside its path.
    pub async fn start_by_path(tls: Arc<ServerConfig>, paths: &[(&'static str, Stream)]) -> Self {
        let any_port = (Ipv4Addr::LOCALHOST, 0).into();
        Self::run(any_port, tls, paths, &[]).await
    }

    pub async fn start_at(address: SocketAddr, tls: Arc<ServerConfig>, streams: &[Stream]) -> Self {
        Self::run(address, tls, &[], streams).await
    }

    async fn run(
        address: SocketAddr,
        tls: Arc<ServerConfig>,
        paths: &[(&'static str, Stream)],
        streams: &[Stream],
    ) -> Self {
        let seen = watch::Sender::new(Vec::new());
        let script = Script {
            paths: paths.into(),
            streams: streams.into(),
            seen: seen.clone(),
        };
        let acceptor = TlsAcceptor::from(tls);
        let server = Server::start(address, |listener| serve(listener, acceptor, script)).await;
        Self { seen, server }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub fn url(&self) -> String {
        self.url_to("/hook")
    }

    pub fn url_to(&self, path: &str) -> String {
        format!("https://{}{path}", self.address())
    }

    /// The streams so far, by the connection that they came over, counted from 1.
    pub fn seen(&self) -> Vec<usize> {
        let seen = self.seen.borrow();
        seen.iter().map(|stream| stream.connection).collect()
    }

    /// Waits until at least `count` streams to these paths have come, and returns them.
    pub async fn await_streams(&self, paths: &[&str], count: usize) -> Vec<SeenStream> {
        let is_one = |stream: &&SeenStream| paths.contains(&&*stream.path);
        let mut seen = self.seen.subscribe();
        let enough = seen.wait_for(|seen| seen.iter().filter(is_one).count() >= count);
        let what = format!("stream {count} to {paths:?}");
        let seen = within(&what, enough).await.expect("the sender lives");
        seen.iter().filter(is_one).cloned().collect()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, script: Script) {
    for number in 1.. {
        let (stream, _) = listener.accept().await.expect("a connection");
        let (acceptor, script) = (acceptor.clone(), script.clone());
        tokio::spawn(async move {
            let stream = acceptor.accept(stream).await.expect("a TLS handshake");
            let mut protocol = h2::server::Builder::new();
            // So that there is room for more only when what was sent has left.
            protocol.max_send_buffer_size(BEGINNING.len());
            protocol.max_concurrent_streams(Http2::STREAMS);
            let connection = protocol.handshake(stream).await;
            converse(connection.expect("HTTP/2"), number, script).await;
        });
    }
}

async fn converse(
    mut connection: Connection<TlsStream<TcpStream>, Bytes>,
    number: usize,
    script: Script,
) {
    while let Some(Ok((request, respond))) = connection.accept().await {
        let stream = SeenStream {
            connection: number,
            path: request.uri().path().to_owned(),
            arrived: Instant::now(),
        };
        let path = script.paths.iter().find(|(path, _)| *path == stream.path);
        let mut so_far = 0;
        script.seen.send_modify(|seen| {
            so_far = seen.len();
            seen.push(stream);
        });
        let in_order = script.streams.get(so_far).or(script.streams.last());
        let next = path.map(|(_, next)| next).or(in_order);
        let next = next.expect("a script").clone();
        match next {
            Stream::Close => return,
            Stream::GoAway(reason) => {
                connection.abrupt_shutdown(reason);
                continue;
            }
            Stream::AnswerAndGo(_) => connection.graceful_shutdown(),
            Stream::Answer(_)
            | Stream::AnswerEarly(_)
            | Stream::Reset(_)
            | Stream::ResetWithin(_)
            | Stream::Hang
            | Stream::Interim(..)
            | Stream::InterimFlood => {}
        }
        tokio::spawn(act(next, request.into_body(), respond));
    }
}

async fn act(next: Stream, mut body: RecvStream, mut respond: SendResponse<Bytes>) {
    let head = |status| {
        let response = Response::builder().status(status).body(());
        response.expect("a scripted answer is a valid one")
    };
    // Whoever has gone needs no answer.
    match next {
        Stream::Answer(status) | Stream::AnswerAndGo(status) => {
            while body.data().await.is_some_and(|data| data.is_ok()) {}
            let _ = respond.send_response(head(status), true);
        }
        Stream::AnswerEarly(status) => {
            // Dropping the body says that no more of it is wanted.
            let _ = respond.send_response(head(status), true);
        }
        Stream::Reset(reason) => respond.send_reset(reason),
        Stream::ResetWithin(reason) => {
            while body.data().await.is_some_and(|data| data.is_ok()) {}
            if let Ok(mut answer) = respond.send_response(head(200), false) {
                let _ = answer.send_data(Bytes::from_static(BEGINNING), false);
                answer.reserve_capacity(1);
                let _ = poll_fn(|context| answer.poll_capacity(context)).await;
                answer.send_reset(reason);
            }
        }
        Stream::Hang => std::future::pending().await,
        Stream::Interim(count, status) => {
            for _ in 0..count {
                let _ = respond.send_informational(head(103));
            }
            let _ = respond.send_response(head(status), true);
        }
        // They wait within the connection, so that they are not made faster than they leave.
        Stream::InterimFlood => {
            let_others_first();
            while respond.send_informational(head(103)).is_ok() {
                yield_now().await;
            }
        }
        Stream::GoAway(_) | Stream::Close => {}
    }
}

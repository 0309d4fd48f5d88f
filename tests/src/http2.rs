//! A receiver that speaks HTTP/2 within TLS, and does to each stream what a script says.
//!
//! Like [`Receiver`](crate::Receiver) it has a thread and a runtime of its own.

use std::{
    convert::Infallible,
    future::poll_fn,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
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
    sync::oneshot,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

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
}

/// A receiver, which stops when it is dropped.
#[derive(Debug)]
pub struct Http2 {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<usize>>>,
    server: Option<(oneshot::Sender<Infallible>, JoinHandle<()>)>,
}

#[derive(Debug, Clone)]
struct Script {
    /// One for each stream, whatever its connection; the last one repeats.
    streams: Arc<[Stream]>,
    /// The streams so far, by the connection that they came over, counted from 1.
    seen: Arc<Mutex<Vec<usize>>>,
}

impl Http2 {
    pub async fn start(tls: Arc<ServerConfig>, streams: &[Stream]) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), tls, streams).await
    }

    pub async fn start_at(address: SocketAddr, tls: Arc<ServerConfig>, streams: &[Stream]) -> Self {
        let seen = Arc::default();
        let script = Script {
            streams: streams.into(),
            seen: Arc::clone(&seen),
        };
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let (bound, address_of) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            // Dropping the runtime drops every connection with it.
            runtime.block_on(async {
                let listener = TcpListener::bind(address).await;
                let listener = listener.expect("a free port");
                let _ = bound.send(listener.local_addr().expect("a bound address"));
                tokio::select! {
                    () = serve(listener, TlsAcceptor::from(tls), script) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address: address_of.await.expect("the receiver's address"),
            seen,
            server: Some((stop, thread)),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("https://{}/hook", self.address)
    }

    /// The streams so far, by the connection that they came over, counted from 1.
    pub fn seen(&self) -> Vec<usize> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.server.take() {
            drop(stop);
            thread.join().expect("the receiver's thread");
        }
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
        let next = {
            let mut seen = script.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push(number);
            let next = script.streams.get(seen.len() - 1);
            next.or(script.streams.last()).expect("a script").clone()
        };
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
            | Stream::Hang => {}
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
        Stream::GoAway(_) | Stream::Close => {}
    }
}

//! An integrator's end of a webhook: an HTTP server with scripted answers.
//!
//! Invariant: a request is recorded before it is answered.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    response::Response,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Method};
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch};

use crate::{
    deadline::within,
    server::Server,
    tls::{Identity, TlsListener},
};

/// What the receiver does with a request.
#[derive(Debug, Clone)]
pub enum Answer {
    Status(u16),
    Reply {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
    /// Takes so long to answer 200.
    After(Duration),
    /// Waits for [`Receiver::release`].
    Held,
    /// Never answers.
    Hang,
    /// Answers 200 at once, with a body that begins and never ends.
    Endless,
}

/// One request, as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub arrived: Instant,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("an ASCII header"))
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a UTF-8 body")
    }

    /// The event's id, which is the same on every attempt.
    pub fn id(&self) -> &str {
        self.header("webhook-id").expect("webhook-id")
    }

    /// Which attempt this is, as the header says.
    pub fn attempt(&self) -> &str {
        self.header("pipelet-attempt").expect("pipelet-attempt")
    }
}

/// A receiver, which stops when it is dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// None for plain HTTP.
    identity: Option<Identity>,
    /// None while it is stopped.
    server: Option<Server>,
}

#[derive(Debug)]
struct Shared {
    script: Mutex<Script>,
    /// Of longer bodies, only so many bytes are kept.
    body_limit: AtomicUsize,
    requests: watch::Sender<Vec<Request>>,
    /// What is answered to what is held, as soon as there is one.
    released: watch::Sender<Option<u16>>,
}

#[derive(Debug)]
struct Script {
    next: VecDeque<Answer>,
    otherwise: Answer,
}

impl Receiver {
    /// Starts a receiver on a free port, which answers 200 to everything.
    pub async fn start() -> Self {
        Self::start_as(None).await
    }

    /// The same over HTTPS, vouched for by an authority that nobody knows.
    pub async fn start_tls() -> Self {
        Self::start_as(Some(Identity::new())).await
    }

    async fn start_as(identity: Option<Identity>) -> Self {
        let shared = Arc::new(Shared {
            script: Mutex::new(Script {
                next: VecDeque::new(),
                otherwise: Answer::Status(200),
            }),
            body_limit: AtomicUsize::new(usize::MAX),
            requests: watch::Sender::new(Vec::new()),
            released: watch::Sender::new(None),
        });
        let any_port = (Ipv4Addr::LOCALHOST, 0).into();
        let server = serve_at(any_port, &shared, identity.clone()).await;
        Self {
            address: server.address(),
            shared,
            identity,
            server: Some(server),
        }
    }

    /// A URL where nobody listens.
    pub async fn refused_url() -> String {
        let mut receiver = Self::start().await;
        receiver.stop();
        receiver.url()
    }

    pub fn url(&self) -> String {
        let scheme = if self.identity.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}/webhooks/ocpp", self.address)
    }

    /// The certificate of the authority behind a receiver with TLS.
    pub fn authority_pem(&self) -> &str {
        &self
            .identity
            .as_ref()
            .expect("a receiver with TLS")
            .authority_pem
    }

    /// Closes the port and every connection.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Listens again on the same port, with the same script.
    pub async fn start_again(&mut self) {
        assert!(self.server.is_none(), "the receiver still runs");
        let server = serve_at(self.address, &self.shared, self.identity.clone()).await;
        self.server = Some(server);
    }

    /// How every request is answered from now on.
    pub fn answer(&self, answer: Answer) {
        self.script(|script| {
            script.next.clear();
            script.otherwise = answer;
        });
    }

    /// How the next requests are answered, before it goes on as it was.
    pub fn answer_next(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script(|script| script.next.extend(answers));
    }

    /// Keeps only so many bytes of a longer body from now on, for who is sent very many of them.
    pub fn keep_of_bodies(&self, bytes: usize) {
        self.shared.body_limit.store(bytes, Ordering::Relaxed);
    }

    /// Answers 200 to what [`Answer::Held`] holds, and to what it would hold from now on.
    pub fn release(&self) {
        self.release_with(200);
    }

    pub fn release_with(&self, status: u16) {
        self.shared.released.send_replace(Some(status));
    }

    /// Every request so far, in the order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.borrow().clone()
    }

    pub fn count(&self) -> usize {
        self.shared.requests.borrow().len()
    }

    /// Waits until at least `count` requests have come since the start, and returns them all.
    pub async fn await_requests(&self, count: usize) -> Vec<Request> {
        let mut requests = self.shared.requests.subscribe();
        let what = format!("request {count} (there are {})", self.count());
        let enough = requests.wait_for(|requests| requests.len() >= count);
        within(&what, enough)
            .await
            .expect("the sender lives")
            .clone()
    }

    /// Waits for a request that is as wanted, and returns it.
    pub async fn await_request(&self, what: &str, is: impl Fn(&Request) -> bool) -> Request {
        let mut requests = self.shared.requests.subscribe();
        let seen = within(what, requests.wait_for(|requests| requests.iter().any(&is))).await;
        let seen = seen.expect("the sender lives");
        seen.iter()
            .find(|request| is(request))
            .expect("it was just seen")
            .clone()
    }

    fn script(&self, change: impl FnOnce(&mut Script)) {
        change(
            &mut self
                .shared
                .script
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

async fn serve_at(address: SocketAddr, shared: &Arc<Shared>, identity: Option<Identity>) -> Server {
    let app = Router::new().fallback(take).with_state(Arc::clone(shared));
    Server::start(address, |listener| serve(listener, app, identity)).await
}

async fn serve(listener: TcpListener, app: Router, identity: Option<Identity>) {
    let ended = match identity {
        None => axum::serve(listener, app).await,
        Some(identity) => axum::serve(TlsListener::new(listener, identity.server), app).await,
    };
    ended.expect("the receiver serves");
}

async fn take(State(shared): State<Arc<Shared>>, request: http::Request<Body>) -> Response {
    let arrived = Instant::now();
    let (parts, body) = request.into_parts();
    let mut body = to_bytes(body, usize::MAX)
        .await
        .expect("a whole request body");
    let limit = shared.body_limit.load(Ordering::Relaxed);
    if body.len() > limit {
        // Copied, so that the rest doesn't stay with it.
        body = Bytes::copy_from_slice(&body[..limit]);
    }
    let answer = {
        let mut script = shared.script.lock().unwrap_or_else(PoisonError::into_inner);
        script
            .next
            .pop_front()
            .unwrap_or_else(|| script.otherwise.clone())
    };
    shared.requests.send_modify(|requests| {
        requests.push(Request {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            headers: parts.headers,
            body,
            arrived,
        });
    });
    match answer {
        Answer::Status(status) => response(status, &[], Body::empty()),
        Answer::Reply {
            status,
            headers,
            body,
        } => response(status, &headers, Body::from(body)),
        Answer::After(time) => {
            tokio::time::sleep(time).await;
            response(200, &[], Body::empty())
        }
        Answer::Held => {
            let mut released = shared.released.subscribe();
            let released = released.wait_for(Option::is_some).await;
            let status = released.ok().and_then(|status| *status);
            response(status.unwrap_or(200), &[], Body::empty())
        }
        Answer::Hang => std::future::pending().await,
        Answer::Endless => {
            let beginning = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"so far"))]);
            response(
                200,
                &[],
                Body::from_stream(beginning.chain(stream::pending())),
            )
        }
    }
}

fn response(status: u16, headers: &[(&'static str, String)], body: Body) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response
        .body(body)
        .expect("a scripted answer is a valid one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Api;

    async fn post(receiver: &Receiver) -> Option<u16> {
        let address = receiver.address;
        let api = Api::new(address, None);
        let posted = tokio::spawn(async move { api.post_empty("/x").await.status });
        posted.await.ok()
    }

    #[tokio::test]
    async fn it_answers_as_scripted_and_records_what_came() {
        let receiver = Receiver::start().await;
        receiver.answer_next([Answer::Status(500)]);
        assert_eq!(post(&receiver).await, Some(500));
        assert_eq!(post(&receiver).await, Some(200));
        let requests = receiver.await_requests(2).await;
        assert!(requests[0].arrived <= requests[1].arrived);
        assert_eq!(requests[0].method, Method::POST);
    }

    #[tokio::test]
    async fn it_stops_at_once_and_listens_again_on_its_port() {
        let mut receiver = Receiver::start().await;
        let url = receiver.url();
        receiver.answer_next([Answer::Hang]);
        let hanging = post(&receiver);
        let stopping = async {
            receiver.await_requests(1).await;
        };
        tokio::select! {
            answer = hanging => panic!("answered {answer:?}"),
            () = stopping => {}
        }
        receiver.stop();
        assert_eq!(post(&receiver).await, None);
        receiver.start_again().await;
        assert_eq!(receiver.url(), url);
        assert_eq!(post(&receiver).await, Some(200));
    }
}

//! HTTP/2 between the nodes of a cluster, over their streams: what is asked of a shard goes to its
//! owner, and the answer comes back as it is made.
//!
//! Only nodes can speak here, so a shard believes them whom they ask for. What is asked of the node as
//! a whole comes as its callers have asked it, with their keys.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, Uri, header, uri::Authority};
use hyper::{
    body::Incoming,
    client::conn::http2::{self as client, SendRequest},
    server::conn::http2 as server,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pipelet_domain::shards::ShardId;
use tokio::{io::DuplexStream, time::timeout};
use tower_service::Service as _;

use super::super::{authenticator::Peer, key_places::KeyPlaces};
use crate::cluster::{Incarnation, JoinError, Peers, Unanswered};

/// What nodes are asked about.
const TOPIC: &str = "api";
/// The shard that is asked; without it, the node as a whole is.
const SHARD: HeaderName = HeaderName::from_static("pipelet-shard");
/// Where the call has come from, of a node as a whole.
const FROM: HeaderName = HeaderName::from_static("pipelet-from");
/// A node that says nothing for so long, and doesn't answer for as long, is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Connections that one key may have by way of other nodes: those limit it themselves.
const PLACES: usize = usize::MAX;
/// Calls between two nodes at once: those that wait on a tail are among them.
const STREAMS: u32 = 4096;
/// Until a node begins to speak HTTP/2.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// In bytes: what is on its way in one call, and in all of two nodes together. Callers who read
/// nothing must not hold up the others, so there is room for all.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;

/// The way of calls to other nodes. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::api) struct Forwarder {
    peers: Peers,
    connections: Arc<Mutex<HashMap<Incarnation, Connection>>>,
}

/// Locked while it is made.
type Connection = Arc<tokio::sync::Mutex<Option<SendRequest<Body>>>>;

/// What of a node is asked.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) enum Asked {
    Shard(ShardId),
    /// All that it answers, for a caller from there.
    Node(SocketAddr),
}

/// Why a call could not be forwarded.
#[derive(Debug, thiserror::Error)]
pub(in crate::api) enum ForwardError {
    #[error("the node can't be reached")]
    Unreachable(#[source] Unanswered),
    #[error("the node doesn't speak HTTP/2")]
    Handshake,
    /// It may have come through.
    #[error("the node has gone before its answer")]
    BrokenOff(#[source] hyper::Error),
}

/// Whether the call did nothing because the shard is another node's by now.
pub(in crate::api) fn is_misdirected(response: &Response) -> bool {
    response.status() == StatusCode::MISDIRECTED_REQUEST
}

impl Forwarder {
    pub(in crate::api) fn new(peers: Peers) -> Self {
        Self {
            peers,
            connections: Arc::default(),
        }
    }

    /// A connection to a node.
    pub(in crate::api) async fn connection(
        &self,
        node: Incarnation,
    ) -> Result<SendRequest<Body>, ForwardError> {
        let connection = {
            let connections = self.connections.lock();
            let mut connections = connections.unwrap_or_else(PoisonError::into_inner);
            let others = self.peers.seen();
            let there = &others.borrow().there;
            connections.retain(|of, _| *of == node || there.contains(of));
            Arc::clone(connections.entry(node).or_default())
        };
        let mut known = connection.lock().await;
        if let Some(connection) = &mut *known
            && connection.ready().await.is_ok()
        {
            return Ok(connection.clone());
        }
        let stream = self.peers.connect(node, TOPIC).await;
        let stream = stream.map_err(ForwardError::Unreachable)?;
        let shaking = client::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream));
        let Ok(Ok((connection, driver))) = timeout(HANDSHAKE_TIMEOUT, shaking).await else {
            return Err(ForwardError::Handshake);
        };
        tokio::spawn(driver);
        *known = Some(connection.clone());
        Ok(connection)
    }
}

/// Sends a call over a connection to a node.
pub(in crate::api) async fn send(
    mut connection: SendRequest<Body>,
    asked: Asked,
    mut request: Request,
) -> Result<Response, ForwardError> {
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(http::uri::Scheme::HTTP);
    uri.authority = Some(Authority::from_static("node"));
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    *request.version_mut() = http::Version::HTTP_2;
    let headers = request.headers_mut();
    // Of the connection that the call has come on (RFC 9110, section 7.6.1).
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
    ] {
        headers.remove(name);
    }
    match asked {
        Asked::Shard(shard) => {
            headers.insert(SHARD, shard.0.into());
        }
        Asked::Node(from) => {
            if let Ok(from) = HeaderValue::from_str(&from.to_string()) {
                headers.insert(FROM, from);
            }
        }
    }
    let sent = connection.send_request(request).await;
    let response = sent.map_err(ForwardError::BrokenOff)?;
    Ok(response.map(Body::new))
}

/// What a node answers to others. Cheap to clone.
#[derive(Clone)]
pub struct Answering {
    /// What a shard answers that is this node's.
    pub shards: Arc<dyn Fn(ShardId) -> Option<Router> + Send + Sync>,
    /// What the node answers to REST's callers.
    pub node: Router,
}

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answering").finish_non_exhaustive()
    }
}

/// Takes calls that other nodes forward, for as long as it is polled.
pub async fn serve(peers: &Peers, answering: &Answering) -> Result<(), JoinError> {
    let mut incoming = peers.incoming(TOPIC).await?;
    let places = KeyPlaces::new(PLACES);
    while let Some(stream) = incoming.next().await {
        // It ends with its node, or with this one.
        tokio::spawn(serve_one(stream, answering.clone(), places.clone()));
    }
    Ok(())
}

async fn serve_one(stream: DuplexStream, answering: Answering, places: KeyPlaces) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let (answering, places) = (answering.clone(), places.clone());
        async move { Ok::<_, Infallible>(answer(&answering, places, request).await) }
    });
    let served = server::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a node's connection ended early");
    }
}

async fn answer(answering: &Answering, places: KeyPlaces, request: Request<Incoming>) -> Response {
    let (mut head, body) = request.into_parts();
    let shard = head.headers.remove(SHARD);
    let router = if let Some(shard) = shard {
        let shard = shard.to_str().ok().and_then(|shard| shard.parse().ok());
        shard.and_then(|shard| (answering.shards)(ShardId(shard)))
    } else {
        let from = head.headers.remove(FROM);
        let from = from.and_then(|from| from.to_str().ok()?.parse().ok());
        from.map(|from| {
            head.extensions.insert(Peer::of_node(from, places));
            answering.node.clone()
        })
    };
    let Some(router) = router else {
        return StatusCode::MISDIRECTED_REQUEST.into_response();
    };
    // As it was asked for.
    let mut uri = head.uri.into_parts();
    (uri.scheme, uri.authority) = (None, None);
    head.uri = Uri::from_parts(uri).unwrap_or_default();
    call(router, Request::from_parts(head, Body::new(body))).await
}

pub(in crate::api) async fn call(mut router: Router, request: Request) -> Response {
    let Ok(response) = router.call(request).await;
    response
}

//! HTTP/2 between the nodes of a cluster, over their streams: a call that has come in at a node that
//! owns no shard goes to the owner, and its answer comes back as it is made.
//!
//! Only nodes can speak here, so the owner believes them where a call comes from.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
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
use tokio::{io::DuplexStream, sync::Mutex, time::timeout};

use super::super::{
    authenticator::Peer,
    key_places::KeyPlaces,
    switch::{Api, Switch},
};
use crate::cluster::{Peers, Unanswered, members::Owner};

/// What owners are asked about.
const TOPIC: &str = "api";
/// The call's API.
const API: HeaderName = HeaderName::from_static("pipelet-api");
/// Where the call has come from.
const FROM: HeaderName = HeaderName::from_static("pipelet-from");
/// A node that says nothing for so long, and doesn't answer for as long, is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Connections that one key may have by way of other nodes: those limit it themselves.
const PLACES: usize = usize::MAX;
/// Calls between two nodes at once: those that wait on a tail are among them.
const STREAMS: u32 = 4096;
/// Until the owner begins to speak HTTP/2.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// In bytes: what is on its way in one call, and in all of two nodes together. Callers who read
/// nothing must not hold up the others, so there is room for all.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;

/// The way of calls to the owner. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::api) struct Forwarder {
    peers: Peers,
    /// To the owner that was asked last; locked while one is made.
    connection: Arc<Mutex<Option<Connection>>>,
}

type Connection = (Owner, SendRequest<Body>);

/// Why a call could not be forwarded.
#[derive(Debug, thiserror::Error)]
pub(in crate::api) enum ForwardError {
    #[error("the owner can't be reached")]
    Unreachable(#[source] Unanswered),
    #[error("the owner doesn't speak HTTP/2")]
    Handshake,
    /// It may have come through.
    #[error("the owner has gone before its answer")]
    BrokenOff(#[source] hyper::Error),
}

impl Forwarder {
    pub(in crate::api) fn new(peers: Peers) -> Self {
        Self {
            peers,
            connection: Arc::default(),
        }
    }

    /// A connection to the owner.
    pub(in crate::api) async fn connection(
        &self,
        owner: Owner,
    ) -> Result<SendRequest<Body>, ForwardError> {
        let mut known = self.connection.lock().await;
        if let Some((of, connection)) = &mut *known
            && *of == owner
            && connection.ready().await.is_ok()
        {
            return Ok(connection.clone());
        }
        let stream = self.peers.connect(owner.node, TOPIC).await;
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
        *known = Some((owner, connection.clone()));
        Ok(connection)
    }
}

/// Sends a call over a connection to the owner.
pub(in crate::api) async fn send(
    mut connection: SendRequest<Body>,
    api: Api,
    from: SocketAddr,
    mut request: Request,
) -> Result<Response, ForwardError> {
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(http::uri::Scheme::HTTP);
    uri.authority = Some(Authority::from_static("owner"));
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
    headers.insert(API, HeaderValue::from_static(api.name()));
    if let Ok(from) = HeaderValue::from_str(&from.to_string()) {
        headers.insert(FROM, from);
    }
    let sent = connection.send_request(request).await;
    let response = sent.map_err(ForwardError::BrokenOff)?;
    Ok(response.map(Body::new))
}

/// Takes calls that other nodes forward, for as long as it is polled.
pub async fn serve(peers: &Peers, switch: &Switch) -> Result<(), crate::cluster::JoinError> {
    let mut incoming = peers.incoming(TOPIC).await?;
    let places = KeyPlaces::new(PLACES);
    while let Some(stream) = incoming.next().await {
        // It ends with its node, or with this one.
        tokio::spawn(serve_one(stream, switch.clone(), places.clone()));
    }
    Ok(())
}

async fn serve_one(stream: DuplexStream, switch: Switch, places: KeyPlaces) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let (switch, places) = (switch.clone(), places.clone());
        async move { Ok::<_, Infallible>(answer(&switch, places, request).await) }
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

async fn answer(switch: &Switch, places: KeyPlaces, request: Request<Incoming>) -> Response {
    let (mut head, body) = request.into_parts();
    let api = head.headers.remove(API);
    let api = api.and_then(|name| Api::named(name.as_bytes()));
    let from = head.headers.remove(FROM);
    let from = from.and_then(|from| from.to_str().ok()?.parse().ok());
    let (Some(api), Some(from)) = (api, from) else {
        return StatusCode::NOT_IMPLEMENTED.into_response();
    };
    head.extensions.insert(Peer::of_node(from, places));
    // As it was asked for.
    let mut uri = head.uri.into_parts();
    (uri.scheme, uri.authority) = (None, None);
    head.uri = Uri::from_parts(uri).unwrap_or_default();
    let request = Request::from_parts(head, Body::new(body));
    switch.answer_as_owner(api, request).await
}

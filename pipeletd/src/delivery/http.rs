//! One POST, from the name's lookup to the answer's end.
//!
//! The only place that knows hyper's client and h2. Its promises: one deadline spans the whole
//! exchange, no redirect is followed, no proxy is taken from the environment, at most
//! [`Sender::ANSWER_LIMIT`] of an answer are kept, and nothing is sent to an address that the
//! target policy refuses. It makes one attempt and says what came of it; what follows is
//! [`policy`]'s business.
//!
//! It goes out over the webhook's own [`ConnectionPool`], as HTTP/1.1 or, where a receiver with TLS
//! chooses it, as HTTP/2.
//!
//! A receiver that closes an idle connection costs no attempt. Where a kept one ends before a word
//! of the answer has come, the request goes out once more, on a new one: it bears the event's id,
//! by which a receiver that did process the first one knows it.

mod destination;
mod error;
mod http1;
mod http2;
mod lookups;
mod phases;
mod pooled_connection;
mod resolver;
mod response_buffer;
mod sockets;
mod span;
mod stream;
mod tls;
mod trace_context;

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::Full;
use hyper_util::client::legacy::connect::HttpConnector;
use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{Attempt, Phases},
    events::{EventId, EventType, StationId},
    webhooks::{TargetPolicy, WebhookId},
};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::time::{Instant, timeout};
use tower_service::Service as _;

pub use self::{
    destination::Destination,
    error::AttemptError,
    pooled_connection::{ConnectionPool, PooledConnection},
};
use self::{
    http1::Http1,
    http2::Http2,
    lookups::Lookups,
    pooled_connection::{Connection, Shared},
    resolver::PolicyResolver,
    response_buffer::ResponseBuffer,
    sockets::Sockets,
    stream::{Metered, Stream},
    trace_context::{TRACEPARENT, new_span, traceparent},
};
use super::policy::{self, Outcome};
use crate::telemetry::Spans;

/// What the system holds of what a receiver has sent and nobody has read, in bytes: more than an
/// answer has, and little of what one sends without end.
const RECEIVE_BUFFER: usize = 32 * 1024;

#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// The time limit of a whole exchange: lookup, connection, request and answer.
    pub timeout: Duration,
    pub targets: TargetPolicy,
    /// Certificates in PEM that are trusted beside the system's.
    pub extra_roots: Option<Vec<u8>>,
    pub resources: Resources,
    /// Where each attempt leaves its span.
    pub spans: Spans,
}

/// What all attempts of a process share, however often their settings change. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Resources {
    lookups: Lookups,
    sockets: Sockets,
}

impl Resources {
    /// With so many threads for looking names up, and so many sockets.
    pub fn new(lookups: usize, sockets: usize) -> Self {
        Self {
            lookups: Lookups::new(lookups),
            sockets: Sockets::new(sockets),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    #[error("the CA file holds no certificate; it must be PEM, \"-----BEGIN CERTIFICATE-----\"")]
    NoCertificate,
    #[error("the CA file holds a certificate that can't be read")]
    BadCertificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("can't set up TLS")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// One attempt to be made.
#[derive(Debug, Clone)]
pub struct Post<'a> {
    pub to: &'a Destination,
    pub event_id: EventId,
    pub event: EventType,
    /// It came from no station.
    pub is_synthetic: bool,
    pub station: &'a StationId,
    pub webhook: WebhookId,
    /// Counted from 1.
    pub attempt: u32,
    pub now: Timestamp,
    pub body: Bytes,
}

/// What came of an attempt.
#[derive(Debug, Clone)]
pub struct Attempted {
    pub outcome: Outcome<AttemptError>,
    pub duration: Duration,
    pub phases: Phases,
    /// The start of the answer's body; empty where none came.
    pub answer: Bytes,
}

impl Attempted {
    /// Why it failed, in a word that never changes.
    pub fn code(&self) -> Option<Cow<'static, str>> {
        match &self.outcome {
            Outcome::Delivered { .. } => None,
            Outcome::Rejected { status, .. } => Some(Attempt::code_of_status(*status)),
            Outcome::Failed { error, .. } => Some(error.code().into()),
        }
    }
}

/// Makes attempts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sender(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connector: HttpConnector<PolicyResolver>,
    tls: Arc<ClientConfig>,
    resources: Resources,
    targets: TargetPolicy,
    timeout: Duration,
    connect_timeout: Duration,
    spans: Spans,
}

impl Sender {
    /// How much of an answer is read and kept, in bytes.
    pub const ANSWER_LIMIT: usize = 4096;

    /// The process must have a default rustls provider by now.
    pub fn new(options: &HttpOptions) -> Result<Self, SenderError> {
        let roots = options
            .extra_roots
            .as_deref()
            .map_or(Ok(vec![]), parse_roots)?;
        let tls = tls::client_config(roots).map_err(|error| SenderError::Tls(error.into()))?;
        let (lookup_timeout, connect_timeout) = shares(options.timeout);
        let lookups = options.resources.lookups.clone();
        let resolver = PolicyResolver::new(options.targets.clone(), lookups, lookup_timeout);
        let mut connector = HttpConnector::new_with_resolver(resolver);
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect_timeout));
        connector.set_recv_buffer_size(Some(RECEIVE_BUFFER));
        Ok(Self(Arc::new(Inner {
            connector,
            tls: Arc::new(tls),
            resources: options.resources.clone(),
            targets: options.targets.clone(),
            timeout: options.timeout,
            connect_timeout,
            spans: options.spans.clone(),
        })))
    }

    /// A webhook's connections; there are none yet.
    pub fn pool(&self) -> ConnectionPool {
        ConnectionPool::new(Arc::clone(&self.0.tls), self.0.resources.sockets.share())
    }

    /// Makes one attempt, over the connection that `pooled` keeps where it can. Takes as long as
    /// the time limit at most; dropped, it closes the connection.
    pub async fn post(&self, post: Post<'_>, pooled: &mut PooledConnection) -> Attempted {
        let (started, limit) = (Instant::now(), self.0.timeout);
        let mut buffer = ResponseBuffer::default();
        let span = new_span();
        let exchange = self.0.exchange(&post, span, pooled, &mut buffer);
        let (end, noted) = phases::noting(started + limit, exchange).await;
        let end = end.unwrap_or_else(|| buffer.cut_off(limit));
        let ended = Instant::now();
        let (outcome, duration) = (buffer.outcome(end, post.now), ended - started);
        if buffer.is_empty()
            && let Some(name) = post.to.url.url().domain()
        {
            // The receiver may have moved.
            self.0.resources.lookups.distrust(name);
        }
        let spans = &self.0.spans;
        spans.record(|| span::of_attempt(&post, span, &outcome, duration));
        Attempted {
            outcome,
            duration,
            phases: noted.phases(started, buffer.since(), ended),
            answer: buffer.answer.into(),
        }
    }
}

impl Inner {
    async fn exchange(
        &self,
        post: &Post<'_>,
        span: u64,
        pooled: &mut PooledConnection,
        buffer: &mut ResponseBuffer,
    ) -> Result<(), AttemptError> {
        let to = post.to;
        // A literal address never reaches the resolver, which checks all others.
        if let Some(host) = to.url.url().host() {
            let checked = self.targets.check_host(&host);
            checked.map_err(AttemptError::TargetRefused)?;
        }
        let (connection, is_new) = match pooled.take(&to.origin).await {
            Some(kept) => (kept, false),
            None => Box::pin(self.connect(to, &pooled.shared)).await?,
        };
        match over(connection, post, span, pooled, buffer).await {
            // It was closed meanwhile.
            Err(AttemptError::BrokenOff) if buffer.is_empty() && !is_new => {}
            ended => return ended,
        }
        let (connection, _) = Box::pin(self.connect(to, &pooled.shared)).await?;
        over(connection, post, span, pooled, buffer).await
    }

    /// A connection, or a stream of one that another attempt has made; and whether it is new.
    async fn connect(
        &self,
        to: &Destination,
        shared: &Shared,
    ) -> Result<(Connection, bool), AttemptError> {
        let limit = self.connect_timeout;
        let connecting = async {
            if !to.is_secure() {
                let stream = Stream::Plain(self.dial(to).await?);
                return Ok((Connection::Http1(Http1::begin(stream).await?), true));
            }
            if let Some(slot) = shared.slot(&to.origin) {
                return Ok((Connection::Http2(slot), false));
            }
            let _turn = shared.turn().await;
            if let Some(slot) = shared.slot(&to.origin) {
                return Ok((Connection::Http2(slot), false));
            }
            let stream = self.secure(self.dial(to).await?, to, shared).await?;
            if !stream.speaks_http2() {
                shared.chose_http1();
                return Ok((Connection::Http1(Http1::begin(stream).await?), true));
            }
            let http2 = Http2::begin(stream, to.origin.clone(), self.timeout / 2).await?;
            let slot = shared.add(&http2);
            let slot = slot.ok_or(AttemptError::BrokenOff)?;
            Ok((Connection::Http2(slot), true))
        };
        let connected = phases::connect(timeout(limit, connecting)).await;
        connected.unwrap_or(Err(AttemptError::ConnectTimeout { limit }))
    }

    async fn dial(&self, to: &Destination) -> Result<Metered, AttemptError> {
        let dialled = self.connector.clone().call(to.origin.clone()).await;
        let socket =
            dialled.map_err(|error| AttemptError::connecting(&error, self.connect_timeout))?;
        Ok(Metered::new(socket.into_inner()))
    }

    async fn secure(
        &self,
        socket: Metered,
        to: &Destination,
        shared: &Shared,
    ) -> Result<Stream, AttemptError> {
        let name = to.server_name().ok_or(AttemptError::Connect)?;
        phases::handshake_begins();
        let secured = shared.tls().connect(name, socket).await;
        let secured =
            secured.map_err(|error| AttemptError::connecting(&error, self.connect_timeout))?;
        Ok(Stream::Tls(Box::new(secured)))
    }
}

/// Of an exchange's time limit, what looking a name up and what connecting may take. Connecting's
/// share is split among a name's addresses, so that dead ones leave the others their time; with
/// TLS it spans the lookup and the handshake, too.
fn shares(timeout: Duration) -> (Duration, Duration) {
    (timeout / 4 * 3, timeout / 8 * 7)
}

/// An exchange over a connection, which `pooled` keeps where it can be used again.
async fn over(
    connection: Connection,
    post: &Post<'_>,
    span: u64,
    pooled: &mut PooledConnection,
    buffer: &mut ResponseBuffer,
) -> Result<(), AttemptError> {
    match connection {
        Connection::Http1(mut connection) => {
            if connection.exchange(for_http1(post, span), buffer).await? {
                pooled.keep_http1(connection, &post.to.origin);
            }
            Ok(())
        }
        Connection::Http2(slot) => {
            // What becomes of the stream is not the connection's end.
            pooled.keep_http2(slot.connection());
            let request = || for_http2(post, span);
            // On the heap, because most attempts would carry the room for it in vain.
            Box::pin(slot.exchange(request, &post.body, buffer)).await
        }
    }
}

fn for_http1(post: &Post<'_>, span: u64) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(post.body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = post.to.target.clone();
    *request.headers_mut() = headers(post, span);
    *request.extensions_mut() = post.to.case.clone();
    request
}

fn for_http2(post: &Post<'_>, span: u64) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = post.to.uri.clone();
    *request.headers_mut() = headers(post, span);
    // There, the host is no header, and nothing else says how long the body is.
    request.headers_mut().remove(header::HOST);
    let length = post.body.len().into();
    request.headers_mut().insert(header::CONTENT_LENGTH, length);
    request
}

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const PIPELET_EVENT: HeaderName = HeaderName::from_static("pipelet-event");
const PIPELET_SYNTHETIC: HeaderName = HeaderName::from_static("pipelet-synthetic");
const PIPELET_ATTEMPT: HeaderName = HeaderName::from_static("pipelet-attempt");

fn headers(post: &Post<'_>, span: u64) -> HeaderMap {
    let id = post.event_id.to_string();
    let mut headers = post.to.headers.clone();
    if let Some(signatures) = post.to.signatures(&id, post.now, &post.body) {
        headers.insert(WEBHOOK_SIGNATURE, signatures);
    }
    let id = HeaderValue::try_from(id);
    headers.insert(WEBHOOK_ID, id.expect("an event id is ASCII"));
    headers.insert(WEBHOOK_TIMESTAMP, post.now.as_second().into());
    headers.insert(PIPELET_EVENT, HeaderValue::from_static(post.event.name()));
    if post.is_synthetic {
        headers.insert(PIPELET_SYNTHETIC, HeaderValue::from_static("true"));
    }
    headers.insert(PIPELET_ATTEMPT, post.attempt.into());
    headers.insert(TRACEPARENT, traceparent(post.event_id, span));
    headers
}

fn parse_roots(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, SenderError> {
    let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let roots = roots.map_err(|error| SenderError::BadCertificate(error.into()))?;
    if roots.is_empty() {
        return Err(SenderError::NoCertificate);
    }
    Ok(roots)
}

#[cfg(test)]
mod tests;

//! One POST, from the name's lookup to the answer's end.
//!
//! The only place that knows hyper's client and reqwest. Its promises: one deadline spans the whole
//! exchange, no redirect is followed, no proxy is taken from the environment, at most
//! [`Sender::ANSWER_LIMIT`] of an answer are kept, and nothing is sent to an address that the
//! target policy refuses. It makes one attempt and says what came of it; what follows is
//! [`policy`]'s business.
//!
//! Plain HTTP goes over [`Line`]s, connections of our own; reqwest makes those with TLS, where the
//! cryptography outweighs what it costs, and brings HTTP/2.
//!
//! A receiver that closes an idle connection costs no attempt. Where a kept one ends before a word
//! of the answer has come, the request goes out once more, on a new one: it bears the event's id,
//! by which a receiver that did process the first one knows it.

mod destination;
mod error;
mod heard;
mod line;
mod lookups;
mod phases;
mod resolver;
mod span;
mod tls;
mod trace_context;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::Full;
use hyper_util::client::legacy::connect::HttpConnector;
use jiff::Timestamp;
use reqwest::{Client, redirect};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::time::Instant;
use tower_service::Service as _;

pub use self::{destination::Destination, error::AttemptError, line::Line};
use self::{
    destination::Plain,
    heard::Heard,
    line::{Connection, IDLE_TIMEOUT, PlainRequest},
    lookups::Lookups,
    phases::ConnectNoted,
    resolver::PolicyResolver,
    trace_context::{TRACEPARENT, new_span, traceparent},
};
use super::{
    policy::{self, Outcome},
    record::Phases,
};
use crate::{
    events::{EventId, EventType, StationId},
    telemetry::Spans,
    webhooks::{TargetPolicy, WebhookId},
};

#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// The time limit of a whole exchange: lookup, connection, request and answer.
    pub timeout: Duration,
    pub targets: TargetPolicy,
    /// Certificates in PEM that are trusted beside the system's.
    pub extra_roots: Option<Vec<u8>>,
    /// How many idle connections with TLS are kept for each receiver.
    pub max_idle_per_host: usize,
    /// Where each attempt leaves its span.
    pub spans: Spans,
}

#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    #[error("the CA file holds no certificate; it must be PEM, \"-----BEGIN CERTIFICATE-----\"")]
    NoCertificate,
    #[error("the CA file holds a certificate that can't be read")]
    BadCertificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("can't set up the HTTP client")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
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

/// Makes attempts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sender(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connector: HttpConnector<PolicyResolver>,
    /// For receivers with TLS; it keeps their connections.
    client: Client,
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
        let tls = tls::client_config(roots).map_err(|error| SenderError::Client(error.into()))?;
        let (lookup_timeout, connect_timeout) = shares(options.timeout);
        let resolver = PolicyResolver::new(options.targets.clone(), Lookups::new(lookup_timeout));
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .dns_resolver(resolver.clone())
            .connect_timeout(connect_timeout)
            // HTTP/2's connections outlive an exchange that ran out of time. One over which nothing
            // comes any more is found out early enough for another try on a new one.
            .http2_keep_alive_interval(options.timeout / 2)
            .http2_keep_alive_timeout(options.timeout / 4)
            .connector_layer(ConnectNoted)
            .tcp_nodelay(true)
            .tls_backend_preconfigured(tls)
            .pool_max_idle_per_host(options.max_idle_per_host)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build()
            .map_err(|error| SenderError::Client(error.into()))?;
        let mut connector = HttpConnector::new_with_resolver(resolver);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect_timeout));
        Ok(Self(Arc::new(Inner {
            connector,
            client,
            targets: options.targets.clone(),
            timeout: options.timeout,
            connect_timeout,
            spans: options.spans.clone(),
        })))
    }

    /// Makes one attempt, over the connection that `line` keeps where it can. Takes as long as the
    /// time limit at most; dropped, it closes the connection.
    pub async fn post(&self, post: Post<'_>, line: &mut Line) -> Attempted {
        let (started, limit) = (Instant::now(), self.0.timeout);
        let mut heard = Heard::default();
        let span = new_span();
        let exchange = self.0.exchange(&post, span, line, &mut heard);
        let (end, noted) = phases::noting(started + limit, exchange).await;
        let end = end.unwrap_or_else(|| heard.cut_off(limit));
        let ended = Instant::now();
        let (outcome, duration) = (heard.outcome(end, post.now), ended - started);
        let spans = &self.0.spans;
        spans.record(|| span::of_attempt(&post, span, &outcome, duration));
        Attempted {
            outcome,
            duration,
            phases: noted.phases(started, heard.since(), ended),
            answer: heard.answer.into(),
        }
    }
}

impl Inner {
    async fn exchange(
        &self,
        post: &Post<'_>,
        span: u64,
        line: &mut Line,
        heard: &mut Heard,
    ) -> Result<(), AttemptError> {
        let to = post.to;
        // A literal address never reaches the resolver, which checks all others.
        if let Some(host) = to.url.url().host() {
            let checked = self.targets.check_host(&host);
            checked.map_err(AttemptError::TargetRefused)?;
        }
        if let Some(plain) = &to.plain {
            let request = || {
                let mut request = PlainRequest::new(Full::new(post.body.clone()));
                *request.method_mut() = Method::POST;
                *request.uri_mut() = plain.target.clone();
                *request.headers_mut() = headers(post, span);
                Box::new(request)
            };
            return self.exchange_plain(request, plain, line, heard).await;
        }
        let request = || {
            let mut request = reqwest::Request::new(Method::POST, to.url.url().clone());
            *request.headers_mut() = headers(post, span);
            *request.body_mut() = Some(post.body.clone().into());
            request
        };
        // On the heap, because most attempts would carry the room for it in vain.
        Box::pin(self.exchange_tls(request, line, heard)).await
    }

    async fn exchange_plain(
        &self,
        request: impl Fn() -> Box<PlainRequest>,
        plain: &Plain,
        line: &mut Line,
        heard: &mut Heard,
    ) -> Result<(), AttemptError> {
        if let Some(kept) = line.take(&plain.origin).await {
            match over(kept, request(), plain, line, heard).await {
                // It was closed meanwhile.
                Err(AttemptError::BrokenOff) if heard.is_nothing() => {}
                ended => return ended,
            }
        }
        let connection = Box::pin(self.connect(plain)).await?;
        over(connection, request(), plain, line, heard).await
    }

    async fn exchange_tls(
        &self,
        request: impl Fn() -> reqwest::Request,
        line: &mut Line,
        heard: &mut Heard,
    ) -> Result<(), AttemptError> {
        let may_be_kept = line.take_pooled();
        let mut ended = self.exchange_pooled(request(), heard).await;
        if may_be_kept && ended == Err(AttemptError::BrokenOff) && heard.is_nothing() {
            ended = self.exchange_pooled(request(), heard).await;
        }
        if ended? {
            line.keep_pooled();
        }
        Ok(())
    }

    /// Tells whether the connection can be used again.
    async fn exchange_pooled(
        &self,
        request: reqwest::Request,
        heard: &mut Heard,
    ) -> Result<bool, AttemptError> {
        let response = self.client.execute(request).await;
        let response =
            response.map_err(|error| AttemptError::pooled(&error, self.connect_timeout))?;
        let response: http::Response<reqwest::Body> = response.into();
        heard.listen(response).await
    }

    async fn connect(&self, plain: &Plain) -> Result<Connection, AttemptError> {
        let connecting = self.connector.clone().call(plain.origin.clone());
        let connected = phases::connect(connecting).await;
        let stream =
            connected.map_err(|error| AttemptError::connecting(error, self.connect_timeout))?;
        Connection::begin(stream).await
    }
}

/// Of an exchange's time limit, what looking a name up and what connecting may take. Connecting's
/// share is split among a name's addresses, so that dead ones leave the others their time; with
/// TLS it spans the lookup and the handshake, too.
fn shares(timeout: Duration) -> (Duration, Duration) {
    (timeout / 4 * 3, timeout / 8 * 7)
}

/// An exchange over a connection, which the line keeps where it can be used again.
async fn over(
    mut connection: Connection,
    request: Box<PlainRequest>,
    plain: &Plain,
    line: &mut Line,
    heard: &mut Heard,
) -> Result<(), AttemptError> {
    if connection.exchange(request, heard).await? {
        line.keep(connection, plain.origin.clone());
    }
    Ok(())
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

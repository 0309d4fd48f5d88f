//! One POST, from the name's lookup to the answer's end.
//!
//! The only place that knows reqwest. Its promises: one deadline spans the whole exchange, no
//! redirect is followed, no proxy is taken from the environment, at most
//! [`Sender::ANSWER_LIMIT`] of an answer are kept, and nothing is sent to an address that the
//! target policy refuses. It makes one attempt and says what came of it; what follows is
//! [`policy`]'s business.
//!
//! A receiver that closes an idle connection costs no attempt: what had not been written to it
//! yet is sent again on a new one. What had been written may have been processed, so that counts.

mod error;
mod resolver;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use jiff::Timestamp;
use reqwest::{Client, Request, Response, redirect, tls::Certificate};
use tokio::time::{Instant, timeout_at};

pub use error::AttemptError;
use resolver::PolicyResolver;

use super::policy::{self, Outcome};
use crate::{
    events::{EventId, EventType},
    webhooks::{SecretHeader, TargetPolicy, WebhookUrl},
};

#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// The time limit of a whole exchange: lookup, connection, request and answer.
    pub timeout: Duration,
    pub targets: TargetPolicy,
    /// Certificates in PEM that are trusted beside the system's.
    pub extra_roots: Option<Vec<u8>>,
    /// How many idle connections are kept for each receiver.
    pub max_idle_per_host: usize,
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
    pub url: &'a WebhookUrl,
    pub secret: Option<&'a SecretHeader>,
    pub event_id: EventId,
    pub event: EventType,
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
    /// The start of the answer's body; empty where none came.
    pub answer: Bytes,
}

/// Makes attempts. Cheap to clone; its clones share their connections.
#[derive(Debug, Clone)]
pub struct Sender {
    client: Client,
    targets: TargetPolicy,
    timeout: Duration,
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
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .dns_resolver(PolicyResolver::new(options.targets))
            .tcp_nodelay(true)
            .tls_certs_merge(roots)
            .pool_max_idle_per_host(options.max_idle_per_host)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build()
            .map_err(|error| SenderError::Client(error.into()))?;
        Ok(Self {
            client,
            targets: options.targets,
            timeout: options.timeout,
        })
    }

    /// Makes one attempt. Takes as long as the time limit at most; dropped, it closes the
    /// connection.
    pub async fn post(&self, post: Post<'_>) -> Attempted {
        let started = Instant::now();
        let (outcome, answer) = self.exchange(post, started + self.timeout).await;
        Attempted {
            outcome,
            duration: started.elapsed(),
            answer,
        }
    }

    async fn exchange(&self, post: Post<'_>, deadline: Instant) -> (Outcome<AttemptError>, Bytes) {
        let now = post.now;
        // A literal address never reaches the resolver, which checks all others.
        if let Some(Err(refused)) = post.url.url().host().map(|h| self.targets.check_host(&h)) {
            return (
                failed(None, AttemptError::TargetRefused(refused)),
                Bytes::new(),
            );
        }
        let sent = timeout_at(deadline, self.client.execute(request(post))).await;
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return (failed(None, error.into()), Bytes::new()),
            Err(_elapsed) => {
                let error = AttemptError::Timeout {
                    limit: self.timeout,
                };
                return (failed(None, error), Bytes::new());
            }
        };

        let status = response.status();
        let retry_after = response.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after
            .and_then(|value| value.to_str().ok())
            .and_then(|value| policy::parse_retry_after(value, now));
        let (answer, end) = self.read_answer(response, deadline).await;
        let status_code = status.as_u16();
        let outcome = match end {
            // What the receiver said counts, even where it did not finish saying it.
            Ok(()) | Err(_) if !status.is_success() => Outcome::Rejected {
                status: status_code,
                retry_after,
            },
            Ok(()) => Outcome::Delivered {
                status: status_code,
            },
            // A receiver that fails in the middle of its answer may not have kept the event.
            Err(error) => failed(Some(status_code), error),
        };
        (outcome, answer)
    }

    /// Reads the answer to its end, or to where it exceeds the limit: what is beyond is not
    /// waited for.
    async fn read_answer(
        &self,
        mut response: Response,
        deadline: Instant,
    ) -> (Bytes, Result<(), AttemptError>) {
        let mut answer = Vec::new();
        let end = loop {
            match timeout_at(deadline, response.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    let room = Self::ANSWER_LIMIT - answer.len();
                    answer.extend_from_slice(&chunk[..chunk.len().min(room)]);
                    if chunk.len() > room {
                        break Ok(());
                    }
                }
                Ok(Ok(None)) => break Ok(()),
                Ok(Err(error)) => break Err(error.into()),
                Err(_elapsed) => {
                    break Err(AttemptError::AnswerTimeout {
                        limit: self.timeout,
                    });
                }
            }
        };
        (answer.into(), end)
    }
}

const USER_AGENT: &str = concat!("Pipelet/", env!("CARGO_PKG_VERSION"));

/// Shorter than the five seconds after which common servers close an idle connection, so that
/// a request seldom crosses such a close.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const PIPELET_EVENT: HeaderName = HeaderName::from_static("pipelet-event");
const PIPELET_ATTEMPT: HeaderName = HeaderName::from_static("pipelet-attempt");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

fn request(post: Post<'_>) -> Request {
    let mut request = Request::new(Method::POST, post.url.url().clone());
    let id = HeaderValue::try_from(post.event_id.to_string());
    let headers = [
        (header::CONTENT_TYPE, JSON),
        (WEBHOOK_ID, id.expect("an event id is ASCII")),
        (WEBHOOK_TIMESTAMP, post.now.as_second().into()),
        (PIPELET_EVENT, HeaderValue::from_static(post.event.name())),
        (PIPELET_ATTEMPT, post.attempt.into()),
    ];
    let secret = post
        .secret
        .map(|secret| (secret.name().clone(), secret.value().clone()));
    let mut map = HeaderMap::with_capacity(8);
    map.extend(headers.into_iter().chain(secret));
    *request.headers_mut() = map;
    *request.body_mut() = Some(post.body.into());
    request
}

fn failed(status: Option<u16>, error: AttemptError) -> Outcome<AttemptError> {
    Outcome::Failed { status, error }
}

fn parse_roots(pem: &[u8]) -> Result<Vec<Certificate>, SenderError> {
    let roots = Certificate::from_pem_bundle(pem)
        .map_err(|error| SenderError::BadCertificate(error.into()))?;
    if roots.is_empty() {
        return Err(SenderError::NoCertificate);
    }
    Ok(roots)
}

#[cfg(test)]
mod tests;

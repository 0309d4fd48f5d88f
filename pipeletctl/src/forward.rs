//! POSTs an event to an application on this machine, as the daemon would to a webhook.
//!
//! Invariant: the body is a webhook's to the byte, and so are the headers. One deadline spans the
//! exchange, no redirect is followed and no proxy taken. It makes one attempt; what follows is the
//! caller's business.

use std::{fmt, io, str::FromStr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jiff::Timestamp;
use pipelet_proto::v1;
use standardwebhooks::Webhook;
use tokio::time::{Instant, timeout};

use crate::{cli::ForwardUrl, error::Error, settings::ApiKey, system::secret::Secret};

/// What a webhook's receiver has by default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an answer is read, in bytes.
const MAX_ANSWER_BYTES: usize = 4096;

/// Signs as the daemon does (Standard Webhooks).
pub(crate) struct Signer {
    webhook: Webhook,
    /// Where the secret was made here, so that it can be shown.
    generated_secret: Option<String>,
}

impl Signer {
    /// With this secret, or with one that is made: of an API key always the same, so that an
    /// application needs to be told it only once.
    pub(crate) fn with(secret: Option<Secret>, key: Option<&ApiKey>) -> Result<Self, Error> {
        let (text, generated_secret) = if let Some(secret) = secret {
            (secret.into_text(), None)
        } else {
            let generated_secret = match key {
                Some(key) => derived(key)?,
                None => random()?,
            };
            (generated_secret.clone(), Some(generated_secret))
        };
        let webhook = Webhook::new(text.trim()).map_err(|_| Error::SigningSecret)?;
        Ok(Self {
            webhook,
            generated_secret,
        })
    }

    pub(crate) fn generated_secret(&self) -> Option<&str> {
        self.generated_secret.as_deref()
    }
}

/// HMAC-SHA256 under the key, of which nothing is in it (RFC 2104).
fn derived(key: &ApiKey) -> Result<String, Error> {
    let key = key.to_metadata().as_bytes().to_vec();
    let signed = Webhook::from_bytes(key).and_then(|key| key.sign("pipeletctl listen", 0, b""));
    let signed = signed.map_err(|_| Error::SigningSecret)?;
    let (_, hash) = signed.split_once(',').ok_or(Error::SigningSecret)?;
    Ok(format!("whsec_{hash}"))
}

fn random() -> Result<String, Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(Error::Random)?;
    Ok(format!("whsec_{}", STANDARD.encode(bytes)))
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signing(…)")
    }
}

#[derive(Debug)]
pub(crate) struct Forwarder {
    signing: Signer,
    client: Client<HttpConnector, Full<Bytes>>,
    target: Uri,
    headers: HeaderMap,
}

/// What came of an attempt.
#[derive(Debug)]
pub(crate) struct Attempted {
    pub(crate) outcome: Outcome,
    pub(crate) duration: Duration,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    /// The status, and the first line of what was said with it.
    Answered(u16, String),
    /// No connection, or it ended before a response.
    NoAnswer(String),
    TimedOut,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(status, said) if said.is_empty() => write!(f, "answered {status}"),
            Self::Answered(status, said) => write!(f, "answered {status}: {said}"),
            Self::NoAnswer(why) => write!(f, "no answer: {why}"),
            Self::TimedOut => f.write_str("no answer in time"),
        }
    }
}

impl Forwarder {
    /// `secret` is a header and its value.
    pub(crate) fn new(
        target: ForwardUrl,
        secret: Option<(String, Secret)>,
        signing: Signer,
    ) -> Result<Self, Error> {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = secret {
            let header = HeaderName::from_str(&name).ok();
            let value = HeaderValue::from_str(value.as_text()).ok();
            let (header, mut value) = header.zip(value).ok_or(Error::Header(name))?;
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        let agent = concat!("Pipelet/", env!("CARGO_PKG_VERSION"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Ok(Self {
            signing,
            client: Client::builder(TokioExecutor::new()).build(connector),
            target: target.into_uri(),
            headers,
        })
    }

    /// Makes one attempt at an event; attempts count from 1.
    pub(crate) async fn post(&self, event: &v1::Event, attempt: u32, now: Timestamp) -> Attempted {
        let started = Instant::now();
        let body = body(event);
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers(event, attempt, now, &body);
        let outcome = match timeout(TIMEOUT, self.exchange(request)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Outcome::TimedOut,
        };
        Attempted {
            outcome,
            duration: started.elapsed(),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Outcome {
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) => return Outcome::NoAnswer(root(&error)),
        };
        let status = response.status().as_u16();
        let mut body = response.into_body();
        let mut answer = Vec::new();
        while answer.len() < MAX_ANSWER_BYTES {
            // A status that came counts, whatever becomes of the rest.
            let Some(Ok(frame)) = body.frame().await else {
                break;
            };
            answer.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        }
        answer.truncate(MAX_ANSWER_BYTES);
        let text = String::from_utf8_lossy(&answer);
        Outcome::Answered(status, text.lines().next().unwrap_or_default().to_owned())
    }

    fn headers(&self, event: &v1::Event, attempt: u32, now: Timestamp, body: &[u8]) -> HeaderMap {
        let mut headers = self.headers.clone();
        // An id or a name that is no header's value is none that a daemon gives.
        for (name, text) in [("webhook-id", &event.id), ("pipelet-event", &event.event)] {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        if event.synthetic {
            headers.insert("pipelet-synthetic", HeaderValue::from_static("true"));
        }
        let Signer { webhook, .. } = &self.signing;
        let signature = webhook.sign(&event.id, now.as_second(), body).ok();
        if let Some(signature) = signature.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert("webhook-signature", signature);
        }
        // As the daemon makes it: the event's id is the trace's.
        let trace = event.id.strip_prefix("evt_").unwrap_or(&event.id);
        let trace = format!("00-{trace}-{:016x}-01", fastrand::u64(1..));
        if let Ok(trace) = HeaderValue::try_from(trace) {
            headers.insert("traceparent", trace);
        }
        headers.insert("webhook-timestamp", now.as_second().into());
        headers.insert("pipelet-attempt", attempt.into());
        headers
    }
}

/// The contract's four keys, the payload's bytes untouched.
fn body(event: &v1::Event) -> Bytes {
    let time = event.timestamp.unwrap_or_default();
    let time = Timestamp::new(time.seconds, time.nanos).unwrap_or_default();
    let text = |text: &str| serde_json::Value::from(text).to_string();
    format!(
        r#"{{"event":{},"station_id":{},"timestamp":"{time:.3}","payload":{}}}"#,
        text(&event.event),
        text(&event.station_id),
        event.payload
    )
    .into()
}

/// What is at the bottom of it; the system's errors by their kind, as the daemon names them.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    let system = error.downcast_ref::<io::Error>();
    let system = system.filter(|error| error.raw_os_error().is_some());
    system.map_or_else(|| error.to_string(), |error| error.kind().to_string())
}

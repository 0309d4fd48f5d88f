//! Where a webhook's POSTs go, and what is the same in each of them.
//!
//! Made once for each change of the webhook, so that an attempt parses nothing.

use std::{convert::Infallible, future::ready, net::IpAddr, sync::Arc};

use futures_util::FutureExt as _;
use http::{Extensions, HeaderMap, HeaderValue, Request, Response, Uri, header, uri::PathAndQuery};
use http_body_util::Empty;
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use pipelet_domain::webhooks::{SecretHeader, Signer, Signing, WebhookUrl};
use rustls::pki_types::ServerName;
use url::Host;

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("Pipelet/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A receiver's address and the headers that every POST to it has.
#[derive(Debug)]
pub struct Destination {
    pub(super) url: WebhookUrl,
    /// The URL for those who may read everything but secrets.
    pub(super) shown: Arc<str>,
    /// Scheme and authority only.
    pub(super) origin: Uri,
    /// Path and query only (RFC 9112, section 3.2.1).
    pub(super) target: Uri,
    /// All of it, as HTTP/2 wants it.
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    /// How the secret's header is written over HTTP/1.1.
    pub(super) case: Extensions,
    signing: Option<Signers>,
}

#[derive(Debug)]
struct Signers {
    current: Signer,
    /// Those that sign up to a time.
    retired: Vec<(Signer, Timestamp)>,
}

impl Destination {
    pub fn new(url: WebhookUrl, secret: Option<&SecretHeader>, signing: Option<&Signing>) -> Self {
        let mut headers = HeaderMap::with_capacity(16);
        let (origin, target, uri) = parts(&url).expect("a webhook's URL is a URI");
        if let Some(authority) = origin.authority() {
            let host = HeaderValue::try_from(authority.as_str());
            headers.insert(header::HOST, host.expect("an authority is ASCII"));
        }
        headers.insert(header::CONTENT_TYPE, JSON);
        headers.insert(header::USER_AGENT, USER_AGENT);
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        let mut case = Extensions::new();
        if let Some(secret) = secret {
            headers.insert(secret.name().clone(), secret.value().clone());
            case = case_of(secret);
        }
        Self {
            shown: shown(&url),
            url,
            origin,
            target,
            uri,
            headers,
            case,
            signing: signing.map(Signers::of),
        }
    }

    pub(super) fn is_secure(&self) -> bool {
        self.url.url().scheme() == "https"
    }

    /// What its certificate must be for.
    pub(super) fn server_name(&self) -> Option<ServerName<'static>> {
        match self.url.url().host()? {
            Host::Domain(name) => ServerName::try_from(name.to_owned()).ok(),
            Host::Ipv4(address) => Some(IpAddr::from(address).into()),
            Host::Ipv6(address) => Some(IpAddr::from(address).into()),
        }
    }

    /// The signatures of a message, the newest secret's first; none where it isn't signed.
    pub(super) fn signatures(&self, id: &str, now: Timestamp, body: &[u8]) -> Option<HeaderValue> {
        let Signers { current, retired } = self.signing.as_ref()?;
        let sign = |signer: &Signer| signer.sign(id, now.as_second(), body);
        let mut signatures = sign(current);
        for (signer, until) in retired {
            if *until > now {
                signatures.push(' ');
                signatures.push_str(&sign(signer));
            }
        }
        Some(HeaderValue::try_from(signatures).expect("base64 is ASCII"))
    }
}

/// Without what a query says, because some receivers want their key there.
fn shown(url: &WebhookUrl) -> Arc<str> {
    let mut shown = url.url().clone();
    if shown.query().is_some() {
        shown.set_query(Some("REDACTED"));
    }
    shown.as_str().into()
}

impl Signers {
    fn of(signing: &Signing) -> Self {
        let retired = signing.retired().iter();
        Self {
            current: signing.current().signer(),
            retired: retired
                .map(|old| (old.secret.signer(), old.until))
                .collect(),
        }
    }
}

/// What makes hyper write the header's name as the user did. HTTP knows no case in names (RFC 9110,
/// section 5.1), but receivers do that were told to compare it. Hyper takes it from a map that only
/// its parser makes, so it is given the name to parse.
fn case_of(secret: &SecretHeader) -> Extensions {
    let name = secret.text();
    if name == secret.name().as_str() {
        return Extensions::new();
    }
    let head = format!("GET / HTTP/1.1\r\n{name}: \r\n\r\n");
    let (parsed, case) = std::sync::mpsc::channel();
    let service = service_fn(|request: Request<Incoming>| {
        // Who asked is there until this has ended.
        let _ = parsed.send(request.into_parts().0.extensions);
        ready(Ok::<_, Infallible>(Response::new(Empty::<&[u8]>::new())))
    });
    let io = tokio::io::join(head.as_bytes(), tokio::io::sink());
    let mut parser = http1::Builder::new();
    let parsing = parser.preserve_header_case(true).half_close(true);
    // All of it is there, so nothing is waited for.
    let _ended = parsing
        .serve_connection(TokioIo::new(io), service)
        .now_or_never();
    let mut case = case.try_recv().unwrap_or_default();
    case.remove::<OnUpgrade>();
    case
}

/// Origin, target and all of it.
fn parts(url: &WebhookUrl) -> Result<(Uri, Uri, Uri), http::Error> {
    let uri: Uri = url.url().as_str().parse()?;
    let root = || PathAndQuery::from_static("/");
    let target = uri.path_and_query().cloned().unwrap_or_else(root);
    let mut origin = uri.clone().into_parts();
    origin.path_and_query = Some(root());
    Ok((Uri::from_parts(origin)?, target.into(), uri))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_line_and_its_host_are_made_of() {
        let check = |url: &str, host: &str, target: &str| {
            let to = Destination::new(WebhookUrl::parse(url).unwrap(), None, None);
            assert_eq!(to.headers[header::HOST], host, "{url}");
            assert_eq!(to.target, target, "{url}");
        };
        check("http://example.com", "example.com", "/");
        check("HTTP://Example.com:80/A?b=c", "example.com", "/A?b=c");
        check("http://[::1]:8080/x", "[::1]:8080", "/x");
        check("http://h:81?q", "h:81", "/?q");
        check("https://example.com:443/x", "example.com", "/x");
    }

    #[test]
    fn a_query_is_not_shown() {
        let check = |url: &str, expected: &str| {
            let to = Destination::new(WebhookUrl::parse(url).unwrap(), None, None);
            assert_eq!(to.shown.as_ref(), expected);
        };
        check("https://h/a?key=hunter2", "https://h/a?REDACTED");
        check("http://h:81/a", "http://h:81/a");
    }
}

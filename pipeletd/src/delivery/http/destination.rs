//! Where a webhook's POSTs go, and what is the same in each of them.
//!
//! Made once for each change of the webhook, so that an attempt parses nothing.

use http::{HeaderMap, HeaderValue, Uri, header, uri::PathAndQuery};

use crate::webhooks::{SecretHeader, WebhookUrl};

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("Pipelet/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A receiver's address and the headers that every POST to it has.
#[derive(Debug)]
pub struct Destination {
    pub(super) url: WebhookUrl,
    /// None where the URL asks for TLS.
    pub(super) plain: Option<Plain>,
    pub(super) headers: HeaderMap,
}

/// What an HTTP/1.1 connection of our own needs to know.
#[derive(Debug)]
pub(super) struct Plain {
    /// Scheme and authority only.
    pub(super) origin: Uri,
    /// Path and query only (RFC 9112, section 3.2.1).
    pub(super) target: Uri,
}

impl Destination {
    pub fn new(url: WebhookUrl, secret: Option<&SecretHeader>) -> Self {
        let mut headers = HeaderMap::with_capacity(16);
        let plain = Plain::of(&url);
        // Over TLS, HTTP/2 may be spoken, where the host is no header.
        if let Some(plain) = &plain
            && let Some(authority) = plain.origin.authority()
        {
            let host = HeaderValue::try_from(authority.as_str());
            headers.insert(header::HOST, host.expect("an authority is ASCII"));
        }
        headers.insert(header::CONTENT_TYPE, JSON);
        headers.insert(header::USER_AGENT, USER_AGENT);
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        if let Some(secret) = secret {
            headers.insert(secret.name().clone(), secret.value().clone());
        }
        Self {
            url,
            plain,
            headers,
        }
    }
}

impl Plain {
    fn of(url: &WebhookUrl) -> Option<Self> {
        let uri: Uri = url.url().as_str().parse().ok()?;
        let (scheme, authority) = (uri.scheme()?.as_str(), uri.authority()?.clone());
        let origin = Uri::builder().scheme(scheme).authority(authority);
        let root = || PathAndQuery::from_static("/");
        let target = uri.path_and_query().cloned().unwrap_or_else(root);
        (scheme == "http").then_some(Self {
            origin: origin.path_and_query("/").build().ok()?,
            target: target.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_line_and_its_host_are_made_of() {
        let check = |url: &str, host: &str, target: &str| {
            let to = Destination::new(WebhookUrl::parse(url).unwrap(), None);
            assert_eq!(to.headers[header::HOST], host, "{url}");
            assert_eq!(to.plain.unwrap().target, target, "{url}");
        };
        check("http://example.com", "example.com", "/");
        check("HTTP://Example.com:80/A?b=c", "example.com", "/A?b=c");
        check("http://[::1]:8080/x", "[::1]:8080", "/x");
        check("http://h:81?q", "h:81", "/?q");
    }

    #[test]
    fn over_tls_the_client_names_the_host() {
        let to = Destination::new(WebhookUrl::parse("https://example.com/x").unwrap(), None);
        assert!(to.plain.is_none());
        assert!(!to.headers.contains_key(header::HOST));
    }
}

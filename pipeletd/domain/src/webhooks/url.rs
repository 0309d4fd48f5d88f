//! The address of a receiver.
//!
//! Parsed once, when the webhook is created or loaded. Whether the daemon may post there at all
//! is [`TargetPolicy`](super::TargetPolicy)'s business, because that can change with a restart.

use std::{fmt, sync::Arc};

use url::Url;

/// An http or https URL with a host and without credentials. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    /// As the user wrote it, so that it comes back unchanged.
    text: Arc<str>,
    parsed: Arc<Url>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWebhookUrl {
    #[error("a URL has at most {} bytes", WebhookUrl::MAX_LEN)]
    TooLong,
    #[error("a URL has no spaces or control characters; percent-encode them")]
    Whitespace,
    #[error("a webhook's URL begins with http:// or https://")]
    Scheme,
    #[error("not a URL: {0}")]
    Malformed(#[from] url::ParseError),
    #[error("a webhook's URL has no user name or password; use secret_header and secret_value")]
    Credentials,
    #[error("a webhook's URL has no fragment (\"#…\"), since it would never be sent")]
    Fragment,
    #[error("port 0 can't be connected to")]
    Port,
    #[error("the URL has characters that HTTP can't carry; percent-encode them")]
    NotHttp,
}

impl WebhookUrl {
    /// In bytes; what proxies and servers commonly take.
    pub const MAX_LEN: usize = 2048;

    pub fn parse(text: &str) -> Result<Self, InvalidWebhookUrl> {
        if text.len() > Self::MAX_LEN {
            return Err(InvalidWebhookUrl::TooLong);
        }
        // The parser drops these silently, and the user would post to another place than told.
        if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(InvalidWebhookUrl::Whitespace);
        }
        // The parser also takes `http:host` and `http:\\host`, which are rather slips.
        if !has_prefix(text, "http://") && !has_prefix(text, "https://") {
            return Err(InvalidWebhookUrl::Scheme);
        }
        let parsed = Url::parse(text)?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(InvalidWebhookUrl::Credentials);
        }
        if parsed.fragment().is_some() {
            return Err(InvalidWebhookUrl::Fragment);
        }
        if parsed.port() == Some(0) {
            return Err(InvalidWebhookUrl::Port);
        }
        if parsed.as_str().parse::<http::Uri>().is_err() {
            return Err(InvalidWebhookUrl::NotHttp);
        }
        Ok(Self {
            text: text.into(),
            parsed: Arc::new(parsed),
        })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn url(&self) -> &Url {
        &self.parsed
    }
}

fn has_prefix(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_comes_back_as_it_was_written() {
        for text in [
            "https://my-app.example.com/webhooks/ocpp",
            "HTTP://Example.COM:8080",
            "http://[2001:db8::1]:81/a?b=c%20d",
            "https://bücher.example/ö?token={x}",
        ] {
            assert_eq!(WebhookUrl::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_webhook_url() {
        use InvalidWebhookUrl as E;
        let check = |text: &str, expected: E| {
            assert_eq!(WebhookUrl::parse(text), Err(expected), "{text:?}");
        };
        check("", E::Scheme);
        check("example.com/hook", E::Scheme);
        check("ftp://example.com", E::Scheme);
        check("file:///etc/passwd", E::Scheme);
        check("http:example.com", E::Scheme);
        check(" https://example.com", E::Whitespace);
        check("https://exa\nmple.com", E::Whitespace);
        check("https://", E::Malformed(url::ParseError::EmptyHost));
        check(
            "https://e.com:99999",
            E::Malformed(url::ParseError::InvalidPort),
        );
        check("https://user@example.com", E::Credentials);
        check("https://:pass@example.com", E::Credentials);
        check("https://example.com/#top", E::Fragment);
        check("https://example.com:0/", E::Port);
        check(&format!("https://e.com/{}", "x".repeat(2048)), E::TooLong);
    }
}

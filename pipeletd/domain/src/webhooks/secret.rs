//! The shared secret that a delivery carries in a header of the user's choice.
//!
//! A secret goes in and never comes out but by [`Secret::expose`], which has two callers: the
//! store and the sender.

use std::{fmt, sync::Arc};

use http::{HeaderName, HeaderValue};

/// Text that is never shown: no `Display`, no `Serialize`, and a `Debug` that hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A header that can be sent as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretHeader {
    /// As the user wrote it: HTTP knows no case in names, but people do.
    text: String,
    name: HeaderName,
    secret: Secret,
    /// The same secret, ready to be sent, and marked so that no HTTP layer shows it.
    value: HeaderValue,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecretHeader {
    #[error(
        "{0:?} is no header name: 1 to {max} letters, digits or any of !#$%&'*+-.^_`|~",
        max = SecretHeader::MAX_NAME_LEN
    )]
    Name(String),
    #[error(
        "the header {0} is set by HTTP or by Pipelet itself; choose another, such as X-Webhook-Secret"
    )]
    ForbiddenName(String),
    #[error("a secret is not empty")]
    EmptyValue,
    #[error("a secret has at most {} bytes", SecretHeader::MAX_VALUE_LEN)]
    LongValue,
    #[error("a secret has no control characters, such as line breaks")]
    ControlInValue,
    #[error("a secret does not begin or end with a space, since receivers strip it")]
    PaddedValue,
}

impl SecretHeader {
    /// In bytes.
    pub const MAX_NAME_LEN: usize = 128;
    /// In bytes; common servers take 8 KiB for a whole header section.
    pub const MAX_VALUE_LEN: usize = 4096;

    pub fn new(name: &str, secret: Secret) -> Result<Self, InvalidSecretHeader> {
        Ok(Self {
            text: name.to_owned(),
            name: parse_name(name)?,
            value: parse_value(&secret)?,
            secret,
        })
    }

    /// The name as the user wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn name(&self) -> &HeaderName {
        &self.name
    }

    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The secret as it is sent; marked sensitive.
    pub fn value(&self) -> &HeaderValue {
        &self.value
    }
}

/// Headers that we or the HTTP layer set, that frame the message or rule the connection
/// (RFC 9110, sections 6.4 to 7.8), or that would ask the receiver for something we can't read.
const FORBIDDEN: &[&str] = &[
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "connection",
    "date",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// Families of the same kind.
const FORBIDDEN_PREFIXES: &[&str] = &["content-", "pipelet-", "proxy-"];

pub(super) fn parse_name(text: &str) -> Result<HeaderName, InvalidSecretHeader> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .ok()
        .filter(|_| text.len() <= SecretHeader::MAX_NAME_LEN)
        .ok_or_else(|| InvalidSecretHeader::Name(text.to_owned()))?;
    let forbidden = FORBIDDEN.contains(&name.as_str())
        || FORBIDDEN_PREFIXES
            .iter()
            .any(|prefix| name.as_str().starts_with(prefix));
    if forbidden {
        return Err(InvalidSecretHeader::ForbiddenName(text.to_owned()));
    }
    Ok(name)
}

pub(super) fn parse_value(secret: &Secret) -> Result<HeaderValue, InvalidSecretHeader> {
    let text = secret.expose();
    if text.is_empty() {
        return Err(InvalidSecretHeader::EmptyValue);
    }
    if text.len() > SecretHeader::MAX_VALUE_LEN {
        return Err(InvalidSecretHeader::LongValue);
    }
    if text.trim_matches([' ', '\t']) != text {
        return Err(InvalidSecretHeader::PaddedValue);
    }
    let mut value = HeaderValue::from_str(text).map_err(|_| InvalidSecretHeader::ControlInValue)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let header = SecretHeader::new("X-Webhook-Secret", Secret::new("hunter2")).unwrap();
        assert!(!format!("{header:?} {:#?}", header.secret()).contains("hunter2"));
        assert_eq!(header.secret().expose(), "hunter2");
        assert_eq!(header.value(), "hunter2");
    }

    #[test]
    fn a_name_keeps_its_case_for_people() {
        let header = SecretHeader::new("X-Webhook-Secret", Secret::new("s")).unwrap();
        assert_eq!(header.text(), "X-Webhook-Secret");
        assert_eq!(header.name(), "x-webhook-secret");
    }

    #[test]
    fn names() {
        for name in ["Authorization", "X-Api-Key", "Webhook-Secret", "a"] {
            assert!(parse_name(name).is_ok(), "{name}");
        }
        for name in ["", "X Secret", "X:Y", "Ü", "a\r\nb", &"x".repeat(129)] {
            let fault = parse_name(name);
            assert_eq!(fault, Err(InvalidSecretHeader::Name(name.to_owned())));
        }
        for name in [
            "Host",
            "content-length",
            "Content-Type",
            "Transfer-Encoding",
            "Proxy-Authorization",
            "webhook-id",
            "Pipelet-Anything",
            "USER-AGENT",
        ] {
            let fault = parse_name(name);
            assert_eq!(
                fault,
                Err(InvalidSecretHeader::ForbiddenName(name.to_owned()))
            );
        }
    }

    #[test]
    fn values() {
        use InvalidSecretHeader as E;
        let check = |text: &str, expected: Result<(), E>| {
            let got = parse_value(&Secret::new(text)).map(|_| ());
            assert_eq!(got, expected, "{text:?}");
        };
        check("my-secret-value-here", Ok(()));
        check("Bearer a b\tc", Ok(()));
        check("schlüssel", Ok(()));
        check("", Err(E::EmptyValue));
        check(" s", Err(E::PaddedValue));
        check("s\t", Err(E::PaddedValue));
        check("a\r\nx: y", Err(E::ControlInValue));
        check("a\0", Err(E::ControlInValue));
        check(&"x".repeat(4096), Ok(()));
        check(&"x".repeat(4097), Err(E::LongValue));
    }
}

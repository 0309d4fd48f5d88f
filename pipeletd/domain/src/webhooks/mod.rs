//! Webhooks: who is told about which events, and where.
//!
//! Pure. What has been constructed is right: a [`WebhookUrl`] can be posted to, a
//! [`SecretHeader`] can be sent, and nothing that holds a [`Secret`] ever shows it. Nothing here
//! does I/O, reads a clock, or knows REST, gRPC or the store: what a caller says comes in as a
//! [`WebhookDraft`], and all that is wrong with it goes out as [`Fault`]s.

mod draft;
mod secret;
mod signing;
mod target;
mod url;

use std::{fmt, num::ParseIntError, str::FromStr};

pub use draft::{Fault, Field, NewWebhook, Webhook, WebhookDraft};
pub use secret::{InvalidSecretHeader, Secret, SecretHeader};
pub use signing::{InvalidSigningSecret, Retired, Signer, Signing, SigningSecret};
pub use target::{AllowedTarget, InvalidAllowedTarget, RefusedTarget, TargetPolicy};
pub use url::{InvalidWebhookUrl, WebhookUrl};

/// A webhook's number: given once, never again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebhookId(pub u64);

impl fmt::Display for WebhookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for WebhookId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Self)
    }
}

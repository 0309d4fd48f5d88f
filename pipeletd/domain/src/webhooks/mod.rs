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

use jiff::Timestamp;

pub use draft::{Fault, Field, WebhookDraft};
pub use secret::{InvalidSecretHeader, Secret, SecretHeader};
pub use signing::{InvalidSigningSecret, Retired, Signer, Signing, SigningSecret};
pub use target::{AllowedTarget, InvalidAllowedTarget, RefusedTarget, TargetPolicy};
pub use url::{InvalidWebhookUrl, WebhookUrl};

use crate::events::{EventSelection, StationSelection};

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

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub id: WebhookId,
    /// For people; need not be unique.
    pub name: String,
    pub url: WebhookUrl,
    /// A disabled webhook gets no new events, and its retries wait.
    pub enabled: bool,
    pub events: EventSelection,
    pub stations: StationSelection,
    /// The header by which the receiver knows that a delivery is ours.
    pub secret: Option<SecretHeader>,
    /// What deliveries are signed with.
    pub signing: Option<Signing>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Counts its changes: no two configurations of it have the same.
    pub revision: u64,
}

/// A webhook that has everything but an id and times, which the store's owner gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWebhook {
    pub name: String,
    pub url: WebhookUrl,
    pub enabled: bool,
    pub events: EventSelection,
    pub stations: StationSelection,
    pub secret: Option<SecretHeader>,
    pub signing: Option<Signing>,
}

impl NewWebhook {
    pub fn into_webhook(self, id: WebhookId, now: Timestamp) -> Webhook {
        Webhook {
            id,
            name: self.name,
            url: self.url,
            enabled: self.enabled,
            events: self.events,
            stations: self.stations,
            secret: self.secret,
            signing: self.signing,
            created_at: now,
            updated_at: now,
            revision: 1,
        }
    }
}

impl Webhook {
    /// The same with a new signing secret, the present one signing beside it for a while.
    #[must_use]
    pub fn rotated(&self, new: SigningSecret, now: Timestamp) -> Self {
        let signing = match &self.signing {
            Some(signing) => signing.rotated(new, now),
            None => Signing::new(new),
        };
        Self {
            signing: Some(signing),
            updated_at: now,
            revision: self.revision + 1,
            ..self.clone()
        }
    }
}

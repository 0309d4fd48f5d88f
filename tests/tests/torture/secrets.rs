//! What a webhook's deliveries show its receiver: a secret in a header and a signature, which are
//! those of the URL, so whatever has one and not the other is found.

use std::time::Instant;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName};
use pipelet_tests::oracle::Key;
use standardwebhooks::Webhook;

use crate::run::Run;

/// The webhook whose signing secret is rotated; others have theirs replaced, with the URL.
pub(crate) const ROTATED: Key = Key(6);

pub(crate) const HEADER: &str = "x-secret";
const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

pub(crate) fn value(url: &str) -> String {
    format!("the secret of {url}")
}

/// With these versions of it a signing secret begins as 0.
pub(crate) fn signing(url: &str, version: u32) -> String {
    let secret = format!("{url:.>40}{version:.>8}");
    format!("whsec_{}", STANDARD.encode(secret))
}

/// What is wrong with a delivery to this URL.
pub(crate) fn fault(
    run: &Run,
    key: Key,
    url: &str,
    headers: &HeaderMap,
    body: &[u8],
    at: Instant,
) -> Option<String> {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let shown = header(HEADER);
    if shown != Some(&value(url)) {
        return Some(format!("{url} was shown {shown:?}"));
    }
    let is_current = run.webhooks().registrations.may_be_at(key, url, at);
    if !is_current {
        return Some(format!("{url} is no URL of webhook {} any more", key.0));
    }
    let signatures = header(SIGNATURE.as_str()).unwrap_or_default();
    let signed = |version| {
        let webhook = Webhook::new(&signing(url, version)).expect("a signing secret");
        let id = header(ID.as_str())?;
        let seconds = header(TIMESTAMP.as_str())?.parse().ok()?;
        webhook.sign(id, seconds, body).ok()
    };
    let is_signed = |version| {
        let expected = signed(version);
        signatures
            .split(' ')
            .any(|one| Some(one) == expected.as_deref())
    };
    let is_right = if key == ROTATED {
        let pairs = run.webhooks().rotation.pairs(at);
        pairs.is_none_or(|pairs| {
            pairs
                .into_iter()
                .rev()
                .any(|pair| pair.into_iter().all(is_signed))
        })
    } else {
        // A secret that was replaced signs nothing from then on.
        !signatures.contains(' ') && is_signed(0)
    };
    (!is_right).then(|| format!("{url} can't verify {signatures:?}"))
}

//! `ETag` and `If-Match` of webhooks (RFC 9110, sections 8.8.3 and 13.1.1), so that nobody undoes
//! what another has just changed.
//!
//! A tag is one of the configuration, which is what a change guards: the statistics beside it
//! change all the time and leave it as it is. So a GET is never answered by 304.

use std::convert::Infallible;

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, HeaderValue, header, request::Parts},
};
use pipelet_domain::webhooks::{Webhook, WebhookId};

use crate::registries::IfRevision;

/// The tag of a webhook as it is.
pub(super) fn etag(webhook: &Webhook) -> [(HeaderName, HeaderValue); 1] {
    let tag = format!("\"{}-{}\"", webhook.id, webhook.revision);
    let tag = HeaderValue::try_from(tag);
    [(header::ETAG, tag.expect("digits are ASCII"))]
}

/// What a request's `If-Match` says; none that is there asks for nothing.
#[derive(Debug)]
pub(super) struct IfMatch(Vec<HeaderValue>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let said = parts.headers.get_all(header::IF_MATCH);
        Ok(Self(said.iter().cloned().collect()))
    }
}

impl IfMatch {
    /// What it asks of this webhook. What can't be read, or is weak, matches nothing.
    pub(super) fn of(&self, id: WebhookId) -> IfRevision {
        if self.0.is_empty() {
            return IfRevision::Any;
        }
        let said = self.0.iter().filter_map(|said| said.to_str().ok());
        let tags = said.flat_map(|said| said.split(',').map(str::trim));
        let mut revisions = Vec::new();
        for tag in tags {
            if tag == "*" {
                return IfRevision::Any;
            }
            revisions.extend(revision(tag, id));
        }
        IfRevision::OneOf(revisions)
    }
}

fn revision(tag: &str, id: WebhookId) -> Option<u64> {
    let tag = tag.strip_prefix('"')?.strip_suffix('"')?;
    let (of, revision) = tag.split_once('-')?;
    // As we write it, and no other way to write the numbers.
    let revision: u64 = revision.parse().ok()?;
    (tag == format!("{id}-{revision}") && of == id.to_string()).then_some(revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_if_match_asks_for() {
        let check = |said: &[&'static str], expected: IfRevision| {
            let said = said.iter().map(|said| HeaderValue::from_static(said));
            assert_eq!(IfMatch(said.collect()).of(WebhookId(7)), expected);
        };
        let one_of = |revisions: &[u64]| IfRevision::OneOf(revisions.to_vec());
        check(&[], IfRevision::Any);
        check(&["*"], IfRevision::Any);
        check(&["\"7-3\""], one_of(&[3]));
        check(&["\"7-3\", \"7-4\"", "\"7-5\""], one_of(&[3, 4, 5]));
        check(&["\"8-3\""], one_of(&[]));
        check(&["W/\"7-3\""], one_of(&[]));
        check(&["7-3", "\"7-03\"", "\"7\"", "", "\"7-\""], one_of(&[]));
    }
}

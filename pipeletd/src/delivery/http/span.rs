//! An attempt as a span, by OpenTelemetry's conventions for HTTP clients.
//!
//! It has the ids that the receiver was told in `traceparent`, and no secret: no header, no body,
//! and of the URL no query.

use std::time::Duration;

use super::{AttemptError, Outcome, Post};
use crate::telemetry::{Kind, Span, Value, event_span};

pub(super) fn of_attempt(
    post: &Post<'_>,
    id: u64,
    outcome: &Outcome<AttemptError>,
    took: Duration,
) -> Span {
    let number = |number: u64| Value::Number(i64::try_from(number).unwrap_or(i64::MAX));
    let url = post.to.url.url();
    let mut attributes = Vec::with_capacity(12);
    attributes.extend([
        ("http.request.method", Value::Name("POST")),
        ("url.full", Value::Text(post.to.shown.clone())),
        ("pipelet.webhook.id", number(post.webhook.0)),
        (
            "pipelet.event.id",
            Value::Text(post.event_id.to_string().into()),
        ),
        ("pipelet.event.type", Value::Name(post.event.name())),
        (
            "pipelet.station.id",
            Value::Text(post.station.as_str().into()),
        ),
    ]);
    if let Some(host) = url.host_str() {
        attributes.push(("server.address", Value::Text(host.into())));
    }
    if let Some(port) = url.port_or_known_default() {
        attributes.push(("server.port", number(port.into())));
    }
    // Absent from a first one, by the conventions.
    if post.attempt > 1 {
        let resent = number(u64::from(post.attempt) - 1);
        attributes.push(("http.request.resend_count", resent));
    }
    if let Some(status) = outcome.status() {
        attributes.push(("http.response.status_code", number(status.into())));
    }
    let error = match outcome {
        Outcome::Delivered { .. } => None,
        Outcome::Rejected { status, .. } => Some(Value::Text(status.to_string().into())),
        Outcome::Failed { error, .. } => Some(Value::Name(error.code())),
    };
    let failed = error.is_some();
    attributes.extend(error.map(|error| ("error.type", error)));
    Span {
        trace: post.event_id.to_bytes(),
        id,
        // Of what came from no station, there is no span of its arrival.
        parent: (!post.is_synthetic).then(|| event_span(post.event_id)),
        name: "POST",
        kind: Kind::Client,
        began: post.now,
        took,
        failed,
        attributes,
    }
}

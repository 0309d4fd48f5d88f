//! The test of a webhook: one POST of a synthetic event, outside the journal.

use std::{borrow::Cow, time::Duration};

use pipelet_domain::{
    events::{Event, EventId, EventType, Payload, StationId, Synthetic, sample_payload},
    webhooks::Webhook,
};

use super::{
    dispatcher::{destination, post},
    http::Sender,
};
use crate::system::clock::Clock;

/// The station that a synthetic event names.
const STATION: &str = "TEST_STATION";

/// How the receiver took it.
#[derive(Debug, Clone)]
pub struct TestResult {
    pub ok: bool,
    /// What the receiver answered, where it answered at all.
    pub status: Option<u16>,
    pub duration: Duration,
    /// Why it failed, in plain words.
    pub error: Option<String>,
    /// The same in a word that never changes.
    pub code: Option<Cow<'static, str>>,
}

/// POSTs a synthetic event once, outside the journal.
pub async fn send(
    clock: Clock,
    sender: &Sender,
    webhook: &Webhook,
    kind: Option<EventType>,
) -> TestResult {
    let now = clock.now();
    let kind = kind.unwrap_or_else(|| webhook.events.first());
    let mut random = [0; 10];
    // An id that isn't random is still an id: this event is in no journal.
    let _ = getrandom::fill(&mut random);
    let mut event = Event::new(
        EventId::new(now, random),
        kind,
        StationId::new(STATION).expect("the constant is a station id"),
        now,
        None,
        Payload::from_stored(sample_payload(kind, now).into()),
    );
    event.synthetic = Some(Synthetic::default());
    let to = destination(webhook);
    let post = post(&to, webhook.id, &event, 1, now);
    // A connection of its own: the test says what a stranger would meet.
    let mut connection = sender.pool().wait().await;
    let attempted = sender.post(post, &mut connection).await;
    TestResult {
        ok: attempted.outcome.is_delivered(),
        status: attempted.outcome.status(),
        duration: attempted.duration,
        error: attempted.outcome.failure(),
        code: attempted.code(),
    }
}

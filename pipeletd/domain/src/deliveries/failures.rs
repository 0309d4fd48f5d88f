//! Deliveries that failed at least once or were replayed: their attempts, retries, dead letters.

use std::{borrow::Cow, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    events::{Event, EventType, Seq},
    webhooks::WebhookId,
};

/// One POST and its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Counts from 1, over every round.
    pub number: u32,
    pub at: Timestamp,
    /// What the receiver answered, where it answered at all.
    pub status: Option<u16>,
    /// Why no whole answer came, in plain words.
    pub error: Option<String>,
    /// Why it failed, in a word that never changes: see [`Attempt::code_of_status`].
    pub code: Option<Cow<'static, str>>,
    pub duration: Duration,
    pub phases: Phases,
}

impl Attempt {
    /// The word for a whole answer that was none of success.
    pub fn code_of_status(status: u16) -> Cow<'static, str> {
        format!("http_{status}").into()
    }

    pub fn duration_ms(&self) -> u64 {
        u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX)
    }
}

/// What of an attempt's time went where; a kept connection spares the first three. What is left of
/// the attempt's duration was the rest of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Phases {
    /// Of the host's name.
    pub lookup: Option<Duration>,
    pub connect: Option<Duration>,
    /// Of TLS.
    pub handshake: Option<Duration>,
    /// From there to the first byte of the answer; none where none came.
    pub first_byte: Option<Duration>,
}

/// A delivery that failed at least once, or was replayed, and waits for its next attempt.
///
/// It holds its own copy of the event, so that retention of the journal never takes it away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    pub key: RetryKey,
    pub event: Arc<Event>,
    pub attempts: Vec<Attempt>,
    /// How many attempts of this round were made; a replay begins a new round.
    pub round: u32,
    /// The beginning of the last answer.
    pub last_response: Option<String>,
}

impl Retry {
    /// About how many bytes its record has.
    pub fn size(&self) -> usize {
        self.event.size() + size_of_story(&self.attempts, self.last_response.as_deref())
    }

    /// About how many bytes of memory it takes.
    pub fn memory_size(&self) -> usize {
        self.event.memory_size() + size_of_story(&self.attempts, self.last_response.as_deref())
    }
}

/// Of a delivery, what is not its event.
fn size_of_story(attempts: &[Attempt], last_response: Option<&str>) -> usize {
    let errors = attempts.iter().filter_map(|attempt| attempt.error.as_ref());
    let errors: usize = errors.map(String::len).sum();
    size_of_val(attempts) + errors + last_response.map_or(0, str::len)
}

/// Where a retry stands: by webhook, and there by due time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RetryKey {
    pub webhook: WebhookId,
    /// Due at this time, in milliseconds since 1970.
    pub due_ms: i64,
    pub seq: Seq,
}

/// Why a delivery was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadReason {
    AttemptsExhausted,
    /// It was not attempted before the backlog's age limit.
    TooOld,
}

impl DeadReason {
    pub const fn code(self) -> &'static str {
        match self {
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::TooOld => "too_old",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FailedId(pub u64);

/// A dead letter: a delivery whose attempts ran out, kept until it is replayed or purged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedDelivery {
    pub id: FailedId,
    pub webhook: WebhookId,
    pub seq: Seq,
    pub event: Arc<Event>,
    pub attempts: Vec<Attempt>,
    pub reason: DeadReason,
    pub failed_at: Timestamp,
    pub last_response: Option<String>,
}

impl FailedDelivery {
    /// About how many bytes its record has.
    pub fn size(&self) -> usize {
        self.event.size() + size_of_story(&self.attempts, self.last_response.as_deref())
    }

    /// About how many bytes of memory it takes.
    pub fn memory_size(&self) -> usize {
        self.event.memory_size() + size_of_story(&self.attempts, self.last_response.as_deref())
    }
}

/// Which failed deliveries are meant. What is set must all hold; the default means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailedFilter {
    pub webhook: Option<WebhookId>,
    pub kind: Option<EventType>,
    pub station: Option<String>,
    /// By the event's time: from, included.
    pub since: Option<Timestamp>,
    /// By the event's time: until, excluded.
    pub until: Option<Timestamp>,
}

impl FailedFilter {
    pub fn matches(&self, failed: &FailedDelivery) -> bool {
        self.webhook.is_none_or(|webhook| webhook == failed.webhook)
            && self.kind.is_none_or(|kind| kind == failed.event.kind)
            && self
                .station
                .as_deref()
                .is_none_or(|id| id == failed.event.station.as_str())
            && self.since.is_none_or(|since| since <= failed.event.time)
            && self.until.is_none_or(|until| failed.event.time < until)
    }
}

//! What delivery remembers: the cursor of the happy path, and records for exceptions only.
//!
//! Plain values. The store keeps them and knows their bytes; nothing here does.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    events::{Event, EventSelection, EventType, Seq, StationSelection},
    webhooks::{Webhook, WebhookId},
};

/// One POST and its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Counts from 1, over every round.
    pub number: u32,
    pub at: Timestamp,
    /// What the receiver answered, where it answered at all.
    pub status: Option<u16>,
    /// Why it failed, in plain words.
    pub error: Option<String>,
    pub duration: Duration,
    pub phases: Phases,
}

impl Attempt {
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

/// How far a webhook has come in the journal.
///
/// Everything that it wanted below `read_to` is settled, but for what stands in `owed`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    pub read_to: Seq,
    /// Read but not settled, in ascending order; bounded by the dispatcher's window.
    pub owed: Vec<Seq>,
    /// Delivered at the first attempt.
    pub delivered: u64,
}

impl Cursor {
    pub fn at(read_to: Seq) -> Self {
        Self {
            read_to,
            ..Self::default()
        }
    }

    /// The oldest event that the webhook may still need.
    pub fn floor(&self) -> Seq {
        self.owed
            .first()
            .copied()
            .unwrap_or(self.read_to)
            .min(self.read_to)
    }
}

/// How many events a webhook has been owed in all, as counted up to a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    pub count: u64,
    /// Events below this are counted.
    pub counted_to: Seq,
}

/// What became of the deliveries that left the happy path, or never were on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LedgerCounts {
    /// All that ever left it: with `backfilled`, the sum of what follows.
    pub off_cursor: u64,
    /// Sent again from the journal because somebody asked for it; received once more by that.
    pub backfilled: u64,
    pub retrying: u64,
    /// Delivered after a retry or a replay.
    pub delivered: u64,
    /// In the table of failed deliveries now.
    pub dead: u64,
    /// Purged from that table.
    pub purged: u64,
    /// Cancelled by deleting the webhook.
    pub cancelled: u64,
}

/// Which events a webhook wants, as of one of its revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The webhook's.
    pub revision: u64,
    pub enabled: bool,
    pub events: EventSelection,
    pub stations: StationSelection,
}

impl Subscription {
    pub fn of(webhook: &Webhook) -> Self {
        Self {
            revision: webhook.revision,
            enabled: webhook.enabled,
            events: webhook.events.clone(),
            stations: webhook.stations.clone(),
        }
    }

    pub fn wants(&self, webhook: WebhookId, event: &Event) -> bool {
        self.enabled
            && event.is_for(webhook.0)
            && self.events.contains(event.kind)
            && self.stations.contains(&event.station)
    }

    fn wants_the_same(&self, other: &Self) -> bool {
        (self.enabled, &self.events, &self.stations)
            == (other.enabled, &other.events, &other.stations)
    }

    /// About, in bytes.
    fn size(&self) -> usize {
        let names = self.events.names().iter().chain(self.stations.patterns());
        64 + names.map(String::len).sum::<usize>()
    }
}

/// From a journal position on, what a webhook wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionVersion {
    pub from: Seq,
    pub subscription: Subscription,
}

impl SubscriptionVersion {
    /// Of one webhook, where no event on the way needs more: an audit of a span of time and an
    /// event's trace look back with them.
    pub const MOST: usize = 64;
    /// And so much of them, in bytes: each change of the webhook writes them anew, amid the events.
    const MOST_BYTES: usize = 64 * 1024;

    /// The history that this one ends. What is older than every event that the journal keeps is
    /// dropped, and so are the oldest of what is too much, but none that an event on the way needs:
    /// those are from `floor` on.
    pub fn after(self, past: &[Self], floor: Seq, oldest: Seq) -> Vec<Self> {
        let mut versions = past.to_vec();
        // Holds for no event.
        let _ = versions.pop_if(|last| last.from == self.from);
        match versions.last_mut() {
            Some(last) if last.subscription.wants_the_same(&self.subscription) => {
                last.subscription.revision = self.subscription.revision;
            }
            Some(_) | None => versions.push(self),
        }
        let at = |seq| versions.iter().rposition(|version| version.from <= seq);
        let outdated = at(oldest).unwrap_or(0);
        let mut bytes = 0;
        let few = versions.iter().rev().take(Self::MOST);
        let few = few.take_while(|version| {
            bytes += version.subscription.size();
            bytes <= Self::MOST_BYTES
        });
        let too_many = versions.len() - few.count().max(1);
        let unneeded = at(floor).unwrap_or(0);
        versions.drain(..outdated.max(too_many).min(unneeded));
        versions
    }
}

/// Whether an event at a position is owed to a webhook, by the version that the position lies in.
pub fn is_owed(
    webhook: WebhookId,
    versions: &[SubscriptionVersion],
    seq: Seq,
    event: &Event,
) -> bool {
    let version = versions.iter().rev().find(|version| version.from <= seq);
    version.is_some_and(|version| version.subscription.wants(webhook, event))
}

/// A webhook as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWebhook {
    pub webhook: Webhook,
    pub stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Active,
    /// It is gone for every caller; what it was owed is still to be cancelled.
    Deleting,
    /// The ledger has its final books. It stays as a name for its failed deliveries.
    Deleted,
}

/// The counts that are one webhook's books: `received = delivered + pending + dead + cancelled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeliveryCounts {
    pub received: u64,
    pub delivered: u64,
    /// Not yet attempted, in flight, or waiting for a retry.
    pub pending: u64,
    /// Of the pending ones, those that wait for a retry.
    pub retrying: u64,
    /// Dead-lettered and not replayed, purged ones included.
    pub dead: u64,
    /// Of the dead ones, those that were purged.
    pub purged: u64,
    pub cancelled: u64,
}

impl DeliveryCounts {
    /// Draws the books up from the places where deliveries are counted: the journal, the cursor and
    /// the ledger.
    pub const fn of(received: u64, cursor_delivered: u64, ledger: LedgerCounts) -> Self {
        let backlog = received
            .saturating_sub(cursor_delivered)
            .saturating_sub(ledger.off_cursor);
        Self {
            received: received + ledger.backfilled,
            delivered: cursor_delivered + ledger.delivered,
            pending: backlog + ledger.retrying,
            retrying: ledger.retrying,
            dead: ledger.dead + ledger.purged,
            purged: ledger.purged,
            cancelled: ledger.cancelled,
        }
    }

    /// The books of a webhook that is deleted: all that was pending is cancelled.
    #[must_use]
    pub const fn closed(self) -> Self {
        let cancelled = self.cancelled + self.pending;
        Self {
            pending: 0,
            retrying: 0,
            cancelled,
            ..self
        }
    }

    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            received: self.received + other.received,
            delivered: self.delivered + other.delivered,
            pending: self.pending + other.pending,
            retrying: self.retrying + other.retrying,
            dead: self.dead + other.dead,
            purged: self.purged + other.purged,
            cancelled: self.cancelled + other.cancelled,
        }
    }

    pub const fn balance(&self) -> bool {
        self.received == self.delivered + self.pending + self.dead + self.cancelled
    }
}

/// What is kept of a webhook's deliveries that left the happy path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoredCounts {
    pub retries: u64,
    pub failed: u64,
}

/// Deleted webhooks that nothing is kept of but the sum of their books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArchivedCounts {
    pub webhooks: u64,
    pub books: DeliveryCounts,
}

impl ArchivedCounts {
    /// One more, with its final books.
    #[must_use]
    pub const fn with(self, books: DeliveryCounts) -> Self {
        Self {
            webhooks: self.webhooks + 1,
            books: self.books.plus(books),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Synthetic;

    #[test]
    fn a_cursor_knows_what_it_may_still_need() {
        let cursor = Cursor {
            read_to: Seq(10),
            owed: vec![Seq(4), Seq(7)],
            ..Cursor::default()
        };
        assert_eq!(cursor.floor(), Seq(4));
        assert_eq!(Cursor::at(Seq(10)).floor(), Seq(10));
    }

    #[test]
    fn the_books_balance_when_the_account_does() {
        // 10 owed: 4 delivered at once, 5 moved; with 2 more from the journal, 3 retry, 2 were
        // delivered, 1 is dead and 1 purged.
        let ledger = LedgerCounts {
            off_cursor: 5,
            backfilled: 2,
            retrying: 3,
            delivered: 2,
            dead: 1,
            purged: 1,
            cancelled: 0,
        };
        let books = DeliveryCounts::of(10, 4, ledger);
        assert_eq!(books.received, 12);
        assert_eq!((books.delivered, books.pending, books.dead), (6, 4, 2));
        assert!(books.balance());
        let closed = books.closed();
        assert_eq!((closed.pending, closed.cancelled), (0, 4));
        assert!(closed.balance());
        // One that left the cursor without a record is a loss, and shows.
        assert!(
            !DeliveryCounts::of(
                10,
                4,
                LedgerCounts {
                    off_cursor: 6,
                    ..ledger
                }
            )
            .balance()
        );
    }

    #[test]
    fn what_is_owed_is_decided_by_the_version_of_the_position() {
        let version = |from, enabled, name: &str, stations: &[&str]| SubscriptionVersion {
            from: Seq(from),
            subscription: Subscription {
                revision: from,
                enabled,
                events: EventSelection::parse(&[name]).unwrap(),
                stations: StationSelection::parse(stations).unwrap(),
            },
        };
        let versions = [
            version(10, true, "Heartbeat", &[]),
            version(20, false, "Heartbeat", &[]),
            version(30, true, "*", &["T", "S*"]),
            version(40, true, "*", &["T"]),
        ];
        let event = |kind| {
            let station = crate::events::StationId::new("S").unwrap();
            let id = crate::events::EventId::from_bytes([0; 16]);
            let payload = crate::events::Payload::empty();
            Event::new(id, kind, station, Timestamp::UNIX_EPOCH, None, payload)
        };
        let owed = |kind| {
            let event = event(kind);
            [9, 10, 19, 20, 29, 30, 40]
                .map(|seq| is_owed(WebhookId(1), &versions, Seq(seq), &event))
        };
        assert_eq!(
            owed(EventType::Heartbeat),
            [false, true, true, false, false, true, false]
        );
        assert_eq!(
            owed(EventType::Reset),
            [false, false, false, false, false, true, false]
        );
        let mut only = event(EventType::Heartbeat);
        only.synthetic = Some(Synthetic { only: Some(2) });
        let owed = [1, 2].map(|id| is_owed(WebhookId(id), &versions, Seq(10), &only));
        assert_eq!(owed, [false, true]);
    }

    fn version(from: u64, enabled: bool) -> SubscriptionVersion {
        SubscriptionVersion {
            from: Seq(from),
            subscription: Subscription {
                revision: 1,
                enabled,
                events: EventSelection::parse(&["Heartbeat"]).unwrap(),
                stations: StationSelection::default(),
            },
        }
    }

    /// Of changes at 10, 20, 30 and 40, each of which turned the webhook off or on.
    #[test]
    fn the_past_is_kept_as_long_as_somebody_looks_back() {
        let past = || {
            let changes = [10, 20, 30].into_iter().zip([true, false, true]);
            changes
                .map(|(from, on)| version(from, on))
                .collect::<Vec<_>>()
        };
        let kept = |floor, oldest| {
            let versions = version(40, false).after(&past(), Seq(floor), Seq(oldest));
            versions
                .iter()
                .map(|version| version.from.0)
                .collect::<Vec<_>>()
        };
        assert_eq!(kept(40, 40), [40]);
        assert_eq!(kept(40, 0), [10, 20, 30, 40]);
        assert_eq!(kept(40, 25), [20, 30, 40]);
        assert_eq!(
            kept(10, 40),
            [10, 20, 30, 40],
            "an event on the way needs it"
        );
    }

    #[test]
    fn a_change_of_something_else_is_no_new_version() {
        let past = [version(10, true), version(20, false)];
        let after = |changed: SubscriptionVersion| changed.after(&past, Seq(20), Seq(0));
        assert_eq!(after(version(30, false)), past);
        assert_eq!(after(version(20, true)), past[..1], "it held for no event");
    }

    #[test]
    fn the_past_is_bounded_but_for_what_is_needed() {
        let flip = |floor: fn(u64) -> u64| {
            (0..200).fold(Vec::new(), |past, at| {
                version(at, at % 2 == 0).after(&past, Seq(floor(at)), Seq(0))
            })
        };
        assert_eq!(flip(|at| at).len(), SubscriptionVersion::MOST);
        assert_eq!(flip(|_| 0).len(), 200);
        // Of many stations, fewer are kept, and the present one in any case.
        let large = |at| {
            let mut large = version(at, at % 2 == 0);
            let names = (0..1_000).map(|number| format!("{}{number}", "S".repeat(200)));
            let names = StationSelection::parse(&names.collect::<Vec<_>>());
            large.subscription.stations = names.unwrap();
            large
        };
        let past = large(1).after(&[version(0, true)], Seq(1), Seq(0));
        assert_eq!(past, [large(1)]);
    }
}

//! Key kinds and their bytes, which are fixed for ever; a retired kind stays reserved.
//!
//! Keys compare as bytes: the kind first, then numbers big-endian.

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{FailedId, RetryKey},
    events::{IdTagKey, Seq, StationId},
    shards::ShardId,
    webhooks::WebhookId,
};

use super::EntryKey;

/// The first byte of every key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// A further chunk of a long value: this byte, the value's key, the chunk's number.
    Chunk = b'+',
    // hot
    Cursor = b'c',
    /// The position of the first event of a block.
    Event = b'e',
    Received = b'n',
    Subscription = b'u',
    // cold
    LedgerCounts = b'a',
    /// Of a webhook that is deleted.
    ClosedBooks = b'b',
    Failed = b'f',
    /// An index: webhook, failed id.
    FailedByWebhook = b'g',
    ApiKey = b'k',
    IdTag = b'i',
    Meta = b'm',
    /// The position of the start.
    OpenTransaction = b'o',
    Retry = b'r',
    Station = b's',
    /// Packed, as the three below: see [`start`] and the like for the keys in blocks.
    EndedTransaction = b't',
    /// What was agreed on with a station beforehand.
    Registration = b'S',
    /// In a backup: the shard that the records behind it are of.
    Shard = b'#',
    /// Webhook, seq: this event's delivery was handed over to a retry or a dead letter.
    OffCursorMarker = b'v',
    Webhook = b'w',
    TransactionById = b'x',
    TransactionByStation = b'y',
    TransactionByEnd = b'z',
}

impl Kind {
    const ALL: [Self; 23] = [
        Self::Chunk,
        Self::Cursor,
        Self::Event,
        Self::Received,
        Self::Subscription,
        Self::LedgerCounts,
        Self::ClosedBooks,
        Self::Failed,
        Self::FailedByWebhook,
        Self::ApiKey,
        Self::IdTag,
        Self::Meta,
        Self::OpenTransaction,
        Self::Retry,
        Self::Station,
        Self::EndedTransaction,
        Self::Registration,
        Self::Shard,
        Self::OffCursorMarker,
        Self::Webhook,
        Self::TransactionById,
        Self::TransactionByStation,
        Self::TransactionByEnd,
    ];

    /// Of a whole key.
    pub(super) fn of(key: &[u8]) -> Option<Self> {
        let first = key.first()?;
        Self::ALL.into_iter().find(|kind| *kind as u8 == *first)
    }
}

/// Single values, of the cold database where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Meta {
    FormatVersion = 1,
    NextWebhook = 2,
    NextFailed = 3,
    NextApiKey = 4,
    NextTransaction = 5,
    TransactionKey = 6,
    ProjectedTo = 7,
    /// The id of the key that every secret is sealed with.
    SecretsKey = 8,
    /// In `cold`, how many batches it has taken; in `hot`, how many of them it knows of.
    ColdCommits = 9,
    /// What the clock of retries showed last.
    RetryTime = 10,
    /// The sum of the books of deleted webhooks that nothing else is kept of.
    ArchivedCounts = 11,
    /// The latest entry's.
    ConfigurationRevision = 12,
}

pub(super) fn prefix(kind: Kind) -> [u8; 1] {
    [kind as u8]
}

fn numbered<const N: usize>(kind: Kind, numbers: [u64; N]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + 8 * N);
    key.push(kind as u8);
    for number in numbers {
        key.extend_from_slice(&number.to_be_bytes());
    }
    key
}

pub(super) fn event(seq: Seq) -> Vec<u8> {
    numbered(Kind::Event, [seq.0])
}

pub(super) fn cursor(webhook: WebhookId) -> Vec<u8> {
    numbered(Kind::Cursor, [webhook.0])
}

pub(super) fn received(webhook: WebhookId) -> Vec<u8> {
    numbered(Kind::Received, [webhook.0])
}

pub(super) fn subscription(webhook: WebhookId) -> Vec<u8> {
    numbered(Kind::Subscription, [webhook.0])
}

pub(super) fn ledger_counts(webhook: WebhookId) -> Vec<u8> {
    numbered(Kind::LedgerCounts, [webhook.0])
}

pub(super) fn closed_books(webhook: WebhookId) -> Vec<u8> {
    numbered(Kind::ClosedBooks, [webhook.0])
}

pub(super) fn failed(id: FailedId) -> Vec<u8> {
    numbered(Kind::Failed, [id.0])
}

pub(super) fn failed_by_webhook(webhook: WebhookId, id: FailedId) -> Vec<u8> {
    numbered(Kind::FailedByWebhook, [webhook.0, id.0])
}

pub(super) fn api_key(id: u64) -> Vec<u8> {
    numbered(Kind::ApiKey, [id])
}

pub(super) fn meta(meta: Meta) -> Vec<u8> {
    vec![Kind::Meta as u8, meta as u8]
}

pub(super) fn retry(key: RetryKey) -> Vec<u8> {
    // Times before 1970 don't occur; clamped, they would still sort first.
    let due = u64::try_from(key.due_ms).unwrap_or(0);
    numbered(Kind::Retry, [key.webhook.0, due, key.seq.0])
}

pub(super) fn station(id: &StationId) -> Vec<u8> {
    let mut key = vec![Kind::Station as u8];
    key.extend_from_slice(id.as_str().as_bytes());
    key
}

pub(super) fn open_transaction(start: Seq) -> Vec<u8> {
    numbered(Kind::OpenTransaction, [start.0])
}

/// A transaction's key among those that have ended.
pub(super) const fn start(start: Seq) -> [u8; 8] {
    start.0.to_be_bytes()
}

pub(super) fn transaction_by_id(id: i64) -> Vec<u8> {
    id.to_be_bytes().to_vec()
}

pub(super) fn transaction_by_station(station: &StationId, at: Seq) -> Vec<u8> {
    let mut key = transactions_of_station(station);
    key.extend_from_slice(&start(at));
    key
}

/// What the keys of a station's transactions begin with.
pub(super) fn transactions_of_station(station: &StationId) -> Vec<u8> {
    let id = station.as_str().as_bytes();
    // The length keeps a station apart from those whose ids begin with its own.
    let mut key = vec![u8::try_from(id.len()).unwrap_or(u8::MAX)];
    key.extend_from_slice(id);
    key
}

pub(super) fn transaction_by_end(end: Timestamp, at: Seq) -> Vec<u8> {
    // Times before 1970 don't occur; clamped, they would still sort first.
    let end = u64::try_from(end.as_millisecond()).unwrap_or(0);
    [end.to_be_bytes(), start(at)].concat()
}

pub(super) fn id_tag(tag: &IdTagKey) -> Vec<u8> {
    let mut key = vec![Kind::IdTag as u8];
    key.extend_from_slice(tag.as_str().as_bytes());
    key
}

pub(super) fn registration(id: &StationId) -> Vec<u8> {
    let mut key = vec![Kind::Registration as u8];
    key.extend_from_slice(id.as_str().as_bytes());
    key
}

pub(super) fn off_cursor_marker(webhook: WebhookId, seq: Seq) -> Vec<u8> {
    numbered(Kind::OffCursorMarker, [webhook.0, seq.0])
}

/// Of an entry of the configuration.
pub(super) fn entry(key: &EntryKey) -> Vec<u8> {
    match key {
        EntryKey::Webhook(id) => webhook(*id),
        EntryKey::ApiKey(id) => api_key(*id),
        EntryKey::IdTag(tag) => id_tag(tag),
        EntryKey::Registration(station) => registration(station),
    }
}

/// The same, read back; none where it is the key of something else.
pub(super) fn read_entry(key: &[u8]) -> Option<EntryKey> {
    let text = || std::str::from_utf8(&key[1..]).ok();
    match Kind::of(key)? {
        Kind::Webhook => Some(EntryKey::Webhook(WebhookId(last_number(key)?))),
        Kind::ApiKey => Some(EntryKey::ApiKey(last_number(key)?)),
        Kind::IdTag => Some(EntryKey::IdTag(IdTagKey::of(text()?))),
        Kind::Registration => Some(EntryKey::Registration(StationId::new(text()?).ok()?)),
        _ => None,
    }
}

pub(super) fn shard(shard: ShardId) -> Vec<u8> {
    let number = shard.0.to_be_bytes();
    vec![Kind::Shard as u8, number[0], number[1]]
}

pub(super) fn webhook(id: WebhookId) -> Vec<u8> {
    numbered(Kind::Webhook, [id.0])
}

/// The webhook's part of a kind that is keyed by webhook first.
pub(super) fn of_webhook(kind: Kind, webhook: WebhookId) -> Vec<u8> {
    numbered(kind, [webhook.0])
}

/// The smallest key after this one.
pub(super) fn successor(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// The number that a key ends with.
pub(super) fn last_number(key: &[u8]) -> Option<u64> {
    let bytes = key.last_chunk::<8>()?;
    Some(u64::from_be_bytes(*bytes))
}

/// A retry's key, read back.
pub(super) fn read_retry(key: &[u8]) -> Option<RetryKey> {
    let numbers = key.get(1..)?;
    let number = |index: usize| {
        let bytes = numbers.get(index * 8..index * 8 + 8)?;
        Some(u64::from_be_bytes(bytes.try_into().ok()?))
    };
    Some(RetryKey {
        webhook: WebhookId(number(0)?),
        due_ms: i64::try_from(number(1)?).ok()?,
        seq: Seq(number(2)?),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn retries_sort_by_webhook_then_due_time(
            a in (0..9_u64, 0..i64::MAX, any::<u64>()),
            b in (0..9_u64, 0..i64::MAX, any::<u64>()),
        ) {
            let key = |(webhook, due_ms, seq)| {
                RetryKey { webhook: WebhookId(webhook), due_ms, seq: Seq(seq) }
            };
            let (a, b) = (key(a), key(b));
            prop_assert_eq!(retry(a).cmp(&retry(b)), a.cmp(&b));
            prop_assert_eq!(read_retry(&retry(a)), Some(a));
        }

        #[test]
        fn transactions_sort_by_start_of_a_station_and_by_end(
            a: (u32, u64), b: (u32, u64), station in "[ab]{1,3}",
        ) {
            let station = StationId::new(&station).unwrap();
            let of_station = |(_, seq)| transaction_by_station(&station, Seq(seq));
            prop_assert_eq!(of_station(a).cmp(&of_station(b)), a.1.cmp(&b.1));
            prop_assert_eq!(last_number(&of_station(a)), Some(a.1));
            let end = |millis: u32| Timestamp::from_millisecond(millis.into()).unwrap();
            let by_end = |(at, seq)| transaction_by_end(end(at), Seq(seq));
            prop_assert_eq!(by_end(a).cmp(&by_end(b)), a.cmp(&b));
        }

        #[test]
        fn events_sort_by_position(a: u64, b: u64) {
            prop_assert_eq!(event(Seq(a)).cmp(&event(Seq(b))), a.cmp(&b));
            prop_assert_eq!(last_number(&event(Seq(a))), Some(a));
        }
    }
}

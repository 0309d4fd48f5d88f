//! The bytes of what is written seldom: webhooks, retries, failed deliveries, counts, keys.
//!
//! A version byte, then JSON, so that a later version can add a field and still read the old.
//! A record that holds an event has the event's own bytes in front. Record types are apart from
//! the domain's: what is stored changes only on purpose.

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{
        ArchivedCounts, Attempt, DeadReason, DeliveryCounts, FailedDelivery, FailedId,
        LedgerCounts, Phases, Retry, RetryKey, Stage, StoredWebhook, Subscription,
        SubscriptionVersion,
    },
    events::{Event, EventSelection, Seq, StationSelection},
    webhooks::{Retired, SecretHeader, Signing, SigningSecret, Webhook, WebhookId, WebhookUrl},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    StoreError,
    codec::{decode_event, encode_event, record_error, split_version},
    sealing::{Place, SealError, SecretKeys},
};
use crate::auth::{ApiKeyInfo, KeyHash, Role};

const VERSION: u8 = 1;

pub(super) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    let mut out = vec![VERSION];
    serde_json::to_writer(&mut out, record).expect("records have string keys only");
    out
}

pub(super) fn decode<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, StoreError> {
    let json = split_version(bytes, VERSION, what)?;
    serde_json::from_slice(json).map_err(|error| record_error(what, error))
}

/// An event's length and bytes, then the record.
fn encode_with_event<T: Serialize>(event: &Event, record: &T) -> Vec<u8> {
    let event = encode_event(event);
    let mut out = u32::try_from(event.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes()
        .to_vec();
    out.extend_from_slice(&event);
    out.extend_from_slice(&encode(record));
    out
}

fn decode_with_event<T: DeserializeOwned>(
    what: &'static str,
    bytes: &Bytes,
) -> Result<(Arc<Event>, T), StoreError> {
    let short = || record_error(what, "it is cut short");
    let (len, rest) = bytes.split_first_chunk::<4>().ok_or_else(short)?;
    let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| short())?;
    let (event, record) = rest.split_at_checked(len).ok_or_else(short)?;
    Ok((
        Arc::new(decode_event(&bytes.slice_ref(event))?),
        decode(what, record)?,
    ))
}

#[derive(Serialize, Deserialize)]
struct WebhookRecord {
    id: u64,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    url: String,
    enabled: bool,
    events: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    station_ids: Vec<String>,
    secret_header: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed_secret: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signing: Option<SigningRecord>,
    created_at: Timestamp,
    updated_at: Timestamp,
    revision: u64,
    stage: StageRecord,
}

#[derive(Serialize, Deserialize)]
struct SigningRecord {
    sealed: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    retired: Vec<RetiredRecord>,
}

#[derive(Serialize, Deserialize)]
struct RetiredRecord {
    sealed: String,
    until: Timestamp,
}

impl SigningRecord {
    fn of(id: WebhookId, signing: &Signing, secrets: &SecretKeys) -> Result<Self, SealError> {
        let place = Place::SigningSecret(id);
        let seal = |secret: &SigningSecret| secrets.seal(place, &secret.expose());
        let retired = signing.retired().iter().map(|old| {
            Ok(RetiredRecord {
                sealed: seal(&old.secret)?,
                until: old.until,
            })
        });
        Ok(Self {
            sealed: seal(signing.current())?,
            retired: retired.collect::<Result<_, _>>()?,
        })
    }

    fn into_signing(self, id: WebhookId, secrets: &SecretKeys) -> Result<Signing, StoreError> {
        let place = Place::SigningSecret(id);
        let open = |sealed: &str| {
            let text = secrets.open(place, sealed).map_err(not_sealed)?;
            SigningSecret::parse(&text).map_err(|error| record_error("webhook", error))
        };
        let retired = self.retired.iter().map(|old| {
            Ok(Retired {
                secret: open(&old.sealed)?,
                until: old.until,
            })
        });
        let retired = retired.collect::<Result<_, StoreError>>()?;
        Ok(Signing::from_parts(open(&self.sealed)?, retired))
    }
}

#[derive(Serialize, Deserialize)]
struct SubscriptionVersionRecord {
    from: u64,
    revision: u64,
    enabled: bool,
    events: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    station_ids: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StageRecord {
    Active,
    Deleting,
    Deleted,
}

/// Books of which nothing is pending any more.
#[derive(Serialize, Deserialize)]
struct DeliveryCountsRecord {
    received: u64,
    delivered: u64,
    dead: u64,
    cancelled: u64,
}

impl DeliveryCountsRecord {
    const fn closed(books: &DeliveryCounts) -> Self {
        Self {
            received: books.received,
            delivered: books.delivered,
            dead: books.dead,
            cancelled: books.cancelled,
        }
    }

    fn into_counts(self) -> DeliveryCounts {
        DeliveryCounts {
            received: self.received,
            delivered: self.delivered,
            dead: self.dead,
            cancelled: self.cancelled,
            ..DeliveryCounts::default()
        }
    }
}

pub(super) fn encode_webhook(
    stored: &StoredWebhook,
    secrets: &SecretKeys,
) -> Result<Vec<u8>, StoreError> {
    let StoredWebhook { webhook, stage } = stored;
    let secret = webhook.secret.as_ref();
    let place = Place::WebhookSecret(webhook.id);
    let sealed = secret.map(|secret| secrets.seal(place, secret.secret()));
    let sealed = sealed.transpose().map_err(not_sealed)?;
    let signing = webhook.signing.as_ref();
    let signing = signing.map(|signing| SigningRecord::of(webhook.id, signing, secrets));
    Ok(encode(&WebhookRecord {
        id: webhook.id.0,
        name: webhook.name.clone(),
        description: webhook.description.clone(),
        url: webhook.url.as_str().to_owned(),
        enabled: webhook.enabled,
        events: webhook.events.names().to_vec(),
        station_ids: webhook.stations.patterns().to_vec(),
        secret_header: secret.map(|secret| secret.text().to_owned()),
        sealed_secret: sealed,
        signing: signing.transpose().map_err(not_sealed)?,
        created_at: webhook.created_at,
        updated_at: webhook.updated_at,
        revision: webhook.revision,
        stage: match stage {
            Stage::Active => StageRecord::Active,
            Stage::Deleting => StageRecord::Deleting,
            Stage::Deleted => StageRecord::Deleted,
        },
    }))
}

fn not_sealed(error: SealError) -> StoreError {
    record_error("webhook's secret", error)
}

pub(super) fn decode_webhook(
    bytes: &[u8],
    secrets: &SecretKeys,
) -> Result<StoredWebhook, StoreError> {
    let record: WebhookRecord = decode("webhook", bytes)?;
    let place = Place::WebhookSecret(WebhookId(record.id));
    let value = record
        .sealed_secret
        .map(|sealed| secrets.open(place, &sealed));
    let secret = match (record.secret_header, value.transpose().map_err(not_sealed)?) {
        (Some(name), Some(value)) => {
            let secret = SecretHeader::new(&name, value);
            Some(secret.map_err(|error| record_error("webhook", error))?)
        }
        _ => None,
    };
    let id = WebhookId(record.id);
    let signing = record.signing;
    let signing = signing.map(|signing| signing.into_signing(id, secrets));
    let webhook = Webhook {
        id,
        name: record.name,
        description: record.description,
        url: WebhookUrl::parse(&record.url).map_err(|error| record_error("webhook", error))?,
        enabled: record.enabled,
        events: event_selection(&record.events)?,
        stations: station_selection(&record.station_ids)?,
        secret,
        signing: signing.transpose()?,
        created_at: record.created_at,
        updated_at: record.updated_at,
        revision: record.revision,
    };
    let stage = match record.stage {
        StageRecord::Active => Stage::Active,
        StageRecord::Deleting => Stage::Deleting,
        StageRecord::Deleted => Stage::Deleted,
    };
    Ok(StoredWebhook { webhook, stage })
}

pub(super) fn encode_subscription(versions: &[SubscriptionVersion]) -> Vec<u8> {
    let records = versions.iter().map(|version| {
        let subscription = &version.subscription;
        SubscriptionVersionRecord {
            from: version.from.0,
            revision: subscription.revision,
            enabled: subscription.enabled,
            events: subscription.events.names().to_vec(),
            station_ids: subscription.stations.patterns().to_vec(),
        }
    });
    encode(&records.collect::<Vec<_>>())
}

pub(super) fn decode_subscription(bytes: &[u8]) -> Result<Vec<SubscriptionVersion>, StoreError> {
    let records: Vec<SubscriptionVersionRecord> = decode("subscription", bytes)?;
    let versions = records.into_iter().map(|record| {
        let subscription = Subscription {
            revision: record.revision,
            enabled: record.enabled,
            events: event_selection(&record.events)?,
            stations: station_selection(&record.station_ids)?,
        };
        Ok(SubscriptionVersion {
            from: Seq(record.from),
            subscription,
        })
    });
    versions.collect()
}

fn event_selection(names: &[String]) -> Result<EventSelection, StoreError> {
    EventSelection::parse(names)
        .map_err(|_| record_error("webhook", format!("its events {names:?} are not known")))
}

fn station_selection(patterns: &[String]) -> Result<StationSelection, StoreError> {
    StationSelection::parse(patterns)
        .map_err(|_| record_error("webhook", format!("its stations {patterns:?} are none")))
}

#[derive(Serialize, Deserialize)]
struct AttemptRecord {
    number: u32,
    at: Timestamp,
    status: Option<u16>,
    error: Option<String>,
    /// Of an answer it is known by its status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<Cow<'static, str>>,
    duration_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lookup_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connect_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_byte_us: Option<u64>,
}

impl AttemptRecord {
    fn of(attempt: &Attempt) -> Self {
        Self {
            number: attempt.number,
            at: attempt.at,
            status: attempt.status,
            error: attempt.error.clone(),
            code: attempt.code.clone().filter(|_| attempt.error.is_some()),
            duration_us: micros(attempt.duration),
            lookup_us: attempt.phases.lookup.map(micros),
            connect_us: attempt.phases.connect.map(micros),
            tls_us: attempt.phases.handshake.map(micros),
            first_byte_us: attempt.phases.first_byte.map(micros),
        }
    }

    fn into_attempt(self) -> Attempt {
        let refused = self.status.filter(|status| !(200..300).contains(status));
        let of_answer = refused.filter(|_| self.error.is_none());
        Attempt {
            number: self.number,
            at: self.at,
            status: self.status,
            error: self.error,
            code: self.code.or(of_answer.map(Attempt::code_of_status)),
            duration: Duration::from_micros(self.duration_us),
            phases: Phases {
                lookup: self.lookup_us.map(Duration::from_micros),
                connect: self.connect_us.map(Duration::from_micros),
                handshake: self.tls_us.map(Duration::from_micros),
                first_byte: self.first_byte_us.map(Duration::from_micros),
            },
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[derive(Serialize, Deserialize)]
struct RetryRecord {
    attempts: Vec<AttemptRecord>,
    round: u32,
    last_response: Option<String>,
}

pub(super) fn encode_retry(retry: &Retry) -> Vec<u8> {
    let record = RetryRecord {
        attempts: retry.attempts.iter().map(AttemptRecord::of).collect(),
        round: retry.round,
        last_response: retry.last_response.clone(),
    };
    encode_with_event(&retry.event, &record)
}

pub(super) fn decode_retry(key: RetryKey, bytes: &Bytes) -> Result<Retry, StoreError> {
    let (event, record): (_, RetryRecord) = decode_with_event("retry", bytes)?;
    Ok(Retry {
        key,
        event,
        attempts: record
            .attempts
            .into_iter()
            .map(AttemptRecord::into_attempt)
            .collect(),
        round: record.round,
        last_response: record.last_response,
    })
}

#[derive(Serialize, Deserialize)]
struct FailedRecord {
    webhook: u64,
    seq: u64,
    attempts: Vec<AttemptRecord>,
    reason: ReasonRecord,
    failed_at: Timestamp,
    last_response: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReasonRecord {
    AttemptsExhausted,
    TooOld,
}

pub(super) fn encode_failed(failed: &FailedDelivery) -> Vec<u8> {
    let record = FailedRecord {
        webhook: failed.webhook.0,
        seq: failed.seq.0,
        attempts: failed.attempts.iter().map(AttemptRecord::of).collect(),
        reason: match failed.reason {
            DeadReason::AttemptsExhausted => ReasonRecord::AttemptsExhausted,
            DeadReason::TooOld => ReasonRecord::TooOld,
        },
        failed_at: failed.failed_at,
        last_response: failed.last_response.clone(),
    };
    encode_with_event(&failed.event, &record)
}

pub(super) fn decode_failed(id: FailedId, bytes: &Bytes) -> Result<FailedDelivery, StoreError> {
    let (event, record): (_, FailedRecord) = decode_with_event("failed delivery", bytes)?;
    Ok(FailedDelivery {
        id,
        webhook: WebhookId(record.webhook),
        seq: Seq(record.seq),
        event,
        attempts: record
            .attempts
            .into_iter()
            .map(AttemptRecord::into_attempt)
            .collect(),
        reason: match record.reason {
            ReasonRecord::AttemptsExhausted => DeadReason::AttemptsExhausted,
            ReasonRecord::TooOld => DeadReason::TooOld,
        },
        failed_at: record.failed_at,
        last_response: record.last_response,
    })
}

#[derive(Serialize, Deserialize)]
struct LedgerCountsRecord {
    off_cursor: u64,
    backfilled: u64,
    retrying: u64,
    delivered: u64,
    dead: u64,
    purged: u64,
    cancelled: u64,
}

pub(super) fn encode_ledger_counts(counts: &LedgerCounts) -> Vec<u8> {
    let LedgerCounts {
        off_cursor,
        backfilled,
        retrying,
        delivered,
        dead,
        purged,
        cancelled,
    } = *counts;
    encode(&LedgerCountsRecord {
        off_cursor,
        backfilled,
        retrying,
        delivered,
        dead,
        purged,
        cancelled,
    })
}

pub(super) fn decode_ledger_counts(bytes: &[u8]) -> Result<LedgerCounts, StoreError> {
    let record = decode("account", bytes)?;
    let LedgerCountsRecord {
        off_cursor,
        backfilled,
        retrying,
        delivered,
        dead,
        purged,
        cancelled,
    } = record;
    Ok(LedgerCounts {
        off_cursor,
        backfilled,
        retrying,
        delivered,
        dead,
        purged,
        cancelled,
    })
}

#[derive(Serialize, Deserialize)]
struct ArchivedCountsRecord {
    webhooks: u64,
    books: DeliveryCountsRecord,
}

pub(super) fn encode_closed_books(books: &DeliveryCounts) -> Vec<u8> {
    encode(&DeliveryCountsRecord::closed(books))
}

pub(super) fn decode_closed_books(bytes: &[u8]) -> Result<DeliveryCounts, StoreError> {
    decode("closed books", bytes).map(DeliveryCountsRecord::into_counts)
}

pub(super) fn encode_archived_counts(archived: &ArchivedCounts) -> Vec<u8> {
    encode(&ArchivedCountsRecord {
        webhooks: archived.webhooks,
        books: DeliveryCountsRecord::closed(&archived.books),
    })
}

pub(super) fn decode_archived_counts(bytes: &[u8]) -> Result<ArchivedCounts, StoreError> {
    let ArchivedCountsRecord { webhooks, books } = decode("sum of books", bytes)?;
    Ok(ArchivedCounts {
        webhooks,
        books: books.into_counts(),
    })
}

#[derive(Serialize, Deserialize)]
struct ApiKeyRecord {
    name: String,
    created_at: Timestamp,
    /// SHA-256 of the key.
    hash: [u8; 32],
    role: RoleRecord,
    expires_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RoleRecord {
    Admin,
    Operator,
    ReadOnly,
}

pub(super) fn encode_api_key(key: &ApiKeyInfo) -> Vec<u8> {
    let hash = key.hash.to_bytes();
    encode(&ApiKeyRecord {
        name: key.name.clone(),
        created_at: key.created_at,
        hash,
        role: match key.role {
            Role::Admin => RoleRecord::Admin,
            Role::Operator => RoleRecord::Operator,
            Role::ReadOnly => RoleRecord::ReadOnly,
        },
        expires_at: key.expires_at,
        last_used_at: key.last_used_at,
    })
}

pub(super) fn decode_api_key(id: u64, bytes: &[u8]) -> Result<ApiKeyInfo, StoreError> {
    let record: ApiKeyRecord = decode("API key", bytes)?;
    let hash = KeyHash::from_bytes(record.hash);
    Ok(ApiKeyInfo {
        id,
        name: record.name,
        created_at: record.created_at,
        hash,
        role: match record.role {
            RoleRecord::Admin => Role::Admin,
            RoleRecord::Operator => Role::Operator,
            RoleRecord::ReadOnly => Role::ReadOnly,
        },
        expires_at: record.expires_at,
        last_used_at: record.last_used_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_allows_is_kept() {
        let now = Timestamp::UNIX_EPOCH;
        for (role, expires_at) in [
            (Role::Admin, None),
            (Role::Operator, None),
            (Role::ReadOnly, Some(now)),
        ] {
            let key = ApiKeyInfo {
                id: 7,
                name: "N".to_owned(),
                created_at: now,
                hash: KeyHash::from_bytes([1; 32]),
                role,
                expires_at,
                last_used_at: Some(now),
            };
            assert_eq!(decode_api_key(7, &encode_api_key(&key)).unwrap(), key);
        }
    }
}

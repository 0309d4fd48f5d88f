//! Between the domain and the generated messages.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{
        ArchivedCounts, Attempt, DeliveryCounts, FailedDelivery, FailedFilter, Retry, StoredCounts,
    },
    events::{Event, EventFilter, EventType},
    registration::{Registration, SecurityProfile},
    webhooks::{Signing, WebhookId},
};
use pipelet_proto::v1;

use super::{
    DEFAULT_PAGE, MAX_PAGE, error::ApiError, event_filter::Said, millis, station_directory::Listed,
};
use crate::{
    delivery::{
        Audit, AuditState, Audited, Fate, Lately, Observation, Trace, WebhookView, history::Settled,
    },
    ocpp::StationView,
    store::Part,
};

pub(super) fn time(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

pub(super) fn from_time(time: prost_types::Timestamp, field: &str) -> Result<Timestamp, ApiError> {
    Timestamp::new(time.seconds, time.nanos)
        .map_err(|_| ApiError::fault(field, "invalid_time", "this time is out of range"))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// How many items to give; 0 leaves it to us.
pub(super) fn page_size(asked: u32) -> usize {
    match usize::try_from(asked) {
        Ok(0) => DEFAULT_PAGE,
        Ok(asked) => asked.min(MAX_PAGE),
        Err(_) => MAX_PAGE,
    }
}

/// An empty token means the beginning.
pub(super) fn page_token<C, E>(
    token: &str,
    read: impl FnOnce(&str) -> Result<C, E>,
) -> Result<Option<C>, E> {
    if token.is_empty() {
        Ok(None)
    } else {
        read(token).map(Some)
    }
}

/// Cuts a list that was fetched with one item more than asked for, and names the next page.
pub(super) fn page<I>(
    items: Vec<I>,
    size: usize,
    cursor: impl FnOnce(&I) -> String,
) -> (Vec<I>, String) {
    let is_cut = false;
    page_part(Part { items, is_cut }, size, cursor)
}

/// The same of what was read up to a number of bytes.
pub(super) fn page_part<I>(
    Part { mut items, is_cut }: Part<I>,
    size: usize,
    cursor: impl FnOnce(&I) -> String,
) -> (Vec<I>, String) {
    let more = is_cut || items.len() > size;
    items.truncate(size);
    let next = items
        .last()
        .filter(|_| more)
        .map(cursor)
        .unwrap_or_default();
    (items, next)
}

pub(super) fn webhook(WebhookView { webhook, books }: WebhookView) -> v1::Webhook {
    v1::Webhook {
        id: webhook.id.0,
        name: webhook.name,
        url: webhook.url.as_str().to_owned(),
        enabled: webhook.enabled,
        events: webhook.events.names().to_vec(),
        station_ids: webhook.stations.patterns().to_vec(),
        secret_header: webhook
            .secret
            .as_ref()
            .map(|secret| secret.text().to_owned()),
        has_secret: webhook.secret.is_some(),
        has_signing_secret: webhook.signing.is_some(),
        retiring_signing_secrets: retiring(webhook.signing.as_ref()),
        created_at: Some(time(webhook.created_at)),
        updated_at: Some(time(webhook.updated_at)),
        stats: Some(books_on_wire(books)),
    }
}

fn books_on_wire(books: DeliveryCounts) -> v1::WebhookStats {
    let DeliveryCounts {
        received,
        delivered,
        pending,
        retrying,
        dead,
        purged,
        cancelled,
    } = books;
    v1::WebhookStats {
        received,
        delivered,
        pending,
        retrying,
        dead,
        purged,
        cancelled,
    }
}

pub(super) fn audit(
    audit: Audit,
    lately: &BTreeMap<WebhookId, Lately>,
) -> v1::AuditWebhooksResponse {
    let audited = |one: Audited| {
        let lately = lately.get(&one.id);
        v1::WebhookAudit {
            since: lately.map(|lately| books_on_wire(lately.books)),
            since_counted_from: lately.and_then(|lately| lately.counted_from).map(time),
            ..audited(one)
        }
    };
    let ArchivedCounts { webhooks, books } = audit.archived;
    v1::AuditWebhooksResponse {
        webhooks: audit.webhooks.into_iter().map(audited).collect(),
        forgotten: (webhooks > 0).then(|| v1::ForgottenWebhooks {
            webhooks,
            stats: Some(books_on_wire(books)),
        }),
    }
}

fn audited(
    Audited {
        id,
        name,
        state,
        backfilled,
    }: Audited,
) -> v1::WebhookAudit {
    let (state, books, compared) = match state {
        AuditState::Active(books, compared) => ("active", Some(books), compared),
        AuditState::Deleting => ("deleting", None, None),
        AuditState::Deleted(books) => ("deleted", Some(books), None),
    };
    let stored = |StoredCounts { retries, failed }| v1::KeptDeliveries {
        retries,
        failed_deliveries: failed,
    };
    v1::WebhookAudit {
        id: id.0,
        name,
        state: state.to_owned(),
        stats: books.map(books_on_wire),
        booked: compared.map(|compared| stored(compared.booked)),
        kept: compared.map(|compared| stored(compared.stored)),
        backfilled,
        since: None,
        since_counted_from: None,
    }
}

fn retiring(signing: Option<&Signing>) -> Vec<prost_types::Timestamp> {
    let retired = signing.map(Signing::retired).unwrap_or_default();
    retired.iter().map(|old| time(old.until)).collect()
}

/// One whose next retry is due then.
pub(super) fn overview(observation: &Observation, next: Option<Timestamp>) -> v1::WebhookOverview {
    let webhook = &observation.stored.webhook;
    let stats = &observation.stats;
    v1::WebhookOverview {
        id: webhook.id.0,
        name: webhook.name.clone(),
        url: webhook.url.as_str().to_owned(),
        enabled: webhook.enabled,
        oldest_owed_at: observation.oldest.map(time),
        next_retry_at: next.map(time),
        in_flight: stats.in_flight,
        attempts: stats.attempts(),
        attempts_delivered: stats.delivered(),
        latency_buckets: stats.latencies.buckets().to_vec(),
        stats: Some(books_on_wire(observation.books)),
    }
}

fn attempts(attempts: Vec<Attempt>) -> Vec<v1::Attempt> {
    let attempts = attempts.into_iter().map(|attempt| v1::Attempt {
        number: attempt.number,
        at: Some(time(attempt.at)),
        status_code: attempt.status.map(u32::from),
        error: attempt.error,
        duration_ms: millis(attempt.duration),
        lookup_us: attempt.phases.lookup.map(micros),
        connect_us: attempt.phases.connect.map(micros),
        tls_us: attempt.phases.handshake.map(micros),
        first_byte_us: attempt.phases.first_byte.map(micros),
    });
    attempts.collect()
}

/// One whose next attempt is due then.
pub(super) fn retry(retry: Retry, due: Option<Timestamp>) -> v1::Delivery {
    v1::Delivery {
        event_id: retry.event.id.to_string(),
        event: retry.event.kind.name().to_owned(),
        station_id: retry.event.station.to_string(),
        timestamp: Some(time(retry.event.time)),
        status: "pending".to_owned(),
        next_attempt_at: due.map(time),
        attempts: attempts(retry.attempts),
    }
}

pub(super) fn settled(settled: Settled) -> v1::Delivery {
    v1::Delivery {
        event_id: settled.event.to_string(),
        event: settled.kind.name().to_owned(),
        station_id: settled.station.to_string(),
        timestamp: Some(time(settled.time)),
        status: if settled.delivered {
            "delivered"
        } else {
            "dead"
        }
        .to_owned(),
        next_attempt_at: None,
        attempts: attempts(settled.attempts),
    }
}

pub(super) fn trace(trace: Trace) -> v1::WebhookTrace {
    let Trace {
        webhook,
        name,
        fate,
    } = trace;
    let told = v1::WebhookTrace {
        webhook_id: webhook.0,
        name,
        ..v1::WebhookTrace::default()
    };
    match fate {
        Fate::NotWanted { why, or_sent_again } => v1::WebhookTrace {
            outcome: "not_wanted".to_owned(),
            reason: why.code().to_owned(),
            or_sent_again,
            ..told
        },
        Fate::Waiting => v1::WebhookTrace {
            outcome: "waiting".to_owned(),
            ..told
        },
        Fate::Retrying {
            attempts: made,
            due,
        } => v1::WebhookTrace {
            outcome: "retrying".to_owned(),
            attempts_kept: true,
            attempts: attempts(made),
            next_attempt_at: due.map(time),
            ..told
        },
        Fate::Dead(failed) => v1::WebhookTrace {
            outcome: "dead".to_owned(),
            reason: failed.reason.code().to_owned(),
            attempts_kept: true,
            failed_delivery_id: Some(failed.id.0),
            failed_at: Some(time(failed.failed_at)),
            attempts: attempts(failed.attempts),
            ..told
        },
        Fate::Delivered(made) => v1::WebhookTrace {
            outcome: "delivered".to_owned(),
            attempts_kept: made.is_some(),
            attempts: attempts(made.unwrap_or_default()),
            ..told
        },
        Fate::Purged => v1::WebhookTrace {
            outcome: "purged".to_owned(),
            ..told
        },
        Fate::Settled => v1::WebhookTrace {
            outcome: "settled".to_owned(),
            ..told
        },
        Fate::Forgotten => v1::WebhookTrace {
            outcome: "forgotten".to_owned(),
            ..told
        },
    }
}

fn payload(event: &Event) -> String {
    String::from_utf8_lossy(event.payload.as_bytes()).into_owned()
}

pub(super) fn failed(failed: FailedDelivery) -> v1::FailedDelivery {
    v1::FailedDelivery {
        id: failed.id.0,
        webhook_id: failed.webhook.0,
        event_id: failed.event.id.to_string(),
        event: failed.event.kind.name().to_owned(),
        station_id: failed.event.station.to_string(),
        timestamp: Some(time(failed.event.time)),
        payload: payload(&failed.event),
        reason: failed.reason.code().to_owned(),
        failed_at: Some(time(failed.failed_at)),
        attempts: attempts(failed.attempts),
        last_response: failed.last_response,
    }
}

pub(super) fn filter(filter: v1::FailedDeliveryFilter) -> Result<FailedFilter, ApiError> {
    let kind = filter
        .event
        .map(|name| event_type(&name, "/filter/event"))
        .transpose()?;
    Ok(FailedFilter {
        webhook: filter.webhook_id.map(WebhookId),
        kind,
        station: filter.station_id,
        since: filter
            .since
            .map(|time| from_time(time, "/filter/since"))
            .transpose()?,
        until: filter
            .until
            .map(|time| from_time(time, "/filter/until"))
            .transpose()?,
    })
}

pub(super) fn event_type(name: &str, pointer: &str) -> Result<EventType, ApiError> {
    name.parse()
        .map_err(|unknown: pipelet_domain::events::UnknownEventType| {
            ApiError::fault(pointer, "unknown_event", unknown.to_string())
        })
}

pub(super) fn event_filter(
    filter: v1::EventFilter,
    pointer: &str,
) -> Result<EventFilter, ApiError> {
    let time = |time: Option<prost_types::Timestamp>, field| {
        let pointer = format!("{pointer}/{field}");
        time.map(|time| from_time(time, &pointer)).transpose()
    };
    let said = Said {
        since: time(filter.since, "since")?,
        until: time(filter.until, "until")?,
        events: filter.events,
        stations: filter.station_ids,
    };
    let (events, stations) = (
        format!("{pointer}/events"),
        format!("{pointer}/station_ids"),
    );
    said.parse(&events, &stations).map_err(ApiError::Invalid)
}

pub(super) fn event(event: &Event) -> v1::Event {
    v1::Event {
        id: event.id.to_string(),
        event: event.kind.name().to_owned(),
        station_id: event.station.to_string(),
        timestamp: Some(time(event.time)),
        payload: payload(event),
        synthetic: event.synthetic.is_some(),
    }
}

fn registration(registration: &Registration) -> v1::Registration {
    let profile = registration.profile.map(SecurityProfile::number);
    v1::Registration {
        security_profile: profile.map(u32::from),
        has_password: registration.password.is_some(),
        boot_policy: registration.boot_policy.name().to_owned(),
        created_at: Some(time(registration.created_at)),
        updated_at: Some(time(registration.updated_at)),
    }
}

pub(super) fn station(listed: Listed) -> v1::Station {
    let registration = listed.registration.as_deref().map(registration);
    let StationView {
        state,
        connected_since,
        protocol,
    } = listed.view;
    let connectors = state
        .connectors
        .into_iter()
        .map(|(connector_id, connector)| v1::Connector {
            connector_id,
            status: connector.status,
            error_code: connector.error_code,
            updated_at: Some(time(connector.updated_at)),
        });
    let transactions = state
        .open_transactions
        .into_iter()
        .map(|open| v1::OpenTransaction {
            transaction_id: open.transaction_id,
            connector_id: open.connector_id,
            id_tag: open.id_tag,
            meter_start: open.meter_start,
            started_at: open.started_at.map(time),
        });
    v1::Station {
        id: state.id.to_string(),
        connected: connected_since.is_some(),
        connected_since: connected_since.map(time),
        protocol: protocol.map(Into::into),
        last_seen_at: state.last_seen_at.map(time),
        vendor: state.vendor,
        model: state.model,
        serial_number: state.serial_number,
        firmware_version: state.firmware_version,
        last_boot_at: state.last_boot_at.map(time),
        boot_status: state.boot_status.map(|status| status.name().to_owned()),
        connectors: connectors.collect(),
        open_transactions: transactions.collect(),
        registration,
    }
}

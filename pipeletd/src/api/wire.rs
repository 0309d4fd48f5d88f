//! Between the domain and the messages of the API, which both gRPC and REST answer with.
//!
//! What a caller says comes as [`Fields`], by the messages' names: as REST's body, or as what of a
//! gRPC request counts.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{ArchivedCounts, Attempt, DeliveryCounts, FailedDelivery, Retry, StoredCounts},
    events::{Event, EventType, Payload},
    id_tags::{IdTagDraft, IdTagEntry},
    projection::Transaction,
    registration::{Registration, RegistrationDraft, SecurityProfile},
    webhooks::{Field, Secret, Signing, Webhook, WebhookDraft, WebhookId},
};
use pipelet_proto::v1::{self, call_response};

use super::{
    cursor,
    error::ApiError,
    fields::Fields,
    millis, signing_secret,
    station_directory::Listed,
    trigger::Triggered,
    webhooks::{Figures, Shown},
};
use crate::{
    auth::ApiKeyInfo,
    delivery::{
        Audit, AuditState, Audited, Backfilled, Fate, Lately, Observation, TestResult, Trace,
        WebhookView,
        health::{Failure, Health, State},
        history::Settled,
    },
    ocpp::{Answer, StationView},
};

pub(super) fn time(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn figures(view: &WebhookView) -> Figures {
    Figures {
        stats: books_on_wire(view.books),
        health: health(&view.health),
        absent: Vec::new(),
    }
}

pub(super) fn webhook(webhook: &Webhook, figures: Figures) -> v1::Webhook {
    v1::Webhook {
        id: webhook.id.0,
        name: webhook.name.clone(),
        description: webhook.description.clone(),
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
        stats: Some(figures.stats),
        health: Some(figures.health),
        absent_shards: figures.absent,
    }
}

pub(super) fn health(health: &Health) -> v1::WebhookHealth {
    let failure = health.last_failure.as_ref();
    v1::WebhookHealth {
        state: health.state.name().to_owned(),
        since: health.since.map(time),
        last_success_at: health.last_success.map(time),
        last_failure_at: failure.map(|failure| time(failure.at)),
        last_failure_code: failure.map(|failure| failure.code.clone().into_owned()),
        oldest_owed_at: health.oldest_owed.map(time),
    }
}

/// The same, read back.
pub(super) fn health_of(health: &v1::WebhookHealth) -> Health {
    let time = |time: Option<prost_types::Timestamp>| {
        time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok())
    };
    let failed_at = time(health.last_failure_at);
    Health {
        state: State::named(&health.state).unwrap_or_default(),
        since: time(health.since),
        last_success: time(health.last_success_at),
        last_failure: failed_at.map(|at| Failure {
            at,
            code: health.last_failure_code.clone().unwrap_or_default().into(),
        }),
        oldest_owed: time(health.oldest_owed_at),
        oldest_unattempted: None,
    }
}

/// A webhook with a signing secret that was made just now, shown this once.
pub(super) fn webhook_and_secret(
    shown: &Shown,
    made: Option<&Secret>,
) -> v1::CreateWebhookResponse {
    v1::CreateWebhookResponse {
        webhook: Some(shown.message()),
        signing_secret: made.map(|secret| secret.expose().to_owned()),
    }
}

/// What a caller says of a webhook, and a signing secret where one is to be made.
pub(super) fn webhook_draft(
    fields: &mut Fields,
) -> Result<(WebhookDraft, Option<Secret>), ApiError> {
    let secret_value = fields.secret("secret_value");
    let mut draft = WebhookDraft {
        name: fields.string("name"),
        description: fields.string("description"),
        url: fields.string("url"),
        enabled: fields.bool("enabled"),
        events: fields.strings("events"),
        station_ids: fields.strings("station_ids"),
        secret_header: fields.string("secret_header"),
        secret_value,
        signing_secret: fields.secret("signing_secret"),
    };
    let generate = matches!(fields.bool("generate_signing_secret"), Field::Value(true));
    let given = std::mem::take(&mut draft.signing_secret);
    let (secret, made) = signing_secret::Said { given, generate }.settle()?;
    draft.signing_secret = secret;
    Ok((draft, made))
}

pub(super) fn registration_draft(fields: &mut Fields) -> RegistrationDraft {
    RegistrationDraft {
        password: fields.secret("password"),
        security_profile: fields.number("security_profile"),
        boot_policy: fields.string("boot_policy"),
    }
}

pub(super) fn id_tag_draft(fields: &mut Fields) -> IdTagDraft {
    IdTagDraft {
        status: fields.string("status"),
        expiry_date: fields.string("expiry_date"),
        parent_id_tag: fields.string("parent_id_tag"),
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
        AuditState::Disabled(books, compared) => ("disabled", Some(books), compared),
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
        unbalanced_shards: Vec::new(),
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
        health: Some(health(&observation.health)),
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
        code: attempt.code.map(Cow::into_owned),
        duration_ms: millis(attempt.duration),
        lookup_us: attempt.phases.lookup.map(micros),
        connect_us: attempt.phases.connect.map(micros),
        tls_us: attempt.phases.handshake.map(micros),
        first_byte_us: attempt.phases.first_byte.map(micros),
    });
    attempts.collect()
}

pub(super) fn backfilled(done: &Backfilled) -> v1::BackfillResponse {
    v1::BackfillResponse {
        matched: done.matched,
        left: cursor::of_ranges(&done.left),
        retrying: done.retrying,
        reached: done.reached.map(time),
    }
}

pub(super) fn test_result(result: TestResult) -> v1::TestWebhookResponse {
    v1::TestWebhookResponse {
        ok: result.ok,
        status_code: result.status.map(u32::from),
        duration_ms: millis(result.duration),
        error: result.error,
        code: result.code.map(Cow::into_owned),
    }
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

pub(super) fn event_trace(
    told: &Event,
    traces: Vec<Trace>,
    durable_at: Option<Timestamp>,
) -> v1::TraceEventResponse {
    v1::TraceEventResponse {
        event: Some(event(told)),
        webhooks: traces.into_iter().map(trace).collect(),
        durable_at: durable_at.map(time),
    }
}

fn trace(trace: Trace) -> v1::WebhookTrace {
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
            reason: Some(why.code().to_owned()),
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
            reason: Some(failed.reason.code().to_owned()),
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

fn text(payload: &Payload) -> String {
    String::from_utf8_lossy(payload.as_bytes()).into_owned()
}

pub(super) fn failed(failed: FailedDelivery) -> v1::FailedDelivery {
    v1::FailedDelivery {
        id: failed.id.0,
        webhook_id: failed.webhook.0,
        event_id: failed.event.id.to_string(),
        event: failed.event.kind.name().to_owned(),
        station_id: failed.event.station.to_string(),
        timestamp: Some(time(failed.event.time)),
        payload: text(&failed.event.payload),
        reason: failed.reason.code().to_owned(),
        failed_at: Some(time(failed.failed_at)),
        attempts: attempts(failed.attempts),
        last_response: failed.last_response,
    }
}

pub(super) fn event(event: &Event) -> v1::Event {
    v1::Event {
        id: event.id.to_string(),
        event: event.kind.name().to_owned(),
        station_id: event.station.to_string(),
        timestamp: Some(time(event.time)),
        payload: text(&event.payload),
        synthetic: event.synthetic.is_some(),
    }
}

/// A synthetic event, and the webhooks that it is on its way to.
pub(super) fn triggered(triggered: &Triggered) -> v1::TriggerEventResponse {
    v1::TriggerEventResponse {
        event: Some(event(&triggered.event)),
        webhook_ids: triggered.webhooks.iter().map(|id| id.0).collect(),
    }
}

pub(super) fn event_type(kind: EventType) -> v1::EventType {
    v1::EventType {
        name: kind.name().to_owned(),
        direction: kind.direction().name().to_owned(),
        profile: kind.profile().name().to_owned(),
        group: kind.group().name().to_owned(),
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

pub(super) fn transaction(transaction: &Transaction) -> v1::Transaction {
    let stop = transaction.stop.as_ref();
    let reading = transaction.last_meter_values.as_ref();
    let status = transaction.authorization;
    v1::Transaction {
        transaction_id: transaction.transaction_id,
        station_id: transaction.station.to_string(),
        connector_id: transaction.connector_id,
        id_tag: transaction.id_tag.clone(),
        id_tag_status: status.map(|status| status.name().to_owned()),
        status: transaction.status().to_owned(),
        meter_start: transaction.meter_start,
        meter_stop: stop.and_then(|stop| stop.meter_stop),
        energy_wh: transaction.energy_wh(),
        started_at: transaction.started_at.map(time),
        start_received_at: Some(time(transaction.start_received_at)),
        stopped_at: stop.and_then(|stop| stop.stopped_at).map(time),
        stop_received_at: stop.map(|stop| time(stop.received_at)),
        stop_reason: stop.and_then(|stop| stop.reason.clone()),
        stop_id_tag: stop.and_then(|stop| stop.id_tag.clone()),
        last_meter_values: reading.map(|reading| v1::LastMeterValues {
            timestamp: reading.sampled_at.map(time),
            sampled_value: reading.sampled_values.clone(),
        }),
        notes: transaction.notes.clone(),
    }
}

pub(super) fn id_tag(entry: &IdTagEntry) -> v1::IdTag {
    v1::IdTag {
        id_tag: entry.id_tag.to_string(),
        status: entry.status.name().to_owned(),
        expiry_date: entry.expiry_date.map(time),
        parent_id_tag: entry.parent_id_tag.as_ref().map(ToString::to_string),
        created_at: Some(time(entry.created_at)),
        updated_at: Some(time(entry.updated_at)),
    }
}

pub(super) fn api_key(key: ApiKeyInfo, now: Timestamp) -> v1::ApiKey {
    v1::ApiKey {
        role: key.role.name().to_owned(),
        expires_at: key.expires_at.map(time),
        expired: key.is_expired(now),
        last_used_at: key.last_used_at.map(time),
        id: key.id,
        name: key.name,
        created_at: Some(time(key.created_at)),
    }
}

impl From<Answer> for call_response::Outcome {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Result(payload) => Self::Payload(text(&payload)),
            Answer::Error {
                code,
                description,
                details,
            } => Self::Error(v1::CallError {
                code,
                description,
                details: text(&details),
            }),
        }
    }
}

//! How things look in JSON: `snake_case` keys, times in RFC 3339 UTC with milliseconds.

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{Attempt, DeliveryCounts, FailedDelivery, Retry},
    events::{Event, EventType},
    projection::BootStatus,
    registration::{Registration, SecurityProfile},
    webhooks::{Secret, Signing},
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::super::{millis, station_directory::Listed, trigger::Triggered};
use crate::{
    delivery::{TestResult, WebhookView, history::Settled},
    ocpp::StationView,
};

pub(super) fn time(time: Timestamp) -> String {
    format!("{time:.3}")
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[derive(Debug, Serialize)]
pub(super) struct WebhookJson {
    id: u64,
    name: String,
    url: String,
    enabled: bool,
    events: Vec<String>,
    station_ids: Vec<String>,
    secret_header: Option<String>,
    has_secret: bool,
    has_signing_secret: bool,
    /// Until when secrets that were replaced sign, too.
    retiring_signing_secrets: Vec<String>,
    created_at: String,
    updated_at: String,
    stats: StatsJson,
}

/// A webhook with a signing secret that was made just now, shown this once. Without `Debug`, so no
/// log can have it.
#[derive(Serialize)]
pub(super) struct WebhookAndSecretJson {
    #[serde(flatten)]
    webhook: WebhookJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    signing_secret: Option<String>,
}

impl WebhookAndSecretJson {
    pub(super) fn of(webhook: WebhookView, made: Option<&Secret>) -> Self {
        Self {
            webhook: webhook.into(),
            signing_secret: made.map(|secret| secret.expose().to_owned()),
        }
    }
}

fn retiring(signing: Option<&Signing>) -> Vec<String> {
    let retired = signing.map(Signing::retired).unwrap_or_default();
    retired.iter().map(|old| time(old.until)).collect()
}

#[derive(Debug, Serialize)]
struct StatsJson {
    received: u64,
    delivered: u64,
    pending: u64,
    retrying: u64,
    dead: u64,
    purged: u64,
    cancelled: u64,
}

impl From<WebhookView> for WebhookJson {
    fn from(WebhookView { webhook, books }: WebhookView) -> Self {
        let DeliveryCounts {
            received,
            delivered,
            pending,
            retrying,
            dead,
            purged,
            cancelled,
        } = books;
        Self {
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
            created_at: time(webhook.created_at),
            updated_at: time(webhook.updated_at),
            stats: StatsJson {
                received,
                delivered,
                pending,
                retrying,
                dead,
                purged,
                cancelled,
            },
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct TestJson {
    ok: bool,
    status_code: Option<u16>,
    duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<TestResult> for TestJson {
    fn from(result: TestResult) -> Self {
        Self {
            ok: result.ok,
            status_code: result.status,
            duration_ms: millis(result.duration),
            error: result.error,
        }
    }
}

#[derive(Debug, Serialize)]
struct AttemptJson {
    number: u32,
    at: String,
    status_code: Option<u16>,
    error: Option<String>,
    duration_ms: u64,
    /// In microseconds, as the rest.
    lookup_us: Option<u64>,
    connect_us: Option<u64>,
    tls_us: Option<u64>,
    first_byte_us: Option<u64>,
}

fn attempts(attempts: Vec<Attempt>) -> Vec<AttemptJson> {
    let attempts = attempts.into_iter().map(|attempt| AttemptJson {
        number: attempt.number,
        at: time(attempt.at),
        status_code: attempt.status,
        error: attempt.error,
        duration_ms: millis(attempt.duration),
        lookup_us: attempt.phases.lookup.map(micros),
        connect_us: attempt.phases.connect.map(micros),
        tls_us: attempt.phases.handshake.map(micros),
        first_byte_us: attempt.phases.first_byte.map(micros),
    });
    attempts.collect()
}

/// One event owed to one webhook: waiting for a retry, or settled.
#[derive(Debug, Serialize)]
pub(super) struct DeliveryJson {
    event_id: String,
    event: &'static str,
    station_id: String,
    timestamp: String,
    status: &'static str,
    next_attempt_at: Option<String>,
    attempts: Vec<AttemptJson>,
}

impl DeliveryJson {
    /// One whose next attempt is due then.
    pub(super) fn waiting(retry: Retry, due: Option<Timestamp>) -> Self {
        Self {
            event_id: retry.event.id.to_string(),
            event: retry.event.kind.name(),
            station_id: retry.event.station.to_string(),
            timestamp: time(retry.event.time),
            status: "pending",
            next_attempt_at: due.map(time),
            attempts: attempts(retry.attempts),
        }
    }
}

impl From<Settled> for DeliveryJson {
    fn from(settled: Settled) -> Self {
        Self {
            event_id: settled.event.to_string(),
            event: settled.kind.name(),
            station_id: settled.station.to_string(),
            timestamp: time(settled.time),
            status: if settled.delivered {
                "delivered"
            } else {
                "dead"
            },
            next_attempt_at: None,
            attempts: attempts(settled.attempts),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct FailedJson {
    id: u64,
    webhook_id: u64,
    event_id: String,
    event: &'static str,
    station_id: String,
    timestamp: String,
    /// Absent where the stored bytes are not JSON, which would be a fault of ours.
    payload: Option<Box<RawValue>>,
    reason: &'static str,
    failed_at: String,
    attempts: Vec<AttemptJson>,
    last_response: Option<String>,
}

fn payload(event: &Event) -> Option<Box<RawValue>> {
    serde_json::from_slice(event.payload.as_bytes()).ok()
}

impl From<FailedDelivery> for FailedJson {
    fn from(failed: FailedDelivery) -> Self {
        Self {
            id: failed.id.0,
            webhook_id: failed.webhook.0,
            event_id: failed.event.id.to_string(),
            event: failed.event.kind.name(),
            station_id: failed.event.station.to_string(),
            timestamp: time(failed.event.time),
            payload: payload(&failed.event),
            reason: failed.reason.code(),
            failed_at: time(failed.failed_at),
            attempts: attempts(failed.attempts),
            last_response: failed.last_response,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct EventJson {
    id: String,
    event: &'static str,
    station_id: String,
    timestamp: String,
    /// As in [`FailedJson`].
    payload: Option<Box<RawValue>>,
    synthetic: bool,
}

impl EventJson {
    pub(super) fn of(event: &Event) -> Self {
        Self {
            id: event.id.to_string(),
            event: event.kind.name(),
            station_id: event.station.to_string(),
            timestamp: time(event.time),
            payload: payload(event),
            synthetic: event.synthetic.is_some(),
        }
    }
}

/// A synthetic event, and the webhooks that it is on its way to.
#[derive(Debug, Serialize)]
pub(super) struct TriggeredJson {
    #[serde(flatten)]
    event: EventJson,
    webhook_ids: Vec<u64>,
}

impl From<Triggered> for TriggeredJson {
    fn from(triggered: Triggered) -> Self {
        Self {
            event: EventJson::of(&triggered.event),
            webhook_ids: triggered.webhooks.iter().map(|id| id.0).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct EventTypeJson {
    name: &'static str,
    direction: &'static str,
    profile: &'static str,
    group: &'static str,
}

impl From<EventType> for EventTypeJson {
    fn from(kind: EventType) -> Self {
        Self {
            name: kind.name(),
            direction: kind.direction().name(),
            profile: kind.profile().name(),
            group: kind.group().name(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct StationJson {
    id: String,
    connected: bool,
    connected_since: Option<String>,
    protocol: Option<Box<str>>,
    last_seen_at: Option<String>,
    vendor: Option<String>,
    model: Option<String>,
    serial_number: Option<String>,
    firmware_version: Option<String>,
    last_boot_at: Option<String>,
    boot_status: Option<&'static str>,
    registration: Option<RegistrationJson>,
    connectors: Vec<ConnectorJson>,
    open_transactions: Vec<OpenTransactionJson>,
}

/// Without the password, of which nobody learns more than that there is one.
#[derive(Debug, Serialize)]
struct RegistrationJson {
    security_profile: Option<u8>,
    has_password: bool,
    boot_policy: &'static str,
    created_at: String,
    updated_at: String,
}

impl From<&Registration> for RegistrationJson {
    fn from(registration: &Registration) -> Self {
        Self {
            security_profile: registration.profile.map(SecurityProfile::number),
            has_password: registration.password.is_some(),
            boot_policy: registration.boot_policy.name(),
            created_at: time(registration.created_at),
            updated_at: time(registration.updated_at),
        }
    }
}

#[derive(Debug, Serialize)]
struct ConnectorJson {
    connector_id: u32,
    status: String,
    error_code: String,
    updated_at: String,
}

#[derive(Debug, Serialize)]
struct OpenTransactionJson {
    transaction_id: i64,
    connector_id: Option<u32>,
    id_tag: String,
    meter_start: Option<i64>,
    started_at: Option<String>,
}

impl From<Listed> for StationJson {
    fn from(listed: Listed) -> Self {
        let registration = listed.registration.as_deref().map(RegistrationJson::from);
        let StationView {
            state,
            connected_since,
            protocol,
        } = listed.view;
        let connectors = state
            .connectors
            .into_iter()
            .map(|(connector_id, connector)| ConnectorJson {
                connector_id,
                status: connector.status,
                error_code: connector.error_code,
                updated_at: time(connector.updated_at),
            });
        let transactions = state
            .open_transactions
            .into_iter()
            .map(|open| OpenTransactionJson {
                transaction_id: open.transaction_id,
                connector_id: open.connector_id,
                id_tag: open.id_tag,
                meter_start: open.meter_start,
                started_at: open.started_at.map(time),
            });
        Self {
            id: state.id.to_string(),
            connected: connected_since.is_some(),
            connected_since: connected_since.map(time),
            protocol,
            last_seen_at: state.last_seen_at.map(time),
            vendor: state.vendor,
            model: state.model,
            serial_number: state.serial_number,
            firmware_version: state.firmware_version,
            last_boot_at: state.last_boot_at.map(time),
            boot_status: state.boot_status.map(BootStatus::name),
            registration,
            connectors: connectors.collect(),
            open_transactions: transactions.collect(),
        }
    }
}

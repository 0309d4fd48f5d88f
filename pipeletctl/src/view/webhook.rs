//! Webhooks, their deliveries, and how a test went.

use jiff::Timestamp;
use pipelet_proto::v1;
use serde::Serialize;

use super::{or_dash, time::Time, yes_no};
use crate::{
    output::{Describe, Row},
    table::{self, Details, printable},
};

#[derive(Debug, Serialize)]
pub(crate) struct Webhook {
    pub(crate) id: u64,
    name: String,
    url: String,
    enabled: bool,
    events: Vec<String>,
    station_ids: Vec<String>,
    secret_header: Option<String>,
    has_secret: bool,
    has_signing_secret: bool,
    retiring_signing_secrets: Vec<Time>,
    created_at: Option<Time>,
    updated_at: Option<Time>,
    stats: Stats,
}

#[derive(Debug, Default, Serialize)]
struct Stats {
    received: u64,
    delivered: u64,
    pending: u64,
    retrying: u64,
    dead: u64,
    purged: u64,
    cancelled: u64,
}

impl From<v1::Webhook> for Webhook {
    fn from(wire: v1::Webhook) -> Self {
        Self {
            id: wire.id,
            name: wire.name,
            url: wire.url,
            enabled: wire.enabled,
            events: wire.events,
            station_ids: wire.station_ids,
            secret_header: wire.secret_header,
            has_secret: wire.has_secret,
            has_signing_secret: wire.has_signing_secret,
            retiring_signing_secrets: wire
                .retiring_signing_secrets
                .into_iter()
                .filter_map(|until| Time::from_wire(Some(until)))
                .collect(),
            created_at: Time::from_wire(wire.created_at),
            updated_at: Time::from_wire(wire.updated_at),
            stats: wire.stats.map(Stats::from).unwrap_or_default(),
        }
    }
}

impl From<v1::WebhookStats> for Stats {
    fn from(wire: v1::WebhookStats) -> Self {
        Self {
            received: wire.received,
            delivered: wire.delivered,
            pending: wire.pending,
            retrying: wire.retrying,
            dead: wire.dead,
            purged: wire.purged,
            cancelled: wire.cancelled,
        }
    }
}

impl Row for Webhook {
    const HEADERS: &'static [&'static str] = &[
        "ID",
        "NAME",
        "ENABLED",
        "EVENTS",
        "DELIVERED",
        "PENDING",
        "DEAD",
        "URL",
    ];

    fn cells(&self) -> Vec<String> {
        let events = match self.events.as_slice() {
            [first, second, third, rest @ ..] if !rest.is_empty() => {
                format!("{first},{second},{third} +{}", rest.len())
            }
            few => few.join(","),
        };
        vec![
            self.id.to_string(),
            self.name.clone(),
            yes_no(self.enabled).to_owned(),
            events,
            self.stats.delivered.to_string(),
            self.stats.pending.to_string(),
            self.stats
                .dead
                .saturating_sub(self.stats.purged)
                .to_string(),
            self.url.clone(),
        ]
    }
}

/// A webhook with a signing secret that was made just now. Without `Debug`, so no log can have it.
#[derive(Serialize)]
pub(crate) struct WebhookAndSecret {
    #[serde(flatten)]
    webhook: Webhook,
    signing_secret: String,
}

impl WebhookAndSecret {
    pub(crate) fn new(webhook: v1::Webhook, signing_secret: String) -> Self {
        Self {
            webhook: webhook.into(),
            signing_secret,
        }
    }
}

impl Describe for WebhookAndSecret {
    fn describe(&self) -> Details {
        let details = self.webhook.describe();
        details.line("signing secret", &self.signing_secret)
    }
}

impl Webhook {
    fn signed(&self) -> String {
        match self.retiring_signing_secrets.first() {
            Some(until) => format!("yes, with the secret before until {until}, too"),
            None => yes_no(self.has_signing_secret).to_owned(),
        }
    }
}

impl Describe for Webhook {
    fn describe(&self) -> Details {
        let secret = match (&self.secret_header, self.has_secret) {
            (Some(header), true) => format!("sent as {header}"),
            (_, true) => "set".to_owned(),
            (_, false) => "none".to_owned(),
        };
        let stations = match self.station_ids.as_slice() {
            [] => "all".to_owned(),
            some => some.join(", "),
        };
        let stats = &self.stats;
        let dead = match stats.purged {
            0 => stats.dead.to_string(),
            purged => format!("{} ({purged} purged)", stats.dead),
        };
        Details::default()
            .line("id", self.id.to_string())
            .line("name", &self.name)
            .line("url", &self.url)
            .line("enabled", yes_no(self.enabled))
            .line("events", self.events.join(", "))
            .line("stations", stations)
            .line("secret", secret)
            .line("signed", self.signed())
            .line("created", or_dash(self.created_at))
            .line("updated", or_dash(self.updated_at))
            .line("received", stats.received.to_string())
            .line("delivered", stats.delivered.to_string())
            .line(
                "pending",
                format!(
                    "{} ({} to be retried or sent again)",
                    stats.pending, stats.retrying
                ),
            )
            .line("dead", dead)
            .line("cancelled", stats.cancelled.to_string())
    }
}

/// What the receiver made of a test.
#[derive(Debug, Serialize)]
pub(crate) struct TestOutcome {
    pub(crate) ok: bool,
    status_code: Option<u32>,
    duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<v1::TestWebhookResponse> for TestOutcome {
    fn from(wire: v1::TestWebhookResponse) -> Self {
        Self {
            ok: wire.ok,
            status_code: wire.status_code,
            duration_ms: wire.duration_ms,
            error: wire.error,
        }
    }
}

impl TestOutcome {
    pub(crate) fn sentence(&self) -> String {
        let verdict = if self.ok { "ok" } else { "failed" };
        let answered = || match self.status_code {
            Some(status) => format!("the receiver answered {status}"),
            None => "no answer".to_owned(),
        };
        let what = self.error.as_deref().map(printable);
        let what = what.unwrap_or_else(answered);
        format!("{verdict}: {what} after {} ms", self.duration_ms)
    }

    /// What to look at, given how the receiver refused.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self.status_code {
            Some(401 | 403) => Some(
                "compare the secret's header name and value, or the signing secret, with the \
                 receiver's; all are case-sensitive",
            ),
            Some(300..=399) => Some("redirects are not followed: give the webhook the final URL"),
            Some(404 | 405) => Some("check the path of the webhook's URL, and that it takes POST"),
            None if !self.ok => {
                Some("check that the URL's host and port can be reached from where the daemon runs")
            }
            Some(_) | None => None,
        }
    }
}

/// One POST.
#[derive(Debug, Serialize)]
pub(super) struct Attempt {
    number: u32,
    at: Option<Time>,
    status_code: Option<u32>,
    error: Option<String>,
    duration_ms: u64,
    /// In microseconds, as what follows: what of that went where.
    lookup_us: Option<u64>,
    connect_us: Option<u64>,
    tls_us: Option<u64>,
    first_byte_us: Option<u64>,
}

impl Attempt {
    pub(super) fn all_from_wire(wire: Vec<v1::Attempt>) -> Vec<Self> {
        wire.into_iter().map(Self::from).collect()
    }

    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    pub(super) const fn duration_ms(&self) -> u64 {
        self.duration_ms
    }

    /// From its beginning to its end.
    pub(super) fn span(&self) -> Option<(Timestamp, Timestamp)> {
        let at = self.at?.moment();
        Some((at, at + std::time::Duration::from_millis(self.duration_ms)))
    }

    /// The status or the error, in a few words.
    pub(super) fn outcome(&self) -> String {
        match (self.status_code, &self.error) {
            (Some(status), _) => status.to_string(),
            (None, Some(error)) => error.clone(),
            (None, None) => "-".to_owned(),
        }
    }

    /// Where its time went; nothing where that is not known.
    pub(super) fn parts(&self) -> Option<String> {
        let parts = [
            ("DNS", self.lookup_us),
            ("connect", self.connect_us),
            ("TLS", self.tls_us),
            ("first byte", self.first_byte_us),
        ];
        let told = parts.iter().filter_map(|(name, time)| {
            #[expect(clippy::cast_precision_loss, reason = "it is for people")]
            let millis = (*time)? as f64 / 1000.0;
            Some(format!("{name} {millis:.1} ms"))
        });
        let told = told.collect::<Vec<_>>().join(", ");
        let kept = self.connect_us.is_none() && self.first_byte_us.is_some();
        match (told.is_empty(), kept) {
            (true, _) => None,
            (false, true) => Some(format!("kept connection, {told}")),
            (false, false) => Some(told),
        }
    }

    pub(super) fn table(attempts: &[Self]) -> String {
        if attempts.is_empty() {
            return String::new();
        }
        let rows: Vec<Vec<String>> = attempts
            .iter()
            .map(|attempt| {
                vec![
                    attempt.number.to_string(),
                    or_dash(attempt.at),
                    or_dash(attempt.status_code),
                    format!("{} ms", attempt.duration_ms),
                    or_dash(attempt.error.as_ref()),
                ]
            })
            .collect();
        table::columns(&["NO", "AT", "STATUS", "DURATION", "ERROR"], &rows)
    }
}

impl From<v1::Attempt> for Attempt {
    fn from(wire: v1::Attempt) -> Self {
        Self {
            number: wire.number,
            at: Time::from_wire(wire.at),
            status_code: wire.status_code,
            error: wire.error,
            duration_ms: wire.duration_ms,
            lookup_us: wire.lookup_us,
            connect_us: wire.connect_us,
            tls_us: wire.tls_us,
            first_byte_us: wire.first_byte_us,
        }
    }
}

/// One event owed to one webhook.
#[derive(Debug, Serialize)]
pub(crate) struct Delivery {
    event_id: String,
    event: String,
    station_id: String,
    timestamp: Option<Time>,
    status: String,
    next_attempt_at: Option<Time>,
    attempts: Vec<Attempt>,
}

impl From<v1::Delivery> for Delivery {
    fn from(wire: v1::Delivery) -> Self {
        Self {
            event_id: wire.event_id,
            event: wire.event,
            station_id: wire.station_id,
            timestamp: Time::from_wire(wire.timestamp),
            status: wire.status,
            next_attempt_at: Time::from_wire(wire.next_attempt_at),
            attempts: Attempt::all_from_wire(wire.attempts),
        }
    }
}

impl Row for Delivery {
    const HEADERS: &'static [&'static str] = &[
        "EVENT ID", "EVENT", "STATION", "TIME", "STATUS", "ATTEMPTS", "LAST", "NEXT",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.event_id.clone(),
            self.event.clone(),
            self.station_id.clone(),
            or_dash(self.timestamp),
            self.status.clone(),
            self.attempts.len().to_string(),
            or_dash(self.attempts.last().map(Attempt::outcome)),
            or_dash(self.next_attempt_at),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn webhook() -> Webhook {
        v1::Webhook {
            has_signing_secret: false,
            retiring_signing_secrets: Vec::new(),
            id: 7,
            name: "Billing".into(),
            url: "https://example.com/hook".into(),
            enabled: true,
            events: ["A", "B", "C", "D", "E"].map(str::to_owned).into(),
            station_ids: vec!["WALLBOX_*".to_owned()],
            secret_header: Some("X-Secret".into()),
            has_secret: true,
            created_at: Some(prost_types::Timestamp {
                seconds: 1_776_170_096,
                nanos: 0,
            }),
            updated_at: None,
            stats: Some(v1::WebhookStats {
                received: 5,
                delivered: 2,
                pending: 1,
                retrying: 1,
                dead: 1,
                cancelled: 1,
                purged: 0,
            }),
        }
        .into()
    }

    #[test]
    fn a_webhook_has_the_keys_of_rest() {
        assert_eq!(
            serde_json::to_value(webhook()).unwrap(),
            json!({
                "id": 7,
                "name": "Billing",
                "url": "https://example.com/hook",
                "enabled": true,
                "events": ["A", "B", "C", "D", "E"],
                "station_ids": ["WALLBOX_*"],
                "secret_header": "X-Secret",
                "has_secret": true,
                "has_signing_secret": false,
                "retiring_signing_secrets": [],
                "created_at": "2026-04-14T12:34:56.000Z",
                "updated_at": null,
                "stats": {
                    "received": 5,
                    "delivered": 2,
                    "pending": 1,
                    "retrying": 1,
                    "dead": 1,
                    "purged": 0,
                    "cancelled": 1,
                },
            })
        );
    }

    #[test]
    fn a_row_shortens_the_events() {
        assert_eq!(webhook().cells()[3], "A,B,C +2");
        assert_eq!(webhook().cells().len(), Webhook::HEADERS.len());
    }

    #[test]
    fn a_test_is_told_as_in_the_contract() {
        let good = TestOutcome::from(v1::TestWebhookResponse {
            ok: true,
            status_code: Some(200),
            duration_ms: 124,
            error: None,
        });
        assert_eq!(
            serde_json::to_string(&good).unwrap(),
            r#"{"ok":true,"status_code":200,"duration_ms":124}"#
        );
        assert_eq!(
            good.sentence(),
            "ok: the receiver answered 200 after 124 ms"
        );
        assert_eq!(good.hint(), None);

        let bad = TestOutcome::from(v1::TestWebhookResponse {
            ok: false,
            status_code: None,
            duration_ms: 3,
            error: Some("connection refused".into()),
        });
        assert_eq!(
            serde_json::to_string(&bad).unwrap(),
            r#"{"ok":false,"status_code":null,"duration_ms":3,"error":"connection refused"}"#
        );
        assert_eq!(bad.sentence(), "failed: connection refused after 3 ms");
    }
}

//! Dead letters.

use pipelet_proto::v1;
use serde::Serialize;

use super::{or_dash, payload::Payload, time::Time, webhook::Attempt};
use crate::{
    output::{Describe, Row},
    table::{Details, printable},
};

#[derive(Debug, Serialize)]
pub(crate) struct FailedDelivery {
    id: u64,
    webhook_id: u64,
    event_id: String,
    event: String,
    station_id: String,
    timestamp: Option<Time>,
    payload: Payload,
    reason: String,
    failed_at: Option<Time>,
    attempts: Vec<Attempt>,
    last_response: Option<String>,
}

impl From<v1::FailedDelivery> for FailedDelivery {
    fn from(wire: v1::FailedDelivery) -> Self {
        Self {
            id: wire.id,
            webhook_id: wire.webhook_id,
            event_id: wire.event_id,
            event: wire.event,
            station_id: wire.station_id,
            timestamp: Time::from_wire(wire.timestamp),
            payload: Payload::from_wire(wire.payload),
            reason: wire.reason,
            failed_at: Time::from_wire(wire.failed_at),
            attempts: Attempt::all_from_wire(wire.attempts),
            last_response: wire.last_response,
        }
    }
}

impl Row for FailedDelivery {
    const HEADERS: &'static [&'static str] = &[
        "ID",
        "WEBHOOK",
        "EVENT",
        "STATION",
        "TIME",
        "FAILED AT",
        "ATTEMPTS",
        "LAST",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.webhook_id.to_string(),
            self.event.clone(),
            self.station_id.clone(),
            or_dash(self.timestamp),
            or_dash(self.failed_at),
            self.attempts.len().to_string(),
            or_dash(self.attempts.last().map(Attempt::outcome)),
        ]
    }
}

impl Describe for FailedDelivery {
    fn describe(&self) -> Details {
        let last_response = self.last_response.as_deref().unwrap_or_default();
        Details::default()
            .line("id", self.id.to_string())
            .line("webhook", self.webhook_id.to_string())
            .line("event", &self.event)
            .line("event id", &self.event_id)
            .line("station", &self.station_id)
            .line("time", or_dash(self.timestamp))
            .line("reason", self.reason.replace('_', " "))
            .line("failed at", or_dash(self.failed_at))
            .section("attempts", Attempt::table(&self.attempts))
            .section("payload", self.payload.indented())
            .section(
                "last response",
                last_response
                    .lines()
                    .map(printable)
                    .collect::<Vec<_>>()
                    .join("\n"),
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> FailedDelivery {
        let at = Some(prost_types::Timestamp {
            seconds: 1_776_170_096,
            nanos: 789_000_000,
        });
        v1::FailedDelivery {
            id: 3,
            webhook_id: 7,
            event_id: "e".into(),
            event: "Heartbeat".into(),
            station_id: "S".into(),
            timestamp: at,
            payload: "{\"b\": 1.50}".into(),
            reason: "attempts_exhausted".into(),
            failed_at: at,
            attempts: vec![v1::Attempt {
                number: 1,
                at,
                status_code: Some(500),
                error: None,
                duration_ms: 12,
                first_byte_us: Some(900),
                ..v1::Attempt::default()
            }],
            last_response: Some("oops\u{7}".into()),
        }
        .into()
    }

    #[test]
    fn json_has_the_keys_of_rest_and_the_payload_as_it_came() {
        assert_eq!(
            serde_json::to_string(&failed()).unwrap(),
            concat!(
                r#"{"id":3,"webhook_id":7,"event_id":"e","event":"Heartbeat","station_id":"S","#,
                r#""timestamp":"2026-04-14T12:34:56.789Z","payload":{"b": 1.50},"#,
                r#""reason":"attempts_exhausted","failed_at":"2026-04-14T12:34:56.789Z","#,
                r#""attempts":[{"number":1,"at":"2026-04-14T12:34:56.789Z","status_code":500,"#,
                r#""error":null,"duration_ms":12,"lookup_us":null,"connect_us":null,"#,
                r#""tls_us":null,"first_byte_us":900}],"last_response":"oops\u0007"}"#,
            )
        );
    }

    #[test]
    fn people_see_what_happened() {
        assert_eq!(failed().cells().len(), FailedDelivery::HEADERS.len());
        let text = failed().describe().draw();
        for part in [
            "reason     attempts exhausted",
            "attempts:\n  NO  AT                    STATUS  DURATION  ERROR\n",
            "payload:\n  {\n    \"b\": 1.5\n  }",
            "last response:\n  oops\\u{7}",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}

//! Dead letters.

use pipelet_proto::v1::FailedDelivery;

use super::{
    attempt::{outcome, table},
    payload::indented,
    time::shown,
};
use crate::{
    output::{Describe, Row},
    table::{Details, printable},
    words::or_dash,
};

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
    const OPTIONAL: &'static [&'static str] = &["ATTEMPTS", "TIME", "FAILED AT"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.webhook_id.to_string(),
            self.event.clone(),
            self.station_id.clone(),
            shown(self.timestamp),
            shown(self.failed_at),
            self.attempts.len().to_string(),
            or_dash(self.attempts.last().map(outcome)),
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
            .line("time", shown(self.timestamp))
            .line("reason", self.reason.replace('_', " "))
            .line("failed at", shown(self.failed_at))
            .section("attempts", table(&self.attempts))
            .section("payload", indented(&self.payload))
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
    use pipelet_proto::v1::Attempt;

    use super::*;

    fn failed() -> FailedDelivery {
        let at = Some(prost_types::Timestamp {
            seconds: 1_776_170_096,
            nanos: 789_000_000,
        });
        FailedDelivery {
            id: 3,
            webhook_id: 7,
            event_id: "e".into(),
            event: "Heartbeat".into(),
            station_id: "S".into(),
            timestamp: at,
            payload: "{\"b\": 1.50}".into(),
            reason: "attempts_exhausted".into(),
            failed_at: at,
            attempts: vec![Attempt {
                number: 1,
                at,
                status_code: Some(500),
                error: None,
                duration_ms: 12,
                first_byte_us: Some(900),
                ..Attempt::default()
            }],
            last_response: Some("oops\u{7}".into()),
        }
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
                r#""error":null,"code":null,"duration_ms":12,"lookup_us":null,"connect_us":null,"#,
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
            "attempts:\n  NO  AT                    STATUS  DURATION  CODE  ERROR\n",
            "payload:\n  {\n    \"b\": 1.5\n  }",
            "last response:\n  oops\\u{7}",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}

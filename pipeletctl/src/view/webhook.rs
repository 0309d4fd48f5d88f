//! Webhooks, their deliveries, and how a test went.

use pipelet_proto::v1::{
    CreateWebhookResponse, Delivery, TestWebhookResponse, Webhook, WebhookHealth,
};

use super::{
    attempt::outcome,
    time::{Time, shown},
};
use crate::{
    cli::settings,
    output::{Describe, Row},
    table::{Details, printable},
    words::{or_dash, yes_no},
};

/// `failing`, and so on.
pub(super) fn state(health: Option<&WebhookHealth>) -> String {
    or_dash(health.map(|health| &health.state))
}

impl Row for Webhook {
    const HEADERS: &'static [&'static str] = &[
        "ID",
        "NAME",
        "STATE",
        "SINCE",
        "LAST FAILURE",
        "EVENTS",
        "DELIVERED",
        "PENDING",
        "DEAD",
        "URL",
    ];
    const OPTIONAL: &'static [&'static str] = &[
        "EVENTS",
        "LAST FAILURE",
        "DELIVERED",
        "URL",
        "SINCE",
        "DEAD",
    ];

    fn cells(&self) -> Vec<String> {
        let stats = self.stats.unwrap_or_default();
        let health = self.health.as_ref();
        let events = match self.events.as_slice() {
            [first, second, third, rest @ ..] if !rest.is_empty() => {
                format!("{first},{second},{third} +{}", rest.len())
            }
            few => few.join(","),
        };
        vec![
            self.id.to_string(),
            self.name.clone(),
            state(health),
            shown(health.and_then(|health| health.since)),
            or_dash(health.and_then(|health| health.last_failure_code.as_ref())),
            events,
            stats.delivered.to_string(),
            stats.pending.to_string(),
            stats.dead.saturating_sub(stats.purged).to_string(),
            self.url.clone(),
        ]
    }
}

/// A webhook with a signing secret that was made just now.
impl Describe for Webhook {
    fn describe(&self) -> Details {
        let stats = self.stats.unwrap_or_default();
        let dead = match stats.purged {
            0 => stats.dead.to_string(),
            purged => format!("{} ({purged} purged)", stats.dead),
        };
        let health = self.health.clone().unwrap_or_default();
        let since = match Time::from_wire(health.since) {
            Some(since) => format!("{}, since {since}", health.state),
            None => health.state,
        };
        let last_failure = match (
            Time::from_wire(health.last_failure_at),
            health.last_failure_code,
        ) {
            (Some(at), Some(code)) => Some(format!("{at}: {code}")),
            (at, _) => at.map(|at| at.to_string()),
        };
        settings(self)
            .line("signed", signed(self))
            .line("state", since)
            .line("last success", shown(health.last_success_at))
            .line("last failure", or_dash(last_failure))
            .line("oldest owed", shown(health.oldest_owed_at))
            .line("created", shown(self.created_at))
            .line("updated", shown(self.updated_at))
            .line("received", stats.received.to_string())
            .line("delivered", stats.delivered.to_string())
            .line(
                "pending",
                match stats.retrying {
                    0 => stats.pending.to_string(),
                    retrying => {
                        format!("{} ({retrying} to be retried or sent again)", stats.pending)
                    }
                },
            )
            .line("dead", dead)
            .line("cancelled", stats.cancelled.to_string())
    }
}

fn signed(webhook: &Webhook) -> String {
    match Time::from_wire(webhook.retiring_signing_secrets.first().copied()) {
        Some(until) => format!("yes, with the secret before until {until}, too"),
        None => yes_no(webhook.has_signing_secret).to_owned(),
    }
}

impl Describe for CreateWebhookResponse {
    fn describe(&self) -> Details {
        let details = self.webhook.as_ref().map(Describe::describe);
        let details = details.unwrap_or_default();
        match &self.signing_secret {
            Some(secret) => details.line("signing secret", secret),
            None => details,
        }
    }
}

/// What the receiver made of a test.
pub(crate) fn tested(result: &TestWebhookResponse) -> String {
    let answered = || match result.status_code {
        Some(status) => format!("the receiver answered {status}"),
        None => "no answer".to_owned(),
    };
    let what = result.error.as_deref().map(printable);
    let what = what.unwrap_or_else(answered);
    let millis = result.duration_ms;
    match &result.code {
        _ if result.ok => format!("ok: {what} after {millis} ms"),
        Some(code) => format!("failed after {millis} ms: {what} [{code}]"),
        None => format!("failed after {millis} ms: {what}"),
    }
}

impl Row for Delivery {
    const HEADERS: &'static [&'static str] = &[
        "EVENT ID", "EVENT", "STATION", "TIME", "STATUS", "ATTEMPTS", "LAST", "NEXT",
    ];
    const OPTIONAL: &'static [&'static str] = &["ATTEMPTS", "TIME", "STATION", "NEXT"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.event_id.clone(),
            self.event.clone(),
            self.station_id.clone(),
            shown(self.timestamp),
            self.status.clone(),
            self.attempts.len().to_string(),
            or_dash(self.attempts.last().map(outcome)),
            shown(self.next_attempt_at),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook() -> Webhook {
        Webhook {
            events: ["A", "B", "C", "D", "E"].map(str::to_owned).into(),
            ..Webhook::default()
        }
    }

    #[test]
    fn a_row_shortens_the_events() {
        assert_eq!(webhook().cells()[5], "A,B,C +2");
        assert_eq!(webhook().cells().len(), Webhook::HEADERS.len());
    }

    #[test]
    fn a_test_is_told_as_in_the_contract() {
        let good = TestWebhookResponse {
            ok: true,
            status_code: Some(200),
            duration_ms: 124,
            error: None,
            code: None,
        };
        assert_eq!(
            serde_json::to_string(&good).unwrap(),
            r#"{"ok":true,"status_code":200,"duration_ms":124}"#
        );
        assert_eq!(tested(&good), "ok: the receiver answered 200 after 124 ms");

        let bad = TestWebhookResponse {
            ok: false,
            status_code: None,
            duration_ms: 3,
            error: Some("connection refused".into()),
            code: Some("connection_refused".into()),
        };
        assert_eq!(
            serde_json::to_string(&bad).unwrap(),
            r#"{"ok":false,"status_code":null,"duration_ms":3,"error":"connection refused","code":"connection_refused"}"#
        );
        assert_eq!(
            tested(&bad),
            "failed after 3 ms: connection refused [connection_refused]"
        );
    }
}

//! Deliveries of any webhook, whatever became of them.

use jiff::Timestamp;
use pipelet_proto::v1;
use serde::Serialize;

use super::{attempt::outcome, time::Time};
use crate::{output::Row, words::or_dash};

#[derive(Debug, Serialize)]
pub(crate) struct ListedDelivery {
    webhook_id: u64,
    event_id: String,
    event: String,
    station_id: String,
    timestamp: Option<Time>,
    /// As the daemon says it: "pending", "delivered" or "dead".
    status: String,
    next_attempt_at: Option<Time>,
    /// For `dlq show`, where it is a dead letter.
    failed_delivery_id: Option<u64>,
    attempts: Vec<v1::Attempt>,
}

impl ListedDelivery {
    pub(crate) fn of_webhook(webhook_id: u64, wire: v1::Delivery) -> Self {
        Self {
            webhook_id,
            event_id: wire.event_id,
            event: wire.event,
            station_id: wire.station_id,
            timestamp: Time::from_wire(wire.timestamp),
            status: wire.status,
            next_attempt_at: Time::from_wire(wire.next_attempt_at),
            failed_delivery_id: None,
            attempts: wire.attempts,
        }
    }

    pub(crate) fn is_of(&self, event: Option<&str>, station: Option<&str>) -> bool {
        event.is_none_or(|event| event == self.event)
            && station.is_none_or(|station| station == self.station_id)
    }

    /// Whether its event's time is from `since`, included, until `until`, excluded.
    pub(crate) fn is_within(&self, since: Option<Timestamp>, until: Option<Timestamp>) -> bool {
        let Some(time) = self.timestamp.map(Time::moment) else {
            return since.is_none() && until.is_none();
        };
        since.is_none_or(|since| since <= time) && until.is_none_or(|until| time < until)
    }
}

impl From<v1::FailedDelivery> for ListedDelivery {
    fn from(wire: v1::FailedDelivery) -> Self {
        Self {
            webhook_id: wire.webhook_id,
            event_id: wire.event_id,
            event: wire.event,
            station_id: wire.station_id,
            timestamp: Time::from_wire(wire.timestamp),
            status: "dead".to_owned(),
            next_attempt_at: None,
            failed_delivery_id: Some(wire.id),
            attempts: wire.attempts,
        }
    }
}

impl Row for ListedDelivery {
    const HEADERS: &'static [&'static str] = &[
        "WEBHOOK", "EVENT ID", "EVENT", "STATION", "TIME", "STATUS", "ATTEMPTS", "LAST", "NEXT",
    ];
    const OPTIONAL: &'static [&'static str] = &["ATTEMPTS", "TIME", "STATION", "NEXT"];

    fn cells(&self) -> Vec<String> {
        let dead_letter = self
            .failed_delivery_id
            .map(|id| format!("dead letter {id}"));
        vec![
            self.webhook_id.to_string(),
            self.event_id.clone(),
            self.event.clone(),
            self.station_id.clone(),
            or_dash(self.timestamp),
            dead_letter.unwrap_or_else(|| self.status.clone()),
            self.attempts.len().to_string(),
            or_dash(self.attempts.last().map(outcome)),
            or_dash(self.next_attempt_at),
        ]
    }
}

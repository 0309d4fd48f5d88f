//! How a webhook fares, in figures.

use std::time::Duration;

use jiff::Timestamp;
use pipelet_proto::v1;
use serde::Serialize;

use super::{time::Time, webhook::state};
use crate::{
    output::Row,
    overview::{Lately, age, dead_letters, percent, short},
};

#[derive(Debug, Serialize)]
pub(crate) struct WebhookFigures {
    id: u64,
    name: String,
    enabled: bool,
    state: String,
    since: Option<Time>,
    last_success_at: Option<Time>,
    pending: u64,
    retrying: u64,
    dead: u64,
    backlog_age_seconds: Option<f64>,
    next_retry_at: Option<Time>,
    attempts: u64,
    success_rate: Option<f64>,
    latency_p50_ms: Option<f64>,
    latency_p99_ms: Option<f64>,
    #[serde(skip)]
    age: Option<Duration>,
    #[serde(skip)]
    lately: Lately,
}

impl WebhookFigures {
    pub(crate) fn new(webhook: &v1::WebhookOverview, lately: Lately, now: Timestamp) -> Self {
        let stats = webhook.stats.unwrap_or_default();
        let age = age(webhook, now);
        let of_health = |time: fn(&v1::WebhookHealth) -> Option<prost_types::Timestamp>| {
            Time::from_wire(webhook.health.as_ref().and_then(time))
        };
        let millis = |span: Duration| span.as_secs_f64() * 1000.0;
        Self {
            id: webhook.id,
            name: webhook.name.clone(),
            enabled: webhook.enabled,
            state: state(webhook.health.as_ref()),
            since: of_health(|health| health.since),
            last_success_at: of_health(|health| health.last_success_at),
            pending: stats.pending,
            retrying: stats.retrying,
            dead: dead_letters(&stats),
            backlog_age_seconds: age.map(|age| age.as_secs_f64()),
            next_retry_at: Time::from_wire(webhook.next_retry_at),
            attempts: lately.attempts,
            success_rate: lately.success,
            latency_p50_ms: lately.p50.map(millis),
            latency_p99_ms: lately.p99.map(millis),
            age,
            lately,
        }
    }
}

impl Row for WebhookFigures {
    const HEADERS: &'static [&'static str] = &[
        "ID", "NAME", "STATE", "PENDING", "AGE", "RETRY", "DEAD", "ATTEMPTS", "OK", "P50", "P99",
    ];
    const OPTIONAL: &'static [&'static str] = &["P50", "ATTEMPTS", "P99", "DEAD"];

    fn cells(&self) -> Vec<String> {
        let span = |span: Option<Duration>| span.map_or_else(|| "-".to_owned(), short);
        vec![
            self.id.to_string(),
            self.name.clone(),
            self.state.clone(),
            self.pending.to_string(),
            span(self.age),
            self.retrying.to_string(),
            self.dead.to_string(),
            self.attempts.to_string(),
            percent(self.success_rate),
            span(self.lately.p50),
            span(self.lately.p99),
        ]
    }
}

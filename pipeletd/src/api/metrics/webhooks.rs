//! What is told of webhooks and of what they are owed. Pure.

use std::time::Duration;

use jiff::Timestamp;
use prometheus::proto::MetricFamily;

use super::family::Family;
use crate::delivery::{Observation, Observations, stats::OutcomeClass};

pub(super) fn families(seen: &Observations, now: Timestamp) -> Vec<MetricFamily> {
    let mut families = books(seen);
    families.extend(counts(seen));
    families.extend(backlogs(seen, now));
    families.extend([
        Family::gauge(
            "pipelet_failed_deliveries",
            "Dead letters that are kept now, of deleted webhooks too.",
        )
        .of(seen.failed_deliveries),
        Family::counter(
            "pipelet_deliveries_cancelled_total",
            "Deliveries that were cancelled by deleting their webhook, since the start.",
        )
        .of(seen.cancelled),
        Family::histogram(
            "pipelet_ledger_commit_duration_seconds",
            "Until a batch of retries and dead letters was on disk.",
        )
        .of_latencies(&seen.ledger_commits),
    ]);
    families
}

fn books(seen: &Observations) -> Vec<MetricFamily> {
    let mut info = Family::gauge("pipelet_webhook_info", "1 for each webhook, with its name.");
    let mut enabled = Family::gauge("pipelet_webhook_enabled", "Whether it is attempted.");
    let mut books = Family::gauge(
        "pipelet_webhook_books",
        "All there ever was: received = delivered + pending + dead + cancelled.",
    );
    each(seen, |id, of| {
        let webhook = &of.stored.webhook;
        info.add(&[("webhook", id), ("name", &webhook.name)], true);
        enabled.add(&[("webhook", id)], webhook.enabled);
        for (entry, value) in [
            ("received", of.books.received),
            ("delivered", of.books.delivered),
            ("pending", of.books.pending),
            ("dead", of.books.dead),
            ("cancelled", of.books.cancelled),
        ] {
            books.add(&[("webhook", id), ("entry", entry)], value);
        }
    });
    vec![info.done(), enabled.done(), books.done()]
}

/// What counts up from the daemon's start.
fn counts(seen: &Observations) -> Vec<MetricFamily> {
    let mut received = Family::counter(
        "pipelet_webhook_received_total",
        "Events that it was owed, since the start.",
    );
    let mut delivered = Family::counter(
        "pipelet_webhook_delivered_total",
        "Deliveries that its receiver took, since the start.",
    );
    let mut retries = Family::counter(
        "pipelet_webhook_retries_total",
        "Attempts after the first one at a delivery, since the start.",
    );
    let mut dead = Family::counter(
        "pipelet_webhook_dead_total",
        "Deliveries that were dead-lettered, since the start.",
    );
    let mut attempts = Family::counter(
        "pipelet_webhook_attempts_total",
        "Attempts by how they ended, since the start.",
    );
    let mut took = Family::histogram(
        "pipelet_webhook_attempt_duration_seconds",
        "How long attempts took, from the lookup of the name to the answer's end.",
    );
    each(seen, |id, of| {
        let labels = &[("webhook", id)];
        received.add(labels, of.received);
        delivered.add(labels, of.stats.delivered());
        retries.add(labels, of.stats.repeated);
        dead.add(labels, of.stats.dead);
        for class in OutcomeClass::ALL {
            let labels = &[("webhook", id), ("outcome", class.name())];
            attempts.add(labels, of.stats.of(class));
        }
        took.add_latencies(labels, &of.stats.latencies);
    });
    let families = [received, delivered, retries, dead, attempts, took];
    families.map(Family::done).into()
}

fn backlogs(seen: &Observations, now: Timestamp) -> Vec<MetricFamily> {
    let mut retrying = Family::gauge(
        "pipelet_webhook_retrying",
        "Of what is pending, deliveries that wait for a retry.",
    );
    let mut in_flight = Family::gauge("pipelet_webhook_in_flight", "Attempts that run now.");
    let mut age = Family::gauge(
        "pipelet_webhook_backlog_age_seconds",
        "Age of the oldest event whose first attempt is still to be made or to end; 0 without one.",
    );
    each(seen, |id, of| {
        let labels = &[("webhook", id)];
        retrying.add(labels, of.books.retrying);
        in_flight.add(labels, of.stats.in_flight);
        age.add(labels, since(of.oldest, now).as_secs_f64());
    });
    [retrying, in_flight, age].map(Family::done).into()
}

fn since(time: Option<Timestamp>, now: Timestamp) -> Duration {
    // What a clock that was set back makes negative is no age.
    let age = time.map(|time| Duration::try_from(now.duration_since(time)));
    age.and_then(Result::ok).unwrap_or_default()
}

fn each(seen: &Observations, mut tell: impl FnMut(&str, &Observation)) {
    for observation in &seen.webhooks {
        let id = observation.stored.webhook.id.0.to_string();
        tell(&id, observation);
    }
}

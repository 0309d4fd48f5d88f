//! What is told of webhooks and of what they are owed. Pure.
//!
//! Everything is told of each webhook while there are not too many; of more than that, what an
//! alert goes by, and of that only what is there to be told. What is left out then is 0, or is in
//! the figures of all together, or is `pipeletctl webhooks stats`'.

use std::time::Duration;

use jiff::Timestamp;
use prometheus::proto::MetricFamily;

use super::family::Family;
use crate::delivery::{Observation, Observations, health::State, stats::OutcomeClass};

/// So many webhooks have all their figures told, which are about fifty series each.
const DETAILED: usize = 1_000;

pub(super) fn families(seen: &Observations, now: Timestamp) -> Vec<MetricFamily> {
    let mut families = if seen.webhooks.len() <= DETAILED {
        let mut families = books(seen);
        families.extend(counts(seen));
        families.extend(backlogs(seen, now));
        families
    } else {
        alerting(seen, now)
    };
    families.extend([
        Family::histogram(
            "pipelet_attempt_duration_seconds",
            "How long attempts took, those of all webhooks together.",
        )
        .of_latencies(&seen.attempts),
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
    let mut info = info_family();
    let mut enabled = Family::gauge("pipelet_webhook_enabled", "Whether it is attempted.");
    let mut books = books_family();
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
    let (mut dead, mut attempts) = (dead_family(), attempts_family());
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
    let (mut retrying, mut age) = (retrying_family(), age_family());
    let mut state = state_family();
    let mut owed = Family::gauge(
        "pipelet_webhook_oldest_owed_age_seconds",
        "Age of the oldest event that it is still owed, retries included; 0 without one.",
    );
    let mut in_flight = Family::gauge("pipelet_webhook_in_flight", "Attempts that run now.");
    let mut waits = Family::gauge(
        "pipelet_webhook_waits_for_socket",
        "1 while more attempts would run if other webhooks had fewer connections open.",
    );
    each(seen, |id, of| {
        let labels = &[("webhook", id)];
        retrying.add(labels, of.books.retrying);
        in_flight.add(labels, of.stats.in_flight);
        waits.add(labels, of.stats.lacks_sockets);
        let health = &of.health;
        age.add(labels, since(health.oldest_unattempted, now).as_secs_f64());
        owed.add(labels, since(health.oldest_owed, now).as_secs_f64());
        state.add(&[("webhook", id), ("state", health.state.name())], true);
    });
    let families = [retrying, in_flight, waits, age, owed, state];
    families.map(Family::done).into()
}

/// What the alert rules go by.
///
/// A counter that an alert watches is there from the start, so that its first step is seen: of the
/// attempts that is the delivered ones, in relation to which the others mean something.
fn alerting(seen: &Observations, now: Timestamp) -> Vec<MetricFamily> {
    let (mut info, mut books) = (info_family(), books_family());
    let (mut dead, mut attempts) = (dead_family(), attempts_family());
    let (mut retrying, mut age) = (retrying_family(), age_family());
    let mut state = state_family();
    each(seen, |id, of| {
        let labels = &[("webhook", id)];
        info.add(&[("webhook", id), ("name", &of.stored.webhook.name)], true);
        dead.add(labels, of.stats.dead);
        for class in OutcomeClass::ALL {
            let count = of.stats.of(class);
            if count > 0 || class == OutcomeClass::Delivered {
                attempts.add(&[("webhook", id), ("outcome", class.name())], count);
            }
        }
        if of.books.pending > 0 {
            books.add(&[("webhook", id), ("entry", "pending")], of.books.pending);
        }
        if of.books.retrying > 0 {
            retrying.add(labels, of.books.retrying);
        }
        if let Some(oldest) = of.health.oldest_unattempted {
            age.add(labels, since(Some(oldest), now).as_secs_f64());
        }
        if !matches!(of.health.state, State::Ok | State::Disabled) {
            state.add(&[("webhook", id), ("state", of.health.state.name())], true);
        }
    });
    let families = [info, books, dead, attempts, retrying, age, state];
    families.map(Family::done).into()
}

fn info_family() -> Family {
    Family::gauge("pipelet_webhook_info", "1 for each webhook, with its name.")
}

fn books_family() -> Family {
    Family::gauge(
        "pipelet_webhook_books",
        "All there ever was: received = delivered + pending + dead + cancelled.",
    )
}

fn dead_family() -> Family {
    Family::counter(
        "pipelet_webhook_dead_total",
        "Deliveries that were dead-lettered, since the start.",
    )
}

fn attempts_family() -> Family {
    Family::counter(
        "pipelet_webhook_attempts_total",
        "Attempts by how they ended, since the start.",
    )
}

fn retrying_family() -> Family {
    Family::gauge(
        "pipelet_webhook_retrying",
        "Of what is pending, deliveries that wait for a retry.",
    )
}

fn age_family() -> Family {
    Family::gauge(
        "pipelet_webhook_backlog_age_seconds",
        "Age of the oldest event whose first attempt is still to be made or to end; 0 without one.",
    )
}

fn state_family() -> Family {
    Family::gauge(
        "pipelet_webhook_state",
        "1 for the state that it is in: ok, failing, flapping, lagging or disabled.",
    )
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus::TextEncoder;

    use super::*;
    use crate::{
        delivery::{health::Health, stats::StatsSnapshot},
        system::latencies::LatencySnapshot,
    };
    use pipelet_domain::{
        deliveries::{DeliveryCounts, Stage, StoredWebhook},
        webhooks::{Field, TargetPolicy, WebhookDraft, WebhookId},
    };

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    /// As many webhooks, of which the last is behind and fails.
    fn text(webhooks: u64) -> String {
        let of = |id: u64| {
            let draft = WebhookDraft {
                name: Field::Value(format!("My Integration {id}")),
                url: Field::Value("https://my-app.example.com/webhooks/ocpp".to_owned()),
                events: Field::Value(vec!["*".to_owned()]),
                ..WebhookDraft::default()
            };
            let webhook = draft.create(&TargetPolicy::default()).unwrap();
            let webhook = webhook.into_webhook(WebhookId(id), NOW);
            let stored = StoredWebhook {
                webhook,
                stage: Stage::Active,
            };
            let is_last = u64::from(id == webhooks);
            let mut stats = StatsSnapshot::default();
            stats.count(OutcomeClass::Delivered, 1_234_567);
            stats.count(OutcomeClass::Failed, is_last * 7);
            stats.dead = is_last * 3;
            Observation {
                stored: Arc::new(stored),
                books: DeliveryCounts {
                    received: 1_234_567 + is_last * 12,
                    delivered: 1_234_567,
                    pending: is_last * 9,
                    retrying: is_last * 4,
                    dead: is_last * 3,
                    purged: 0,
                    cancelled: 0,
                },
                stats,
                received: 1_234_567,
                health: Health {
                    state: [State::Ok, State::Failing][usize::from(id == webhooks)],
                    oldest_unattempted: (is_last > 0).then(|| NOW - Duration::from_secs(61)),
                    ..Health::default()
                },
            }
        };
        let seen = Observations {
            webhooks: (1..=webhooks).map(of).collect(),
            failed_deliveries: 3,
            cancelled: 0,
            attempts: LatencySnapshot::default(),
            ledger_commits: LatencySnapshot::default(),
        };
        let mut families = families(&seen, NOW);
        families.retain(|family| !family.get_metric().is_empty());
        TextEncoder::new().encode_to_string(&families).unwrap()
    }

    #[test]
    fn what_alerts_go_by_is_told_of_any_number_of_webhooks() {
        for (webhooks, most) in [(1, 8_000), (1_000, 3_000_000), (10_000, 2_500_000)] {
            let text = text(webhooks);
            assert!(text.len() < most, "{webhooks}: {} bytes", text.len());
            for series in [
                "info{webhook=\"ID\",name=\"My Integration ID\"} 1\n",
                "dead_total{webhook=\"ID\"} 3\n",
                "attempts_total{webhook=\"ID\",outcome=\"delivered\"} 1234567\n",
                "attempts_total{webhook=\"ID\",outcome=\"status_5xx\"} 7\n",
                "books{webhook=\"ID\",entry=\"pending\"} 9\n",
                "retrying{webhook=\"ID\"} 4\n",
                "backlog_age_seconds{webhook=\"ID\"} 61\n",
                "state{webhook=\"ID\",state=\"failing\"} 1\n",
            ] {
                let series = format!(
                    "pipelet_webhook_{}",
                    series.replace("ID", &webhooks.to_string())
                );
                assert!(text.contains(&series), "{series} of {webhooks}");
            }
        }
        let text = text(10_000);
        let first = text.lines().filter(|line| line.contains("webhook=\"1\""));
        assert_eq!(
            first.count(),
            3,
            "its name, no dead letters, and what was delivered"
        );
    }
}

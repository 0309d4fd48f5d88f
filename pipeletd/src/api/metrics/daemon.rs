//! What is told of the daemon as a whole: its journal, its stations, its callers, its commands.

use std::ops::Range;

use pipelet_domain::events::EventType;
use prometheus::proto::MetricFamily;

use super::{Owner, Sources, family::Family};
use crate::{
    journal::Journals,
    ocpp::{CommandOutcome, Stations},
    system::{limits::memory::MemoryBudget, tls::Shown},
};

pub(super) fn families(sources: &Sources) -> Vec<MetricFamily> {
    let mut families = state(sources);
    families.extend(connections(sources));
    families.extend(memory(sources));
    families.extend(spans(sources));
    families.push(log(sources));
    families
}

/// What only owners of shards know.
pub(super) fn owners(owners: &[Owner], now: jiff::Timestamp) -> Vec<MetricFamily> {
    let mut families = journals(owners);
    families.extend(stations(owners, now));
    families.extend(commands(owners));
    families
}

/// Whether it can do its work, and what it is.
fn state(sources: &Sources) -> Vec<MetricFamily> {
    let mut build = Family::gauge("pipelet_build_info", "1, with the version that runs.");
    build.add(&[("version", env!("CARGO_PKG_VERSION"))], true);
    let mut expiry = Family::gauge(
        "pipelet_certificate_expiry_timestamp_seconds",
        "Until when the certificate is valid that is shown over TLS, by who sees it.",
    );
    for Shown { to, certificates } in &sources.certificates {
        if let Some(expires) = certificates.expires() {
            expiry.add(&[("shown_to", to)], seconds(expires));
        }
    }
    vec![
        build.done(),
        Family::gauge(
            "pipelet_ready",
            "Whether events can be taken, as in /readyz.",
        )
        .of(sources.readiness.reasons().is_empty()),
        expiry.done(),
    ]
}

fn journals(owners: &[Owner]) -> Vec<MetricFamily> {
    let journals = || owners.iter().map(|owner| &owner.journals);
    let mut outage = Family::gauge(
        "pipelet_store_outage",
        "Whether nothing can be written: no events, or no retries and dead letters.",
    );
    let of_journal = journals().any(|journal| journal.outage().is_some());
    let of_ledger = owners.iter().any(|it| it.delivery.outage().is_some());
    outage.add(&[("part", "journal")], of_journal);
    outage.add(&[("part", "ledger")], of_ledger);
    let mut events = Family::counter(
        "pipelet_events_total",
        "Events that were journaled, by type, since the start.",
    );
    let mut committed: Vec<(EventType, u64)> = EventType::ALL.iter().map(|it| (*it, 0)).collect();
    for of_shard in journals() {
        for (sum, (_, count)) in committed.iter_mut().zip(of_shard.committed()) {
            sum.1 += count;
        }
    }
    for (kind, count) in committed {
        events.add(&[("type", kind.name())], count);
    }
    let latencies = journals().map(Journals::commit_latencies);
    let latencies = latencies.reduce(|sum, of| sum.plus(&of));
    vec![
        outage.done(),
        events.done(),
        Family::histogram(
            "pipelet_journal_commit_duration_seconds",
            "Until a batch of events was on disk: written, flushed and synced.",
        )
        .of_latencies(&latencies.unwrap_or_default()),
        Family::gauge(
            "pipelet_journal_head_position",
            "Where the next event will stand.",
        )
        .of(journals().map(Journals::head).sum::<u64>()),
    ]
}

pub(super) fn journal_bounds(bounds: &[Range<u64>]) -> Vec<MetricFamily> {
    vec![
        Family::gauge(
            "pipelet_journal_oldest_position",
            "Where the oldest event stands that is kept.",
        )
        .of(bounds.iter().map(|bounds| bounds.start).sum::<u64>()),
    ]
}

fn connections(sources: &Sources) -> Vec<MetricFamily> {
    let mut callers = Family::gauge(
        "pipelet_api_connections",
        "Connections of API callers, handshakes included.",
    );
    for (api, connections) in &sources.callers {
        callers.add(&[("api", api)], connections.len());
    }
    let mut ended = Family::counter(
        "pipelet_station_connections_ended_total",
        "Connections of stations that have ended, by the reason in StationDisconnected, since the \
         start.",
    );
    for (reason, count) in sources.connections.ended() {
        ended.add(&[("reason", reason)], count);
    }
    let mut refused = Family::counter(
        "pipelet_handshakes_refused_total",
        "Handshakes of stations that were refused, by reason, since the start.",
    );
    for (reason, count) in sources.connections.refused() {
        refused.add(&[("reason", reason)], count);
    }
    vec![
        ended.done(),
        Family::gauge(
            "pipelet_unfinished_message_bytes",
            "Messages of stations whose end has not come.",
        )
        .of(sources.connections.unfinished_bytes()),
        Family::gauge(
            "pipelet_station_connections",
            "Stations that are connected to this daemon itself.",
        )
        .of(sources.connections.open()),
        refused.done(),
        callers.done(),
    ]
}

fn stations(owners: &[Owner], now: jiff::Timestamp) -> Vec<MetricFamily> {
    let sum = |of: &dyn Fn(&Stations) -> u64| -> u64 {
        owners.iter().map(|owner| of(&owner.stations)).sum()
    };
    vec![
        Family::gauge("pipelet_stations_connected", "Stations that are connected.")
            .of(sum(&|it| it.counts().connected as u64)),
        Family::gauge(
            "pipelet_stations_known",
            "Stations that are known, connected or not.",
        )
        .of(sum(&|it| it.counts().known as u64)),
        Family::gauge(
            "pipelet_stations_unstable",
            "Stations that can't settle: they boot or connect again and again.",
        )
        .of(sum(&|it| it.unstable(now, usize::MAX).len() as u64)),
        Family::counter(
            "pipelet_stations_forgotten_total",
            "Stations that were forgotten to make room for others, since the start.",
        )
        .of(sum(&Stations::forgotten)),
    ]
}

fn commands(owners: &[Owner]) -> Vec<MetricFamily> {
    let mut outcomes = Family::counter(
        "pipelet_commands_total",
        "Commands to stations by how they ended, since the start.",
    );
    let mut took = Family::histogram(
        "pipelet_command_duration_seconds",
        "From a command's call to the station's answer, its wait for others included.",
    );
    let mut all = owners.iter().map(|owner| owner.stations.commands());
    let mut sums = all.next().unwrap_or_default();
    for counts in all {
        for (sum, counts) in sums.iter_mut().zip(&counts) {
            sum.add(counts);
        }
    }
    for counts in sums {
        let action = counts.action.name();
        for outcome in CommandOutcome::ALL {
            let labels = &[("action", action), ("outcome", outcome.name())];
            outcomes.add(labels, counts.of(outcome));
        }
        // Twenty histograms of nothing help nobody.
        if counts.latencies.count() > 0 {
            took.add_latencies(&[("action", action)], &counts.latencies);
        }
    }
    vec![outcomes.done(), took.done()]
}

/// Of the memory budget, what is for what and how much of it is used.
fn memory(sources: &Sources) -> Vec<MetricFamily> {
    let mut budget = Family::gauge(
        "pipelet_memory_budget_bytes",
        "What events may take in memory, by what holds them.",
    );
    let mut used = Family::gauge(
        "pipelet_memory_used_bytes",
        "What events take in memory, by what holds them.",
    );
    let MemoryBudget {
        recent,
        incoming,
        deliveries,
        readers,
    } = &sources.memory;
    let owners = (sources.owners)();
    let recent_used = owners
        .iter()
        .map(|owner| owner.journals.recent_bytes())
        .sum();
    for (part, size, taken) in [
        ("recent", *recent, recent_used),
        ("incoming", incoming.size(), incoming.used()),
        ("deliveries", deliveries.size(), deliveries.used()),
        ("readers", readers.size(), readers.used()),
    ] {
        budget.add(&[("part", part)], size);
        used.add(&[("part", part)], taken);
    }
    vec![budget.done(), used.done()]
}

fn spans(sources: &Sources) -> Vec<MetricFamily> {
    let counts = sources.spans.counts();
    vec![
        Family::counter(
            "pipelet_spans_exported_total",
            "Spans that the OpenTelemetry collector took, since the start.",
        )
        .of(counts.exported),
        Family::counter(
            "pipelet_spans_dropped_total",
            "Spans that the OpenTelemetry collector did not take, or that came faster than that, \
             since the start.",
        )
        .of(counts.dropped),
    ]
}

fn log(sources: &Sources) -> MetricFamily {
    Family::counter(
        "pipelet_log_lines_dropped_total",
        "Lines of the log that were dropped because whoever reads it did not take them, since the \
         start.",
    )
    .of(sources.dropped_lines.count())
}

/// As Prometheus tells times.
pub(super) fn seconds(time: jiff::Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}

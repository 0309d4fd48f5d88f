//! What a fleet of simulated stations went through.

use std::{collections::BTreeMap, time::Duration};

use pipelet_simulator::{FleetStats, Quantiles};
use serde::Serialize;

use crate::{
    cli::{Scenario, Simulate},
    output::Describe,
    table::{self, Details},
};

#[derive(Debug, Serialize)]
pub(crate) struct Simulation {
    scenario: &'static str,
    speed: u32,
    duration_ms: u64,
    stations: u32,
    stations_connected: usize,
    connects: u64,
    failed_connects: u64,
    connections_lost: u64,
    calls: Calls,
    latency: Option<Latency>,
    /// The daemon's CALLs that the stations answered.
    commands_answered: u64,
    bytes_sent: u64,
    bytes_received: u64,
    /// Why the last connection failed that did.
    last_failure: Option<String>,
}

#[derive(Debug, Serialize)]
struct Calls {
    sent: u64,
    answered: u64,
    /// The connection ended before the answer.
    unanswered: u64,
    errors: BTreeMap<String, u64>,
    by_action: BTreeMap<&'static str, u64>,
}

/// In milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
#[expect(
    clippy::struct_field_names,
    reason = "programs see the unit in the name"
)]
struct Latency {
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Simulation {
    pub(crate) fn new(args: &Simulate, took: Duration, tally: &FleetStats) -> Self {
        let by_action = tally.by_action.iter();
        Self {
            scenario: match args.scenario {
                Scenario::Day => "day",
                Scenario::Storm => "storm",
                Scenario::Offline => "offline",
            },
            speed: args.speed.factor(),
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            stations: args.stations,
            stations_connected: tally.stations(),
            connects: tally.connects,
            failed_connects: tally.failed_connects,
            connections_lost: tally.connections_lost,
            calls: Calls {
                sent: tally.sent,
                answered: tally.answered,
                unanswered: tally.unanswered,
                errors: tally.errors_by_code.clone(),
                by_action: by_action
                    .map(|(action, count)| (action.as_str(), *count))
                    .collect(),
            },
            latency: tally.latency().map(Latency::from),
            commands_answered: tally.commands_answered,
            bytes_sent: tally.bytes_sent,
            bytes_received: tally.bytes_received,
            last_failure: tally.last_failure.clone(),
        }
    }
}

impl From<Quantiles> for Latency {
    fn from(quantiles: Quantiles) -> Self {
        Self {
            p50_ms: ms(quantiles.p50),
            p90_ms: ms(quantiles.p90),
            p99_ms: ms(quantiles.p99),
            max_ms: ms(quantiles.max),
        }
    }
}

/// To the hundredth.
fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}

impl Describe for Simulation {
    fn describe(&self) -> Details {
        let Calls {
            sent,
            answered,
            unanswered,
            errors,
            by_action,
        } = &self.calls;
        let latency = self.latency.map_or_else(
            || "-".to_owned(),
            |Latency {
                 p50_ms,
                 p90_ms,
                 p99_ms,
                 max_ms,
             }| {
                format!("p50 {p50_ms} ms, p90 {p90_ms} ms, p99 {p99_ms} ms, max {max_ms} ms")
            },
        );
        let refused: u64 = errors.values().sum();
        let codes: Vec<_> = errors
            .iter()
            .map(|(code, count)| vec![code.clone(), count.to_string()])
            .collect();
        let rows: Vec<_> = by_action
            .iter()
            .map(|(action, count)| vec![(*action).to_owned(), count.to_string()])
            .collect();
        let mut details = Details::default()
            .line(
                "stations",
                format!("{} of {} connected", self.stations_connected, self.stations),
            )
            .line(
                "time",
                format!(
                    "{}.{} s, {} of the stations'",
                    self.duration_ms / 1000,
                    self.duration_ms / 100 % 10,
                    hours(self.duration_ms, self.speed)
                ),
            )
            .line(
                "connections",
                format!(
                    "{} made, {} failed, {} lost",
                    self.connects, self.failed_connects, self.connections_lost
                ),
            )
            .line(
                "calls",
                format!(
                    "{sent} sent = {answered} answered + {refused} errors + {unanswered} unanswered"
                ),
            )
            .line("latency", latency)
            .line("commands", format!("{} answered", self.commands_answered))
            .line(
                "bytes",
                format!("{} sent, {} received", self.bytes_sent, self.bytes_received),
            );
        if let Some(why) = &self.last_failure {
            details = details.line("last failure", why.as_str());
        }
        if !codes.is_empty() {
            details = details.section("errors", table::section(&["CODE", "COUNT"], &codes, &[]));
        }
        if !rows.is_empty() {
            details = details.section("sent", table::section(&["ACTION", "COUNT"], &rows, &[]));
        }
        details
    }
}

/// The stations' own time.
fn hours(real_ms: u64, speed: u32) -> String {
    let minutes = real_ms * u64::from(speed) / 60_000;
    format!("{} h {:02} min", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(ms(Duration::from_micros(1_234)).to_string(), "1.23");
        assert_eq!(hours(60_000, 60), "1 h 00 min");
        assert_eq!(hours(90_500, 60), "1 h 30 min");
    }
}

//! What a fleet's stations sent, and how it was answered.
//!
//! Invariant: a CALL that left is answered, refused, unanswered, or still waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hdrhistogram::Histogram;

use super::charger::Action;

/// Something that happened at one station, to be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Observation {
    Connected,
    /// The connection was not made, and why.
    ConnectFailed(String),
    /// The connection ended without the station's own doing.
    ConnectionLost,
    Sent {
        action: Action,
        bytes: usize,
    },
    Answered {
        took: Duration,
    },
    Refused {
        code: String,
        took: Duration,
    },
    /// The connection ended before the answer came, or none came in time.
    Unanswered,
    /// A CALL of the central system's was answered.
    CommandAnswered {
        bytes: usize,
    },
    Received {
        bytes: usize,
    },
}

#[derive(Debug, Default)]
pub struct FleetStats {
    pub connects: u64,
    pub failed_connects: u64,
    pub connections_lost: u64,
    pub sent: u64,
    pub answered: u64,
    pub unanswered: u64,
    pub commands_answered: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub by_action: BTreeMap<Action, u64>,
    /// CALLERRORs, by their codes.
    pub errors_by_code: BTreeMap<String, u64>,
    /// Why the last connection failed that did.
    pub last_failure: Option<String>,
    latencies: Latencies,
    /// Stations that were connected at least once.
    connected_once: BTreeSet<usize>,
}

/// Microseconds, to within 1 %.
#[derive(Debug)]
struct Latencies(Histogram<u64>);

/// How long answers took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantiles {
    pub p50: Duration,
    pub p90: Duration,
    pub p99: Duration,
    pub max: Duration,
}

impl FleetStats {
    pub(super) fn record(&mut self, station: usize, observation: Observation) {
        match observation {
            Observation::Connected => {
                self.connects += 1;
                self.connected_once.insert(station);
            }
            Observation::ConnectFailed(why) => {
                self.failed_connects += 1;
                self.last_failure = Some(why);
            }
            Observation::ConnectionLost => self.connections_lost += 1,
            Observation::Sent { action, bytes } => {
                self.sent += 1;
                self.bytes_sent += bytes as u64;
                *self.by_action.entry(action).or_default() += 1;
            }
            Observation::Answered { took } => {
                self.answered += 1;
                self.latencies.record(took);
            }
            Observation::Refused { code, took } => {
                *self.errors_by_code.entry(code).or_default() += 1;
                self.latencies.record(took);
            }
            Observation::Unanswered => self.unanswered += 1,
            Observation::CommandAnswered { bytes } => {
                self.commands_answered += 1;
                self.bytes_sent += bytes as u64;
            }
            Observation::Received { bytes } => self.bytes_received += bytes as u64,
        }
    }

    /// Stations that were connected at least once.
    pub fn stations(&self) -> usize {
        self.connected_once.len()
    }

    pub fn errors(&self) -> u64 {
        self.errors_by_code.values().sum()
    }

    /// None where nothing was answered.
    pub fn latency(&self) -> Option<Quantiles> {
        self.latencies.quantiles()
    }
}

impl Latencies {
    fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // It grows with what is recorded, so no value is too large for it.
        let _ = self.0.record(micros);
    }

    fn quantiles(&self) -> Option<Quantiles> {
        let quantile = |share| Duration::from_micros(self.0.value_at_quantile(share));
        (!self.0.is_empty()).then(|| Quantiles {
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            max: quantile(1.0),
        })
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new(2).expect("two digits are allowed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_accounted_for() {
        let mut stats = FleetStats::default();
        assert_eq!(stats.latency(), None);
        let took = Duration::from_millis(1);
        let sent = |action| Observation::Sent { action, bytes: 10 };
        for (station, observation) in [
            (0, Observation::Connected),
            (1, Observation::ConnectFailed("refused".to_owned())),
            (1, Observation::Connected),
            (0, sent(Action::Heartbeat)),
            (1, sent(Action::Heartbeat)),
            (0, sent(Action::Authorize)),
            (0, Observation::Answered { took }),
            (
                1,
                Observation::Refused {
                    code: "InternalError".to_owned(),
                    took,
                },
            ),
            (0, Observation::Unanswered),
            (0, Observation::ConnectionLost),
            (0, Observation::Connected),
            (0, Observation::Received { bytes: 7 }),
            (0, Observation::CommandAnswered { bytes: 5 }),
        ] {
            stats.record(station, observation);
        }
        assert_eq!(
            stats.sent,
            stats.answered + stats.errors() + stats.unanswered
        );
        assert_eq!(
            (stats.stations(), stats.connects, stats.connections_lost),
            (2, 3, 1)
        );
        assert_eq!((stats.bytes_sent, stats.bytes_received), (35, 7));
        assert_eq!(stats.by_action[&Action::Heartbeat], 2);
        let max = stats
            .latency()
            .map(|latency| latency.max)
            .unwrap_or_default();
        assert!((took..took * 101 / 100).contains(&max), "{max:?}");
    }
}

//! What became of all that a fleet did.
//!
//! Invariant: a CALL that left is answered, refused, unanswered, or still waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hdrhistogram::Histogram;

use super::charger::Action;

/// Something that happened at one station.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    Connected,
    /// The connection was not made, and why.
    NotConnected(String),
    /// The connection ended without the station's own doing.
    Lost,
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
    /// An answer to a CALL of the central system's has left.
    Replied {
        bytes: usize,
    },
    Heard {
        bytes: usize,
    },
}

#[derive(Debug, Default)]
pub struct Tally {
    pub connects: u64,
    pub failed_connects: u64,
    pub lost: u64,
    pub sent: u64,
    pub answered: u64,
    pub unanswered: u64,
    pub replied: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub by_action: BTreeMap<Action, u64>,
    /// CALLERRORs, by their codes.
    pub refused: BTreeMap<String, u64>,
    /// Why the last connection failed that did.
    pub last_failure: Option<String>,
    latencies: Latencies,
    /// Stations that were connected at least once.
    seen: BTreeSet<usize>,
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

impl Tally {
    pub(super) fn count(&mut self, station: usize, fact: Fact) {
        match fact {
            Fact::Connected => {
                self.connects += 1;
                self.seen.insert(station);
            }
            Fact::NotConnected(why) => {
                self.failed_connects += 1;
                self.last_failure = Some(why);
            }
            Fact::Lost => self.lost += 1,
            Fact::Sent { action, bytes } => {
                self.sent += 1;
                self.bytes_sent += bytes as u64;
                *self.by_action.entry(action).or_default() += 1;
            }
            Fact::Answered { took } => {
                self.answered += 1;
                self.latencies.record(took);
            }
            Fact::Refused { code, took } => {
                *self.refused.entry(code).or_default() += 1;
                self.latencies.record(took);
            }
            Fact::Unanswered => self.unanswered += 1,
            Fact::Replied { bytes } => {
                self.replied += 1;
                self.bytes_sent += bytes as u64;
            }
            Fact::Heard { bytes } => self.bytes_received += bytes as u64,
        }
    }

    /// Stations that were connected at least once.
    pub fn stations(&self) -> usize {
        self.seen.len()
    }

    pub fn errors(&self) -> u64 {
        self.refused.values().sum()
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
        let mut tally = Tally::default();
        assert_eq!(tally.latency(), None);
        let took = Duration::from_millis(1);
        let sent = |action| Fact::Sent { action, bytes: 10 };
        for (station, fact) in [
            (0, Fact::Connected),
            (1, Fact::NotConnected("refused".to_owned())),
            (1, Fact::Connected),
            (0, sent(Action::Heartbeat)),
            (1, sent(Action::Heartbeat)),
            (0, sent(Action::Authorize)),
            (0, Fact::Answered { took }),
            (
                1,
                Fact::Refused {
                    code: "InternalError".to_owned(),
                    took,
                },
            ),
            (0, Fact::Unanswered),
            (0, Fact::Lost),
            (0, Fact::Connected),
            (0, Fact::Heard { bytes: 7 }),
            (0, Fact::Replied { bytes: 5 }),
        ] {
            tally.count(station, fact);
        }
        assert_eq!(
            tally.sent,
            tally.answered + tally.errors() + tally.unanswered
        );
        assert_eq!((tally.stations(), tally.connects, tally.lost), (2, 3, 1));
        assert_eq!((tally.bytes_sent, tally.bytes_received), (35, 7));
        assert_eq!(tally.by_action[&Action::Heartbeat], 2);
        let max = tally
            .latency()
            .map(|latency| latency.max)
            .unwrap_or_default();
        assert!((took..took * 101 / 100).contains(&max), "{max:?}");
    }
}

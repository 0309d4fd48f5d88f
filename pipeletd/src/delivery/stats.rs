//! What a webhook's attempts came to since the daemon started, for who wants to look.
//!
//! Counted once, where attempts are settled, with relaxed atomics, and a lock for what they say
//! together. It is a view and not the books, which survive a restart and are in `record`.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use jiff::Timestamp;

use super::{
    health::{Health, Outcomes, Owed},
    http::{AttemptError, Attempted},
    policy::Outcome,
};
use crate::system::latencies::{Latencies, LatencySnapshot};

/// How an attempt ended, as coarse as an operator's first question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeClass {
    Delivered,
    /// The receiver answered with a redirect, which is not followed.
    Redirected,
    /// It answered with a 4xx status.
    Refused,
    /// It answered with a 5xx status, or with one that is none.
    Failed,
    /// No whole answer within the time limit, or no connection.
    Timeout,
    Dns,
    /// The connection could not be made, or it broke off.
    Connection,
    Tls,
    /// The target policy doesn't allow the address.
    TargetRefused,
    /// What came was no HTTP.
    Protocol,
}

impl OutcomeClass {
    pub const ALL: [Self; 10] = [
        Self::Delivered,
        Self::Redirected,
        Self::Refused,
        Self::Failed,
        Self::Timeout,
        Self::Dns,
        Self::Connection,
        Self::Tls,
        Self::TargetRefused,
        Self::Protocol,
    ];

    /// For metrics and programs; these never change.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Redirected => "status_3xx",
            Self::Refused => "status_4xx",
            Self::Failed => "status_5xx",
            Self::Timeout => "timeout",
            Self::Dns => "dns",
            Self::Connection => "connection",
            Self::Tls => "tls",
            Self::TargetRefused => "private_target",
            Self::Protocol => "protocol",
        }
    }

    pub const fn of(outcome: &Outcome<AttemptError>) -> Self {
        match outcome {
            Outcome::Delivered { .. } => Self::Delivered,
            Outcome::Rejected { status, .. } => match status {
                300..=399 => Self::Redirected,
                400..=499 => Self::Refused,
                _ => Self::Failed,
            },
            Outcome::Failed { error, .. } => match error {
                AttemptError::Timeout { .. }
                | AttemptError::AnswerTimeout { .. }
                | AttemptError::ConnectTimeout { .. } => Self::Timeout,
                AttemptError::Dns => Self::Dns,
                AttemptError::TargetRefused(_) => Self::TargetRefused,
                AttemptError::Refused
                | AttemptError::Unreachable
                | AttemptError::BrokenOff
                | AttemptError::StreamRefused
                | AttemptError::StreamReset
                | AttemptError::Connect => Self::Connection,
                AttemptError::CertificateExpired(_)
                | AttemptError::CertificateNotYetValid(_)
                | AttemptError::CertificateUnknownIssuer
                | AttemptError::CertificateWrongName(_)
                | AttemptError::Tls(_) => Self::Tls,
                AttemptError::Protocol | AttemptError::Interim | AttemptError::Endless => {
                    Self::Protocol
                }
            },
        }
    }
}

/// The counts of one webhook.
#[derive(Debug, Default)]
pub struct Stats {
    outcomes: [AtomicU64; OutcomeClass::ALL.len()],
    latencies: Latencies,
    repeated: AtomicU64,
    dead: AtomicU64,
    in_flight: AtomicU64,
    /// In how many shards.
    lacking_sockets: AtomicU64,
    health: Mutex<Outcomes>,
}

/// The counts as they were at some time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatsSnapshot {
    outcomes: [u64; OutcomeClass::ALL.len()],
    /// Of all attempts, however they ended.
    pub latencies: LatencySnapshot,
    /// Attempts at deliveries of which one had failed before.
    pub repeated: u64,
    /// Deliveries that were given up.
    pub dead: u64,
    /// Attempts that run now.
    pub in_flight: u64,
    /// More attempts wait for sockets that other webhooks have.
    pub lacks_sockets: bool,
}

impl StatsSnapshot {
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for (count, more) in self.outcomes.iter_mut().zip(other.outcomes) {
            *count += more;
        }
        Self {
            outcomes: self.outcomes,
            latencies: self.latencies.plus(&other.latencies),
            repeated: self.repeated + other.repeated,
            dead: self.dead + other.dead,
            in_flight: self.in_flight + other.in_flight,
            lacks_sockets: self.lacks_sockets || other.lacks_sockets,
        }
    }
}

/// What one dispatcher has in flight.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct InFlight {
    pub(super) attempts: usize,
    pub(super) lacks_sockets: bool,
}

impl Stats {
    /// Counts an attempt that ended `now`, the `number`-th at its delivery.
    pub(super) fn attempted(&self, attempted: &Attempted, number: u32, now: Timestamp) {
        let class = OutcomeClass::of(&attempted.outcome);
        self.outcomes[class as usize].fetch_add(1, Ordering::Relaxed);
        self.latencies.record(attempted.duration);
        if number > 1 {
            self.repeated.fetch_add(1, Ordering::Relaxed);
        }
        self.outcomes().attempted(now, attempted.code());
    }

    pub(super) fn health(&self, enabled: bool, owed: Owed, now: Timestamp) -> Health {
        self.outcomes().health(enabled, owed, now)
    }

    fn outcomes(&self) -> MutexGuard<'_, Outcomes> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a delivery that gets no (further) attempt.
    pub(super) fn gave_up(&self) {
        self.dead.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn now_in_flight(&self, was: InFlight, is: InFlight) {
        let replace = |sum: &AtomicU64, was: u64, is: u64| {
            sum.fetch_add(is, Ordering::Relaxed);
            sum.fetch_sub(was, Ordering::Relaxed);
        };
        replace(&self.in_flight, was.attempts as u64, is.attempts as u64);
        let lacking = |it: InFlight| u64::from(it.lacks_sockets);
        replace(&self.lacking_sockets, lacking(was), lacking(is));
    }

    pub fn snapshot(&self) -> StatsSnapshot {
        let outcomes = self.outcomes.each_ref();
        StatsSnapshot {
            outcomes: outcomes.map(|count| count.load(Ordering::Relaxed)),
            latencies: self.latencies.snapshot(),
            repeated: self.repeated.load(Ordering::Relaxed),
            dead: self.dead.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            lacks_sockets: self.lacking_sockets.load(Ordering::Relaxed) > 0,
        }
    }
}

impl StatsSnapshot {
    pub const fn of(&self, class: OutcomeClass) -> u64 {
        self.outcomes[class as usize]
    }

    #[cfg(test)]
    pub fn count(&mut self, class: OutcomeClass, attempts: u64) {
        self.outcomes[class as usize] = attempts;
    }

    pub fn attempts(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    pub const fn delivered(&self) -> u64 {
        self.of(OutcomeClass::Delivered)
    }

    /// What came after an earlier snapshot of the same webhook; what runs is what runs now.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let count = |class: usize| self.outcomes[class].saturating_sub(earlier.outcomes[class]);
        Self {
            outcomes: std::array::from_fn(count),
            latencies: self.latencies.since(&earlier.latencies),
            repeated: self.repeated.saturating_sub(earlier.repeated),
            dead: self.dead.saturating_sub(earlier.dead),
            in_flight: self.in_flight,
            lacks_sockets: self.lacks_sockets,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use pipelet_domain::deliveries::Phases;

    fn attempted(outcome: Outcome<AttemptError>) -> Attempted {
        Attempted {
            outcome,
            duration: Duration::from_millis(3),
            phases: Phases::default(),
            answer: Bytes::new(),
        }
    }

    fn rejected(status: u16) -> Outcome<AttemptError> {
        Outcome::Rejected {
            status,
            retry_after: None,
        }
    }

    fn failed(error: AttemptError) -> Outcome<AttemptError> {
        let status = None;
        Outcome::Failed { status, error }
    }

    #[test]
    fn a_class_stands_at_its_own_place() {
        for (place, class) in OutcomeClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, place, "{}", class.name());
        }
    }

    #[test]
    fn outcomes_have_a_class() {
        let limit = Duration::from_secs(10);
        for (outcome, expected) in [
            (Outcome::Delivered { status: 204 }, "delivered"),
            (rejected(302), "status_3xx"),
            (rejected(401), "status_4xx"),
            (rejected(503), "status_5xx"),
            (rejected(999), "status_5xx"),
            (failed(AttemptError::AnswerTimeout { limit }), "timeout"),
            (failed(AttemptError::Dns), "dns"),
            (failed(AttemptError::StreamReset), "connection"),
            (failed(AttemptError::Tls("expired".to_owned())), "tls"),
            (failed(AttemptError::Protocol), "protocol"),
        ] {
            assert_eq!(OutcomeClass::of(&outcome).name(), expected, "{outcome:?}");
        }
    }

    #[test]
    fn attempts_are_counted() {
        let stats = Stats::default();
        stats.attempted(&attempted(rejected(500)), 1, Timestamp::UNIX_EPOCH);
        let earlier = stats.snapshot();
        let delivered = Outcome::Delivered { status: 200 };
        stats.attempted(&attempted(delivered), 2, Timestamp::UNIX_EPOCH);
        stats.attempted(&attempted(rejected(500)), 7, Timestamp::UNIX_EPOCH);
        stats.gave_up();
        let is = |attempts| InFlight {
            attempts,
            lacks_sockets: true,
        };
        stats.now_in_flight(InFlight::default(), is(3));
        stats.now_in_flight(is(3), is(4));
        let all = stats.snapshot();
        assert_eq!((all.attempts(), all.latencies.count()), (3, 3));
        let later = all.since(&earlier);
        assert_eq!((later.attempts(), later.delivered()), (2, 1));
        assert_eq!(later.of(OutcomeClass::Failed), 1);
        assert_eq!((later.repeated, later.dead, later.in_flight), (2, 1, 4));
        assert!(later.lacks_sockets);
    }
}

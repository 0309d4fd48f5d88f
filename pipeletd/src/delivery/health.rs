//! How a webhook is doing, judged by what came of its attempts.
//!
//! Pure: outcomes and times go in, a state comes out. It knows the attempts since the daemon's start.

use std::{borrow::Cow, collections::VecDeque};

use jiff::{SignedDuration, Timestamp};

/// Failures one after the other that are an outage, however fast they came.
const OUTAGE_FAILURES: u32 = 3;
/// And how long fewer of them have to last.
const OUTAGE_LASTS: SignedDuration = SignedDuration::from_secs(5);
/// So many outages within this time are flapping.
const FLAPS: usize = 3;
const FLAPPING_WITHIN: SignedDuration = SignedDuration::from_mins(15);
/// Of the latest 50 attempts, so many that failed, and so often that the outcome turned, are flapping,
/// too.
const LATEST: u64 = (1 << 50) - 1;
const MIXED_FAILURES: u32 = 5;
const MIXED_TURNS: u32 = 8;
/// A failure that no success has followed in this time is not one among many successes.
const FAILING_AFTER: SignedDuration = SignedDuration::from_secs(2);
/// Events may wait so long for their first attempt.
const LAGGING_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// How a webhook is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    #[default]
    Ok,
    /// Nothing is delivered any more.
    Failing,
    /// It fails and works by turns.
    Flapping,
    /// Its receiver takes everything, but more slowly than events come.
    Lagging,
    Disabled,
}

impl State {
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Ok,
            Self::Failing,
            Self::Flapping,
            Self::Lagging,
            Self::Disabled,
        ];
        all.into_iter().find(|state| state.name() == name)
    }

    /// These never change.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failing => "failing",
            Self::Flapping => "flapping",
            Self::Lagging => "lagging",
            Self::Disabled => "disabled",
        }
    }
}

/// A webhook's state, and what it rests on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    pub state: State,
    /// None where it began before the daemon's start, or nothing was attempted since.
    pub since: Option<Timestamp>,
    pub last_success: Option<Timestamp>,
    pub last_failure: Option<Failure>,
    /// When the oldest event happened that it is still owed, retries included.
    pub oldest_owed: Option<Timestamp>,
    /// The same of those that wait for their first attempt.
    pub oldest_unattempted: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub at: Timestamp,
    /// As in [`Attempt::code`](pipelet_domain::deliveries::Attempt).
    pub code: Cow<'static, str>,
}

impl Health {
    /// Of two who deliver to the same receiver.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let failure = |of: &Self| of.last_failure.as_ref().map(|failure| failure.at);
        let (first, second) = (failure(&self), failure(&other));
        let last_success = self.last_success.max(other.last_success);
        // One that has only not tried since it works again does not fail.
        let works = last_success > first.max(second);
        let state = |of: &Self| match of.state {
            State::Failing if works => State::Ok,
            state => state,
        };
        let worst = [
            State::Disabled,
            State::Flapping,
            State::Failing,
            State::Lagging,
        ];
        let is_in = |state: &State| self.state == *state || other.state == *state;
        let worst = worst
            .into_iter()
            .filter(|it| *it != State::Failing || !works);
        let together = worst.into_iter().find(is_in).unwrap_or(State::Ok);
        let begun = [&self, &other].into_iter();
        let begun = begun.filter(|it| state(it) == together);
        let begun = begun.filter_map(|it| it.since);
        let earlier = |one: Option<Timestamp>, other| [one, other].into_iter().flatten().min();
        Self {
            state: together,
            since: begun.min(),
            last_success,
            oldest_owed: earlier(self.oldest_owed, other.oldest_owed),
            oldest_unattempted: earlier(self.oldest_unattempted, other.oldest_unattempted),
            last_failure: if first > second {
                self.last_failure
            } else {
                other.last_failure
            },
        }
    }
}

/// What a webhook is owed now, as far as its state goes by that.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Owed {
    /// When the oldest event happened that waits for its first attempt.
    pub(super) first_attempt: Option<Timestamp>,
    /// The same of the retries.
    pub(super) retry: Option<Timestamp>,
    pub(super) is_retrying: bool,
}

/// What came of a webhook's attempts.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    last_success: Option<Timestamp>,
    last_failure: Option<Failure>,
    /// When the present run of successes or of failures began.
    run_began: Option<Timestamp>,
    run: u32,
    /// The first success, or the first one after it was failing.
    ok_since: Option<Timestamp>,
    /// The beginnings of the latest outages.
    outages: VecDeque<Timestamp>,
    /// The beginning of the first one since when they have come so close.
    flaps_since: Option<Timestamp>,
    /// The present run of failures is among them.
    is_outage: bool,
    /// A bit for each of the latest attempts, the last one the lowest; set where it failed.
    latest: u64,
    mixed_since: Option<Timestamp>,
}

impl Outcomes {
    /// Takes in an attempt that ended then, with the code of its failure where it failed.
    pub(super) fn attempted(&mut self, at: Timestamp, failure: Option<Cow<'static, str>>) {
        let failed = failure.is_some();
        let last_failure = self.last_failure.as_ref().map(|failure| failure.at);
        if !self
            .last_success
            .max(last_failure)
            .is_some_and(|last| is_recent(last, at))
        {
            // What was long ago says nothing of how often it turns.
            (self.latest, self.mixed_since) = (self.latest & 1, None);
        }
        if self.run_began.is_none() || failed != self.is_failing() {
            if self.is_failing() {
                self.note_outage(at);
            }
            if !failed && (self.ok_since.is_none() || self.has_failed(at)) {
                self.ok_since = Some(at);
            }
            (self.run_began, self.run, self.is_outage) = (Some(at), 0, false);
        }
        self.run = self.run.saturating_add(1);
        self.latest = (self.latest << 1 | u64::from(failed)) & LATEST;
        match failure {
            Some(code) => {
                self.last_failure = Some(Failure { at, code });
                self.note_outage(at);
            }
            None => self.last_success = Some(at),
        }
        self.mixed_since = self.is_mixed().then(|| self.mixed_since.unwrap_or(at));
    }

    pub(super) fn health(&self, enabled: bool, owed: Owed, now: Timestamp) -> Health {
        let (state, since) = self.state(enabled, owed, now);
        let oldest_owed = [owed.first_attempt, owed.retry];
        Health {
            state,
            since,
            last_success: self.last_success,
            last_failure: self.last_failure.clone(),
            oldest_owed: oldest_owed.into_iter().flatten().min(),
            oldest_unattempted: owed.first_attempt,
        }
    }

    fn state(&self, enabled: bool, owed: Owed, now: Timestamp) -> (State, Option<Timestamp>) {
        let lasts = |since: Timestamp, least| now.duration_since(since) >= least;
        let is_failing = match self.run_began {
            Some(_) => self.is_failing() && self.has_failed(now),
            // What is retried has failed, before the daemon's start.
            None => owed.is_retrying,
        };
        match (self.flapping_since(now), owed.first_attempt) {
            _ if !enabled => (State::Disabled, None),
            (Some(since), _) => (State::Flapping, Some(since)),
            (None, _) if is_failing => (State::Failing, self.run_began),
            (None, Some(oldest)) if lasts(oldest, LAGGING_AFTER) => (State::Lagging, Some(oldest)),
            (None, _) => (State::Ok, self.ok_since),
        }
    }

    fn is_failing(&self) -> bool {
        self.latest & 1 == 1
    }

    /// Whether the present run, of failures, is more than one among many successes.
    fn has_failed(&self, now: Timestamp) -> bool {
        let lasts = |since| now.duration_since(since) >= FAILING_AFTER;
        self.run >= OUTAGE_FAILURES
            || self.last_success.is_none()
            || self.run_began.is_some_and(lasts)
    }

    /// Counts the present run of failures where it has become an outage.
    fn note_outage(&mut self, now: Timestamp) {
        let Some(began) = self.run_began.filter(|_| !self.is_outage) else {
            return;
        };
        if self.run >= OUTAGE_FAILURES || now.duration_since(began) >= OUTAGE_LASTS {
            let before = self.outages.back().copied();
            self.flaps_since = self
                .flaps_since
                .filter(|_| before.is_some_and(|it| is_recent(it, now)));
            self.is_outage = true;
            self.outages.push_back(began);
            if self.outages.len() > FLAPS {
                self.outages.pop_front();
            }
            let first = self.outages.front().copied();
            let first = first.filter(|first| self.outages.len() == FLAPS && is_recent(*first, now));
            self.flaps_since = self.flaps_since.or(first);
        }
    }

    fn is_mixed(&self) -> bool {
        // The first bit has none before it.
        let turns = (self.latest ^ self.latest >> 1) & (LATEST >> 1);
        self.latest.count_ones() >= MIXED_FAILURES && turns.count_ones() >= MIXED_TURNS
    }

    fn flapping_since(&self, now: Timestamp) -> Option<Timestamp> {
        let last = self.outages.back().copied();
        let outages = self
            .flaps_since
            .filter(|_| last.is_some_and(|last| is_recent(last, now)));
        let last_failure = self.last_failure.as_ref();
        let has_failed = last_failure.is_some_and(|failure| is_recent(failure.at, now));
        let mixed = self.mixed_since.filter(|_| has_failed);
        outages.into_iter().chain(mixed).min()
    }
}

fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(at) < FLAPPING_WITHIN
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attempts at these seconds, each by whether it was delivered.
    fn outcomes(attempts: impl IntoIterator<Item = (i64, bool)>) -> Outcomes {
        let mut outcomes = Outcomes::default();
        for (second, delivered) in attempts {
            let failure = (!delivered).then_some(Cow::Borrowed("http_500"));
            outcomes.attempted(at(second), failure);
        }
        outcomes
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_776_170_000 + second).unwrap()
    }

    fn state(outcomes: &Outcomes, now: i64) -> (State, Option<Timestamp>) {
        let health = outcomes.health(true, Owed::default(), at(now));
        (health.state, health.since)
    }

    #[test]
    fn it_fails_from_the_first_failure_on_until_a_success() {
        let mut seen = outcomes([(0, true), (10, false)]);
        assert_eq!(state(&seen, 11), (State::Ok, Some(at(0))));
        assert_eq!(state(&seen, 12), (State::Failing, Some(at(10))));
        for second in 40..200 {
            seen.attempted(at(second), Some("timeout".into()));
        }
        assert_eq!(state(&seen, 201), (State::Failing, Some(at(10))));
        let health = seen.health(true, Owed::default(), at(201));
        assert_eq!(health.last_success, Some(at(0)));
        assert_eq!(
            health.last_failure.map(|failure| failure.code),
            Some("timeout".into())
        );
        seen.attempted(at(210), None);
        assert_eq!(state(&seen, 210), (State::Ok, Some(at(210))));
    }

    #[test]
    fn what_comes_and_goes_is_flapping_once() {
        // For ten seconds at a time, an attempt each second.
        let seen = outcomes((0..610).map(|second| (second, second / 10 % 2 == 0)));
        assert_eq!(state(&seen, 600), (State::Flapping, Some(at(10))));
        let later = 590 + 15 * 60;
        assert_eq!(state(&seen, later).0, State::Ok);

        // Ten minutes apart it stays so, until the last one is as long ago as that.
        let seen = outcomes((0..100).map(|minute| (minute * 60, minute % 6 != 5)));
        assert_eq!(state(&seen, 100 * 60), (State::Flapping, Some(at(5 * 60))));
        assert_eq!(state(&seen, 95 * 60 + 15 * 60).0, State::Ok);

        // By turns, and a quiet one at that.
        let seen = outcomes((0..7).map(|count| (count * 30, count % 2 == 0)));
        assert_eq!(state(&seen, 180), (State::Flapping, Some(at(30))));

        // By turns, within one second.
        let seen = outcomes((0..40).map(|count| (0, count % 2 == 0)));
        assert_eq!(state(&seen, 0), (State::Flapping, Some(at(0))));
    }

    #[test]
    fn a_failure_among_many_successes_and_one_outage_are_no_flapping() {
        let seen = outcomes((0..2_000).map(|count| (count / 100, count % 50 != 7)));
        assert_eq!(state(&seen, 20), (State::Ok, Some(at(0))));
        // One failure a night, for a week.
        let day = 24 * 60 * 60;
        let nights = (0..70).map(|count| (count / 10 * day + count % 10, count % 10 != 5));
        assert_eq!(
            state(&outcomes(nights), 6 * day + 10),
            (State::Ok, Some(at(0)))
        );
        let outage = (0..100).map(|second| (second, !(20..60).contains(&second)));
        assert_eq!(state(&outcomes(outage), 100), (State::Ok, Some(at(60))));
    }

    #[test]
    fn the_rest() {
        let none = Outcomes::default();
        let owed = Owed {
            first_attempt: Some(at(0)),
            retry: Some(at(-5)),
            is_retrying: true,
        };
        // What failed before the daemon's start.
        assert_eq!(none.state(true, owed, at(1)), (State::Failing, None));
        assert_eq!(none.state(false, owed, at(1)).0, State::Disabled);
        assert_eq!(none.health(true, owed, at(1)).oldest_owed, Some(at(-5)));
        let works = outcomes([(0, true)]);
        assert_eq!(works.state(true, owed, at(59)), (State::Ok, Some(at(0))));
        assert_eq!(
            works.state(true, owed, at(60)),
            (State::Lagging, Some(at(0)))
        );
    }
}

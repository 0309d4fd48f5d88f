//! What follows from an attempt: delivered, another one at a given time, or dead.
//!
//! Pure: outcome, count and `now` go in, a verdict comes out. Nothing here knows how an attempt
//! is made or where its record is kept.

use std::{fmt, str::FromStr, time::Duration};

use jiff::{
    SignedDuration, Timestamp,
    fmt::{rfc2822, strtime::BrokenDownTime},
    tz::TimeZone,
};

const DAY: Duration = Duration::from_hours(24);

/// What came of one attempt. `E` tells why no answer came; the policy doesn't look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<E> {
    /// The receiver took it: a 2xx status, and the whole answer within the time limit.
    Delivered { status: u16 },
    /// The receiver answered, but not with a 2xx status.
    Rejected {
        status: u16,
        /// The `Retry-After` of the answer.
        retry_after: Option<Duration>,
    },
    /// No whole answer came.
    Failed {
        /// The status, where the answer broke off only after its head.
        status: Option<u16>,
        error: E,
    },
}

impl<E: fmt::Display> Outcome<E> {
    /// Why it was no success, in words for operators.
    pub fn failure(&self) -> Option<String> {
        match self {
            Self::Delivered { .. } => None,
            Self::Rejected { status, .. } => Some(match status {
                300..=399 => format!("the receiver answered {status}; redirects are not followed"),
                _ => format!("the receiver answered {status}"),
            }),
            Self::Failed { error, .. } => Some(error.to_string()),
        }
    }
}

impl<E> Outcome<E> {
    pub const fn is_delivered(&self) -> bool {
        matches!(self, Self::Delivered { .. })
    }

    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Delivered { status } | Self::Rejected { status, .. } => Some(*status),
            Self::Failed { status, .. } => *status,
        }
    }

    /// Why no whole answer came, where none did.
    pub const fn error(&self) -> Option<&E> {
        match self {
            Self::Failed { error, .. } => Some(error),
            Self::Delivered { .. } | Self::Rejected { .. } => None,
        }
    }

    /// How long the receiver asked us to wait; only 429 and 503 may ask.
    const fn asked_wait(&self) -> Option<Duration> {
        match self {
            Self::Rejected {
                status: 429 | 503,
                retry_after,
            } => *retry_after,
            Self::Rejected { .. } | Self::Delivered { .. } | Self::Failed { .. } => None,
        }
    }
}

/// What follows from an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    RetryAt(Timestamp),
    /// The attempts ran out.
    Dead,
}

/// The most that a receiver's `Retry-After` can lengthen a wait to.
pub const MAX_RETRY_AFTER: Duration = DAY;

/// Judges an attempt. `attempts_made` counts this one, and a replay starts again at 1.
///
/// The wait after the n-th failed attempt is the schedule's n-th, to the second: there is no
/// jitter, since each webhook's window already spreads what is due at once.
pub fn decide<E>(
    outcome: &Outcome<E>,
    attempts_made: u32,
    max_attempts: u32,
    schedule: &RetrySchedule,
    now: Timestamp,
) -> Verdict {
    if outcome.is_delivered() {
        return Verdict::Delivered;
    }
    if attempts_made >= max_attempts {
        return Verdict::Dead;
    }
    let asked = outcome.asked_wait().unwrap_or_default();
    let wait = schedule
        .wait_after(attempts_made)
        .max(asked.min(MAX_RETRY_AFTER));
    // Only a clock near jiff's last year overflows, and then now is as good as any time.
    Verdict::RetryAt(now.checked_add(wait).unwrap_or(now))
}

/// The waits between attempts, such as `30s,1m,5m`. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySchedule {
    first: Duration,
    rest: Vec<Duration>,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidSchedule {
    #[error("a retry schedule has at least one wait, such as \"30s,1m,5m\"")]
    Empty,
    #[error("a retry schedule has at most {} waits", RetrySchedule::MAX_WAITS)]
    TooMany,
    #[error("{0:?} in the retry schedule is no wait such as \"30s\"")]
    NotADuration(String),
    #[error("{0:?} in the retry schedule is less than a millisecond")]
    TooShort(String),
    #[error("{0:?} in the retry schedule is more than 7 days")]
    TooLong(String),
}

impl RetrySchedule {
    /// The contract's.
    pub const DEFAULT: &str = "30s,1m,5m,30m,2h,6h,24h";
    /// Due times are kept in milliseconds, and a shorter wait would be none.
    pub const MIN_WAIT: Duration = Duration::from_millis(1);
    pub const MAX_WAIT: Duration = Duration::from_hours(7 * 24);
    pub const MAX_WAITS: usize = 100;

    /// The wait after the n-th failed attempt, counted from 1; the last one repeats.
    pub fn wait_after(&self, attempt: u32) -> Duration {
        let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        let last = self.rest.len();
        match index.min(last) {
            0 => self.first,
            index => self.rest[index - 1],
        }
    }

    fn waits(&self) -> impl Iterator<Item = Duration> {
        std::iter::once(self.first).chain(self.rest.iter().copied())
    }
}

impl FromStr for RetrySchedule {
    type Err = InvalidSchedule;

    fn from_str(text: &str) -> Result<Self, InvalidSchedule> {
        if text.trim().is_empty() {
            return Err(InvalidSchedule::Empty);
        }
        let mut waits = text.split(',').map(|wait| parse_wait(wait.trim()));
        let first = waits.next().ok_or(InvalidSchedule::Empty)??;
        let rest = waits.collect::<Result<Vec<_>, _>>()?;
        if rest.len() >= Self::MAX_WAITS {
            return Err(InvalidSchedule::TooMany);
        }
        Ok(Self { first, rest })
    }
}

fn parse_wait(text: &str) -> Result<Duration, InvalidSchedule> {
    let wait = humantime::parse_duration(text);
    let wait = wait.map_err(|_| InvalidSchedule::NotADuration(text.to_owned()))?;
    if wait < RetrySchedule::MIN_WAIT {
        return Err(InvalidSchedule::TooShort(text.to_owned()));
    }
    if wait > RetrySchedule::MAX_WAIT {
        return Err(InvalidSchedule::TooLong(text.to_owned()));
    }
    Ok(wait)
}

impl fmt::Display for RetrySchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, wait) in self.waits().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", humantime::format_duration(wait))?;
        }
        Ok(())
    }
}

/// Reads a `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date in any of HTTP's forms.
///
/// A date that has passed asks for no wait; what is neither asks for nothing.
pub fn parse_retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim_matches([' ', '\t']);
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit ask for "very long", which is capped anyway.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let wait = until_date(value, now)?;
    Some(Duration::try_from(wait).unwrap_or_default())
}

/// The forms of a date in HTTP (RFC 9110, section 5.6.7), two of them obsolete.
const HTTP_DATES: [&str; 3] = [
    "%a, %d %b %Y %H:%M:%S GMT",
    "%A, %d-%b-%y %H:%M:%S GMT",
    "%a %b %e %H:%M:%S %Y",
];

fn until_date(value: &str, now: Timestamp) -> Option<SignedDuration> {
    // As a date of UTC and not as a timestamp, because the year 9999 has more of the former.
    let civil_now = TimeZone::UTC.to_datetime(now);
    let civil = |format: &&str| {
        BrokenDownTime::parse(format, value)
            .ok()?
            .to_datetime()
            .ok()
    };
    if let Some(date) = HTTP_DATES.iter().find_map(civil) {
        return Some(date.duration_since(civil_now));
    }
    // With an offset instead of GMT, as mail has it.
    let date = rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(date.duration_since(now))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule(text: &str) -> RetrySchedule {
        text.parse().unwrap()
    }

    fn now() -> Timestamp {
        "2026-04-14T12:00:00Z".parse().unwrap()
    }

    fn rejected(status: u16, retry_after: Option<u64>) -> Outcome<()> {
        Outcome::Rejected {
            status,
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    const FAILED: Outcome<()> = Outcome::Failed {
        status: None,
        error: (),
    };

    #[test]
    fn the_contracts_schedule() {
        let waits = schedule(RetrySchedule::DEFAULT);
        let expected = [30, 60, 300, 1800, 7200, 21_600];
        for (attempt, wait) in (1..).zip(expected) {
            let due = now() + Duration::from_secs(wait);
            let verdict = decide(&FAILED, attempt, 7, &waits, now());
            assert_eq!(verdict, Verdict::RetryAt(due), "attempt {attempt}");
        }
        assert_eq!(decide(&FAILED, 7, 7, &waits, now()), Verdict::Dead);
        // The seventh wait is used only where more attempts are allowed, and then it repeats.
        let due = Verdict::RetryAt(now() + DAY);
        assert_eq!(decide(&FAILED, 7, 9, &waits, now()), due);
        assert_eq!(decide(&FAILED, 8, 9, &waits, now()), due);
    }

    #[test]
    fn a_delivered_one_is_delivered_whatever_the_count() {
        let outcome = Outcome::<()>::Delivered { status: 204 };
        for attempts in [1, 7, 99] {
            let verdict = decide(&outcome, attempts, 7, &schedule("1s"), now());
            assert_eq!(verdict, Verdict::Delivered);
        }
    }

    #[test]
    fn retry_after_lengthens_and_never_shortens() {
        let check = |outcome: &Outcome<()>, wait: u64| {
            let due = now() + Duration::from_secs(wait);
            let verdict = decide(outcome, 1, 7, &schedule("30s"), now());
            assert_eq!(verdict, Verdict::RetryAt(due), "{outcome:?}");
        };
        check(&rejected(503, None), 30);
        check(&rejected(503, Some(120)), 120);
        check(&rejected(429, Some(120)), 120);
        check(&rejected(429, Some(1)), 30);
        check(&rejected(429, Some(u64::MAX)), 86_400);
        check(&rejected(500, Some(120)), 30);
    }

    #[test]
    fn schedules_that_are_none() {
        let check = |text: &str, expected: &str| {
            let error = text.parse::<RetrySchedule>().unwrap_err();
            assert!(error.to_string().contains(expected), "{text:?}: {error}");
        };
        check("", "at least one wait");
        check(" ", "at least one wait");
        check("1s,", "no wait such as");
        check("soon", "\"soon\" in the retry schedule is no wait such as");
        check("30", "no wait such as");
        check("-1s", "no wait such as");
        check("0s", "less than a millisecond");
        check("1s,8days", "more than 7 days");
        check(&["1s"; 101].join(","), "at most 100 waits");
    }

    #[test]
    fn what_retry_after_says() {
        let check = |value: &str, seconds: Option<u64>| {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(parse_retry_after(value, now()), expected, "{value:?}");
        };
        check("120", Some(120));
        check(" 0 ", Some(0));
        check("99999999999999999999999", Some(u64::MAX));
        check("Tue, 14 Apr 2026 12:02:00 GMT", Some(120));
        check("Tue, 14 Apr 2026 11:00:00 GMT", Some(0));
        check("Tuesday, 14-Apr-26 12:02:00 GMT", Some(120));
        check("Tue, 14 Apr 2026 14:02:00 +0200", Some(120));
        check("Fri, 31 Dec 9999 23:59:59 GMT", Some(251_626_132_799));
        check("Sunday, 06-Nov-94 08:49:37 GMT", Some(0));
        check("Tue Apr 14 12:02:00 2026", Some(120));
        check("Fri May  1 12:00:00 2026", Some(17 * 86_400));
        check("Sun Nov  6 08:49:37 1994", Some(0));
        check("", None);
        check("-5", None);
        check("1.5", None);
        check("soon", None);
        check("+5", None);
        check("5, 10", None);
        check("Tuesday, 14-Apr-26 12:02:00", None);
        check("2026-04-14T12:02:00Z", None);
    }

    proptest! {
        #[test]
        fn a_schedule_leads_back(millis in prop::collection::vec(1_u64..604_800_000, 1..20)) {
            let text = millis.iter().map(|ms| format!("{ms}ms")).collect::<Vec<_>>().join(",");
            let parsed = schedule(&text);
            prop_assert_eq!(schedule(&parsed.to_string()), parsed);
        }

        #[test]
        fn a_wait_is_within_its_bounds(
            attempt in 1_u32..1000,
            max in 1_u32..1000,
            status in 300_u16..600,
            retry_after in prop::option::of(any::<u64>()),
        ) {
            let waits = schedule("30s,1m,5m,30m,2h,6h,24h");
            match decide(&rejected(status, retry_after), attempt, max, &waits, now()) {
                Verdict::Delivered => prop_assert!(false, "{status} is no success"),
                Verdict::Dead => prop_assert!(attempt >= max),
                Verdict::RetryAt(due) => {
                    prop_assert!(attempt < max);
                    prop_assert!(due >= now() + waits.wait_after(attempt));
                    prop_assert!(due <= now() + MAX_RETRY_AFTER);
                }
            }
        }
    }
}

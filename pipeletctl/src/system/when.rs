//! Times and durations as people write them.
//!
//! Invariant: parsing is pure; the wall clock is read in `now` alone.

use std::{str::FromStr, time::Duration};

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

/// A moment: `2026-04-14T12:00:00Z`, or a time ago: `2h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    At(Timestamp),
    Ago(SignedDuration),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WhenError {
    #[error("write a time like 2026-04-14T12:00:00Z, or how long ago, like 2h or 7d")]
    Moment,
    #[error("write a duration longer than zero, like 10s or 1m")]
    Duration,
}

impl When {
    /// The moment that is meant, saturating at the limits of the calendar.
    pub(crate) fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(timestamp) => timestamp,
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::MIN),
        }
    }
}

impl FromStr for When {
    type Err = WhenError;

    fn from_str(text: &str) -> Result<Self, WhenError> {
        if let Ok(timestamp) = text.parse() {
            return Ok(Self::At(timestamp));
        }
        // "2h" and "2h ago" mean the same here.
        duration(text)
            .map(|ago| Self::Ago(ago.abs()))
            .ok_or(WhenError::Moment)
    }
}

/// A moment as `pipelet.v1` has it.
pub(crate) fn on_wire(moment: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: moment.as_second(),
        nanos: moment.subsec_nanosecond(),
    }
}

/// A time-out: positive, like `10s`.
pub(crate) fn parse_timeout(text: &str) -> Result<Duration, WhenError> {
    duration(text)
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or(WhenError::Duration)
}

/// The wall clock, which a time ago counts from.
pub(crate) fn now() -> Timestamp {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the tool asks for the time"
    )]
    Timestamp::now()
}

/// Days and weeks have a fixed length here, as no zone is named.
fn duration(text: &str) -> Option<SignedDuration> {
    let span: Span = text.parse().ok()?;
    span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let now: Timestamp = "2026-04-14T12:00:00Z".parse().unwrap();
        for (text, moment) in [
            ("2026-04-14T10:00:00Z", "2026-04-14T10:00:00Z"),
            ("2026-04-14T10:00:00.5+02:00", "2026-04-14T08:00:00.5Z"),
            ("2h", "2026-04-14T10:00:00Z"),
            ("2h ago", "2026-04-14T10:00:00Z"),
            ("1h30m", "2026-04-14T10:30:00Z"),
            ("7d", "2026-04-07T12:00:00Z"),
            ("1w", "2026-04-07T12:00:00Z"),
        ] {
            let when: When = text.parse().unwrap();
            assert_eq!(when.resolve(now).to_string(), moment, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "yesterday", "2", "2026-04-14", "2 moons", "1mo"] {
            assert_eq!(text.parse::<When>(), Err(WhenError::Moment), "{text}");
        }
    }

    #[test]
    fn timeouts() {
        assert_eq!(parse_timeout("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_timeout("250ms"), Ok(Duration::from_millis(250)));
        for text in ["0s", "-1s", "10", "soon"] {
            assert_eq!(parse_timeout(text), Err(WhenError::Duration), "{text}");
        }
    }
}

//! The times that stations write.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// Reads a station's ISO 8601 time to the millisecond.
///
/// Fractions and offsets are taken in any form, `+02` included; a time without a zone, which
/// some chargers send, is taken as UTC.
pub fn parse_station_time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let time = text.parse::<Timestamp>().ok().or_else(|| {
        let civil: DateTime = text.parse().ok()?;
        TimeZone::UTC.to_timestamp(civil).ok()
    })?;
    Timestamp::from_millisecond(time.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_that_chargers_send() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(
                parse_station_time(text),
                expected.map(|time| time.parse().unwrap()),
                "{text}"
            );
        };
        check("2026-04-14T12:34:56Z", Some("2026-04-14T12:34:56Z"));
        check(
            "2026-04-14T12:34:56.7891Z",
            Some("2026-04-14T12:34:56.789Z"),
        );
        check("2026-04-14T12:34:56+02:00", Some("2026-04-14T10:34:56Z"));
        check("2026-04-14T12:34:56+02", Some("2026-04-14T10:34:56Z"));
        check("2026-04-14T12:34:56", Some("2026-04-14T12:34:56Z"));
        check("2026-04-14 12:34:56.5", Some("2026-04-14T12:34:56.5Z"));
        check("yesterday", None);
        check("", None);
    }
}

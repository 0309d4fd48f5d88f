//! A moment.

use std::fmt;

use jiff::Timestamp;
use pipelet_proto::json::moment;
use serde::{Serialize, Serializer};

use crate::words::or_dash;

/// For people, to the second.
pub(crate) fn shown(wire: Option<prost_types::Timestamp>) -> String {
    or_dash(Time::from_wire(wire))
}

/// Displays for people, to the second; serialises for programs, to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(Timestamp);

impl Time {
    /// None where it is absent, or beyond the calendar.
    pub(crate) fn from_wire(wire: Option<prost_types::Timestamp>) -> Option<Self> {
        moment(wire).map(Self)
    }

    pub(super) const fn at(moment: Timestamp) -> Self {
        Self(moment)
    }

    pub(super) const fn moment(self) -> Timestamp {
        self.0
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}", self.0)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.3}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_for_programs_and_seconds_for_people() {
        for (nanos, json, shown) in [
            (0, "\"2026-04-14T12:34:56.000Z\"", "2026-04-14T12:34:56Z"),
            (
                789_999_999,
                "\"2026-04-14T12:34:56.789Z\"",
                "2026-04-14T12:34:56Z",
            ),
        ] {
            let time = Time::from_wire(Some(prost_types::Timestamp {
                seconds: 1_776_170_096,
                nanos,
            }))
            .unwrap();
            assert_eq!(serde_json::to_string(&time).unwrap(), json);
            assert_eq!(time.to_string(), shown);
        }
    }

    #[test]
    fn beyond_the_calendar_is_nothing() {
        let wire = prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        };
        assert_eq!(Time::from_wire(Some(wire)), None);
    }
}

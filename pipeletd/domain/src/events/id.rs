//! The names of things: events and stations.

use std::{fmt, str::FromStr, sync::Arc};

use jiff::Timestamp;
use uuid::Uuid;

/// An event's id, a version 7 UUID (RFC 9562, section 5.7): it sorts by the event's time.
///
/// Shown as `evt_` and 32 hexadecimal digits; the same on every attempt and replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Uuid);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an event id is \"evt_\" and 32 hexadecimal digits")]
pub struct InvalidEventId;

impl EventId {
    pub fn new(time: Timestamp, random: [u8; 10]) -> Self {
        let millis = u64::try_from(time.as_millisecond()).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// The event's time, to the millisecond.
    pub fn time(self) -> Timestamp {
        let millis = self.0.get_timestamp().map_or(0, |stamp| {
            let (seconds, nanos) = stamp.to_unix();
            seconds
                .saturating_mul(1000)
                .saturating_add(u64::from(nanos) / 1_000_000)
        });
        let millis = i64::try_from(millis).unwrap_or(i64::MAX);
        Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
    }

    pub fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "evt_{}", self.0.simple())
    }
}

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        let digits = text
            .strip_prefix("evt_")
            .filter(|digits| digits.len() == 32);
        digits
            .and_then(|digits| Uuid::try_parse(digits).ok())
            .map(Self)
            .ok_or(InvalidEventId)
    }
}

/// A station's id: the last segment of its WebSocket path, percent-decoded.
///
/// Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StationId(Arc<str>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a station id has 1 to {} bytes and no control characters",
    StationId::MAX_LEN
)]
pub enum InvalidStationId {
    Empty,
    TooLong,
    Control,
}

impl StationId {
    /// In bytes. OCPP 1.6 names no limit; this is what fits a record's length byte.
    pub const MAX_LEN: usize = 255;

    pub fn new(id: &str) -> Result<Self, InvalidStationId> {
        if id.is_empty() {
            Err(InvalidStationId::Empty)
        } else if id.len() > Self::MAX_LEN {
            Err(InvalidStationId::TooLong)
        } else if id.chars().any(char::is_control) {
            Err(InvalidStationId::Control)
        } else {
            Ok(Self(id.into()))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_ids_lead_back_and_sort_by_time() {
        let at = |ms| EventId::new(Timestamp::from_millisecond(ms).unwrap(), [7; 10]);
        let id = at(1_776_170_096_789);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(EventId::from_bytes(id.to_bytes()), id);
        assert_eq!(id.time().as_millisecond(), 1_776_170_096_789);
        // Not one of ours, and still no reason to panic.
        assert_eq!(
            EventId::from_bytes([0xff; 16]).time(),
            Timestamp::UNIX_EPOCH
        );
        assert!(at(1_000) < at(2_000));
        assert_eq!("evt_".parse::<EventId>(), Err(InvalidEventId));
        assert_eq!(id.to_string()[4..].parse::<EventId>(), Err(InvalidEventId));
    }

    #[test]
    fn station_ids_that_are_none() {
        for (id, why) in [
            ("", InvalidStationId::Empty),
            ("a\nb", InvalidStationId::Control),
            (&"x".repeat(256), InvalidStationId::TooLong),
        ] {
            assert_eq!(StationId::new(id), Err(why), "{id:?}");
        }
        for id in ["WALLBOX_001", "a b|c", "ladesäule-7", &"x".repeat(255)] {
            assert_eq!(StationId::new(id).unwrap().as_str(), id);
        }
    }
}

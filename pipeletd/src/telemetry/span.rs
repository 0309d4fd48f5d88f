//! One thing that took a while, as a value.
//!
//! An event's trace has the event's own id, and its first span's id follows from it: an attempt
//! names its parent without having to know more than the event, also after a restart.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use pipelet_domain::events::{Direction, EventId, EventType, StationId};

#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub trace: [u8; 16],
    /// Not zero.
    pub id: u64,
    pub parent: Option<u64>,
    pub name: &'static str,
    pub kind: Kind,
    pub began: Timestamp,
    pub took: Duration,
    pub failed: bool,
    pub attributes: Vec<(&'static str, Value)>,
}

/// As OpenTelemetry tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Internal,
    Server,
    Client,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Number(i64),
    Name(&'static str),
    Text(Arc<str>),
}

impl Span {
    /// An event, from when it was taken in until it was durable.
    pub fn of_event(
        id: EventId,
        kind: EventType,
        station: &StationId,
        time: Timestamp,
        durable: Timestamp,
    ) -> Self {
        Self {
            trace: id.to_bytes(),
            id: event_span(id),
            parent: None,
            name: kind.name(),
            kind: match kind.direction() {
                Direction::StationToCsms | Direction::Both => Kind::Server,
                Direction::CsmsToStation | Direction::Connection => Kind::Internal,
            },
            began: time,
            // The clock may have been set back meanwhile.
            took: durable.duration_since(time).try_into().unwrap_or_default(),
            failed: false,
            attributes: vec![
                ("pipelet.event.id", Value::Text(id.to_string().into())),
                ("pipelet.event.type", Value::Name(kind.name())),
                ("pipelet.station.id", Value::Text(station.as_str().into())),
            ],
        }
    }
}

/// The id of the span of an event's arrival: what is random in the event's id. Its topmost bit is
/// set (RFC 9562, section 5.7), so it is not zero, which is no span's id.
pub fn event_span(event: EventId) -> u64 {
    let bytes = event.to_bytes();
    let random = bytes.last_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(random).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_span_is_the_random_half_of_the_events_id() {
        let check = |event: &str, expected: u64| {
            assert_eq!(event_span(event.parse().unwrap()), expected, "{event}");
        };
        check(
            "evt_0190a5d1c2f37a1b8c4d5e6f70819203",
            0x8c4d_5e6f_7081_9203,
        );
        check("evt_0190a5d1c2f37a1b0000000000000000", 1);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_time_negative() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let id = EventId::new(at(10), [7; 10]);
        let station = StationId::new("S").unwrap();
        let took =
            |durable| Span::of_event(id, EventType::Heartbeat, &station, at(10), durable).took;
        assert_eq!(took(at(12)), Duration::from_secs(2));
        assert_eq!(took(at(9)), Duration::ZERO);
    }
}

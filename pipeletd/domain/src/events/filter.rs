//! Which events somebody wants to look at.

use jiff::Timestamp;

use super::{Event, EventSelection, StationSelection};

/// A choice of events by what they are; where nothing is said, it is all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub kinds: Option<EventSelection>,
    pub stations: StationSelection,
    /// By the event's time: from, included, and until, excluded.
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

impl EventFilter {
    pub fn contains(&self, event: &Event) -> bool {
        let kinds = self.kinds.as_ref();
        kinds.is_none_or(|kinds| kinds.contains(event.kind))
            && self.stations.contains(&event.station)
            && self.since.is_none_or(|since| event.time >= since)
            && self.until.is_none_or(|until| event.time < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{EventId, EventType, Payload, StationId};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_776_000_000 + second).unwrap()
    }

    #[test]
    fn all_that_is_said_must_hold() {
        let event = Event::new(
            EventId::new(at(10), [0; 10]),
            EventType::Heartbeat,
            StationId::new("WALLBOX_1").unwrap(),
            at(10),
            None,
            Payload::empty(),
        );
        let check = |kinds: &[&str], stations: &[&str], since, until, expected| {
            let filter = EventFilter {
                kinds: (!kinds.is_empty()).then(|| EventSelection::parse(kinds).unwrap()),
                stations: StationSelection::parse(stations).unwrap(),
                since,
                until,
            };
            assert_eq!(filter.contains(&event), expected, "{filter:?}");
        };
        check(&[], &[], None, None, true);
        check(&["group:standard"], &["WALLBOX_*"], None, None, true);
        check(&["MeterValues"], &[], None, None, false);
        check(&[], &["OTHER"], None, None, false);
        check(&[], &[], Some(at(10)), Some(at(11)), true);
        check(&[], &[], Some(at(11)), None, false);
        check(&[], &[], None, Some(at(10)), false);
    }
}

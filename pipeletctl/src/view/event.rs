//! Events and their types.

use pipelet_proto::v1;
use serde::Serialize;

use super::{or_dash, payload::Payload, time::Time, yes_no};
use crate::{
    output::{Describe, Row},
    table::{Details, printable, shortened},
};

/// How much of a payload a line shows.
const SHOWN_PAYLOAD: usize = 120;

#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the fields are the keys of REST")]
pub(crate) struct Event {
    id: String,
    event: String,
    station_id: String,
    timestamp: Option<Time>,
    payload: Payload,
    synthetic: bool,
}

impl From<v1::Event> for Event {
    fn from(wire: v1::Event) -> Self {
        Self {
            id: wire.id,
            event: wire.event,
            station_id: wire.station_id,
            timestamp: Time::from_wire(wire.timestamp),
            payload: Payload::from_wire(wire.payload),
            synthetic: wire.synthetic,
        }
    }
}

impl Event {
    /// Its type, with a mark where no charger has said it.
    fn kind(&self) -> String {
        let mark = if self.synthetic { " (synthetic)" } else { "" };
        format!("{}{mark}", printable(&self.event))
    }

    /// What it is, and below it what it says, in this width.
    pub(super) fn heading(&self, width: usize) -> String {
        let what = format!(
            "{}  {}  {}",
            or_dash(self.timestamp),
            printable(&self.station_id),
            self.kind()
        );
        let said = shortened(self.payload.as_text(), width);
        format!("{}\n{said}", shortened(&what, width))
    }

    /// One line; the columns line up as long as the names have a usual length.
    pub(crate) fn line(&self) -> String {
        format!(
            "{:<20}  {:<20}  {:<24}  {}  {}",
            or_dash(self.timestamp),
            printable(&self.station_id),
            self.kind(),
            printable(&self.id),
            shortened(self.payload.as_text(), SHOWN_PAYLOAD),
        )
    }
}

impl Row for Event {
    const HEADERS: &'static [&'static str] = &["ID", "TIME", "STATION", "EVENT", "PAYLOAD"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            or_dash(self.timestamp),
            self.station_id.clone(),
            self.kind(),
            self.payload.as_text().to_owned(),
        ]
    }
}

impl Describe for Event {
    fn describe(&self) -> Details {
        Details::default()
            .line("id", &self.id)
            .line("event", &self.event)
            .line("station", &self.station_id)
            .line("time", or_dash(self.timestamp))
            .line("synthetic", yes_no(self.synthetic))
            .section("payload", self.payload.indented())
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct EventType {
    name: String,
    direction: String,
    profile: String,
    group: String,
}

impl From<v1::EventType> for EventType {
    fn from(wire: v1::EventType) -> Self {
        Self {
            name: wire.name,
            direction: wire.direction,
            profile: wire.profile,
            group: wire.group,
        }
    }
}

impl Row for EventType {
    const HEADERS: &'static [&'static str] = &["NAME", "DIRECTION", "PROFILE", "GROUP"];

    fn cells(&self) -> Vec<String> {
        let direction = match self.direction.as_str() {
            "station_to_csms" => "station → Pipelet",
            "csms_to_station" => "Pipelet → station",
            other => other,
        };
        vec![
            self.name.clone(),
            direction.to_owned(),
            self.profile.clone(),
            self.group.clone(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_and_one_object() {
        let event = Event::from(v1::Event {
            id: "e".into(),
            event: "Heartbeat".into(),
            station_id: "WALLBOX_001".into(),
            timestamp: Some(prost_types::Timestamp {
                seconds: 1_776_170_096,
                nanos: 0,
            }),
            payload: "{}".into(),
            synthetic: false,
        });
        assert_eq!(
            event.line(),
            "2026-04-14T12:34:56Z  WALLBOX_001           Heartbeat                 e  {}"
        );
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            r#"{"id":"e","event":"Heartbeat","station_id":"WALLBOX_001","timestamp":"2026-04-14T12:34:56.000Z","payload":{},"synthetic":false}"#
        );
    }
}

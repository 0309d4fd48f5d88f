//! Events and their types.

use pipelet_proto::v1::{Event, EventType};

use super::{payload::indented, time::shown};
use crate::{
    output::{Describe, Row},
    table::{Details, printable, shortened},
    words::yes_no,
};

/// How much of a payload a line shows.
const SHOWN_PAYLOAD: usize = 120;

/// Its type, with a mark where no charger has said it.
fn kind(event: &Event) -> String {
    let mark = if event.synthetic { " (synthetic)" } else { "" };
    format!("{}{mark}", printable(&event.event))
}

/// What it is, and below it what it says, in this width.
pub(super) fn heading(event: &Event, width: usize) -> String {
    let what = format!(
        "{}  {}  {}",
        shown(event.timestamp),
        printable(&event.station_id),
        kind(event)
    );
    let said = shortened(&event.payload, width);
    format!("{}\n{said}", shortened(&what, width))
}

/// One line; the columns line up as long as the names have a usual length.
pub(crate) fn line(event: &Event) -> String {
    format!(
        "{:<20}  {:<20}  {:<24}  {}  {}",
        shown(event.timestamp),
        printable(&event.station_id),
        kind(event),
        printable(&event.id),
        shortened(&event.payload, SHOWN_PAYLOAD),
    )
}

impl Row for Event {
    const HEADERS: &'static [&'static str] = &["ID", "TIME", "STATION", "EVENT", "PAYLOAD"];
    const OPTIONAL: &'static [&'static str] = &["PAYLOAD"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            shown(self.timestamp),
            self.station_id.clone(),
            kind(self),
            self.payload.clone(),
        ]
    }
}

impl Describe for Event {
    fn describe(&self) -> Details {
        Details::default()
            .line("id", &self.id)
            .line("event", &self.event)
            .line("station", &self.station_id)
            .line("time", shown(self.timestamp))
            .line("synthetic", yes_no(self.synthetic))
            .section("payload", indented(&self.payload))
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
        let event = Event {
            id: "e".into(),
            event: "Heartbeat".into(),
            station_id: "WALLBOX_001".into(),
            timestamp: Some(prost_types::Timestamp {
                seconds: 1_776_170_096,
                nanos: 0,
            }),
            payload: "{}".into(),
            synthetic: false,
        };
        assert_eq!(
            line(&event),
            "2026-04-14T12:34:56Z  WALLBOX_001           Heartbeat                 e  {}"
        );
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            r#"{"id":"e","event":"Heartbeat","station_id":"WALLBOX_001","timestamp":"2026-04-14T12:34:56.000Z","payload":{},"synthetic":false}"#
        );
    }
}

//! A caller's choice of events, from whichever API it came through.

use jiff::Timestamp;
use pipelet_domain::{
    events::{EventFilter, EventSelection, StationSelection},
    webhooks::Fault,
};

/// What a caller says; empty lists mean all.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) events: Vec<String>,
    pub(super) stations: Vec<String>,
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
}

impl Said {
    /// On failure, all faults; the lists are called by their pointers.
    pub(super) fn parse(self, events: &str, stations: &str) -> Result<EventFilter, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut fault = |pointer: &str, code, message| {
            faults.push(Fault {
                pointer: pointer.to_owned(),
                code,
                message,
            });
        };
        let kinds = (!self.events.is_empty()).then(|| EventSelection::parse(&self.events));
        let kinds = kinds.transpose().unwrap_or_else(|unknown| {
            for (_, error) in unknown {
                fault(events, "unknown_event", error.to_string());
            }
            None
        });
        let selected = StationSelection::parse(&self.stations).unwrap_or_else(|wrong| {
            for (_, error) in wrong {
                fault(stations, "invalid_pattern", error.to_string());
            }
            StationSelection::default()
        });
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(EventFilter {
            kinds,
            stations: selected,
            since: self.since,
            until: self.until,
        })
    }
}

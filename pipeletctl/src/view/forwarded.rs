//! An event that was sent to a local application, and what came of it.

use std::time::Duration;

use pipelet_proto::v1;
use serde::Serialize;

use super::time::Time;
use crate::{
    forward::{Attempted, Outcome},
    table::{printable, shortened},
    words::or_dash,
};

/// How much of an answer a line shows.
const SHOWN_ANSWER: usize = 80;

#[derive(Debug, Serialize)]
pub(crate) struct Forwarded {
    pub(crate) id: String,
    event: String,
    station_id: String,
    timestamp: Option<Time>,
    pub(crate) attempt: u32,
    pub(crate) ok: bool,
    status_code: Option<u16>,
    duration_ms: u64,
    error: Option<String>,
}

impl Forwarded {
    pub(crate) fn new(event: &v1::Event, attempt: u32, attempted: &Attempted) -> Self {
        let (status_code, error) = match &attempted.outcome {
            Outcome::Answered(status @ 200..=299, _) => (Some(*status), None),
            Outcome::Answered(status, said) => (Some(*status), Some(said.clone())),
            none => (None, Some(none.to_string())),
        };
        Self {
            id: event.id.clone(),
            event: event.event.clone(),
            station_id: event.station_id.clone(),
            timestamp: Time::from_wire(event.timestamp),
            attempt,
            ok: error.is_none(),
            status_code,
            duration_ms: millis(attempted.duration),
            error,
        }
    }

    /// How it went, in few columns: what matters least stands last.
    pub(crate) fn outcome(&self) -> String {
        let status = self.status_code.map(|status| status.to_string());
        let said = self.status_code.and(self.error.as_deref());
        let outcome = format!(
            "{:<9} {:>5} ms{}  {}",
            status.as_deref().unwrap_or("no answer"),
            self.duration_ms,
            self.again(),
            shortened(said.unwrap_or_default(), SHOWN_ANSWER),
        );
        outcome.trim_end().to_owned()
    }

    fn again(&self) -> String {
        match self.attempt {
            1 => String::new(),
            attempt => format!("  attempt {attempt}"),
        }
    }

    /// One line; the columns line up as long as the names have a usual length.
    pub(crate) fn line(&self) -> String {
        let line = format!(
            "{:<20}  {:<20}  {:<24}  {:>3}  {:>5} ms{}  {}",
            or_dash(self.timestamp),
            printable(&self.station_id),
            printable(&self.event),
            or_dash(self.status_code),
            self.duration_ms,
            self.again(),
            shortened(self.error.as_deref().unwrap_or_default(), SHOWN_ANSWER),
        );
        line.trim_end().to_owned()
    }
}

fn millis(duration: Duration) -> u64 {
    let rounded = duration + Duration::from_micros(500);
    u64::try_from(rounded.as_millis()).unwrap_or(u64::MAX)
}

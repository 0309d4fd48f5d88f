//! How the messages look in JSON: keys in `snake_case`, times in RFC 3339 UTC with milliseconds,
//! OCPP's messages as JSON in their place.

use jiff::Timestamp;
use serde::{
    Serialize, Serializer,
    ser::{SerializeMap as _, SerializeSeq as _},
};
use serde_json::value::RawValue;

use crate::v1::call_response::Outcome;

/// None where it is absent, or beyond the calendar.
pub fn moment(time: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    let time = time?;
    Timestamp::new(time.seconds, time.nanos).ok()
}

struct Time(Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.3}", self.0))
    }
}

pub(crate) fn time<S: Serializer>(
    time: &Option<prost_types::Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    moment(*time).map(Time).serialize(serializer)
}

pub(crate) fn times<S: Serializer>(
    times: &[prost_types::Timestamp],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let times: Vec<_> = times
        .iter()
        .filter_map(|time| moment(Some(*time)))
        .collect();
    let mut list = serializer.serialize_seq(Some(times.len()))?;
    for time in times {
        list.serialize_element(&Time(time))?;
    }
    list.end()
}

/// JSON text as it is. What is none, which would be a fault of ours, is shown as a string.
pub(crate) fn raw<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(raw) => raw.serialize(serializer),
        Err(_) => text.serialize(serializer),
    }
}

struct Raw<'a>(&'a str);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        raw(self.0, serializer)
    }
}

/// `{"status": "answered", "payload": …}`, or `{"status": "error", "error": …}`.
impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        match self {
            Self::Payload(payload) => {
                map.serialize_entry("status", "answered")?;
                map.serialize_entry("payload", &Raw(payload))?;
            }
            Self::Error(error) => {
                map.serialize_entry("status", "error")?;
                map.serialize_entry("error", error)?;
            }
        }
        map.end()
    }
}

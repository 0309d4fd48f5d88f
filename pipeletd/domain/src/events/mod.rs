//! What happens on a station, as a value: the event, its names, and who wants it.
//!
//! Pure: nothing here does I/O, reads a clock or knows a wire format other than that a payload
//! is one JSON object, kept as the bytes that came.

mod catalogue;
mod event;
mod filter;
mod id;
mod id_tag;
mod json;
mod sample;
mod selection;
mod stations;

pub use catalogue::{Direction, EventType, Group, Profile, UnknownEventType, UnknownGroup};
pub use event::{Event, Payload, PayloadError, Seq, Synthetic};
pub use filter::EventFilter;
pub use id::{EventId, InvalidEventId, InvalidStationId, StationId};
pub use id_tag::{AuthorizationStatus, IdTagKey};
pub use sample::sample_payload;
pub use selection::{EventSelection, SelectionError};
pub use stations::{StationPatternError, StationSelection};

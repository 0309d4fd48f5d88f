//! What is known of a station, folded from the journal's events alone.
//!
//! The fold is the same whether an event has just been written or is replayed at a start, so a
//! station's state can always be made again from the journal. It never fails: a field that is
//! missing or odd is left as it was. Pure; it knows neither the store nor the sockets.

mod fields;
mod repeats;
mod station;
mod station_time;
mod transaction;

pub use fields::Fields;
pub use repeats::{Arrival, Digest, LastCall, Repeat, StartKey, StartedTransaction};
pub use station::{BootStatus, ConnectorState, OpenTransaction, StationState};
pub use station_time::parse_station_time;
pub use transaction::{MeterReading, StopRequest, Transaction, TransactionFilter, TransactionStop};

use self::station::{clipped, unsigned};

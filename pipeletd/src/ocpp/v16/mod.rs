//! The requests of OCPP 1.6 and of its security extension, and what is wrong with a given one.
//!
//! Written from the tables of OCPP 1.6 edition 2, sections 6 and 7, and of the security whitepaper
//! edition 2, section 5. What we send must pass; what a station sends is only judged, because it
//! is answered and forwarded anyway unless the configuration asks for strictness.

mod parameters;
mod schema;
mod tables;
mod validate;

pub use parameters::payload_of;
pub use validate::{Violation, repeated_keys, validate};

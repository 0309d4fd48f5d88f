//! Simulated chargers: real OCPP 1.6J over real sockets.
//!
//! ```text
//! habits ── cars ──> charger ── frames ──> station ── line ──> the daemon
//!                    (pure)                │ pace      (socket)
//!                                          └─ facts ──> tally
//! ```
//!
//! A `charger` is a state machine over the chargers' own time, which a `pace` lets run faster than
//! the wall clock; `station` moves its frames over a `line`, and dials again when that is cut;
//! `fleet` has many of them, whose facts a `tally` sums up.
//!
//! Invariant: a charger says nothing that a real one would not, in the order in which a real one
//! would. Nothing here knows `pipelet.v1`: to these chargers the daemon is any central system.

mod charger;
mod fleet;
mod habits;
mod line;
mod outages;
mod pace;
mod station;
mod tally;

pub use self::{
    charger::{Action, ConnectorView, Status},
    fleet::{Fleet, Options},
    habits::Habits,
    line::{Endpoint, EndpointError, OcppUrl},
    outages::Outages,
    pace::{Pace, Speed},
    station::StationView,
    tally::{Quantiles, Tally},
};

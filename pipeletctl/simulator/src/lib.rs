//! Simulated chargers: real OCPP 1.6J over real sockets.
//!
//! ```text
//! arrivals ── cars ──> charger ── frames ──> station ── connection ──> the daemon
//!                      (pure)                │ clock     (socket)
//!                                            └─ observations ──> stats
//! ```
//!
//! A `charger` is a state machine over the chargers' own time, which a `clock` lets run faster than
//! the wall clock; `station` moves its frames over a `connection`, and dials again when that is
//! lost; `fleet` has many of them, and counts in its `stats` what they observe.
//!
//! Invariant: a charger sends nothing that a real one would not, in the order in which a real one
//! would. Nothing here knows `pipelet.v1`: to these chargers the daemon is any central system.

mod arrivals;
mod charger;
mod clock;
mod connection;
mod fleet;
mod outages;
mod station;
mod stats;

pub use self::{
    arrivals::ArrivalPattern,
    charger::{Action, ChargePointStatus, ConnectorView},
    clock::{Clock, Speed},
    connection::{Endpoint, EndpointError, OcppUrl},
    fleet::{Fleet, Options},
    outages::Outages,
    station::StationView,
    stats::{FleetStats, Quantiles},
};

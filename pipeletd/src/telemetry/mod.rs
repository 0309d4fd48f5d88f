//! What the daemon tells of itself while it runs, to people and to machines.
//!
//! | module | |
//! |---|---|
//! | `log` | on stderr, one line for each thing that happened |
//! | `stderr` | where it goes, and who reads it may stop to |
//! | `span` | one thing that took a while, as a value, and which trace it belongs to |
//! | `spans` | where spans are left: a bounded queue that never makes anybody wait |
//! | `exporter` | takes them from there to an OpenTelemetry collector, in batches |
//! | `otlp` | what a collector is sent: the messages of OTLP's traces, and where they go |
//!
//! The invariant: nobody waits for a collector, and without one a span is not even made. A span
//! that can't be kept is dropped and counted.
//!
//! Knows events and their ids. Knows no journal, no delivery and no station's connection: they
//! say what they did, and nothing here asks them.

mod exporter;
mod log;
mod otlp;
mod span;
mod spans;
mod stderr;

pub use self::{
    exporter::{Exporter, ExporterError},
    log::{InvalidLevel, Log, LogFormat, LogLevel, filter, start},
    otlp::{Endpoint, InvalidEndpoint},
    span::{Kind, Span, Value, event_span},
    spans::{SpanCounts, Spans},
    stderr::DroppedLines,
};

//! The example receiver in axum, as this workspace's binary: so it is built with the versions that
//! are locked here, and the end-to-end tests can run it. It is a reader's program, with rules of
//! its own.

#![allow(
    missing_debug_implementations,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used
)]

// Named here, too, for what looks for dependencies that no source names.
use subtle as _;

include!("../../examples/receivers/rust-axum/src/main.rs");

//! The README's receiver in Rust, letter for letter: a program of its readers', which goes by the
//! rules of its own house.

#![allow(
    missing_debug_implementations,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used
)]

include!("receiver.rs");

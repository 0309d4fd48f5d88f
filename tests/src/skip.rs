//! Tests that need what a machine may not have.

use std::{
    env,
    fmt::Display,
    io::{self, Write as _},
};

/// Says loudly that a test, or a part of it, is skipped for want of something. In CI nothing is:
/// there it fails.
pub fn skip(for_want_of: &str, why: impl Display) {
    assert!(
        env::var_os("CI").is_none(),
        "in CI nothing is skipped, for want of {for_want_of} or else: {why}"
    );
    // Not by a print macro: those are captured, and this is for a test that passes.
    let _ = writeln!(
        io::stderr(),
        "\n*** SKIPPED, for want of {for_want_of}: {why}\n"
    );
}

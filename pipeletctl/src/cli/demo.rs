//! `demo`, as clap reads it.

use std::path::PathBuf;

use clap::{Args, ValueHint};

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Prints lines instead of drawing, and replays by itself (as with -o json, or no terminal)
    #[arg(long)]
    pub(crate) headless: bool,
    /// The daemon to start [default: the one beside pipeletctl, or on the search path]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::ExecutablePath)]
    pub(crate) pipeletd: Option<PathBuf>,
}

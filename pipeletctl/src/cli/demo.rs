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
    /// Shows a cluster instead, of three nodes and three NATS servers, of which one each is killed
    #[arg(long)]
    pub(crate) cluster: bool,
    /// The NATS server to start for it [default: nats-server on the search path]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::ExecutablePath, requires = "cluster")]
    pub(crate) nats_server: Option<PathBuf>,
}

//! `simulate`, as clap reads it.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum, ValueHint};
use pipelet_simulator::{OcppUrl, Speed};

use crate::system::when::parse_timeout;

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// How many stations
    #[arg(
        long,
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=50_000),
        value_name = "N"
    )]
    pub(crate) stations: u32,
    /// What happens to them
    #[arg(long, value_enum, default_value = "day", value_name = "SCENARIO")]
    pub(crate) scenario: Scenario,
    /// How much faster than the wall clock the stations live
    #[arg(long, default_value = "60x", value_name = "FACTOR")]
    pub(crate) speed: Speed,
    /// How long it takes [default: a day of the stations', or 1m for a storm and 3m for offline]
    #[arg(long, value_parser = parse_timeout, value_name = "DURATION")]
    pub(crate) duration: Option<Duration>,
    /// Where the stations connect, as ws:// or wss:// [default: the daemon is asked]
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) ocpp_url: Option<OcppUrl>,
    /// What the stations' ids begin with
    #[arg(long, default_value = "SIM", value_name = "PREFIX")]
    pub(crate) prefix: String,
    /// How many cars each station can charge at once
    #[arg(
        long,
        default_value_t = 2,
        value_parser = clap::value_parser!(u32).range(1..=32),
        value_name = "N"
    )]
    pub(crate) connectors: u32,
    /// A file with the password of all stations, or "-" for standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) password_file: Option<PathBuf>,
    /// The same number makes the same cars come
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub(crate) seed: u64,
    /// Also where the stations connect to another machine: load only what is yours
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Cars come and go as the hours of a day have it, from seven in the morning on.
    Day,
    /// Every 10 s all connections are cut; all stations dial at once and send their state again.
    Storm,
    /// Stations lose their connection, charge meanwhile, and deliver late.
    Offline,
}

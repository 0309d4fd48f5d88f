//! What is run, and for how long.

use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Measures pipeletd end to end, beside what the machine and its peers can do.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "gateway",
    bin_name = "cargo bench -p pipelet-tests --bench gateway --"
)]
pub(crate) struct Options {
    /// The sections to run, comma-separated [default: all; with --quick, without peers, cluster and retention]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Section>,

    /// Under two minutes and small: for what must hold on any machine, never for its figures
    #[arg(long)]
    pub(crate) quick: bool,

    /// How long each measured window is [default: 10, quick: 2]
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,

    /// How many stations send in a closed loop [default: 50,500; quick: 20]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    stations: Vec<usize>,

    /// How often each gateway gets its turn; the median counts [default: 3, quick: 1]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,

    /// Connections at rest [default: 20000, quick: 500]
    #[arg(long, value_name = "N")]
    idle: Option<usize>,

    /// Events owed to the receiver that refuses [default: 5000000, quick: 20000]
    #[arg(long, value_name = "N")]
    backlog: Option<u64>,

    /// Events in the journal at which an event's cost is taken [default: 100000,1000000,10000000;
    /// quick: 5000]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    journal: Vec<u64>,

    /// Webhooks at which an event's cost is taken [default: 1,10,100,1000; quick: 1,10]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    webhooks: Vec<usize>,

    /// Writes tests/benches/RESULTS.md and the plots beside it
    #[arg(long)]
    pub(crate) write_results: bool,

    /// What cargo passes to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    /// What the machine can do: POSTs, frames and syncs with nothing in between
    Limits,
    /// pipeletd in a closed loop of stations, to one webhook and to four
    Ours,
    /// The same load on gateways that persist nothing, written with the usual libraries
    Peers,
    /// The same load on the one node of a cluster, on three servers of NATS that sync always
    Cluster,
    /// 200 events a second for a minute
    Steady,
    /// Many stations that say next to nothing
    Idle,
    /// A receiver that refuses, and what it costs everybody else
    Backlog,
    /// What an event costs as webhooks and journal grow
    Growth,
    /// Whether the disk comes back when events are forgotten
    Retention,
}

impl Options {
    pub(crate) fn wants(&self, section: Section) -> bool {
        if self.only.is_empty() {
            let left_out = [Section::Peers, Section::Cluster, Section::Retention];
            !(self.quick && left_out.contains(&section))
        } else {
            self.only.contains(&section)
        }
    }

    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(self.sized(10, 2)))
    }

    /// Before each window: connections, caches and pools settle.
    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_millis(self.sized(2000, 500))
    }

    /// The steady load takes six windows, because its rare events are what is looked for.
    pub(crate) fn steady_window(&self) -> Duration {
        self.window() * self.sized(6, 2)
    }

    /// So is the load of a machine at rest: CPU time is counted in ticks of 10 ms.
    pub(crate) fn idle_window(&self) -> Duration {
        self.window() * self.sized(3, 1)
    }

    pub(crate) fn stations(&self) -> Vec<usize> {
        or(&self.stations, self.sized(&[50, 500], &[20]))
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(self.sized(3, 1)).max(1)
    }

    pub(crate) fn idle(&self) -> usize {
        self.idle.unwrap_or(self.sized(20_000, 500))
    }

    pub(crate) fn backlog(&self) -> u64 {
        self.backlog.unwrap_or(self.sized(5_000_000, 20_000))
    }

    pub(crate) fn journal(&self) -> Vec<u64> {
        let full = &[100_000, 1_000_000, 10_000_000];
        or(&self.journal, self.sized(full, &[5_000]))
    }

    pub(crate) fn webhooks(&self) -> Vec<usize> {
        or(&self.webhooks, self.sized(&[1, 10, 100, 1_000], &[1, 10]))
    }

    pub(crate) fn retained(&self) -> u64 {
        self.sized(1_000_000, 5_000)
    }

    fn sized<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

fn or<T: Clone>(said: &[T], default: &[T]) -> Vec<T> {
    if said.is_empty() {
        default.to_vec()
    } else {
        said.to_vec()
    }
}

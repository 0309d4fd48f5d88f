//! Whether the disk that events took can be used again, once nobody needs them any more.

use std::{io, path::Path, time::Duration};

use tokio::time::sleep;

use super::{
    backlog::owe,
    gateway,
    ledger::Ledger,
    options::Options,
    process,
    report::{Report, Table, float, mib},
};

/// Each sends as many events, and waits until they are forgotten.
const ROUNDS: usize = 3;
/// The daemon looks every ten seconds for what it can forget, and the engine tidies up behind it.
const LOOK: Duration = Duration::from_secs(1);
const UNCHANGED: usize = 15;

pub(crate) async fn run(options: &Options, report: &mut Report) -> io::Result<()> {
    let mut table = Table::new(
        "Disk, with a retention of a second",
        &["events in all", "on disk", "once they are forgotten"],
    );
    let daemon = gateway::daemon().flag("--retention", "1s").start().await;
    let events = options.retained();
    for round in 1..=ROUNDS {
        owe(events, daemon.ocpp(), &Ledger::new(1)).await;
        let full = float(process::disk(daemon.data_dir()));
        let rest = float(settled(daemon.data_dir()).await);
        report.set(format!("retention.{round}.full_bytes"), full);
        report.set(format!("retention.{round}.rest_bytes"), rest);
        table.row(vec![
            (events * round as u64).to_string(),
            mib(full),
            mib(rest),
        ]);
    }
    report.add(table)
}

/// What the directory takes once that has not changed for a while.
async fn settled(directory: &Path) -> u64 {
    let (mut last, mut unchanged) = (process::disk(directory), 0);
    while unchanged < UNCHANGED {
        sleep(LOOK).await;
        let now = process::disk(directory);
        unchanged = if now == last { unchanged + 1 } else { 0 };
        last = now;
    }
    last
}

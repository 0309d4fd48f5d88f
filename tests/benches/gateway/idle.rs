//! Stations that are connected and say next to nothing: what does each of them cost?

use std::io;

use tokio::time::sleep;

use super::{
    calls::{Call, HEARTBEAT},
    fleet::{Fleet, Load, Pacing},
    gateway::Kind,
    ledger::Ledger,
    options::{Options, Section},
    process,
    report::{Report, Table, float, mib},
    sink::Sink,
    throughput,
};

/// How often each station sends a heartbeat, as pipeletd asks by default.
const HEARTBEAT_SECONDS: f64 = 300.0;
/// Of the files that a process may have open, as many as pipeletd gives to stations at least, less
/// a few: stations beyond what it takes would wait for ever.
fn most_stations() -> usize {
    process::open_files() / 4 * 3 - 100
}

pub(crate) async fn run(options: &Options, report: &mut Report) -> io::Result<()> {
    let mut table = Table::new(
        "Idle stations, a heartbeat each 300 s",
        &[
            "gateway",
            "connected",
            "connects/s",
            "memory each",
            "RSS",
            "CPU at rest",
        ],
    );
    let stations = options.idle().min(most_stations());
    if stations < options.idle() {
        table.note(format!(
            "{} were asked for; `ulimit -n` of {} allows {stations}.",
            options.idle(),
            process::open_files()
        ));
    }
    let mut kinds = vec![Kind::Ours];
    if options.wants(Section::Peers) {
        kinds.extend(throughput::peers(&mut table).await?);
    }
    for kind in kinds {
        let row = rest(&kind, stations, options, report).await;
        table.row(row);
    }
    report.add(table)
}

async fn rest(kind: &Kind, stations: usize, options: &Options, report: &mut Report) -> Vec<String> {
    let ledger = Ledger::new(1);
    let sink = Sink::start(1, &ledger).await;
    let gateway = kind.start(&sink.urls()).await;
    let count = float(stations as u64);
    let load = |stations, name| Load {
        ocpp: gateway.ocpp(),
        name,
        stations,
        calls: vec![(Call::new(HEARTBEAT), 0)],
        pacing: Pacing::PerSecond(float(stations as u64) / HEARTBEAT_SECONDS),
    };
    // The first few make it allocate what it does once.
    let first = Fleet::start(load(10, "FIRST"), &ledger).await;
    sleep(options.warm_up()).await;
    let empty = process::rss(gateway.pid());

    let fleet = Fleet::start(load(stations, "IDLE"), &ledger).await;
    let connects = count / fleet.connecting().as_secs_f64();
    sleep(options.warm_up()).await;
    let before = process::used(gateway.pid());
    sleep(options.idle_window()).await;
    let rss = process::rss(gateway.pid());
    let cpu = process::used(gateway.pid()).cpu.saturating_sub(before.cpu);
    fleet.stop().await;
    first.stop().await;

    let each = (float(rss) - float(empty)) / count;
    let percent = cpu.as_secs_f64() / options.idle_window().as_secs_f64() * 100.0;
    let name = kind.name();
    report.set(format!("idle.{name}.bytes_each"), each);
    report.set(format!("idle.{name}.cpu_percent"), percent);
    report.set(format!("idle.{name}.connects_per_s"), connects);
    vec![
        kind.title().to_owned(),
        stations.to_string(),
        format!("{connects:.0}"),
        format!("{:.1} KB", each / 1e3),
        mib(float(rss)),
        format!("{percent:.1} % of a core"),
    ]
}

//! How many events per second get through, end to end, and how fast: the real binary with its
//! store on disk, stations in a closed loop, one fast receiver.
//!
//! `cargo bench -p pipelet-tests --bench throughput -- [--stations 50,500] [--seconds 10]
//! [--webhooks 1]`. Daemon, stations and receiver share the machine, so compare ratios only.

mod load;
mod sink;

use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};

use pipelet_tests::Daemon;
use serde_json::json;

use self::{load::Latencies, sink::Sink};

/// Before the measured window: connections, caches and the pool of the sender settle.
const WARM_UP: Duration = Duration::from_secs(2);

struct Options {
    stations: Vec<usize>,
    seconds: u64,
    webhooks: usize,
}

impl Options {
    fn of_process() -> Self {
        let arguments: Vec<_> = std::env::args().collect();
        let value = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name)?;
            arguments.get(at + 1).cloned()
        };
        let number = |name: &str, default| {
            value(name).map_or(default, |text| text.parse().expect("a number"))
        };
        let stations = value("--stations").unwrap_or_else(|| "50,500".to_owned());
        Self {
            stations: stations
                .split(',')
                .map(|text| text.parse().expect("a number"))
                .collect(),
            seconds: number("--seconds", 10),
            webhooks: usize::try_from(number("--webhooks", 1)).expect("a number"),
        }
    }
}

fn main() -> io::Result<()> {
    let options = Options::of_process();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut out = io::stdout();
    writeln!(
        out,
        "| stations | webhooks | calls/s | POSTs/s | CALL p50 | p99 | frame to POST p50 | p99 | \
         CPU/event | RSS | backlog |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for stations in &options.stations {
        writeln!(out, "{}", runtime.block_on(run(*stations, &options)))?;
    }
    Ok(())
}

/// One row of the table.
async fn run(stations: usize, options: &Options) -> String {
    let sink = Sink::start();
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_e2e-pipeletd"))
        .flag("--log-level", "warn")
        // What is measured is the daemon, not how it holds a station back.
        .flag("--ocpp-rate", "1000000/s")
        .start()
        .await;
    for _ in 0..options.webhooks {
        daemon.api().subscribe(&sink.url(), &["MeterValues"]).await;
    }
    let fleet = load::Fleet::connect(daemon.ocpp(), stations).await;
    tokio::time::sleep(WARM_UP).await;

    let (calls, posts, cpu) = (fleet.take(), sink.take(), cpu_time(daemon.pid()));
    drop((calls, posts));
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let window = began.elapsed().as_secs_f64();
    let (calls, posts) = (fleet.take(), sink.take());
    let cpu = cpu_time(daemon.pid()).saturating_sub(cpu);
    let rss = rss(daemon.pid());
    fleet.stop().await;
    let pending: u64 = match daemon.api().get("/webhooks").await.json()["data"].as_array() {
        Some(webhooks) => webhooks
            .iter()
            .filter_map(|webhook| webhook["stats"]["pending"].as_u64())
            .sum(),
        None => 0,
    };
    let rate = |latencies: &Latencies| f64::from(latencies.len()) / window;
    format!(
        "| {stations} | {} | {:.0} | {:.0} | {:.2} ms | {:.2} ms | {:.2} ms | {:.2} ms | {:.1} µs \
         | {} MiB | {pending} |",
        options.webhooks,
        rate(&calls),
        rate(&posts),
        calls.quantile_ms(500),
        calls.quantile_ms(990),
        posts.quantile_ms(500),
        posts.quantile_ms(990),
        cpu.as_secs_f64() * 1e6 / f64::from(calls.len().max(1)),
        rss >> 20,
    )
}

/// User and system time of a process (proc(5), fields 14 and 15), in ticks of 10 ms.
fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<u64> = after_name
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    let ticks = fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0);
    Duration::from_millis(ticks * 10)
}

/// Resident memory in bytes.
fn rss(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// The body that stations send; it carries the moment at which it was sent.
fn meter_values(sent_ns: u64) -> String {
    json!({
        "connectorId": 1,
        "transactionId": 1_234_567,
        "meterValue": [{
            "timestamp": "2026-04-14T12:34:56Z",
            "sampledValue": [
                { "value": format!("{sent_ns:020}"), "context": "Sample.Periodic",
                  "measurand": "Energy.Active.Import.Register", "location": "Outlet", "unit": "Wh" },
                { "value": "7.4", "context": "Sample.Periodic",
                  "measurand": "Power.Active.Import", "location": "Outlet", "unit": "kW" },
                { "value": "16.02", "context": "Sample.Periodic", "measurand": "Current.Import",
                  "location": "Outlet", "unit": "A", "phase": "L1" }
            ]
        }]
    })
    .to_string()
}

//! A receiver that refuses for long, its return, and a healthy neighbour all the while.

use std::{io, net::SocketAddr, time::Duration};

use pipelet_tests::Daemon;
use tokio::time::{Instant, sleep};

use super::{
    calls::{Call, METER_VALUES, STATUS},
    fleet::{Fleet, Load, Pacing},
    gateway,
    histogram::Histogram,
    ledger::Ledger,
    options::Options,
    process,
    report::{Report, Table, float, mib, ms, thousands},
    sink::Sink,
};

const STATIONS: usize = 500;
const NEIGHBOUR_STATIONS: usize = 50;
const NEIGHBOUR_PER_SECOND: f64 = 200.0;

/// One healthy webhook's own events, at a rate that any gateway carries.
struct Neighbour {
    ledger: Ledger,
    sink: Sink,
}

pub(crate) async fn run(options: &Options, report: &mut Report) -> io::Result<()> {
    let mut table = Table::new(
        "A receiver that refuses",
        &["", "", "healthy neighbour p50", "p99"],
    );
    let mut daemon = gateway::daemon()
        .flag("--retry-schedule", "2s")
        .flag("--max-attempts", "1000000")
        .flag("--retention-size", "100GiB")
        .start()
        .await;
    let neighbour = Neighbour::new(&daemon).await;
    let fleet = neighbour.fleet(&daemon).await;
    sleep(options.warm_up()).await;
    let alone = neighbour.watch(options.idle_window()).await;
    report.set("backlog.alone_p99_ms", alone.quantile_ms(0.99));
    table.row(line("nobody refuses yet", String::new(), Some(&alone)));

    let dead = refusing().await;
    let url = format!("http://{dead}/hook");
    daemon.api().subscribe(&url, &["MeterValues"]).await;
    let ledger = Ledger::new(1);
    let owed = options.backlog();
    let began = Instant::now();
    owe(owed, daemon.ocpp(), &ledger).await;
    let filled = float(owed) / began.elapsed().as_secs_f64();
    let meanwhile = neighbour.sink.take();
    let rate = format!("{}/s", thousands(filled));
    table.row(line(
        &format!("{owed} events come to be owed"),
        rate,
        Some(&meanwhile),
    ));

    let beside = neighbour.watch(options.idle_window()).await;
    let peak = float(process::peak_rss(daemon.pid()));
    let disk = float(process::disk(daemon.data_dir()));
    report.set("backlog.neighbour_p99_ms", beside.quantile_ms(0.99));
    report.set("backlog.peak_rss_bytes", peak);
    report.set("backlog.disk_bytes", disk);
    table.row(line(
        "they are owed",
        format!("{} on disk", mib(disk)),
        Some(&beside),
    ));
    table.row(line("the most memory so far", mib(peak), None));

    fleet.stop().await;
    neighbour.settle(report).await;
    daemon.terminate().await;
    let began = Instant::now();
    daemon.start_again().await;
    let start = began.elapsed();
    report.set("backlog.start_s", start.as_secs_f64());
    table.row(line(
        "a start with them",
        format!("{:.2} s", start.as_secs_f64()),
        None,
    ));
    let fleet = neighbour.fleet(&daemon).await;

    let sink = Sink::start_at(vec![dead], &ledger).await;
    let rate = drain(&sink, owed).await;
    let meanwhile = neighbour.sink.take();
    report.set("backlog.drain_per_s", rate);
    let drained = format!("{}/s", thousands(rate));
    table.row(line("the receiver returns", drained, Some(&meanwhile)));
    let rss = float(process::peak_rss(daemon.pid()));
    report.set("backlog.drain_peak_rss_bytes", rss);
    table.row(line("the most memory after that start", mib(rss), None));
    fleet.stop().await;
    neighbour.settle(report).await;

    let came = sink.await_distinct(owed).await;
    if came < owed {
        report.fault(format!("backlog: {} of {owed} lost", owed - came));
    }
    if sink.duplicates() > 0 {
        let again = sink.duplicates();
        report.fault(format!("backlog: {again} came twice without a crash"));
    }
    report.add(table)
}

impl Neighbour {
    async fn new(daemon: &Daemon) -> Self {
        let ledger = Ledger::new(1);
        let sink = Sink::start(1, &ledger).await;
        let url = sink.urls().remove(0);
        daemon.api().subscribe(&url, &["StatusNotification"]).await;
        Self { ledger, sink }
    }

    async fn fleet(&self, daemon: &Daemon) -> Fleet {
        let load = Load {
            ocpp: daemon.ocpp(),
            name: "NEIGHBOUR",
            stations: NEIGHBOUR_STATIONS,
            calls: vec![(Call::new(STATUS), 1)],
            pacing: Pacing::PerSecond(NEIGHBOUR_PER_SECOND),
        };
        Fleet::start(load, &self.ledger).await
    }

    async fn watch(&self, window: Duration) -> Histogram {
        drop(self.sink.take());
        sleep(window).await;
        self.sink.take()
    }

    async fn settle(&self, report: &mut Report) {
        let owed = self.ledger.owed();
        let came = self.sink.await_distinct(owed).await;
        let again = self.sink.duplicates();
        if came < owed || again > 0 {
            report.fault(format!(
                "the neighbour: {came} of {owed} came, {again} twice"
            ));
        }
    }
}

/// An address at which nobody listens, now.
async fn refusing() -> SocketAddr {
    let sink = Sink::start(1, &Ledger::new(1)).await;
    sink.addresses()[0]
}

/// Has stations send so many events, as fast as they can.
pub(crate) async fn owe(events: u64, ocpp: SocketAddr, ledger: &Ledger) {
    let load = Load {
        ocpp,
        name: "BENCH",
        stations: STATIONS,
        calls: vec![(Call::new(METER_VALUES), 0)],
        pacing: Pacing::Until(events),
    };
    Fleet::start(load, ledger).await.ended().await;
    assert_eq!(ledger.all_acknowledged(), events, "some CALLs were refused");
}

/// Events per second, from the first that comes to nine tenths of them: the last ones wait for
/// their retries.
async fn drain(sink: &Sink, owed: u64) -> f64 {
    let first = sink.await_distinct(1).await;
    let began = Instant::now();
    let most = sink.await_distinct(owed / 10 * 9).await;
    float(most - first) / began.elapsed().as_secs_f64()
}

fn line(what: &str, value: String, neighbour: Option<&Histogram>) -> Vec<String> {
    let quantile = |share| neighbour.map(|samples| ms(samples.quantile_ms(share)));
    vec![
        what.to_owned(),
        value,
        quantile(0.5).unwrap_or_default(),
        quantile(0.99).unwrap_or_default(),
    ]
}

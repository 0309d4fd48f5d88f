//! A load that any gateway carries: how soon does an event arrive?

use std::io;

use tokio::time::sleep;

use super::{
    fleet::Pacing,
    gateway::Kind,
    histogram::Histogram,
    options::{Options, Section},
    report::{Report, Table, ms},
    throughput::{Scene, Turn},
};

const STATIONS: usize = 50;
const PER_SECOND: f64 = 200.0;

pub(crate) async fn run(options: &Options, report: &mut Report) -> io::Result<()> {
    let mut table = Table::new(
        "200 events/s, 1 webhook",
        &["", "p50", "p99", "p99.9", "max", "samples"],
    );
    if options.wants(Section::Cluster) {
        let turn = turn(&Kind::Cluster(16), options, report).await;
        report.set("cluster16.steady.call_p50_ms", turn.calls.quantile_ms(0.5));
        table.row(row("CALL, cluster", &turn.calls));
        table.row(row("frame → POST, cluster", &turn.arrivals));
    }
    let turn = turn(&Kind::Ours, options, report).await;
    table.row(row("CALL", &turn.calls));
    table.row(row("frame → POST", &turn.arrivals));
    table.note(format!("{:.0} bytes written for each event.", turn.written));
    report.set("steady.written_bytes", turn.written);
    report.set("steady.p50_ms", turn.arrivals.quantile_ms(0.5));
    report.set("steady.p99_ms", turn.arrivals.quantile_ms(0.99));
    report.set("steady.p999_ms", turn.arrivals.quantile_ms(0.999));
    report.distribution("ours, 200 events/s", &turn.arrivals);
    report.add(table)
}

async fn turn(kind: &Kind, options: &Options, report: &mut Report) -> Turn {
    let scene = Scene::new(kind, 1).await;
    let fleet = scene.fleet(STATIONS, Pacing::PerSecond(PER_SECOND)).await;
    sleep(options.warm_up()).await;
    let turn = scene.watch(&fleet, options.steady_window()).await;
    fleet.stop().await;
    scene.settle("steady", report).await;
    turn
}

fn row(what: &str, samples: &Histogram) -> Vec<String> {
    vec![
        what.to_owned(),
        ms(samples.quantile_ms(0.5)),
        ms(samples.quantile_ms(0.99)),
        ms(samples.quantile_ms(0.999)),
        ms(samples.max_ms()),
        samples.count().to_string(),
    ]
}

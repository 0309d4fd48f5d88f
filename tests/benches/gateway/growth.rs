//! Whether an event's cost grows with the webhooks that exist, or with the events that were.

use std::io;

use tokio::time::sleep;

use super::{
    backlog::owe,
    calls::{Call, METER_VALUES},
    fleet::Pacing,
    gateway::{self, Gateway},
    ledger::Ledger,
    options::Options,
    process,
    report::{Report, Table, float, mib, ms, thousands},
    sink::Sink,
    throughput::Scene,
};

/// A webhook wants one of these, so that each event matches a tenth of them, as long as all of
/// these are sent alike.
const TYPES: [(&str, &str); 10] = [
    METER_VALUES,
    (
        "StatusNotification",
        r#"{"connectorId":1,"errorCode":"NoError","status":"Charging","info":"@"}"#,
    ),
    (
        "DataTransfer",
        r#"{"vendorId":"bench","messageId":"a","data":"@"}"#,
    ),
    (
        "SecurityEventNotification",
        r#"{"type":"InvalidMessages","timestamp":"2026-04-14T12:34:56Z","techInfo":"@"}"#,
    ),
    (
        "BootNotification",
        r#"{"chargePointVendor":"Bench","chargePointModel":"One","firmwareVersion":"@"}"#,
    ),
    ("SignCertificate", r#"{"csr":"@"}"#),
    ("Heartbeat", "{}"),
    ("DiagnosticsStatusNotification", r#"{"status":"Uploaded"}"#),
    ("FirmwareStatusNotification", r#"{"status":"Installed"}"#),
    ("Authorize", r#"{"idTag":"RFID_12345678"}"#),
];
/// Offered in all, at most, so that a machine's limit on POSTs isn't what is seen.
const EVENTS_PER_SECOND: f64 = 1_000.0;
const POSTS_PER_SECOND: f64 = 5_000.0;
const STATIONS: usize = 50;
/// Receivers that the webhooks share.
const RECEIVERS: usize = 4;

pub(crate) async fn run(options: &Options, report: &mut Report) -> io::Result<()> {
    webhooks(options, report).await?;
    journal(options, report).await
}

async fn webhooks(options: &Options, report: &mut Report) -> io::Result<()> {
    let mut table = Table::new(
        "Growth: webhooks, each matching a tenth of the types",
        &[
            "webhooks",
            "events/s",
            "POSTs/event",
            "CPU/event",
            "CPU/POST",
            "CALL p99",
            "RSS",
        ],
    );
    for count in options.webhooks() {
        // Every event may have as many as each webhook's share of the types allows.
        let ledger = Ledger::new(count);
        let sink = Sink::start(RECEIVERS, &ledger).await;
        let daemon = gateway::daemon().start().await;
        let api = daemon.api();
        let mut wanted = [0; TYPES.len()];
        for (number, url) in (0..count).zip(sink.urls().iter().cycle()) {
            let kind = number % TYPES.len();
            wanted[kind] += 1;
            // A URL of its own for each: they share receivers, not a queue.
            api.subscribe(&format!("{url}/{number}"), &[TYPES[kind].0])
                .await;
        }
        let scene = Scene {
            gateway: Gateway::Ours(Box::new(daemon)),
            sink,
            ledger,
            receivers: 0,
        };
        let share = float(count as u64) / float(TYPES.len() as u64);
        let rate = EVENTS_PER_SECOND.min(POSTS_PER_SECOND / share);
        let calls = TYPES.into_iter().map(Call::new).zip(wanted).collect();
        let fleet = scene
            .fleet_of(STATIONS, calls, Pacing::PerSecond(rate))
            .await;
        sleep(options.warm_up()).await;
        let posted = scene.sink.posts();
        let turn = scene.watch(&fleet, options.window()).await;
        let posts = float(scene.sink.posts() - posted) / float(turn.calls.count().max(1));
        fleet.stop().await;
        let (owed, came) = (
            scene.ledger.owed(),
            scene.sink.await_posts(scene.ledger.owed()),
        );
        let came = came.await;
        if came != owed {
            report.fault(format!(
                "growth with {count} webhooks: {came} POSTs, not {owed}"
            ));
        }
        let name = format!("growth.webhooks.{count}");
        report.set(format!("{name}.cpu_us"), turn.cpu_us);
        report.set(format!("{name}.posts_per_event"), posts);
        table.row(vec![
            count.to_string(),
            thousands(turn.calls_per_s),
            format!("{posts:.1}"),
            format!("{:.0} µs", turn.cpu_us),
            format!("{:.0} µs", turn.cpu_us / posts.max(1.0)),
            ms(turn.calls.quantile_ms(0.99)),
            mib(turn.rss),
        ]);
    }
    table.note("\"CPU/POST\" divides an event's whole cost by its POSTs, or by one.");
    report.add(table)
}

async fn journal(options: &Options, report: &mut Report) -> io::Result<()> {
    let mut table = Table::new(
        "Growth: events in the journal, 1 webhook, 50 stations",
        &[
            "events",
            "POSTs/s",
            "CPU/event",
            "disk/event",
            "CALL p99",
            "RSS",
            "on disk",
        ],
    );
    let daemon = gateway::daemon()
        .flag("--retention-size", "100GiB")
        .start()
        .await;
    let ledger = Ledger::new(1);
    let sink = Sink::start(1, &ledger).await;
    let api = daemon.api();
    let data_dir = daemon.data_dir().to_owned();
    let mut scene = Scene {
        gateway: Gateway::Ours(Box::new(daemon)),
        sink,
        ledger,
        receivers: 1,
    };
    let mut stored = 0;
    for events in options.journal() {
        let missing = events.saturating_sub(stored);
        owe(missing, scene.gateway.ocpp(), &Ledger::new(1)).await;
        let url = scene.sink.urls().remove(0);
        let webhook = api.subscribe(&url, &["MeterValues"]).await;
        let fleet = scene.fleet(STATIONS, Pacing::ClosedLoop).await;
        sleep(options.warm_up()).await;
        let turn = scene.watch(&fleet, options.window()).await;
        fleet.stop().await;
        scene
            .settle(&format!("growth at {events} events"), report)
            .await;
        stored += missing + scene.ledger.all_acknowledged();
        // The next events are stored without being told.
        let path = format!("/webhooks/{webhook}");
        api.delete(&path).await.expect(204);
        let disk = float(process::disk(&data_dir));
        let name = format!("growth.journal.{events}");
        report.set(format!("{name}.cpu_us"), turn.cpu_us);
        report.set(format!("{name}.posts_per_s"), turn.posts_per_s);
        table.row(vec![
            events.to_string(),
            thousands(turn.posts_per_s),
            format!("{:.1} µs", turn.cpu_us),
            format!("{:.0} B", turn.written),
            ms(turn.calls.quantile_ms(0.99)),
            mib(turn.rss),
            mib(disk),
        ]);
        scene.ledger = Ledger::new(1);
        scene.sink = Sink::start(1, &scene.ledger).await;
    }
    report.add(table)
}

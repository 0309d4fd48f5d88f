//! `/metrics`, and the dashboard and alert rules that are made of it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use pipelet_tests::{
    Answer, Api, Authority, DiskError, Faults, Nats, Receiver, Scrape, Station,
    deadline::eventually,
    documents::{Page, first_cells},
};
use serde_json::{Value, json};

use crate::{
    promtool,
    scene::{Scene, daemon},
};

const OPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipeletd/ops");

async fn scrape(api: &Api) -> Scrape {
    // Nobody gives a scraper a key.
    let reply = api.with_key(None).get("/metrics").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let kind = reply.header("content-type").expect("content-type");
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    Scrape::of(reply.text)
}

/// Scrapes until a series has this value.
async fn shows(api: &Api, series: &str, value: f64) -> Scrape {
    let what = format!("{series} {value}");
    let shown = |seen: &Scrape| seen.get(series).is_some_and(|seen| same(seen, value));
    eventually(&what, || scrape(api), shown).await
}

fn same(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

fn all_are(seen: &Scrape, expected: &[(&str, f64)]) {
    for (series, value) in expected {
        let found = seen.get(series);
        let right = found.is_some_and(|found| same(found, *value));
        assert!(
            right,
            "{series} is {found:?} and not {value}\n{}",
            seen.text
        );
    }
}

#[tokio::test]
async fn a_webhooks_figures() {
    let builder = daemon().flag("--retry-schedule", "10ms");
    let mut scene = Scene::with(builder, &["Heartbeat"]).await;
    scene
        .receiver
        .answer_next([Answer::Status(500), Answer::Status(401)]);
    let mut station = scene.station("SECRET_STATION").await;
    station.ok("Heartbeat", "{}").await;
    let delivered = "pipelet_webhook_delivered_total{webhook=\"1\"}";
    let seen = shows(&scene.api, delivered, 1.0).await;
    all_are(
        &seen,
        &[
            (
                "pipelet_webhook_info{webhook=\"1\",name=\"My Integration\"}",
                1.0,
            ),
            ("pipelet_webhook_enabled{webhook=\"1\"}", 1.0),
            ("pipelet_webhook_received_total{webhook=\"1\"}", 1.0),
            ("pipelet_webhook_retries_total{webhook=\"1\"}", 2.0),
            ("pipelet_webhook_dead_total{webhook=\"1\"}", 0.0),
            (
                "pipelet_webhook_attempts_total{webhook=\"1\",outcome=\"delivered\"}",
                1.0,
            ),
            (
                "pipelet_webhook_attempts_total{webhook=\"1\",outcome=\"status_4xx\"}",
                1.0,
            ),
            (
                "pipelet_webhook_attempts_total{webhook=\"1\",outcome=\"status_5xx\"}",
                1.0,
            ),
            (
                "pipelet_webhook_attempt_duration_seconds_count{webhook=\"1\"}",
                3.0,
            ),
            (
                "pipelet_webhook_books{webhook=\"1\",entry=\"received\"}",
                1.0,
            ),
            ("pipelet_events_total{type=\"Heartbeat\"}", 1.0),
            ("pipelet_events_total{type=\"StationConnected\"}", 1.0),
            ("pipelet_stations_connected", 1.0),
            ("pipelet_ready", 1.0),
            ("pipelet_store_outage{part=\"journal\"}", 0.0),
        ],
    );
    for never in ["SECRET_STATION", "127.0.0.1", "hcpms"] {
        assert!(!seen.text.contains(never), "{never}:\n{}", seen.text);
    }
    let attempts = seen.get("pipelet_webhook_attempt_duration_seconds_sum{webhook=\"1\"}");
    assert!(
        attempts.is_some_and(|seconds| seconds > 0.0),
        "{attempts:?}"
    );
    let settled = json!({"delivered": 1, "pending": 0});
    scene.api.await_stats(1, settled).await;
    let books = "pipelet_webhook_books{webhook=\"1\",entry=\"delivered\"}";
    shows(&scene.api, books, 1.0).await;

    // What counts up begins anew with a start, and the books don't.
    scene.daemon.terminate().await;
    scene.start_again().await;
    let seen = scrape(&scene.api).await;
    all_are(&seen, &[(books, 1.0), (delivered, 0.0)]);

    scene.api.delete("/webhooks/1").await.expect(204);
    let seen = scrape(&scene.api).await;
    assert_eq!(seen.with("webhook=\""), Vec::<&str>::new());
}

#[tokio::test]
async fn a_backlog_has_an_age_and_is_cancelled_with_its_webhook() {
    let scene = Scene::new(&["Heartbeat"]).await;
    scene.receiver.answer(Answer::Held);
    let mut station = scene.station("S1").await;
    for _ in 0..3 {
        station.ok("Heartbeat", "{}").await;
    }
    // A station is answered before its event is handed to the webhooks.
    let pending = "pipelet_webhook_books{webhook=\"1\",entry=\"pending\"}";
    shows(&scene.api, pending, 3.0).await;
    let in_flight = "pipelet_webhook_in_flight{webhook=\"1\"}";
    let seen = shows(&scene.api, in_flight, 1.0).await;
    all_are(&seen, &[("pipelet_webhook_retrying{webhook=\"1\"}", 0.0)]);
    let age = "pipelet_webhook_backlog_age_seconds{webhook=\"1\"}";
    let grows = |seen: &Scrape| seen.get(age).is_some_and(|age| age > 0.2);
    eventually("the backlog to age", || scrape(&scene.api), grows).await;

    scene.receiver.release();
    let seen = shows(&scene.api, age, 0.0).await;
    assert_eq!(seen.get(pending), Some(0.0));

    scene.receiver.answer(Answer::Hang);
    station.ok("Heartbeat", "{}").await;
    shows(&scene.api, pending, 1.0).await;
    scene.api.delete("/webhooks/1").await.expect(204);
    shows(&scene.api, "pipelet_deliveries_cancelled_total", 1.0).await;
}

#[tokio::test]
async fn a_dead_letter_and_a_command_are_counted() {
    let scene = Scene::with(daemon().flag("--max-attempts", "1"), &["Heartbeat"]).await;
    let nowhere = Receiver::refused_url().await;
    assert_eq!(scene.api.subscribe(&nowhere, &["Heartbeat"]).await, 2);
    let mut station = scene.station("S1").await;
    station.boot().await;
    station.ok("Heartbeat", "{}").await;
    // What a scrape looks at first: all else has been counted by then.
    let dead = "pipelet_webhook_books{webhook=\"2\",entry=\"dead\"}";
    let seen = shows(&scene.api, dead, 1.0).await;
    all_are(
        &seen,
        &[
            ("pipelet_failed_deliveries", 1.0),
            ("pipelet_webhook_dead_total{webhook=\"1\"}", 0.0),
            ("pipelet_webhook_dead_total{webhook=\"2\"}", 1.0),
            (
                "pipelet_webhook_attempts_total{webhook=\"2\",outcome=\"connection\"}",
                1.0,
            ),
        ],
    );
    command(&scene.api, &mut station).await;
    let soft = json!({"type": "Soft"});
    let gone = scene.api.post("/stations/NOBODY/commands/Reset", &soft);
    gone.await.expect(404);
    let seen = scrape(&scene.api).await;
    all_are(
        &seen,
        &[
            (
                "pipelet_commands_total{action=\"ClearCache\",outcome=\"answered\"}",
                1.0,
            ),
            (
                "pipelet_commands_total{action=\"Reset\",outcome=\"not_sent\"}",
                1.0,
            ),
            (
                "pipelet_command_duration_seconds_count{action=\"ClearCache\"}",
                1.0,
            ),
        ],
    );
}

async fn command(api: &Api, station: &mut Station) {
    let answering = async {
        let asked = station.asked().await;
        station.answer(&asked, json!({"status": "Accepted"})).await;
    };
    let none = json!({});
    let asking = api.post("/stations/S1/commands/ClearCache", &none);
    let (answered, ()) = tokio::join!(asking, answering);
    answered.expect(200);
}

#[tokio::test]
async fn an_outage_can_be_scraped() {
    let (faults, builder) = Faults::of(daemon());
    let scene = Scene::with(builder, &["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    faults.fail_syncs(Some(DiskError::Broken));
    assert_eq!(
        station.call("Heartbeat", "{}").await.error_code(),
        "InternalError"
    );
    let outage = "pipelet_store_outage{part=\"journal\"}";
    let seen = shows(&scene.api, outage, 1.0).await;
    all_are(&seen, &[("pipelet_ready", 0.0)]);
    faults.fail_syncs(None);
    shows(&scene.api, outage, 0.0).await;
}

/// What a daemon that has done a bit of everything has, and what a node of a cluster has beyond it: none
/// where this machine can't have NATS.
async fn everything() -> Option<Scrape> {
    let nats = Nats::start().await?;
    let node = daemon().flag("--store", &nats.url()).start().await;
    let node = node.api();
    let look = async || scrape(&node).await;
    let servers = "pipelet_nats_server_lag";
    let node = eventually("its servers", look, |seen| seen.has(servers)).await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Authority::new().server();
    let builder = daemon().with_station_tls(&server, directory.path());
    let scene = Scene::with(builder, &["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    station.boot().await;
    station.ok("Heartbeat", "{}").await;
    command(&scene.api, &mut station).await;
    // Its own figures count where both have them.
    Some(node.and(&scrape(&scene.api).await))
}

#[tokio::test]
async fn the_text_is_what_prometheus_reads() {
    let Some(seen) = everything().await else {
        return;
    };
    promtool::finds_nothing(Path::new(OPS), &["check", "metrics"], &seen.text).await;
    let expires = "pipelet_certificate_expiry_timestamp_seconds{shown_to=\"stations\"}";
    assert!(
        seen.get(expires).is_some_and(|time| time > 1.7e9),
        "{}",
        seen.text
    );
    for known in [
        "process_resident_memory_bytes",
        "process_open_fds",
        "pipelet_disk_free_bytes",
        "pipelet_store_bytes{database=\"hot\"}",
        "pipelet_journal_commit_duration_seconds_count",
    ] {
        assert!(seen.get(known).is_some_and(|value| value > 0.0), "{known}");
    }
    documents_name_all(&seen);
}

/// Every figure has its place in the documents' table, and nothing else has one.
fn documents_name_all(seen: &Scrape) {
    let page = Page::read("docs/operating.md");
    let named: BTreeSet<&str> = first_cells(page.section("Monitoring"))
        .map(|name| name.split('{').next().unwrap_or(name))
        .collect();
    let ours = seen.families().filter(|name| name.starts_with("pipelet_"));
    assert_eq!(named, ours.collect());
}

#[tokio::test]
async fn dashboard_and_rules_ask_for_what_there_is() {
    let Some(seen) = everything().await else {
        return;
    };
    let rules = fs::read_to_string(file("alerts.yaml")).expect("alerts.yaml");
    let dashboard = fs::read_to_string(file("grafana-dashboard.json")).expect("a dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut asked = Vec::new();
    for panel in panels {
        for target in panel["targets"].as_array().into_iter().flatten() {
            asked.push(target["expr"].as_str().expect("an expression").to_owned());
        }
    }
    assert!(asked.len() > 30, "{asked:?}");
    asked.push(rules);
    for expression in &asked {
        for name in names(expression) {
            assert!(
                seen.has(name),
                "there is no {name}, asked for in {expression}"
            );
        }
    }
}

#[tokio::test]
async fn every_alert_fires() {
    let ops = Path::new(OPS);
    promtool::finds_nothing(ops, &["check", "rules", "alerts.yaml"], "").await;
    promtool::finds_nothing(ops, &["test", "rules", "alerts.test.yaml"], "").await;
    // Each has a case in which it does.
    let after = |file: &str, key: &str| {
        let text = fs::read_to_string(self::file(file)).expect("a file");
        let lines = text.lines().map(str::to_owned);
        let names = lines.filter_map(|line| Some(line.trim().strip_prefix(key)?.to_owned()));
        names.collect::<BTreeSet<_>>()
    };
    let rules = after("alerts.yaml", "- alert: ");
    assert!(rules.len() > 10, "{rules:?}");
    assert_eq!(after("alerts.test.yaml", "- name: "), rules);
}

fn file(name: &str) -> PathBuf {
    Path::new(OPS).join(name)
}

/// The names of metrics in an expression.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("pipelet_") || word.starts_with("process_"))
}

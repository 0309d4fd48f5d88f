//! One webhook's trouble costs no other webhook anything.
//!
//! A binary of its own, so that no other test competes with what it measures.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    time::{Duration, Instant},
};

use pipelet_tests::{
    Answer, Api, Authority, Builder, Daemon, Faults, Http2, Receiver, Scrape, Scripted, SeenStream,
    Station, Step, Stream, Tls, deadline::eventually, process,
};
use serde_json::json;
use tempfile::NamedTempFile;

const SAMPLES: u32 = 300;
const STATUS: &str = r#"{"connectorId":1,"errorCode":"NoError","status":"Available"}"#;

fn daemon() -> Builder {
    Daemon::builder(env!("CARGO_BIN_EXE_e2e-pipeletd"))
}

/// From a station's answer to when a receiver has its event: `arrived` waits for one more.
async fn latencies_by(
    station: &mut Station,
    mut arrived: impl AsyncFnMut() -> Instant,
) -> Vec<Duration> {
    let mut latencies = Vec::new();
    for _ in 0..SAMPLES {
        let called = Instant::now();
        station.ok("Heartbeat", "{}").await;
        latencies.push(arrived().await - called);
    }
    latencies.sort();
    latencies
}

/// The same, sorted, for a receiver that nothing else is sent to.
async fn latencies(station: &mut Station, healthy: &Receiver) -> Vec<Duration> {
    let mut count = healthy.count();
    let arrived = async || {
        count += 1;
        healthy.await_requests(count).await[count - 1].arrived
    };
    latencies_by(station, arrived).await
}

/// Says how a neighbour fared, for who reads it: how fast that is depends on the machine, so the
/// tests hold to what was delivered, in how many attempts and over what.
fn tell(attack: &str, alone: &[Duration], beside: &[Duration]) {
    let at = |sorted: &[Duration], percent| sorted[(sorted.len() - 1) * percent / 100];
    let mut said = format!("{attack}:");
    for (which, sorted) in [("alone", alone), ("beside", beside)] {
        let (p50, p99) = (at(sorted, 50), at(sorted, 99));
        let _ = write!(said, " {which} p50 {p50:.1?} p99 {p99:.1?};");
    }
    // Not by a print macro: those are captured.
    let _ = writeln!(io::stderr(), "{said}");
}

/// Each of a webhook's events was delivered at its first attempt.
async fn assert_unharmed(api: &Api, webhook: u64) {
    let books = api.await_stats(webhook, json!({"pending": 0})).await;
    let received = books["received"].as_u64().expect("a number");
    assert_eq!(books["delivered"], received, "{books}");
    let page = api
        .get(&format!("/webhooks/{webhook}/deliveries?limit=500"))
        .await
        .expect(200);
    for delivery in page["data"].as_array().expect("data") {
        let attempts = delivery["attempts"].as_array().expect("attempts");
        assert_eq!(attempts.len(), 1, "{delivery}");
    }
}

async fn stations(daemon: &Daemon, count: usize) -> Vec<Station> {
    let mut stations = Vec::with_capacity(count);
    for number in 0..count {
        stations.push(Station::connect(daemon.ocpp(), &format!("OTHER_{number}")).await);
    }
    stations
}

/// A daemon that trusts this authority.
fn trusting(authority: &Authority) -> (NamedTempFile, Builder) {
    let file = NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), authority.pem()).expect("a writable file");
    let path = file.path().to_str().expect("UTF-8").to_owned();
    (file, daemon().flag("--ca-file", &path))
}

/// Two that are never answered have as many streams as the webhooks may, which is more than one
/// connection has room for.
#[tokio::test]
async fn webhooks_at_one_origin_share_no_connection() {
    let authority = Authority::new();
    let (_file, builder) = trusting(&authority);
    let daemon = builder.flag("--delivery-timeout", "5m").start().await;
    let api = daemon.api();
    let hanging = ["/hangs-1", "/hangs-2"];
    let [one, two] = hanging.map(|path| (path, Stream::Hang));
    let paths = [("/healthy", Stream::Answer(200)), one, two];
    let tls = authority.server().server_config(&["h2"]);
    let origin = Http2::start_by_path(tls, &paths).await;
    let webhook = api
        .subscribe(&origin.url_to("/healthy"), &["Heartbeat"])
        .await;
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    let mut others = stations(&daemon, 64).await;
    let mut count = 0;
    let mut arrived = async || {
        count += 1;
        let streams = origin.await_streams(&["/healthy"], count).await;
        streams[count - 1].arrived
    };
    let alone = latencies_by(&mut station, &mut arrived).await;
    for path in hanging {
        api.subscribe(&origin.url_to(path), &["StatusNotification"])
            .await;
    }
    for other in &mut others {
        other.ok("StatusNotification", STATUS).await;
    }
    let hang = origin
        .await_streams(&hanging, Http2::STREAMS as usize)
        .await;
    let beside = latencies_by(&mut station, &mut arrived).await;
    tell("two that hang at one origin", &alone, &beside);
    assert_unharmed(&api, webhook).await;
    let all = [&["/healthy"], &hanging[..]].concat();
    for seen in origin.await_streams(&all, 0).await {
        let strange =
            |other: &SeenStream| other.connection == seen.connection && other.path != seen.path;
        assert!(!hang.iter().any(strange), "{seen:?}");
    }
}

/// Interim answers as fast as they can be sent, over and over. What that costs a neighbour's events
/// is told beside what it costs them where it happens to another daemon on this machine.
#[tokio::test]
async fn interim_answers_without_end_cost_their_own_webhook_an_attempt() {
    let authority = Authority::new();
    let (_file, builder) = trusting(&authority);
    let daemon = builder.start().await;
    let (_file, builder) = trusting(&authority);
    let another = builder.start().await;
    let healthy = Receiver::start().await;
    let webhook = daemon.api().subscribe(&healthy.url(), &["Heartbeat"]).await;
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    let mut elsewhere = Station::connect(another.ocpp(), "S1").await;
    let mut measure = async || {
        let mut count = healthy.count();
        let mut latencies = Vec::new();
        for _ in 0..SAMPLES {
            let called = Instant::now();
            tokio::join!(
                station.ok("Heartbeat", "{}"),
                elsewhere.ok("Heartbeat", "{}")
            );
            count += 1;
            let arrived = healthy.await_requests(count).await[count - 1].arrived;
            latencies.push(arrived - called);
        }
        latencies.sort();
        latencies
    };
    let alone = measure().await;

    let well = Receiver::start().await;
    // Each failure has its record.
    let refused = Receiver::refused_url().await;
    let never_asked = "HTTP/1.1 100 Continue\r\n\r\n".repeat(100);
    let script = vec![Step::Read, Step::Flood(never_asked.into())];
    let flood = Scripted::always(Tls::None, script).await;
    let tls = authority.server().server_config(&["h2"]);
    let flood2 = Http2::start(tls, &[Stream::InterimFlood]).await;
    let attacks = [
        ("none, and are well", well.url(), None),
        ("none, and refuse", refused, None),
        ("interim answers (HTTP/1.1)", flood.url(), Some("interim")),
        ("interim answers (HTTP/2)", flood2.url(), Some("interim")),
    ];
    for (at, whose) in [(&another, "another's"), (&daemon, "its own")] {
        let api = at.api();
        for (attack, url, error) in &attacks {
            let mut webhooks = Vec::new();
            for _ in 0..5 {
                webhooks.push(api.subscribe(url, &["Heartbeat"]).await);
            }
            let beside = measure().await;
            tell(
                &format!("five of {whose} daemon that send {attack}"),
                &alone,
                &beside,
            );
            for webhook in webhooks {
                if let Some(error) = error {
                    await_first_error(&api, webhook, error).await;
                }
                api.delete(&format!("/webhooks/{webhook}")).await;
            }
        }
    }
    assert_unharmed(&daemon.api(), webhook).await;
}

/// More names that hang than there are threads for them: one webhook whose name was known before,
/// and one whose name is not. The connections are not kept, so that names matter each time.
#[tokio::test]
async fn names_that_hang_cost_no_other_name_anything() {
    let (faults, builder) = Faults::of(daemon());
    let daemon = builder.flag("--api-rate", "10000/s").start().await;
    let api = daemon.api();
    let ok = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let script = vec![Step::Read, Step::write(ok)];
    let mut neighbours = Vec::new();
    for name in ["known.example", "new.example"] {
        faults.resolve(name, &["127.0.0.1"]);
        let receiver = Scripted::always(Tls::None, script.clone()).await;
        neighbours.push((receiver.url_of(name), receiver));
    }
    let [(known_url, known), (new_url, new)] = &neighbours[..] else {
        unreachable!("two were made");
    };
    let webhook = api.subscribe(known_url, &["Heartbeat"]).await;
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    let mut count = 0;
    let mut arrived = async || {
        count += 1;
        known.await_requests(count).await[count - 1].arrived
    };
    let mut others = stations(&daemon, 8).await;
    for number in 0..100 {
        let name = format!("hangs-{number}.example");
        faults.resolve(&name, &["hang"]);
        let url = format!("http://{name}:9/");
        api.subscribe(&url, &["StatusNotification"]).await;
    }
    let alone = latencies_by(&mut station, &mut arrived).await;
    for other in &mut others {
        other.ok("StatusNotification", STATUS).await;
    }
    let beside = latencies_by(&mut station, &mut arrived).await;
    tell("100 names that hang", &alone, &beside);
    let newcomer = api.subscribe(new_url, &["Heartbeat"]).await;
    latencies_by(&mut station, &mut arrived).await;
    new.await_requests(SAMPLES as usize).await;
    for webhook in [webhook, newcomer] {
        assert_unharmed(&api, webhook).await;
    }
    // The resolver itself hangs from now on, for all of them.
    for name in ["known.example", "new.example"] {
        faults.resolve(name, &["hang"]);
    }
    latencies_by(&mut station, &mut arrived).await;
    for webhook in [webhook, newcomer] {
        assert_unharmed(&api, webhook).await;
    }
}

/// 100 webhooks that would have 64 sockets each, and never let go of one, where 4096 files may be
/// open: others still get theirs, and so do stations and callers.
#[tokio::test]
async fn receivers_that_hang_leave_sockets_for_everybody_else() {
    const LIMIT: usize = 4096;
    let limited = format!("ulimit -n {LIMIT} && exec \"$@\"");
    let daemon = daemon()
        .under(&["sh", "-c", &limited, "sh"])
        .flag("--delivery-timeout", "5m")
        .flag("--api-rate", "10000/s")
        .start()
        .await;
    let api = daemon.api();
    let healthy = Receiver::start().await;
    let webhook = api.subscribe(&healthy.url(), &["Heartbeat"]).await;
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    let mut others = stations(&daemon, 64).await;
    let silent = Receiver::start().await;
    silent.answer(Answer::Hang);
    let mut hanging = 0;
    for _ in 0..100 {
        hanging = api.subscribe(&silent.url(), &["StatusNotification"]).await;
    }
    let alone = latencies(&mut station, &healthy).await;
    for other in &mut others {
        other.ok("StatusNotification", STATUS).await;
    }
    // Each of them has some.
    silent.await_requests(300).await;
    let waits = async |webhook: u64| {
        let scrape = Scrape::of(api.get("/metrics").await.text);
        scrape.get(&format!(
            "pipelet_webhook_waits_for_socket{{webhook=\"{webhook}\"}}"
        ))
    };
    eventually(
        "one that waits",
        || waits(hanging),
        |waits| *waits == Some(1.0),
    )
    .await;
    assert_eq!(waits(webhook).await, Some(0.0));
    let beside = latencies(&mut station, &healthy).await;
    tell("100 that hold all sockets they get", &alone, &beside);
    let late = Receiver::start().await;
    let newcomer = api.subscribe(&late.url(), &["Heartbeat"]).await;
    latencies(&mut station, &late).await;
    for webhook in [webhook, newcomer] {
        assert_unharmed(&api, webhook).await;
    }
    api.get("/readyz").await.expect(200);
    let tested = api.post_empty(&format!("/webhooks/{webhook}/test")).await;
    assert_eq!(tested.expect(200)["ok"], true);
    let mut new = Station::connect(daemon.ocpp(), "NEW").await;
    new.ok("Heartbeat", "{}").await;
    let open = process::descriptors(daemon.pid());
    assert!(open < LIMIT / 4, "{open} files are open");
    assert!(!daemon.log().contains("could not be accepted"));
}

/// What the attempt at an event that waits for its retry ended with.
async fn await_first_error(api: &Api, webhook: u64, expected: &str) {
    let delivered = json!({"delivered": 0});
    api.await_stats(webhook, delivered).await;
    let page = api.get(&format!("/webhooks/{webhook}/deliveries")).await;
    let page = page.expect(200);
    let attempt = &page["data"][0]["attempts"][0];
    let error = attempt["error"].as_str().unwrap_or_default();
    assert!(error.contains(expected), "{page}");
}

async fn pending(api: &Api, webhook: u64) -> u64 {
    api.stats(webhook).await["pending"]
        .as_u64()
        .expect("a number")
}

#[tokio::test]
async fn a_silent_and_a_refused_receiver_do_not_slow_a_healthy_one() {
    let daemon = daemon().start().await;
    let api = daemon.api();
    let healthy = Receiver::start().await;
    let webhook = api.subscribe(&healthy.url(), &["Heartbeat"]).await;
    // Several stations, so that one in flight for each of them is not what protects it.
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    let mut others = stations(&daemon, 20).await;
    latencies(&mut station, &healthy).await;
    let alone = latencies(&mut station, &healthy).await;

    let silent = Receiver::start().await;
    silent.answer(Answer::Hang);
    let silent_webhook = api.subscribe(&silent.url(), &["Heartbeat"]).await;
    let refused = Receiver::refused_url().await;
    let refused_webhook = api.subscribe(&refused, &["Heartbeat"]).await;
    let before = healthy.count();
    for other in &mut others {
        for _ in 0..50 {
            other.ok("Heartbeat", "{}").await;
        }
    }
    healthy.await_requests(before + 20 * 50).await;
    let troubled = latencies(&mut station, &healthy).await;

    let median = |sorted: &[Duration]| sorted[sorted.len() / 2];
    let worst = |sorted: &[Duration]| sorted[sorted.len() * 95 / 100];
    // Generous: two cores run everything here. A healthy webhook that waited behind a silent
    // one would be late by seconds.
    let bound = |alone: Duration| alone * 3 + Duration::from_millis(20);
    assert!(
        median(&troubled) <= bound(median(&alone)),
        "median {:?}, alone {:?}",
        median(&troubled),
        median(&alone)
    );
    assert!(
        worst(&troubled) <= bound(worst(&alone)),
        "95% {:?}, alone {:?}",
        worst(&troubled),
        worst(&alone)
    );

    let received = u64::from(SAMPLES) * 3 + 1000;
    api.await_stats(
        webhook,
        json!({"received": received, "delivered": received}),
    )
    .await;
    let owed = u64::from(SAMPLES) + 1000;
    assert_eq!(pending(&api, silent_webhook).await, owed);
    assert_eq!(pending(&api, refused_webhook).await, owed);
}

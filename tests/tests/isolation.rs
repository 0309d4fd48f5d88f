//! One webhook's trouble costs no other webhook anything.
//!
//! A binary of its own, so that no other test competes with what it measures.

use std::time::{Duration, Instant};

use pipelet_tests::{Answer, Api, Daemon, Receiver, Station};
use serde_json::json;

const SAMPLES: u32 = 300;

/// From a station's answer to the healthy receiver's request, sorted.
async fn latencies(station: &mut Station, healthy: &Receiver) -> Vec<Duration> {
    let mut latencies = Vec::new();
    for _ in 0..SAMPLES {
        let count = healthy.count() + 1;
        let called = Instant::now();
        station.ok("Heartbeat", "{}").await;
        let requests = healthy.await_requests(count).await;
        latencies.push(requests[count - 1].arrived - called);
    }
    latencies.sort();
    latencies
}

async fn pending(api: &Api, webhook: u64) -> u64 {
    api.stats(webhook).await["pending"]
        .as_u64()
        .expect("a number")
}

#[tokio::test]
async fn a_silent_and_a_refused_receiver_do_not_slow_a_healthy_one() {
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_e2e-pipeletd"))
        .start()
        .await;
    let api = daemon.api();
    let healthy = Receiver::start().await;
    let webhook = api.subscribe(&healthy.url(), &["Heartbeat"]).await;
    // Several stations, so that one in flight for each of them is not what protects it.
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    let mut others = Vec::new();
    for number in 0..20 {
        others.push(Station::connect(daemon.ocpp(), &format!("OTHER_{number}")).await);
    }
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

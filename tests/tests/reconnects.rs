//! A region comes back: thousands of stations at once, while one receiver is slow and one hangs.
//!
//! A binary of its own, so that no other test competes with what it measures.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use pipelet_tests::{Answer, Daemon, Receiver, Station};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::task::JoinSet;

const EVENTS: &[&str] = &["BootNotification", "StatusNotification"];

/// The bound that chargers need, where the build is optimised; else fewer stations, and a looser
/// one.
const STATIONS: usize = if cfg!(debug_assertions) { 1_500 } else { 5_000 };
const BOUND: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 2 });

/// Nobody waits for the receivers, nothing is lost, and nothing comes twice.
#[tokio::test]
async fn stations_come_back_while_receivers_are_slow() {
    raise_limit();
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_e2e-pipeletd"))
        .start()
        .await;
    let api = daemon.api();
    let answers = [
        Answer::Status(200),
        Answer::After(Duration::from_millis(20)),
        Answer::Hang,
    ];
    let mut webhooks = Vec::new();
    for answer in answers {
        let receiver = Receiver::start().await;
        receiver.answer(answer);
        webhooks.push((api.subscribe(&receiver.url(), EVENTS).await, receiver));
    }
    let mut waits = Vec::with_capacity(4 * STATIONS);
    for storm in 1..=2 {
        let mut coming = JoinSet::new();
        for number in 0..STATIONS {
            let ocpp = daemon.ocpp();
            coming.spawn(async move {
                let mut station = Station::connect(ocpp, &format!("S{number}")).await;
                let asked = Instant::now();
                station.boot().await;
                let booted = Instant::now();
                let status = json!({
                    "connectorId": 1, "errorCode": "NoError", "status": "Available",
                });
                station.ok("StatusNotification", status).await;
                (station, [booted - asked, booted.elapsed()])
            });
        }
        let mut there = Vec::with_capacity(STATIONS);
        while let Some(station) = coming.join_next().await {
            let (station, waited) = station.expect("a station that was served");
            there.push(station);
            waits.extend(waited);
        }
        let told = 2 * storm * STATIONS;
        for (webhook, _) in &webhooks[..2] {
            let all = json!({"received": told, "delivered": told});
            api.await_stats(*webhook, all).await;
        }
        let none = json!({"received": told, "pending": told});
        api.await_stats(webhooks[2].0, none).await;
    }
    for (_, receiver) in &webhooks[..2] {
        assert_eq!(receiver.count(), 4 * STATIONS);
    }
    waits.sort_unstable();
    let [p50, p99] = [50, 99].map(|percent| waits[waits.len() * percent / 100]);
    // Not by a print macro: those are captured, and this is for a test that passes.
    let _ = writeln!(
        io::stderr(),
        "{STATIONS} stations, twice: a CALL waits {p50:?} (p50), {p99:?} (p99)"
    );
    assert!(p99 < BOUND, "{p99:?}");
}

/// Lets this process have as many descriptors as it may.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("up to the hard limit");
    let enough = limit
        .maximum
        .is_none_or(|most| most > STATIONS as u64 + 200);
    assert!(enough, "`ulimit -Hn` is {:?}", limit.maximum);
}

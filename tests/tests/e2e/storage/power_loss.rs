//! What is on disk is only what was synced: an answer comes after that, or it is worth nothing.

use std::time::Duration;

use pipelet_tests::{Faults, Receiver, Station};
use serde_json::json;

use crate::scene::{Scene, daemon};

const EVENTS: &[&str] = &["StartTransaction"];

/// One CALL is answered, the power fails at once, and the daemon starts again.
async fn answered_and_lost(syncs_are_void: bool) -> (Scene, Faults) {
    // It may come to an attempt before it dies.
    let builder = daemon()
        .flag("--retry-schedule", "50ms")
        .flag("--max-attempts", "1000");
    let (faults, builder) = Faults::of(builder);
    faults.record_for_power_loss();
    let mut scene = Scene::with(builder, EVENTS).await;
    scene.receiver.stop();
    if syncs_are_void {
        faults.make_syncs_void();
    }
    scene.station("S1").await.start_transaction(7).await;
    scene.daemon.kill9().await;
    faults.lose_all_unsynced();
    scene.receiver.start_again().await;
    scene.start_again().await;
    (scene, faults)
}

#[tokio::test]
async fn what_was_answered_outlives_a_power_loss() {
    let (scene, _faults) = answered_and_lost(false).await;
    let arrived = scene.receiver.await_requests(1).await;
    assert_eq!(arrived[0].json()["payload"]["meterStart"], 7);
    let settled = json!({"received": 1, "delivered": 1});
    scene.api.await_stats(scene.webhook, settled).await;
}

/// The control: the loss is real.
#[tokio::test]
async fn where_syncs_do_nothing_it_is_lost() {
    let (scene, _faults) = answered_and_lost(true).await;
    let stats = scene.api.stats(scene.webhook).await;
    assert_eq!(stats["received"], 0, "{stats}");
}

/// The power fails during the very first start, at many moments and with much or little of what
/// was not synced; the next start finds a store that it can go on with, and a key that opens it.
#[tokio::test]
async fn a_first_start_without_power_is_no_last_one() {
    for attempt in 0..24 {
        let (faults, builder) = Faults::of(daemon());
        faults.record_for_power_loss();
        let mut daemon = builder.stopped();
        for seed in 0..2 {
            let after = Duration::from_millis(attempt * 3);
            daemon.start_and_kill(after).await.expect("a start");
            faults.lose_power(attempt * 2 + seed);
        }
        daemon.start_again().await;
        let receiver = Receiver::start().await;
        let webhook = daemon.api().subscribe(&receiver.url(), EVENTS).await;
        let mut station = Station::connect(daemon.ocpp(), "S1").await;
        station.start_transaction(1).await;
        let settled = json!({"received": 1, "delivered": 1});
        daemon.api().await_stats(webhook, settled).await;
    }
}

//! A webhook that has fallen far behind: more than fits into any window or ring.

use std::collections::HashMap;

use futures_util::future::join_all;
use pipelet_tests::{Answer, Station};
use serde_json::json;

use crate::scene::{Scene, daemon};

const STATIONS: usize = 20;
const EVENTS_EACH: usize = 300;

#[tokio::test]
async fn a_backlog_arrives_whole_and_in_order() {
    let builder = daemon().flag("--delivery-timeout", "60s");
    let mut scene = Scene::with(builder, &["MeterValues"]).await;
    scene.receiver.answer(Answer::Held);
    talk(&scene).await;
    let all = STATIONS * EVENTS_EACH;
    scene
        .api
        .await_stats(scene.webhook, json!({"received": all, "pending": all}))
        .await;
    assert!(
        scene.receiver.count() <= STATIONS,
        "more than one in flight for a station"
    );

    // What was in flight is sent again; nothing else is, and nothing is left out.
    let in_flight = scene.receiver.count();
    scene.daemon.kill9().await;
    scene.receiver.release();
    scene.start_again().await;
    let settled = json!({"received": all, "delivered": all, "pending": 0});
    scene.api.await_stats(scene.webhook, settled).await;
    let requests = scene.receiver.requests();
    assert_eq!(requests.len(), in_flight + all);

    let mut next = HashMap::new();
    for request in &requests[in_flight..] {
        let body = request.json();
        let station = body["station_id"].as_str().expect("station_id").to_owned();
        let next = next.entry(station).or_insert(0);
        assert_eq!(body["payload"]["connectorId"], *next, "out of order");
        *next += 1;
    }
}

async fn talk(scene: &Scene) {
    let ocpp = scene.daemon.ocpp();
    let talking = (0..STATIONS).map(|number| async move {
        let mut station = Station::connect(ocpp, &format!("S{number}")).await;
        for connector in 0..EVENTS_EACH {
            station
                .ok(
                    "MeterValues",
                    json!({"connectorId": connector, "meterValue": []}),
                )
                .await;
        }
    });
    join_all(talking).await;
}

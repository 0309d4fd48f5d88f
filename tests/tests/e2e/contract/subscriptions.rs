//! What a webhook asks for: groups of events, and some stations only.

use pipelet_tests::Receiver;
use serde_json::{Value, json};

use crate::scene::{Scene, daemon};

#[tokio::test]
async fn a_group_stands_for_its_events() {
    let scene = Scene::new(&["group:connection", "Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    station.boot().await;
    station.ok("Heartbeat", "{}").await;
    station.close().await;
    let arrived = scene.receiver.await_requests(3).await;
    let mut names: Vec<Value> = arrived.iter().map(|r| r.json()["event"].clone()).collect();
    names.sort_by_key(ToString::to_string);
    assert_eq!(
        names,
        ["Heartbeat", "StationConnected", "StationDisconnected"]
    );
}

#[tokio::test]
async fn only_the_named_stations_reach_a_webhook() {
    let receiver = Receiver::start().await;
    let daemon = daemon().start().await;
    let api = daemon.api();
    let body = json!({
        "name": "Mine", "url": receiver.url(), "events": ["Heartbeat"],
        "station_ids": ["WALLBOX_*", "S1"],
    });
    let created = api.post("/webhooks", &body).await.expect(201);
    assert_eq!(created["station_ids"], json!(["WALLBOX_*", "S1"]));
    let id = created["id"].as_u64().expect("an id");

    // Each under a message id of its own: the same one again would be taken for a repetition.
    let beat = async |station: &str, message_id: &str| {
        let mut station = pipelet_tests::Station::connect(daemon.ocpp(), station).await;
        let answer = station.call_as(message_id, "Heartbeat", "{}").await;
        answer.result();
    };
    for station in ["WALLBOX_1", "S2", "S1", "WALLBOX"] {
        beat(station, "first").await;
    }
    api.await_stats(id, json!({"received": 2, "delivered": 2}))
        .await;

    // A change holds from its position in the journal on.
    let path = format!("/webhooks/{id}");
    let changed = api.put(&path, &json!({"station_ids": ["S2"]})).await;
    assert_eq!(changed.expect(200)["station_ids"], json!(["S2"]));
    beat("S1", "second").await;
    beat("S2", "second").await;
    let changed = api.put(&path, &json!({"station_ids": null})).await;
    assert_eq!(changed.expect(200)["station_ids"], json!([]));
    beat("S3", "third").await;
    api.await_stats(id, json!({"received": 4, "delivered": 4}))
        .await;
    let mut from: Vec<Value> = receiver
        .requests()
        .iter()
        .map(|request| request.json()["station_id"].clone())
        .collect();
    from.sort_by_key(ToString::to_string);
    assert_eq!(from, ["S1", "S2", "S3", "WALLBOX_1"]);
}

#[tokio::test]
async fn the_filter_survives_a_crash_with_its_backlog() {
    let mut scene = Scene::new(&["Heartbeat"]).await;
    let path = format!("/webhooks/{}", scene.webhook);
    let filter = json!({"station_ids": ["S2"]});
    scene.api.put(&path, &filter).await.expect(200);
    scene.receiver.stop();
    for station in ["S1", "S2"] {
        scene.station(station).await.ok("Heartbeat", "{}").await;
    }
    scene.crash().await;
    let stats = scene.api.get(&path).await.expect(200);
    assert_eq!(stats["station_ids"], json!(["S2"]));
    assert_eq!(stats["stats"]["received"], 1);
}

#[tokio::test]
async fn what_is_wrong_with_a_subscription_is_told_at_once() {
    let daemon = daemon().start().await;
    let body = json!({
        "name": "Mine", "url": "http://127.0.0.1:9/", "events": ["group:standart"],
        "station_ids": ["A", "", "B*C"],
    });
    let problem = daemon.api().post("/webhooks", &body).await.expect(422);
    let faults: Vec<(&Value, &Value)> = problem["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|fault| (&fault["pointer"], &fault["code"]))
        .collect();
    assert_eq!(
        faults,
        [
            (&json!("/events/0"), &json!("unknown_event_group")),
            (&json!("/station_ids/1"), &json!("required")),
            (&json!("/station_ids/2"), &json!("invalid_pattern")),
        ]
    );
    assert!(
        problem["errors"][0]["message"]
            .as_str()
            .is_some_and(|text| text.contains("group:standard"))
    );
}

#[tokio::test]
async fn pipeletctl_sets_and_clears_the_stations() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let ctl = scene.ctl();
    let url = scene.receiver.url();
    let line = format!(
        "webhooks create --name N --url {url} --event group:security --station A --station B*"
    );
    let created = ctl.json(&line).await;
    assert_eq!(created["station_ids"], json!(["A", "B*"]));
    let update = |flags: &str| format!("webhooks update {} {flags}", created["id"]);
    let kept = ctl.json(&update("--name M")).await;
    assert_eq!(kept["station_ids"], json!(["A", "B*"]));
    let changed = ctl.json(&update("--station C")).await;
    assert_eq!(changed["station_ids"], json!(["C"]));
    let cleared = ctl.json(&update("--all-stations")).await;
    assert_eq!(cleared["station_ids"], json!([]));
}

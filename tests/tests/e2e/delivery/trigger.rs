//! Synthetic events: they go the whole way, marked, and nothing is believed because of them.

use http::Method;
use pipelet_tests::{Answer, Receiver, deadline::eventually};
use serde_json::{Value, json};

use crate::scene::{Scene, daemon};

#[tokio::test]
async fn a_triggered_event_goes_the_whole_way_and_is_marked() {
    let mut scene = Scene::new(&["StartTransaction", "StopTransaction"]).await;
    let ctl = scene.ctl();
    let line = "-o json trigger StopTransaction --station DEMO-01 \
                --set payload.reason=Remote --set payload.meterStop=777 --wait";
    let trace: Value = serde_json::from_str(&ctl.line(line).await.ok()).expect("JSON");
    assert_eq!(trace["webhooks"][0]["outcome"], "delivered", "{trace}");
    let request = &scene.receiver.await_requests(1).await[0];
    assert_eq!(request.header("pipelet-synthetic"), Some("true"));
    assert_eq!(request.header("pipelet-event"), Some("StopTransaction"));
    let body = request.json();
    assert_eq!(body["station_id"], "DEMO-01");
    assert_eq!(body["payload"]["reason"], "Remote");
    assert_eq!(body["payload"]["meterStop"], 777);
    // The rest is realistic.
    assert!(body["payload"]["timestamp"].is_string(), "{body}");

    let id = request.header("webhook-id").expect("an id").to_owned();
    let shown = scene.api.get(&format!("/events/{id}")).await.expect(200);
    assert_eq!(shown["synthetic"], true, "{shown}");
    let start = json!({"event": "StartTransaction", "station_id": "DEMO-01"});
    let made = scene.api.post("/events", &start).await.expect(201);
    assert_eq!(made["webhook_ids"], json!([scene.webhook]), "{made}");
    scene.receiver.await_requests(2).await;

    // A charger's own has no such mark, and is believed.
    let mut station = scene.station("S1").await;
    let started = station.start_transaction(1000).await;
    let third = &scene.receiver.await_requests(3).await[2];
    assert_eq!(third.header("pipelet-synthetic"), None);
    // After a crash everything is made of the journal again.
    scene.crash().await;
    let listed = scene.api.get("/transactions").await.expect(200);
    let ids = listed["data"].as_array().expect("data").iter();
    let ids: Vec<_> = ids.map(|one| one["transaction_id"].as_i64()).collect();
    assert_eq!(ids, [Some(started)]);
    let stations = scene.api.get("/stations").await.expect(200);
    let ids = stations["data"].as_array().expect("data").iter();
    assert_eq!(ids.map(|one| &one["id"]).collect::<Vec<_>>(), ["S1"]);
    let shown = scene.api.get(&format!("/events/{id}")).await.expect(200);
    assert_eq!(shown["synthetic"], true, "{shown}");
}

#[tokio::test]
async fn one_webhook_can_be_meant_alone() {
    let builder = daemon().flag("--retry-schedule", "1h");
    let mut scene = Scene::with(builder, &["*"]).await;
    let other = Receiver::start().await;
    let only = scene.api.subscribe(&other.url(), &["Heartbeat"]).await;
    let asked = json!({"event": "Heartbeat", "station_id": "S1", "webhook_id": only});
    other.answer(Answer::Hang);
    let made = scene.api.post("/events", &asked).await.expect(201);
    assert_eq!(made["webhook_ids"], json!([only]), "{made}");
    other.await_requests(1).await;
    // Its delivery begins again after a crash, at once, and is still nobody else's.
    other.answer(Answer::Status(204));
    scene.crash().await;
    scene
        .api
        .await_stats(only, json!({"received": 1, "delivered": 1}))
        .await;
    let first = scene.webhook;
    scene
        .api
        .await_stats(first, json!({"received": 0, "delivered": 0}))
        .await;
    let id = made["id"].as_str().expect("an id");
    let trace = scene.ctl().json(&format!("trace {id}")).await;
    assert_eq!(trace["webhooks"][0]["reason"], "for_another", "{trace}");
    let backfill = format!("webhooks backfill {first} --since 1h --dry-run");
    let found = scene.ctl().json(&backfill).await;
    assert_eq!(found["events"], 0, "{found}");

    let unwanted = json!({"event": "Reset", "station_id": "S1", "webhook_id": only});
    let problem = scene.api.post("/events", &unwanted).await.expect(409);
    assert_eq!(problem["code"], "not_wanted", "{problem}");
    let nobody = json!({"event": "Reset", "station_id": "S1", "webhook_id": 99});
    scene.api.post("/events", &nobody).await.expect(404);
}

#[tokio::test]
async fn who_waits_is_told_of_a_failure() {
    let builder = daemon().flag("--retry-schedule", "1h");
    let scene = Scene::with(builder, &["Heartbeat"]).await;
    scene.receiver.answer(Answer::Status(500));
    let waited = scene.ctl().line("trigger Heartbeat --wait").await;
    assert_eq!(waited.code, 1, "{waited:?}");
    assert!(waited.stdout.contains("500"), "{waited:?}");
    let nobody = scene.ctl().line("trigger Reset").await;
    assert_eq!(nobody.code, 0, "{nobody:?}");
    assert!(nobody.stderr.contains("no webhook wants it"), "{nobody:?}");
}

#[tokio::test]
async fn what_is_wrong_is_told_all_at_once() {
    let scene = Scene::new(&["*"]).await;
    let wrong = json!({"event": "Nonsense", "station_id": "", "payload": {}});
    let problem = scene.api.post("/events", &wrong).await.expect(422);
    let faults = problem["errors"].as_array().expect("faults").iter();
    let pointers: Vec<_> = faults.map(|fault| &fault["pointer"]).collect();
    assert_eq!(pointers, ["/event", "/station_id"], "{problem}");
    for body in [
        json!({"station_id": "S", "event": "Reset", "payload": []}),
        json!({"station_id": "S", "event": "Reset", "payload_patch": "x"}),
        json!({"station_id": "S"}),
        json!({"station_id": "S", "event": "Reset", "more": 1}),
    ] {
        let answer = scene.api.ask(Method::POST, "/events", Some(&body)).await;
        assert_eq!(answer.map(|answer| answer.status), Some(422), "{body}");
    }
    let listed = || async { scene.api.get("/events").await.expect(200) };
    let none = |list: &Value| list["data"].as_array().is_some_and(Vec::is_empty);
    eventually("no event", listed, none).await;
    let usage = scene.ctl().line("trigger Reset --set reason=Local").await;
    assert_eq!(usage.code, 2, "{usage:?}");
}

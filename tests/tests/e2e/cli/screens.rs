//! What is drawn on a real terminal, and what keys do there.

use pipelet_tests::{Answer, Receiver};
use serde_json::json;

use crate::scene::{Scene, daemon};

async fn meter(scene: &Scene) {
    let mut station = scene.station("S1").await;
    let values = json!({"connectorId": 1, "meterValue": []});
    station.ok("MeterValues", &values).await;
}

#[tokio::test]
async fn top_shows_who_fails_and_replays_it() {
    let scene = Scene::with(daemon().flag("--max-attempts", "1"), &["MeterValues"]).await;
    scene.receiver.answer(Answer::Status(500));
    meter(&scene).await;
    scene.api.await_stats(1, json!({"dead": 1})).await;
    let mut top = scene.ctl().on_terminal("top");
    top.shows("✗ failing").await;
    top.shows("dead letters 1").await;
    top.types("\r").await;
    top.shows("dead      MeterValues").await;
    scene.receiver.answer(Answer::Status(204));
    top.types("r").await;
    top.shows("replay the dead letters of webhook 1? y/n").await;
    top.types("y").await;
    top.shows("replayed 1 of 1 dead letter; 1 delivered").await;
    top.shows("dead letters 0").await;
    top.shows("✓ ok").await;
    top.shows("delivered MeterValues").await;
    top.types("q").await;
    assert_eq!(top.end().await, 0);
}

#[tokio::test]
async fn listen_shows_what_the_application_says_and_sends_it_once_more() {
    let scene = Scene::new(&["MeterValues"]).await;
    let mut app = Receiver::start().await;
    app.stop();
    let line = format!("listen --forward-to {} --event MeterValues", app.url());
    let mut listen = scene.ctl().on_terminal(&line);
    listen.shows("waiting for events").await;
    meter(&scene).await;
    listen.shows("✗ no answer: connection refused").await;
    listen
        .shows("1 event: 0 answered well, 0 refused, 1 waiting")
        .await;
    app.start_again().await;
    listen
        .shows("1 event: 1 answered well, 0 refused, 0 waiting")
        .await;
    app.answer(Answer::Status(500));
    listen.types("r").await;
    listen.shows("0 answered well, 1 refused, 0 waiting").await;
    listen.types("\x03").await;
    assert_eq!(listen.end().await, 0);
    assert_eq!(app.requests().len(), 2);
}

#[tokio::test]
async fn a_webhook_goes_only_after_a_yes() {
    let scene = Scene::new(&["MeterValues"]).await;
    for (answer, code, left) in [("n\r", 1, 1), ("y\r", 0, 0)] {
        let mut asking = scene.ctl().on_terminal("webhooks delete 1");
        asking.shows("delete webhook 1 (").await;
        asking.types(answer).await;
        assert_eq!(asking.end().await, code);
        let webhooks = scene.ctl().json("webhooks list").await;
        assert_eq!(webhooks.as_array().map(Vec::len), Some(left), "{webhooks}");
    }
}

//! `pipeletctl audit`: every delivery is accounted for, whatever became of it.

use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use pipelet_tests::{Answer, deadline::eventually};
use serde_json::{Value, json};

use crate::scene::{Scene, daemon};

#[tokio::test]
async fn the_books_of_all_webhooks_are_added_up() {
    let builder = daemon()
        .flag("--retry-schedule", "1h")
        .flag("--max-attempts", "2");
    let scene = Scene::with(builder, &["Heartbeat"]).await;
    let ctl = scene.ctl();
    let mut station = scene.station("WALLBOX_001").await;
    station.ok("Heartbeat", "{}").await;
    scene.receiver.await_requests(1).await;
    // The other one fails, so what it is owed is pending until it is deleted.
    scene.receiver.answer(Answer::Status(500));
    let url = scene.receiver.url();
    let other = scene.api.subscribe(&url, &["Heartbeat"]).await;
    station.ok("Heartbeat", "{}").await;

    let audit = ctl.json("audit").await;
    assert_eq!(audit["balanced"], true, "{audit}");
    assert_eq!(audit["total"]["received"], 3, "{audit}");

    let one = ctl.json(&format!("audit --webhook {other}")).await;
    assert_eq!(one["total"]["received"], 1, "{one}");
    assert_eq!(one["total"]["pending"], 1, "{one}");

    ctl.line(&format!("webhooks delete {other} --yes"))
        .await
        .ok();
    let closed = ctl.json(&format!("audit --webhook {other}")).await;
    let books = json!({
        "received": 1, "delivered": 0, "pending": 0, "dead": 0, "purged": 0, "cancelled": 1, "gap": 0
    });
    assert_eq!(closed["webhooks"][0]["state"], "deleted", "{closed}");
    assert_eq!(closed["webhooks"][0]["books"], books, "{closed}");
    let text = ctl.line("audit").await.ok();
    assert!(text.contains("3 received = "), "{text}");
    assert_eq!(ctl.line("audit --webhook 999").await.code, 3);
}

#[tokio::test]
async fn of_many_deleted_webhooks_the_sum_is_told() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let url = scene.receiver.url();
    for _ in 0..102 {
        let id = scene.api.subscribe(&url, &["Heartbeat"]).await;
        let path = format!("/webhooks/{id}");
        scene.api.ask(Method::DELETE, &path, None).await;
    }
    let ctl = scene.ctl();
    let audit = || async { ctl.json("audit").await };
    let told = |audit: &Value| audit["forgotten"]["webhooks"] == 2;
    let audit = eventually("two to be forgotten", audit, told).await;
    // The one that is there, and a hundred that are not.
    assert_eq!(audit["webhooks"].as_array().map(Vec::len), Some(101));
    assert_eq!(audit["balanced"], true, "{audit}");
    let text = ctl.line("audit").await.ok();
    assert!(text.contains("2 before these"), "{text}");
}

#[tokio::test]
async fn a_span_of_time_can_be_audited() {
    let builder = daemon().flag("--retry-schedule", "1h");
    let scene = Scene::with(builder, &["Heartbeat", "Reset"]).await;
    let mut station = scene.station("S1").await;
    for _ in 0..3 {
        station.ok("Heartbeat", "{}").await;
    }
    let webhook = scene.webhook;
    scene
        .api
        .await_stats(webhook, json!({"delivered": 3}))
        .await;
    let newest = scene.api.get("/events?event=Heartbeat").await.expect(200);
    let newest = newest["data"][0]["timestamp"].as_str().expect("a time");
    let newest: Timestamp = newest.parse().expect("a time");
    // The journal's times are of milliseconds, and what follows must be of a later one.
    let since = newest + Duration::from_millis(1);
    scene.receiver.answer(Answer::Status(500));
    station.ok("Heartbeat", "{}").await;
    scene.api.await_stats(webhook, json!({"retrying": 1})).await;
    scene.receiver.answer(Answer::Status(200));
    station.ok("Heartbeat", "{}").await;
    scene
        .api
        .await_stats(webhook, json!({"delivered": 4}))
        .await;

    let ctl = scene.ctl();
    let audit = ctl.json(&format!("audit --since {since}")).await;
    let lately = &audit["since"]["webhooks"][0]["books"];
    let books = json!({
        "received": 2, "delivered": 1, "pending": 1, "dead": 0, "purged": 0, "cancelled": 0, "gap": 0
    });
    assert_eq!(*lately, books, "{audit}");
    assert_eq!(audit["total"]["received"], 5, "{audit}");
    let text = ctl.line("audit --since 1h").await.ok();
    let all = "5 received = 4 delivered + 1 pending + 0 dead + 0 cancelled";
    assert!(text.contains(all), "{text}");
    assert!(text.contains("since 2"), "{text}");
}

#[tokio::test]
async fn a_span_of_time_outlives_changes_of_the_webhook() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let webhook = scene.webhook;
    let mut station = scene.station("S1").await;
    let ctl = scene.ctl();
    for (change, expected) in [
        ("--name Renamed", 1),
        ("--event MeterValues", 2),
        ("--event Heartbeat,Reset", 2),
        ("--disabled", 3),
    ] {
        station.ok("Heartbeat", "{}").await;
        let settled = json!({"delivered": expected});
        scene.api.await_stats(webhook, settled).await;
        let update = format!("webhooks update {webhook} {change}");
        ctl.line(&update).await.ok();
        let audit = ctl.json("audit --since 1h").await;
        let lately = &audit["since"]["webhooks"][0];
        assert_eq!(lately["books"]["received"], expected, "{change}: {audit}");
        assert_eq!(lately["books"]["delivered"], expected, "{change}: {audit}");
        assert_eq!(lately["counted_from"], json!(null), "{change}: {audit}");
        let state = if change == "--disabled" {
            "disabled"
        } else {
            "active"
        };
        assert_eq!(audit["webhooks"][0]["state"], state, "{change}: {audit}");
    }
}

/// What can't be known is said, and nothing is called balanced that was never weighed.
#[tokio::test]
async fn a_span_of_time_tells_what_it_does_not_count() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let webhook = scene.webhook;
    let mut station = scene.station("S1").await;
    station.ok("Heartbeat", "{}").await;
    scene
        .api
        .await_stats(webhook, json!({"delivered": 1}))
        .await;
    let ctl = scene.ctl();
    let backfill = format!("webhooks backfill {webhook} --since 1h --yes");
    ctl.line(&backfill).await.ok();
    scene
        .api
        .await_stats(webhook, json!({"delivered": 2}))
        .await;
    let audit = ctl.line("audit --since 1h").await;
    assert!(
        audit.stdout.contains("1 received ≈ 1 delivered"),
        "{audit:?}"
    );
    assert!(!audit.stdout.contains("BALANCE"), "{audit:?}");
    let caveat = "1 event was sent again by backfills, at some time";
    assert!(audit.stderr.contains(caveat), "{audit:?}");

    for turn in 0..70 {
        let other = if turn % 2 == 0 { "Reset" } else { "Heartbeat" };
        let change = json!({"events": [other]});
        let path = format!("/webhooks/{webhook}");
        scene.api.put(&path, &change).await.expect(200);
        station
            .ok("MeterValues", json!({"connectorId": 1, "meterValue": []}))
            .await;
    }
    let audit = ctl.line("audit --since 1h").await;
    assert!(
        audit.stderr.contains("it was changed too often"),
        "{audit:?}"
    );
}

//! `pipeletctl deliveries`: what is owed, what failed and what was delivered, over all webhooks.

use std::collections::BTreeSet;

use pipelet_tests::{Answer, Receiver};
use serde_json::{Value, json};

use crate::scene::{Scene, daemon};

fn events(deliveries: &Value) -> Vec<(u64, &str)> {
    let deliveries = deliveries.as_array().expect("a list").iter();
    deliveries
        .map(|it| {
            let webhook = it["webhook_id"].as_u64().expect("a number");
            (webhook, it["event"].as_str().expect("a name"))
        })
        .collect()
}

#[tokio::test]
async fn delivered_and_pending_ones_of_all_webhooks() {
    let scene = Scene::with(
        daemon().flag("--retry-schedule", "1h"),
        &["Heartbeat", "MeterValues"],
    )
    .await;
    let failing = Receiver::start().await;
    failing.answer(Answer::Status(500));
    let theirs = scene.api.subscribe(&failing.url(), &["Heartbeat"]).await;
    let slow = Receiver::start().await;
    slow.answer(Answer::Hang);
    let waiting = scene.api.subscribe(&slow.url(), &["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    station.ok("Heartbeat", "{}").await;
    let meter = json!({"connectorId": 1, "meterValue": []});
    station.ok("MeterValues", meter).await;
    let ours = scene.webhook;
    scene.api.await_stats(ours, json!({"delivered": 2})).await;
    scene.api.await_stats(theirs, json!({"retrying": 1})).await;
    let ctl = scene.ctl();

    let list = "deliveries list --status delivered";
    let delivered = ctl.json(list).await;
    assert_eq!(
        events(&delivered),
        [(ours, "MeterValues"), (ours, "Heartbeat")]
    );
    for (flags, expected) in [
        (
            "--event Heartbeat --station S1 --since 1h",
            vec![(ours, "Heartbeat")],
        ),
        ("--limit 1", vec![(ours, "MeterValues")]),
        ("--station S2", vec![]),
        ("--until 1h", vec![]),
    ] {
        let found = ctl.json(&format!("{list} {flags}")).await;
        assert_eq!(events(&found), expected, "{flags}");
    }

    let pending = ctl.json("deliveries list --status pending").await;
    assert_eq!(events(&pending), [(theirs, "Heartbeat")]);
    assert!(pending[0]["next_attempt_at"].is_string(), "{pending}");
    assert_eq!(pending[0]["attempts"][0]["status_code"], 500);
    // What has not been answered yet is told as a number.
    let screen = ctl.line("deliveries list --status pending").await;
    let owed = format!("webhook {waiting}: 1 delivery not attempted yet, or under way");
    assert!(screen.stderr.contains(&owed), "{screen:?}");

    // Without a status: what is owed, what failed, and what was delivered.
    let all = ctl.json("deliveries list").await;
    assert_eq!(
        events(&all),
        [
            (theirs, "Heartbeat"),
            (ours, "MeterValues"),
            (ours, "Heartbeat")
        ]
    );
    let first = ctl.json("deliveries list --limit 2").await;
    assert_eq!(
        events(&first),
        [(theirs, "Heartbeat"), (ours, "MeterValues")]
    );

    let nobody = ctl
        .line("deliveries list --status pending --webhook 99")
        .await;
    assert_eq!(nobody.code, 3, "{nobody:?}");
}

/// Over REST page by page: what waits, and behind it what was settled, the latest first.
#[tokio::test]
async fn a_page_has_no_more_than_was_asked_for() {
    let builder = daemon().flag("--retry-schedule", "1h");
    let scene = Scene::with(builder, &["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    for _ in 0..3 {
        station.ok("Heartbeat", "{}").await;
    }
    let webhook = scene.webhook;
    scene
        .api
        .await_stats(webhook, json!({"delivered": 3}))
        .await;
    scene.receiver.answer(Answer::Status(500));
    for _ in 0..2 {
        station.ok("Heartbeat", "{}").await;
    }
    scene.api.await_stats(webhook, json!({"retrying": 2})).await;

    let list = format!("/webhooks/{webhook}/deliveries?limit=2");
    let mut path = list.clone();
    let mut pages = Vec::new();
    let mut ids = BTreeSet::new();
    loop {
        let page = scene.api.get(&path).await.expect(200);
        let data = page["data"].as_array().expect("a list");
        ids.extend(data.iter().map(|it| it["event_id"].to_string()));
        let statuses = data.iter().map(|it| it["status"].as_str().expect("a word"));
        pages.push(statuses.map(str::to_owned).collect::<Vec<_>>());
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("{list}&cursor={cursor}");
    }
    assert_eq!(
        pages,
        [
            vec!["pending", "pending"],
            vec!["delivered", "delivered"],
            vec!["delivered"]
        ]
    );
    assert_eq!(ids.len(), 5, "{ids:?}");
}

#[tokio::test]
async fn failed_ones_lead_to_the_dead_letters() {
    let scene = Scene::with(daemon().flag("--max-attempts", "1"), &["Heartbeat"]).await;
    scene.receiver.answer(Answer::Status(500));
    let mut station = scene.station("S1").await;
    station.ok("Heartbeat", "{}").await;
    scene.api.await_failed("", 1).await;
    let ctl = scene.ctl();
    let failed = ctl.json("deliveries list --status failed").await;
    assert_eq!(events(&failed), [(scene.webhook, "Heartbeat")]);
    let screen = ctl.line("deliveries list --status failed").await.ok();
    assert!(screen.contains("dead letter 1"), "{screen}");
    let none = ctl.json("deliveries list --status delivered").await;
    assert_eq!(none, json!([]));
}

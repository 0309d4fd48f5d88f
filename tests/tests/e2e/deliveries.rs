//! `pipeletctl deliveries`: what is owed, what failed and what was delivered, over all webhooks.

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

    let nobody = ctl
        .line("deliveries list --status pending --webhook 99")
        .await;
    assert_eq!(nobody.code, 3, "{nobody:?}");
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
    assert!(screen.contains("dlq show 1"), "{screen}");
    let none = ctl.json("deliveries list --status delivered").await;
    assert_eq!(none, json!([]));
}

//! `pipeletctl webhooks backfill`: what a webhook missed is sent from the journal.

use pipelet_tests::{Answer, Receiver, deadline::eventually};
use serde_json::json;

use crate::scene::{Scene, daemon};

#[tokio::test]
async fn a_webhook_gets_what_was_before_it() {
    let mut scene = Scene::new(&["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    for _ in 0..3 {
        station.ok("Heartbeat", "{}").await;
    }
    let mut other = scene.station("T1").await;
    other.ok("Heartbeat", "{}").await;
    scene.receiver.await_requests(4).await;

    let late = Receiver::start().await;
    let id = scene.api.subscribe(&late.url(), &["Heartbeat"]).await;
    let ctl = scene.ctl();
    let counted = ctl
        .json(&format!("webhooks backfill {id} --since 1h --dry-run"))
        .await;
    assert_eq!(counted["events"], 4, "{counted}");
    // Nobody can be asked, and nothing is sent unasked.
    let unasked = ctl
        .line(&format!("webhooks backfill {id} --since 1h"))
        .await;
    assert_eq!(unasked.code, 2, "{unasked:?}");
    assert!(
        unasked.stderr.contains("send 4 events to webhook"),
        "{unasked:?}"
    );

    let line = format!("webhooks backfill {id} --since 1h --station S* --yes");
    assert_eq!(ctl.json(&line).await["events"], 3);
    let again = late.await_requests(3).await;
    let originals = scene.receiver.requests();
    for request in &again {
        let event = request.header("webhook-id");
        let original = originals
            .iter()
            .find(|original| original.header("webhook-id") == event);
        let original = original.expect("an event of before");
        assert_eq!((request.text(), request.attempt()), (original.text(), "1"));
    }
    let traced = async |scene: &Scene| {
        let event = again[0].header("webhook-id").expect("an id");
        let traced = scene.ctl().json(&format!("trace {event}")).await;
        traced["webhooks"][1].clone()
    };
    // The books count them as received, and hold over a crash.
    let books = json!({"received": 3, "delivered": 3, "pending": 0});
    scene.api.await_stats(id, books.clone()).await;
    assert_eq!(traced(&scene).await["outcome"], "delivered");
    scene.crash().await;
    scene.api.await_stats(id, books).await;
    // Which it was is forgotten with the process, and not denied.
    let trace = traced(&scene).await;
    assert_eq!(trace["outcome"], "not_wanted", "{trace}");
    assert_eq!(trace["or_sent_again"], true, "{trace}");
    ctl_audit(&scene).await;

    // New events go their usual way.
    let mut station = scene.station("S1").await;
    station.ok("Heartbeat", "{}").await;
    scene
        .api
        .await_stats(id, json!({"received": 4, "delivered": 4}))
        .await;
}

async fn ctl_audit(scene: &Scene) {
    scene.ctl().line("audit").await.ok();
}

#[tokio::test]
async fn what_fails_again_is_retried_and_what_is_disabled_is_refused() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    station.ok("Heartbeat", "{}").await;
    scene.receiver.await_requests(1).await;
    let id = scene.webhook;
    scene.api.await_stats(id, json!({"delivered": 1})).await;
    scene.receiver.answer(Answer::Status(500));
    let ctl = scene.ctl();
    let line = format!("webhooks backfill {id} --since 1h --yes");
    for round in 1..=2_u64 {
        ctl.line(&line).await.ok();
        let count = usize::try_from(round).expect("a small number") + 1;
        scene.receiver.await_requests(count).await;
        let books = json!({"received": 1 + round, "delivered": 1, "retrying": round});
        scene.api.await_stats(id, books).await;
    }
    let off = json!({"enabled": false});
    scene
        .api
        .put(&format!("/webhooks/{id}"), &off)
        .await
        .expect(200);
    assert_eq!(ctl.line(&line).await.code, 5);
    assert_eq!(
        ctl.line("webhooks backfill 99 --since 1h --yes").await.code,
        3
    );
    // Deleted, it is owed nothing any more.
    scene
        .api
        .delete(&format!("/webhooks/{id}"))
        .await
        .expect(204);
    ctl_audit(&scene).await;
}

#[tokio::test]
async fn one_that_is_broken_off_says_where_to_go_on() {
    let scene = Scene::with(daemon().flag("--retry-schedule", "1h"), &["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    for _ in 0..1200 {
        station.ok("Heartbeat", "{}").await;
    }
    // It takes no more than some at once, and here they stay.
    let failing = Receiver::start().await;
    failing.answer(Answer::Status(500));
    let id = scene.api.subscribe(&failing.url(), &["Heartbeat"]).await;
    let ctl = scene.ctl();
    let line = format!("webhooks backfill {id} --since 1h");
    let mut backfill = ctl.on_terminal(&format!("{line} --yes"));
    let held = || async { scene.api.stats(id).await["retrying"].as_u64() };
    eventually("it to hold back", held, |held| *held > Some(1000)).await;
    backfill.types("\x03").await;
    backfill.shows("go on with --since ").await;
    let told = backfill.contents();
    let word_behind = |text: &str| {
        let rest = told.split(text).nth(1).expect("it is told");
        rest.split_whitespace().next().expect("a word").to_owned()
    };
    let sent: u64 = word_behind("broken off: ").parse().expect("a count");
    let since = word_behind("go on with --since ");
    assert_eq!(backfill.end().await, 130);
    let rest = ctl
        .json(&format!("webhooks backfill {id} --since {since} --dry-run"))
        .await;
    // The last one may come once more, with those of its millisecond.
    let left = rest["events"].as_u64().expect("a count");
    assert!(
        (1200 - sent..1200 - sent + 20).contains(&left),
        "{left} after {sent}"
    );
}

/// It would come twice, and before what had happened earlier.
#[tokio::test]
async fn what_waits_for_its_first_attempt_is_left_to_it() {
    const EVENTS: usize = 20;
    let scene = Scene::new(&["Heartbeat"]).await;
    scene.receiver.answer(Answer::Held);
    let mut station = scene.station("S1").await;
    for _ in 0..EVENTS {
        station.ok("Heartbeat", "{}").await;
    }
    scene.receiver.await_requests(1).await;
    let line = format!("webhooks backfill {} --since 1h --yes", scene.webhook);
    assert_eq!(scene.ctl().json(&line).await["events"], 0);
    scene.receiver.release();
    let books = json!({"received": EVENTS, "delivered": EVENTS, "pending": 0});
    scene.api.await_stats(scene.webhook, books).await;
    // What was delivered is sent again, if somebody asks for it.
    assert_eq!(scene.ctl().json(&line).await["events"], EVENTS);
}

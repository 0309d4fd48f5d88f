//! What happens when a receiver fails: the schedule, the end of it, and replay.

use std::time::Duration;

use pipelet_tests::{Answer, Builder, Receiver, Request, deadline::eventually};
use serde_json::{Value, json};

use crate::scene::{Scene, daemon};

/// Seven attempts and six waits, as by default, only quicker.
const SCHEDULE: [u64; 6] = [40, 60, 80, 100, 120, 140];
const EVENTS: &[&str] = &["StartTransaction"];

fn quick() -> Builder {
    let schedule: Vec<_> = SCHEDULE.iter().map(|wait| format!("{wait}ms")).collect();
    daemon().flag("--retry-schedule", &schedule.join(","))
}

/// Waits are reckoned in whole milliseconds of wall time, arrivals in exact monotonic ones.
const ROUNDING: Duration = Duration::from_millis(5);

fn gap(earlier: &Request, later: &Request) -> Duration {
    later.arrived - earlier.arrived + ROUNDING
}

/// One failed delivery after seven attempts.
async fn dead_letter(scene: &Scene, answer: Answer) -> Value {
    scene.receiver.answer(answer);
    scene.station("S1").await.start_transaction(0).await;
    scene.receiver.await_requests(7).await;
    scene.api.await_failed("", 1).await.remove(0)
}

#[tokio::test]
async fn a_receiver_that_fails_sees_exactly_the_schedule() {
    let scene = Scene::with(quick(), EVENTS).await;
    scene.receiver.answer_next(vec![Answer::Status(500); 6]);
    scene.station("S1").await.start_transaction(0).await;

    scene
        .api
        .await_stats(
            scene.webhook,
            json!({"received": 1, "delivered": 1, "dead": 0}),
        )
        .await;
    let requests = scene.receiver.requests();
    assert_eq!(requests.len(), 7);
    for (number, request) in (1_u32..).zip(&requests) {
        assert_eq!(request.attempt(), number.to_string());
        assert_eq!(request.id(), requests[0].id());
        assert_eq!(request.body, requests[0].body);
    }
    for (pair, wait) in requests.windows(2).zip(SCHEDULE) {
        let gap = gap(&pair[0], &pair[1]);
        assert!(
            gap >= Duration::from_millis(wait),
            "{gap:?} instead of {wait} ms"
        );
    }
    assert_eq!(
        scene.api.get("/failed-deliveries").await.expect(200)["data"],
        json!([])
    );
}

#[tokio::test]
async fn after_the_seventh_failure_it_is_a_failed_delivery_until_replayed() {
    let scene = Scene::with(quick(), EVENTS).await;
    let boom = Answer::Reply {
        status: 503,
        headers: vec![],
        body: "boom".to_owned(),
    };
    let failed = dead_letter(&scene, boom).await;
    let id = failed["id"].as_u64().expect("a numeric id");

    assert_eq!(failed["webhook_id"], scene.webhook);
    assert_eq!(failed["event"], "StartTransaction");
    assert_eq!(failed["station_id"], "S1");
    assert_eq!(failed["reason"], "attempts_exhausted");
    assert_eq!(failed["last_response"], "boom");
    let first = scene.receiver.requests().remove(0);
    assert_eq!(failed["event_id"], first.id());
    assert_eq!(failed["payload"], first.json()["payload"]);
    assert_eq!(failed["timestamp"], first.json()["timestamp"]);
    let attempts = failed["attempts"].as_array().expect("attempts");
    assert_eq!(attempts.len(), 7);
    for (number, attempt) in (1..).zip(attempts) {
        assert_eq!(attempt["number"], number);
        assert_eq!(attempt["status_code"], 503);
        assert!(
            attempt["duration_ms"].is_u64() && attempt["at"].is_string(),
            "{attempt}"
        );
    }
    assert_eq!(
        scene
            .api
            .get(&format!("/failed-deliveries/{id}"))
            .await
            .expect(200),
        failed
    );
    scene
        .api
        .await_stats(scene.webhook, json!({"dead": 1, "pending": 0}))
        .await;
    assert_eq!(scene.receiver.count(), 7);

    scene.receiver.answer(Answer::Status(200));
    scene.ctl().line(&format!("dlq replay {id}")).await.ok();
    let again = scene.receiver.await_requests(8).await.remove(7);
    assert_eq!(again.id(), first.id());
    assert_eq!(again.body, first.body);
    scene
        .api
        .await_stats(
            scene.webhook,
            json!({"delivered": 1, "dead": 0, "pending": 0}),
        )
        .await;
    scene
        .api
        .get(&format!("/failed-deliveries/{id}"))
        .await
        .expect(404);
    assert_eq!(scene.ctl().line(&format!("dlq replay {id}")).await.code, 3);
}

#[tokio::test]
async fn a_replay_that_fails_again_gets_a_whole_new_round() {
    let scene = Scene::with(quick(), EVENTS).await;
    let id = dead_letter(&scene, Answer::Status(500)).await["id"].clone();

    let replayed = scene
        .api
        .post_empty(&format!("/failed-deliveries/{id}/replay"))
        .await;
    assert_eq!(replayed.expect(202), json!({"replayed": 1, "skipped": 0}));
    let requests = scene.receiver.await_requests(14).await;
    assert!(
        requests
            .iter()
            .all(|request| request.id() == requests[0].id())
    );
    scene
        .api
        .await_stats(
            scene.webhook,
            json!({"received": 1, "dead": 1, "pending": 0}),
        )
        .await;
    scene.api.await_failed("", 1).await;
    assert_eq!(scene.receiver.count(), 14);
}

#[tokio::test]
async fn replay_by_filter_takes_what_matches() {
    let builder = daemon()
        .flag("--retry-schedule", "1ms")
        .flag("--max-attempts", "2");
    let scene = Scene::with(builder, &["StartTransaction", "Heartbeat"]).await;
    scene.receiver.answer(Answer::Status(500));
    for id in ["A", "B"] {
        let mut station = scene.station(id).await;
        station.start_transaction(0).await;
        station.ok("Heartbeat", "{}").await;
    }
    scene.api.await_failed("", 4).await;
    for (query, count) in [
        ("?station_id=A", 2),
        ("?event=Heartbeat", 2),
        ("?event=Heartbeat&station_id=B", 1),
    ] {
        assert_eq!(
            scene.api.await_failed(query, count).await.len(),
            count,
            "{query}"
        );
    }
    let future = "?since=2999-01-01T00:00:00Z";
    assert_eq!(scene.api.await_failed(future, 0).await, Vec::<Value>::new());
    assert_eq!(
        scene
            .api
            .await_failed("?until=2999-01-01T00:00:00Z", 4)
            .await
            .len(),
        4
    );

    scene.receiver.answer(Answer::Status(200));
    let replay = "/failed-deliveries/replay";
    let some = scene
        .api
        .post(replay, &json!({"event": "Heartbeat", "station_id": "A"}))
        .await;
    assert_eq!(some.expect(202), json!({"replayed": 1, "skipped": 0}));
    scene.api.await_failed("", 3).await;
    let unclear = scene.api.post(replay, &json!({})).await;
    assert!(
        (400..500).contains(&unclear.status),
        "nothing said is not all: {unclear:?}"
    );
    let all = scene.api.post(replay, &json!({"all": true})).await;
    assert_eq!(all.expect(202), json!({"replayed": 3, "skipped": 0}));
    scene
        .api
        .await_stats(scene.webhook, json!({"received": 4, "delivered": 4}))
        .await;
    scene.api.await_failed("", 0).await;
}

#[tokio::test]
async fn retry_after_lengthens_a_wait_and_never_shortens_it() {
    let scene = Scene::with(daemon().flag("--retry-schedule", "10ms,300ms"), EVENTS).await;
    let reply = |status, after: &str| Answer::Reply {
        status,
        headers: vec![("retry-after", after.to_owned())],
        body: String::new(),
    };
    scene
        .receiver
        .answer_next([reply(429, "1"), reply(503, "0"), reply(500, "3600")]);
    scene.station("S1").await.start_transaction(0).await;

    let requests = scene.receiver.await_requests(4).await;
    assert!(
        gap(&requests[0], &requests[1]) >= Duration::from_secs(1),
        "lengthened"
    );
    assert!(
        gap(&requests[1], &requests[2]) >= Duration::from_millis(300),
        "not shortened"
    );
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_not_followed() {
    let scene = Scene::with(daemon().flag("--retry-schedule", "1h"), EVENTS).await;
    let elsewhere = Receiver::start().await;
    let headers = vec![("location", elsewhere.url())];
    scene.receiver.answer(Answer::Reply {
        status: 308,
        headers,
        body: String::new(),
    });
    scene.station("S1").await.start_transaction(0).await;

    scene
        .api
        .await_stats(scene.webhook, json!({"pending": 1, "retrying": 1}))
        .await;
    let deliveries = scene
        .api
        .get(&format!("/webhooks/{}/deliveries", scene.webhook))
        .await;
    let delivery = deliveries.expect(200)["data"][0].clone();
    assert_eq!(delivery["status"], "pending");
    assert_eq!(delivery["attempts"][0]["status_code"], 308);
    assert!(delivery["next_attempt_at"].is_string(), "{delivery}");
    assert_eq!(elsewhere.count(), 0);
}

#[tokio::test]
async fn the_deadline_covers_the_whole_exchange() {
    let builder = quick().flag("--delivery-timeout", "300ms");
    let scene = Scene::with(builder, EVENTS).await;
    scene.receiver.answer_next([Answer::Hang, Answer::Endless]);
    scene.station("S1").await.start_transaction(0).await;

    let requests = scene.receiver.await_requests(3).await;
    for pair in requests.windows(2) {
        assert!(
            gap(&pair[0], &pair[1]) >= Duration::from_millis(300),
            "cut off too early"
        );
    }
    scene
        .api
        .await_stats(scene.webhook, json!({"delivered": 1, "pending": 0}))
        .await;
}

#[tokio::test]
async fn no_more_than_4_kib_of_an_answer_are_kept() {
    let scene = Scene::with(quick(), EVENTS).await;
    let body = "x".repeat(1024 * 1024);
    let failed = dead_letter(
        &scene,
        Answer::Reply {
            status: 500,
            headers: vec![],
            body,
        },
    )
    .await;
    let kept = failed["last_response"].as_str().expect("a beginning");
    assert!((1..=4096).contains(&kept.len()), "{} bytes", kept.len());
}

#[tokio::test]
async fn a_disabled_webhook_gets_no_new_events_and_its_retries_wait() {
    let scene = Scene::with(daemon().flag("--retry-schedule", "50ms"), EVENTS).await;
    let path = format!("/webhooks/{}", scene.webhook);
    let clock = Receiver::start().await;
    clock.answer(Answer::Status(500));
    scene.api.subscribe(&clock.url(), EVENTS).await;
    let mut station = scene.station("S1").await;

    scene.receiver.answer_next([Answer::Held]);
    station.start_transaction(1).await;
    scene.receiver.await_requests(1).await;
    scene
        .api
        .put(&path, &json!({"enabled": false}))
        .await
        .expect(200);
    station.start_transaction(2).await;
    // The other webhook has the same schedule: its retries show how much time has passed.
    clock.await_requests(6).await;
    assert_eq!(scene.receiver.count(), 1);

    scene.receiver.release();
    scene
        .api
        .await_stats(scene.webhook, json!({"received": 1, "delivered": 1}))
        .await;
    scene
        .api
        .put(&path, &json!({"enabled": true}))
        .await
        .expect(200);
    station.start_transaction(3).await;
    let requests = scene.receiver.await_requests(2).await;
    assert_eq!(
        requests[1].json()["payload"]["meterStart"],
        3,
        "what came meanwhile is not owed"
    );
}

#[tokio::test]
async fn retries_of_a_disabled_webhook_wait_until_it_is_enabled() {
    let scene = Scene::with(daemon().flag("--retry-schedule", "50ms"), EVENTS).await;
    let path = format!("/webhooks/{}", scene.webhook);
    let mut station = scene.station("S1").await;
    scene.receiver.answer_next([Answer::Held]);
    station.start_transaction(1).await;
    scene.receiver.await_requests(1).await;
    scene
        .api
        .put(&path, &json!({"enabled": false}))
        .await
        .expect(200);
    scene.receiver.release_with(500);
    let waiting = json!({"received": 1, "pending": 1, "retrying": 1});
    scene.api.await_stats(scene.webhook, waiting.clone()).await;

    // The other webhook has the same schedule: its retries show how much time has passed since.
    let clock = Receiver::start().await;
    clock.answer(Answer::Status(500));
    scene.api.subscribe(&clock.url(), EVENTS).await;
    station.start_transaction(2).await;
    clock.await_requests(4).await;
    assert_eq!(scene.receiver.count(), 1);
    scene.api.await_stats(scene.webhook, waiting).await;

    scene
        .api
        .put(&path, &json!({"enabled": true}))
        .await
        .expect(200);
    assert_eq!(scene.receiver.await_requests(2).await[1].attempt(), "2");
    scene
        .api
        .await_stats(scene.webhook, json!({"delivered": 1, "pending": 0}))
        .await;
}

#[tokio::test]
async fn deleting_a_webhook_cancels_what_it_was_owed() {
    let scene = Scene::with(daemon().flag("--retry-schedule", "400ms,20ms"), EVENTS).await;
    let clock = Receiver::start().await;
    scene.receiver.answer(Answer::Status(500));
    clock.answer(Answer::Status(500));
    scene.api.subscribe(&clock.url(), EVENTS).await;
    scene.station("S1").await.start_transaction(1).await;

    scene
        .api
        .await_stats(scene.webhook, json!({"retrying": 1}))
        .await;
    assert_eq!(
        scene
            .api
            .delete(&format!("/webhooks/{}", scene.webhook))
            .await
            .status,
        204
    );
    let before = scene.receiver.count();
    clock.await_requests(4).await;
    assert_eq!(scene.receiver.count(), before);
}

#[tokio::test]
async fn failed_deliveries_outlive_their_webhook_until_purged() {
    let builder = daemon()
        .flag("--retry-schedule", "1ms")
        .flag("--max-attempts", "1");
    let scene = Scene::with(builder, EVENTS).await;
    scene.receiver.answer(Answer::Status(500));
    let mut station = scene.station("S1").await;
    station.start_transaction(1).await;
    station.start_transaction(2).await;
    station.start_transaction(3).await;
    let failed = scene
        .api
        .await_failed(&format!("?webhook_id={}", scene.webhook), 3)
        .await;
    let ctl = scene.ctl();
    let alone = format!("dlq replay {}", failed[0]["id"]);
    let disable = format!("webhooks disable {}", scene.webhook);
    ctl.line(&disable).await.ok();
    let refused = ctl.line(&alone).await;
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.stderr.contains("webhook_disabled"), "{refused:?}");
    scene
        .api
        .delete(&format!("/webhooks/{}", scene.webhook))
        .await
        .expect(204);

    scene.api.await_failed("", 3).await;
    let refused = ctl.line(&alone).await;
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.stderr.contains("webhook_deleted"), "{refused:?}");
    let replayed = scene
        .api
        .post("/failed-deliveries/replay", &json!({"all": true}))
        .await;
    assert_eq!(replayed.expect(202), json!({"replayed": 0, "skipped": 3}));
    let path = format!("/failed-deliveries/{}", failed[0]["id"]);
    assert_eq!(scene.api.delete(&path).await.status, 204);
    scene.api.delete(&path).await.expect(404);
    // Of several, those that are there; wherever the others would be.
    let ids = failed.iter().filter_map(|failed| failed["id"].as_u64());
    let last = ids.max().expect("three");
    let (gone, next) = (&failed[0]["id"], last + 1);
    let several = format!("{gone} {last} {next}");
    let replayed = ctl.line(&format!("-o json dlq replay {several}")).await;
    assert!(replayed.stdout.contains(r#""skipped": 3"#), "{replayed:?}");
    let purged = ctl.line(&format!("dlq purge {several} --yes")).await;
    assert_eq!(purged.code, 6, "{purged:?}");
    scene.api.await_failed("", 1).await;
    ctl.line("dlq purge --all --yes").await.ok();
    scene.api.await_failed("", 0).await;
}

#[tokio::test]
async fn one_event_to_many_webhooks_is_settled_for_each_of_them() {
    let scene = Scene::with(quick(), EVENTS).await;
    let other = Receiver::start().await;
    other.answer(Answer::Status(500));
    let failing = scene.api.subscribe(&other.url(), EVENTS).await;
    let mut station = scene.station("S1").await;
    for meter in 0..5 {
        station.start_transaction(meter).await;
    }
    let all = json!({"received": 5, "delivered": 5});
    scene.api.await_stats(scene.webhook, all).await;
    scene
        .api
        .await_stats(failing, json!({"received": 5, "dead": 5, "pending": 0}))
        .await;
    assert_eq!(scene.receiver.count(), 5);
    assert_eq!(other.count(), 35);
}

/// Fails at first, so that this many deliveries wait for an hour.
async fn with_waiting(events: usize, stations: usize) -> Scene {
    let builder = daemon().flag("--retry-schedule", "1h");
    let scene = Scene::with(builder, &["Heartbeat"]).await;
    scene.receiver.answer(Answer::Status(500));
    let mut dialled = Vec::new();
    for number in 0..stations {
        dialled.push(scene.station(&format!("S{number}")).await);
    }
    for event in 0..events {
        dialled[event % stations].ok("Heartbeat", "{}").await;
    }
    let waiting = json!({"received": events, "retrying": events});
    scene.api.await_stats(scene.webhook, waiting).await;
    scene
}

/// Waits until the failure of so many second attempts is on record.
async fn await_second_failures(scene: &Scene, failures: usize) {
    let path = format!("/webhooks/{}/deliveries", scene.webhook);
    let list = || async { scene.api.get(&path).await.expect(200) };
    let failed = |page: &Value| {
        let deliveries = page["data"].as_array().expect("a list").iter();
        let again = |it: &&Value| {
            let attempts = it["attempts"].as_array().expect("attempts");
            it["status"] == "pending" && attempts.len() == 2
        };
        deliveries.filter(again).count() == failures
    };
    eventually("failures on record", list, failed).await;
}

#[tokio::test]
async fn what_waits_goes_out_when_the_receiver_is_mended() {
    let scene = with_waiting(40, 3).await;
    let retry = format!("/webhooks/{}/retry", scene.webhook);

    // It is not mended: that costs one attempt, and the others wait as they did.
    let answer = scene.api.post_empty(&retry).await.expect(202);
    assert_eq!(answer, json!({"retrying": 40}));
    await_second_failures(&scene, 1).await;

    scene.receiver.answer(Answer::Status(200));
    let line = format!("webhooks retry {}", scene.webhook);
    let told = scene.ctl().line(&line).await;
    assert_eq!(told.code, 0, "{told:?}");
    let said = "delivered 40 of 40 deliveries that waited";
    assert!(told.stderr.contains(said), "{told:?}");
    let delivered = json!({"received": 40, "delivered": 40, "pending": 0});
    scene.api.await_stats(scene.webhook, delivered).await;
    assert_eq!(scene.receiver.requests().len(), 40 + 1 + 40);
    let audit = scene.ctl().json("audit").await;
    assert_eq!(audit["balanced"], true, "{audit}");
}

/// One station's deliveries go out one at a time, so it can be told which is the first to fail.
#[tokio::test]
async fn what_is_loaded_when_one_fails_waits_as_it_did() {
    let scene = with_waiting(40, 1).await;
    let retry = format!("/webhooks/{}/retry", scene.webhook);
    scene.receiver.answer_next(vec![Answer::Status(200); 10]);
    let line = format!("webhooks retry {}", scene.webhook);
    let told = scene.ctl().line(&line).await;
    assert_eq!(told.code, 1, "{told:?}");
    let said = "delivered 10 of 40 deliveries that waited; 1 failed";
    assert!(told.stderr.contains(said), "{told:?}");
    await_second_failures(&scene, 1).await;
    let so_far = json!({"delivered": 10, "retrying": 30});
    scene.api.await_stats(scene.webhook, so_far).await;

    // Disabled and enabled again, it does not go on by itself.
    for change in [false, true] {
        let path = format!("/webhooks/{}", scene.webhook);
        let change = json!({"enabled": change});
        scene.api.put(&path, &change).await.expect(200);
    }
    scene.receiver.answer(Answer::Status(200));
    scene.api.post_empty(&retry).await.expect(202);
    let delivered = json!({"delivered": 40, "pending": 0});
    scene.api.await_stats(scene.webhook, delivered).await;
    assert_eq!(scene.receiver.requests().len(), 40 + 11 + 30);
}

#[tokio::test]
async fn where_nothing_can_go_out_that_is_said() {
    let scene = with_waiting(1, 1).await;
    let webhook = scene.webhook;
    let ctl = scene.ctl();
    let disable = format!("webhooks disable {webhook}");
    ctl.line(&disable).await.ok();
    let retry = format!("webhooks retry {webhook}");
    let refused = ctl.line(&retry).await;
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.stderr.contains("is disabled"), "{refused:?}");

    let url = scene.receiver.url();
    let other = scene.api.subscribe(&url, &["Reset"]).await;
    let nothing = ctl.line(&format!("webhooks retry {other}")).await;
    let said = "nothing waits for a retry";
    assert!(nothing.stderr.contains(said), "{nothing:?}");
    assert_eq!(ctl.line("webhooks retry 99").await.code, 3);
}

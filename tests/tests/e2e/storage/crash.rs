//! What a `kill -9` can't undo: whatever was acknowledged, to a station or to a caller.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use pipelet_tests::{Answer, Request, Station, deadline::eventually};
use serde_json::{Value, json};

use crate::scene::{Scene, daemon};

const EVENTS: &[&str] = &["StartTransaction"];

#[tokio::test]
async fn an_answered_event_arrives_although_the_daemon_dies_before_the_post() {
    let builder = daemon()
        .flag("--retry-schedule", "50ms")
        .flag("--max-attempts", "1000");
    let mut scene = Scene::with(builder, EVENTS).await;
    scene.receiver.stop();
    let ocpp = scene.daemon.ocpp();
    let stations = (0..4).map(|number| async move {
        let mut station = Station::connect(ocpp, &format!("S{number}")).await;
        let mut ids = Vec::new();
        for meter in 0..50 {
            ids.push(station.start_transaction(meter).await);
        }
        ids
    });
    let answered: BTreeSet<_> = join_all(stations).await.into_iter().flatten().collect();
    assert_eq!(answered.len(), 200, "an id is never given twice");
    scene.daemon.kill9().await;

    scene.receiver.start_again().await;
    scene.start_again().await;
    scene
        .api
        .await_stats(scene.webhook, json!({"received": 200, "delivered": 200}))
        .await;
    let arrived: BTreeSet<_> = scene
        .receiver
        .requests()
        .iter()
        .map(|request| {
            request.json()["payload"]["transactionId"]
                .as_i64()
                .expect("an id")
        })
        .collect();
    assert_eq!(arrived, answered);
}

/// Stations keep talking while the daemon is killed at moments that nobody chose.
#[tokio::test]
async fn whatever_was_answered_arrives_whenever_the_daemon_dies() {
    let mut scene = Scene::new(EVENTS).await;
    let mut answered = BTreeSet::new();
    for round in 0..5 {
        let ocpp = scene.daemon.ocpp();
        // All are there before the count begins: what the round before still owed may be enough of
        // it, and would have the daemon killed while nobody talks.
        let mut talking = Vec::new();
        for number in 0..4 {
            let station = Station::connect(ocpp, &format!("S{round}_{number}")).await;
            talking.push(tokio::spawn(talk_until_it_ends(station)));
        }
        scene
            .receiver
            .await_requests(scene.receiver.count() + 20 + 7 * round)
            .await;
        scene.daemon.kill9().await;
        for station in talking {
            answered.extend(station.await.expect("a station"));
        }
        scene.start_again().await;
    }
    let arrived = |requests: &[Request]| -> BTreeSet<i64> {
        let id = |request: &Request| request.json()["payload"]["transactionId"].as_i64();
        requests.iter().filter_map(id).collect()
    };
    let everything = || async { arrived(&scene.receiver.requests()) };
    let what = format!("{} answered events", answered.len());
    eventually(&what, everything, |arrived| arrived.is_superset(&answered)).await;
}

/// Starts transactions one after another, and returns the ids that were answered.
async fn talk_until_it_ends(mut station: Station) -> Vec<i64> {
    let mut answered = Vec::new();
    for meter in 0.. {
        let start =
            json!({"connectorId": 1, "idTag": "T", "meterStart": meter, "timestamp": "now"});
        let called = station
            .call_while_open(&meter.to_string(), "StartTransaction", start)
            .await;
        let Some(called) = called else { break };
        answered.push(called.result()["transactionId"].as_i64().expect("an id"));
    }
    answered
}

#[tokio::test]
async fn an_event_that_was_posted_but_not_checkpointed_arrives_again() {
    let mut scene = Scene::new(EVENTS).await;
    scene.receiver.answer(Answer::Held);
    scene.station("S1").await.start_transaction(7).await;
    scene.receiver.await_requests(1).await;
    scene.daemon.kill9().await;

    scene.receiver.release();
    scene.start_again().await;
    let requests = scene.receiver.await_requests(2).await;
    assert_eq!(requests[1].id(), requests[0].id());
    assert_eq!(requests[1].body, requests[0].body);
    scene
        .api
        .await_stats(scene.webhook, json!({"received": 1, "delivered": 1}))
        .await;
}

#[tokio::test]
async fn after_a_clean_end_nothing_is_sent_again() {
    let mut scene = Scene::new(EVENTS).await;
    let mut station = scene.station("S1").await;
    for meter in 0..20 {
        station.start_transaction(meter).await;
    }
    scene.receiver.await_requests(20).await;
    assert!(scene.daemon.terminate().await.success());

    scene.start_again().await;
    scene.station("S1").await.start_transaction(20).await;
    scene
        .api
        .await_stats(scene.webhook, json!({"received": 21, "delivered": 21}))
        .await;
    assert_eq!(scene.receiver.count(), 21);
}

#[tokio::test]
async fn a_clean_end_lets_an_attempt_in_flight_finish() {
    let mut scene = Scene::new(EVENTS).await;
    scene.receiver.answer(Answer::Held);
    let mut station = scene.station("S1").await;
    station.start_transaction(0).await;
    scene.receiver.await_requests(1).await;
    scene.daemon.signal("TERM").await;
    // The socket's end shows that the shutdown has begun.
    assert_eq!(station.closed().await, Some(1001));
    scene.receiver.release();
    assert!(scene.daemon.ended().await.success());

    scene.start_again().await;
    scene
        .api
        .await_stats(scene.webhook, json!({"received": 1, "delivered": 1}))
        .await;
    assert_eq!(scene.receiver.count(), 1);
}

#[tokio::test]
async fn a_retry_goes_on_where_it_was() {
    let mut scene = Scene::with(daemon().flag("--retry-schedule", "200ms"), EVENTS).await;
    scene.receiver.answer_next([Answer::Status(500)]);
    scene.station("S1").await.start_transaction(0).await;
    scene
        .api
        .await_stats(scene.webhook, json!({"retrying": 1}))
        .await;
    scene.crash().await;

    let requests = scene.receiver.await_requests(2).await;
    assert_eq!(requests[1].attempt(), "2");
    assert_eq!(requests[1].id(), requests[0].id());
    scene
        .api
        .await_stats(scene.webhook, json!({"received": 1, "delivered": 1}))
        .await;
}

#[tokio::test]
async fn a_failed_delivery_outlives_a_kill() {
    let builder = daemon()
        .flag("--retry-schedule", "1ms")
        .flag("--max-attempts", "2");
    let mut scene = Scene::with(builder, EVENTS).await;
    scene.receiver.answer(Answer::Status(500));
    scene.station("S1").await.start_transaction(0).await;
    let before = scene.api.await_failed("", 1).await;
    scene.crash().await;

    assert_eq!(scene.api.await_failed("", 1).await, before);
    scene
        .api
        .await_stats(scene.webhook, json!({"received": 1, "dead": 1}))
        .await;
}

#[tokio::test]
async fn a_webhook_that_was_created_is_there_with_its_secret() {
    let mut scene = Scene::new(EVENTS).await;
    let secret = json!({"secret_header": "X-Webhook-Secret", "secret_value": "kept"});
    let path = format!("/webhooks/{}", scene.webhook);
    let before = scene.api.put(&path, &secret).await.expect(200);
    let key = scene.daemon.key();
    scene.crash().await;

    assert_eq!(scene.daemon.key(), key);
    assert_eq!(scene.api.get(&path).await.expect(200), before);
    scene
        .api
        .post_empty(&format!("{path}/test"))
        .await
        .expect(200);
    let request = scene.receiver.await_requests(1).await.remove(0);
    assert_eq!(request.header("x-webhook-secret"), Some("kept"));
}

#[tokio::test]
async fn a_deleted_webhook_stays_deleted_and_its_id_is_not_used_again() {
    let mut scene = Scene::new(EVENTS).await;
    scene
        .api
        .delete(&format!("/webhooks/{}", scene.webhook))
        .await
        .expect(204);
    scene.crash().await;

    scene
        .api
        .get(&format!("/webhooks/{}", scene.webhook))
        .await
        .expect(404);
    let next = scene.api.subscribe(&scene.receiver.url(), EVENTS).await;
    assert_ne!(next, scene.webhook);
}

#[tokio::test]
async fn transaction_ids_are_never_used_again() {
    let mut scene = Scene::new(EVENTS).await;
    let mut ids = Vec::new();
    for round in 0..3 {
        let mut station = scene.station("S1").await;
        for meter in 0..10 {
            ids.push(station.start_transaction(round * 10 + meter).await);
        }
        scene.crash().await;
    }
    let unique: BTreeSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "{ids:?}");
    assert!(
        ids.iter().all(|id| (1..=i64::from(i32::MAX)).contains(id)),
        "{ids:?}"
    );
}

/// Neither from those of before, nor from another daemon's.
#[tokio::test]
async fn transaction_ids_tell_nothing_of_the_next() {
    let mut known = BTreeSet::new();
    for _ in 0..2 {
        let scene = Scene::new(EVENTS).await;
        let mut station = scene.station("S1").await;
        let mut ids = Vec::new();
        for meter in 0..20 {
            ids.push(station.start_transaction(meter).await);
        }
        // A counter has the same step again and again, whatever the step is and wherever it
        // begins, and so has one with a mask over it.
        let steps = ids.windows(2).map(|pair| pair[1] - pair[0]);
        let steps: BTreeSet<_> = steps.map(|step| step.rem_euclid(1 << 31)).collect();
        assert_eq!(steps.len(), ids.len() - 1, "{ids:?}");
        let again: Vec<_> = ids.iter().filter(|id| !known.insert(**id)).collect();
        assert!(
            again.is_empty(),
            "another daemon's too: {again:?} of {ids:?}"
        );
    }
}

#[tokio::test]
async fn what_is_known_of_a_station_outlives_a_kill() {
    let mut scene = Scene::new(EVENTS).await;
    let mut station = scene.station("S1").await;
    station.boot().await;
    let status = json!({"connectorId": 1, "errorCode": "NoError", "status": "Charging"});
    station.ok("StatusNotification", &status).await;
    let transaction = station.start_transaction(12).await;
    scene.crash().await;

    let known = scene.api.get("/stations/S1").await.expect(200);
    assert_eq!(known["connected"], false);
    assert_eq!(known["vendor"], "Acme");
    assert_eq!(known["boot_status"], "Accepted");
    assert_eq!(known["connectors"][0]["status"], "Charging");
    assert_eq!(known["open_transactions"][0]["transaction_id"], transaction);
    assert_eq!(known["open_transactions"][0]["meter_start"], 12);
}

#[tokio::test]
async fn a_call_resent_after_a_kill_is_answered_the_same_and_told_once() {
    let mut scene = Scene::new(EVENTS).await;
    let start = json!({
        "connectorId": 1, "idTag": "T", "meterStart": 5, "timestamp": "2026-04-14T12:34:56Z",
    });
    let answer = scene
        .station("S1")
        .await
        .call_as("same", "StartTransaction", &start)
        .await;
    scene.crash().await;

    let mut station = scene.station("S1").await;
    assert_eq!(
        station.call_as("same", "StartTransaction", &start).await,
        answer,
        "resent"
    );
    assert_eq!(
        station.call_as("other", "StartTransaction", &start).await,
        answer,
        "retried"
    );
    scene
        .api
        .await_stats(scene.webhook, json!({"received": 1, "delivered": 1}))
        .await;
}

/// By the station's next connection, or by the next start where it does not come back.
#[tokio::test]
async fn the_end_of_a_connection_that_the_daemons_death_cut_is_told_once() {
    let mut scene = Scene::new(&["group:connection"]).await;
    let _gone = (scene.station("AWAY").await, scene.station("BACK").await);
    scene.station("LEFT").await.close().await;
    scene.receiver.await_requests(4).await;
    scene.crash().await;
    let _gone = scene.station("BACK").await;

    let (on, off) = ("StationConnected", "StationDisconnected");
    // Each event once, though it may arrive again after a crash.
    let told = async |scene: &Scene| -> BTreeMap<String, Vec<String>> {
        let mut seen = BTreeSet::new();
        let mut told = BTreeMap::<String, Vec<String>>::new();
        for request in scene.receiver.requests() {
            let event = request.json();
            if seen.insert(request.id().to_owned()) {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let end = &event["payload"]["reason"];
                let line = format!("{} {}", text(&event["event"]), text(end));
                let station = told.entry(text(&event["station_id"])).or_default();
                station.push(line.trim_end().to_owned());
            }
        }
        told
    };
    let lost = format!("{off} connection_lost");
    let left = format!("{off} closed_by_station");
    let lines = |lines: &[&str]| {
        lines
            .iter()
            .map(|&line| line.to_owned())
            .collect::<Vec<_>>()
    };
    let once = BTreeMap::from([
        ("AWAY".to_owned(), lines(&[on, &lost])),
        ("BACK".to_owned(), lines(&[on, &lost, on])),
        ("LEFT".to_owned(), lines(&[on, &left])),
    ]);
    let all = async || told(&scene).await;
    eventually("the ends of both", all, |told| *told == once).await;

    scene.crash().await;
    let all = async || told(&scene).await;
    let mut twice = once;
    twice.insert("BACK".to_owned(), lines(&[on, &lost, on, &lost]));
    eventually("its next end", all, |told| *told == twice).await;
    assert!(scene.daemon.terminate().await.success());
    scene.start_again().await;
    let mut late = scene.station("LATE").await;
    late.ok("Heartbeat", "{}").await;
    twice.insert("LATE".to_owned(), lines(&[on]));
    let all = async || told(&scene).await;
    eventually("nothing but the last", all, |told| *told == twice).await;
}

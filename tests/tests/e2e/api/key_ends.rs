//! What a key has opened ends with the key: streams, and calls that wait.

use pipelet_tests::{
    Rpc,
    deadline::{eventually, within},
};
use serde_json::json;

use crate::scene::{Scene, daemon};

const UNAUTHENTICATED: u16 = 16;

/// A key, and its number.
async fn key(scene: &Scene, options: &str) -> (String, u64) {
    let line = format!("keys create --name theirs {options}");
    let made = scene.ctl().json(line.trim()).await;
    let key = made["key"].as_str().expect("the key").to_owned();
    (key, made["id"].as_u64().expect("its number"))
}

/// How a key ends.
enum End {
    Revoked,
    Expired,
}

async fn streams_end(end: End) {
    let scene = Scene::new(&["Heartbeat"]).await;
    let (options, code, message) = match end {
        End::Revoked => ("--role read-only", "key_revoked", "revoked"),
        End::Expired => ("--role read-only --expires-in 3s", "key_expired", "expired"),
    };
    let (theirs, number) = key(&scene, options).await;
    let api = scene.api.with_key(Some(&theirs));
    let mut events = api.stream("/events/stream", None).await.expect("a stream");
    let rpc = Rpc::new(scene.daemon.grpc());
    let tail = rpc.open("EventService/TailEvents", Some(&theirs)).await;
    let ctl = scene.ctl().variable("PIPELET_API_KEY", &theirs);
    let watching = tokio::spawn(async move { ctl.line("-o jsonl events tail").await });
    let mut ours = scene
        .api
        .stream("/events/stream", None)
        .await
        .expect("ours");
    let mut station = scene.station("S1").await;
    while events.next().await.expect("an event").event != "Heartbeat" {
        station.ok("Heartbeat", "{}").await;
    }

    if matches!(end, End::Revoked) {
        scene
            .ctl()
            .line(&format!("keys revoke {number} --yes"))
            .await
            .ok();
    }
    let ending = async {
        loop {
            let sent = events.next().await.expect("the reason of the end");
            if sent.event == "error" {
                break sent;
            }
        }
    };
    let last = within("the stream's end", ending).await;
    station
        .ok("MeterValues", json!({"connectorId": 1, "meterValue": []}))
        .await;
    let problem = last.json();
    assert_eq!(
        (&problem["code"], &problem["status"]),
        (&json!(code), &json!(401))
    );
    assert!(problem["request_id"].is_string(), "{problem}");
    assert_eq!(events.next().await, None);
    // A browser comes back by itself, and is told for good.
    let again = api
        .stream("/events/stream", None)
        .await
        .expect_err("no stream");
    assert_eq!(again.status, 401);

    let (status, told) = Rpc::end(tail.expect("a tail")).await;
    assert_eq!(status, UNAUTHENTICATED, "{told}");
    assert!(told.contains(message), "{told}");

    let watched = within("the tail's end", watching).await;
    let watched = watched.expect("pipeletctl");
    assert_eq!(watched.code, 4, "{watched:?}");
    assert!(watched.stderr.contains(code), "{watched:?}");
    assert!(!watched.stdout.contains("MeterValues"), "{watched:?}");

    // Others' go on.
    while ours.next().await.expect("an event").event != "MeterValues" {}
}

#[tokio::test]
async fn streams_end_with_a_key_that_is_revoked() {
    streams_end(End::Revoked).await;
}

#[tokio::test]
async fn streams_end_with_a_key_that_expires() {
    streams_end(End::Expired).await;
}

#[tokio::test]
async fn readers_with_a_revoked_key_make_room_at_once() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let (theirs, number) = key(&scene, "--role read-only").await;
    let rpc = Rpc::new(scene.daemon.grpc());
    let tail = "EventService/TailEvents";
    let mut readers = Vec::new();
    while let Ok(reader) = rpc.open(tail, Some(&theirs)).await {
        readers.push(reader);
    }
    let ours = scene.daemon.key();
    assert!(rpc.call(tail, Some(&ours)).await.is_some());
    scene
        .ctl()
        .line(&format!("keys revoke {number} --yes"))
        .await
        .ok();
    let again = || rpc.call(tail, Some(&ours));
    eventually("room for another", again, Option::is_none).await;
    drop(readers);
}

#[tokio::test]
async fn who_waits_for_a_station_waits_no_longer_than_the_key_is_valid() {
    let scene = Scene::with(daemon(), &["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    station.boot().await;
    let (theirs, number) = key(&scene, "--role operator").await;
    let api = scene.api.with_key(Some(&theirs));
    let path = "/stations/S1/commands/ClearCache?timeout=10m";
    let waiting = tokio::spawn(async move { api.post(path, &json!({})).await });
    let asked = station.asked().await;
    let ctl = scene.ctl().variable("PIPELET_API_KEY", &theirs);
    let behind = "--timeout 10m stations call S1 GetConfiguration".to_owned();
    let behind = tokio::spawn(async move { ctl.line(&behind).await });

    scene
        .ctl()
        .line(&format!("keys revoke {number} --yes"))
        .await
        .ok();
    let told = within("an end", waiting).await.expect("an answer");
    assert_eq!(told.expect(401)["code"], "key_revoked");
    let told = behind.await.expect("pipeletctl");
    assert_eq!(told.code, 4, "{told:?}");

    // What waited behind it is not sent any more; the next one is.
    station.answer(&asked, json!({"status": "Accepted"})).await;
    let api = scene.api.clone();
    let path = "/stations/S1/commands/GetLocalListVersion";
    let next = tokio::spawn(async move { api.post(path, &json!({})).await });
    let asked = station.asked().await;
    assert_eq!(asked.action, "GetLocalListVersion");
    station.answer(&asked, json!({"listVersion": 1})).await;
    next.await.expect("an answer").expect(200);
}

/// Its answer is not cut off: what is done is told.
#[tokio::test]
async fn a_key_can_revoke_itself() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let (theirs, number) = key(&scene, "--role admin").await;
    let ctl = scene.ctl().variable("PIPELET_API_KEY", &theirs);
    ctl.line(&format!("keys revoke {number} --yes")).await.ok();
    assert_eq!(ctl.line("keys list").await.code, 4);
}

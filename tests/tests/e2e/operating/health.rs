//! What an operator asks at night: who fails, since when and of what; which charger can't settle.

use pipelet_tests::{Answer, Authority, Receiver, deadline::eventually};
use serde_json::{Value, json};

use crate::{
    cli::doctor::examined,
    scene::{Scene, daemon},
};

/// A webhook's health, once it is in this state.
async fn health(scene: &Scene, id: u64, state: &str) -> Value {
    let path = format!("/webhooks/{id}");
    let look = || async { scene.api.get(&path).await.expect(200)["health"].clone() };
    eventually(state, look, |health| health["state"] == state).await
}

async fn doctor(scene: &Scene) -> Vec<Value> {
    examined(&scene.ctl()).await.0
}

fn message(finding: &Value) -> &str {
    finding["message"].as_str().expect("a message")
}

#[tokio::test]
async fn a_webhook_that_fails_says_since_when_and_of_what() {
    let scene = Scene::new(&["Heartbeat"]).await;
    assert_eq!(
        health(&scene, scene.webhook, "ok").await["since"],
        Value::Null
    );
    let mut station = scene.station("S1").await;
    station.ok("Heartbeat", "{}").await;
    scene
        .api
        .await_stats(scene.webhook, json!({"delivered": 1}))
        .await;
    let well = health(&scene, scene.webhook, "ok").await;
    assert_eq!(well["since"], well["last_success_at"], "{well}");

    scene.receiver.answer(Answer::Status(503));
    station.ok("Heartbeat", "{}").await;
    let failing = health(&scene, scene.webhook, "failing").await;
    assert_eq!(failing["last_failure_code"], "http_503", "{failing}");
    assert_eq!(
        failing["last_success_at"], well["last_success_at"],
        "{failing}"
    );
    // What waits for a retry is owed, too, once it has been looked for.
    let path = format!("/webhooks/{}", scene.webhook);
    let look = || async { scene.api.get(&path).await.expect(200)["health"].clone() };
    let failing = eventually("the oldest", look, |it| it["oldest_owed_at"].is_string()).await;
    assert!(failing["oldest_owed_at"].is_string(), "{failing}");
    assert!(
        failing["since"].as_str() >= failing["oldest_owed_at"].as_str(),
        "{failing}"
    );
    let metrics = scene.api.get("/metrics").await.text;
    let state = format!(
        "pipelet_webhook_state{{webhook=\"{}\",state=\"failing\"}} 1",
        scene.webhook
    );
    assert!(metrics.contains(&state), "{metrics}");
    let findings = doctor(&scene).await;
    let failing = findings.iter().find(|it| it["code"] == "webhook_failing");
    let failing = failing.unwrap_or_else(|| panic!("{findings:?}"));
    assert_eq!(failing["webhook_id"], scene.webhook, "{failing}");
    for words in [
        "fails since 20",
        "the receiver answers 503",
        "the last success was",
    ] {
        assert!(message(failing).contains(words), "{failing}");
    }

    scene.receiver.answer(Answer::Status(200));
    let retry = format!("webhooks retry {}", scene.webhook);
    scene.ctl().line(&retry).await.ok();
    // What is owed is as of the last look.
    let owes_nothing = |it: &Value| it["state"] == "ok" && it["oldest_owed_at"].is_null();
    eventually("nothing to be owed", look, owes_nothing).await;
}

#[tokio::test]
async fn one_that_fails_by_turns_is_flapping_once() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let turns = [Answer::Status(500), Answer::Status(200)];
    scene
        .receiver
        .answer_next(turns.iter().cloned().cycle().take(40));
    let mut station = scene.station("S1").await;
    for _ in 0..20 {
        station.ok("Heartbeat", "{}").await;
    }
    health(&scene, scene.webhook, "flapping").await;
    let findings = doctor(&scene).await;
    let told = findings.iter().filter(|it| it["check"] == "webhooks");
    let told: Vec<_> = told.collect();
    assert_eq!(told.len(), 1, "{findings:?}");
    assert_eq!(told[0]["code"], "webhook_flapping", "{findings:?}");
    assert!(
        message(told[0]).contains("fails and works by turns since 20"),
        "{findings:?}"
    );
}

#[tokio::test]
async fn dead_letters_are_counted_by_what_they_failed_of() {
    let builder = daemon()
        .flag("--retry-schedule", "1ms")
        .flag("--max-attempts", "1");
    let scene = Scene::with(builder, &["Heartbeat"]).await;
    let gone = scene
        .api
        .subscribe(&Receiver::refused_url().await, &["Heartbeat"])
        .await;
    scene.receiver.answer(Answer::Status(500));
    scene.receiver.answer_next([Answer::Status(404)]);
    let mut station = scene.station("S1").await;
    for _ in 0..3 {
        station.ok("Heartbeat", "{}").await;
    }
    let failed = scene.api.await_failed("", 6).await;
    let refused = failed
        .iter()
        .find(|it| it["webhook_id"] == gone)
        .expect("one of it");
    assert_eq!(
        refused["attempts"][0]["code"], "connection_refused",
        "{refused}"
    );
    let groups = scene.ctl().json("dlq list --group-by code").await;
    let counts = groups.as_array().expect("a list").iter();
    let counts: Vec<_> = counts
        .map(|it| (it["group"].as_str().expect("a code"), &it["count"]))
        .collect();
    let expected = [("connection_refused", 3), ("http_500", 2), ("http_404", 1)];
    let expected = expected.map(|(code, count)| (code, json!(count)));
    assert!(
        counts
            .iter()
            .copied()
            .eq(expected.iter().map(|(code, count)| (*code, count))),
        "{groups}"
    );
    let of_one = format!("dlq list --group-by station --webhook {gone}");
    let groups = scene.ctl().json(&of_one).await;
    assert_eq!(
        (&groups[0]["group"], &groups[0]["count"]),
        (&json!("S1"), &json!(3))
    );
}

#[tokio::test]
async fn a_charger_in_a_boot_loop_is_named() {
    let scene = Scene::new(&["Heartbeat"]).await;
    for _ in 0..6 {
        let mut station = scene.station("LOOPING").await;
        station.boot().await;
        station.close().await;
    }
    scene.station("QUIET").await.boot().await;
    let findings = doctor(&scene).await;
    let told: Vec<_> = findings
        .iter()
        .filter(|it| it["code"] == "boot_loop")
        .collect();
    assert_eq!(told.len(), 1, "{findings:?}");
    assert_eq!(told[0]["station_id"], "LOOPING", "{findings:?}");
    assert!(
        message(told[0]).contains("boots again and again: 6 times since 20"),
        "{findings:?}"
    );
    let status = scene.api.get("/status").await.expect(200);
    assert_eq!(
        status["unstable_stations"][0]["reason"], "boot_loop",
        "{status}"
    );
    let listed = scene.ctl().line("stations list").await;
    assert!(
        listed.stderr.contains("! LOOPING boots again and again"),
        "{listed:?}"
    );
}

#[tokio::test]
async fn an_expired_certificate_of_its_own_is_warned_of_from_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Authority::new().expired_server();
    let builder = daemon().with_station_tls(&server, directory.path());
    let scene = Scene::with(builder, &["Heartbeat"]).await;
    let log = scene.daemon.log();
    assert!(log.contains("the certificate has expired"), "{log}");
    let findings = doctor(&scene).await;
    let told = findings
        .iter()
        .find(|it| it["code"] == "certificate_expired");
    let told = told.unwrap_or_else(|| panic!("{findings:?}"));
    assert!(
        message(told).contains("expired on 2020-01-01T00:00:00Z"),
        "{told}"
    );
}

//! `pipeletctl simulate`: its stations are chargers, seen from the daemon's side.

use std::fs;

use pipelet_tests::{Authority, Ctl};
use serde_json::{Value, json};

use crate::scene::{Scene, daemon};

const SAID: &[&str] = &[
    "Authorize",
    "BootNotification",
    "Heartbeat",
    "MeterValues",
    "StartTransaction",
    "StatusNotification",
    "StopTransaction",
];

async fn simulate(ctl: &Ctl, arguments: &str) -> Value {
    ctl.json(&format!("simulate {arguments}")).await
}

/// A daemon that takes nothing but what OCPP's schemas allow.
async fn strict() -> Scene {
    Scene::with(daemon().switch("--ocpp-strict"), SAID).await
}

async fn count(scene: &Scene, query: &str) -> usize {
    let path = format!("/transactions?limit=500{query}");
    let page = scene.api.get(&path).await.expect(200);
    page["data"].as_array().expect("a list").len()
}

#[tokio::test]
async fn a_day_is_answered_in_full_and_arrives() {
    let scene = strict().await;
    let day = "--stations 5 --speed 3600x --duration 6s";
    let summary = simulate(&scene.ctl(), day).await;
    let calls = &summary["calls"];
    assert_eq!(summary["stations_connected"], 5, "{summary}");
    assert_eq!(calls["sent"], calls["answered"], "{summary}");
    assert_eq!(calls["errors"], json!({}), "{summary}");
    assert_eq!(calls["by_action"]["BootNotification"], 5, "{summary}");
    assert!(
        summary["latency"]["p99_ms"].as_f64() > Some(0.0),
        "{summary}"
    );
    let expected = json!({"received": calls["sent"], "delivered": calls["sent"]});
    scene.api.await_stats(scene.webhook, expected).await;
    assert_eq!(count(&scene, "&status=open").await, 0);
}

#[tokio::test]
async fn who_was_offline_delivers_late_and_leaves_nothing_open() {
    let scene = strict().await;
    let offline = "--scenario offline --stations 2 --speed 3600x --duration 4s";
    let summary = simulate(&scene.ctl(), offline).await;
    assert!(summary["connects"].as_u64() > Some(2), "{summary}");
    assert_eq!(summary["calls"]["errors"], json!({}), "{summary}");
    assert_eq!(count(&scene, "&status=open").await, 0);
    // Sent twice where an answer got lost, but charged once.
    let starts = summary["calls"]["by_action"]["StartTransaction"].as_u64();
    let stopped = count(&scene, "&status=stopped").await;
    assert!(
        stopped > 0 && Some(stopped as u64) <= starts,
        "{stopped}: {summary}"
    );
}

#[tokio::test]
async fn in_a_storm_all_come_back_and_show_their_state() {
    let scene = strict().await;
    let storm = "--scenario storm --stations 20 --connectors 1 --duration 11s";
    let summary = simulate(&scene.ctl(), storm).await;
    assert_eq!(summary["connects"], 40, "{summary}");
    assert_eq!(summary["connections_lost"], 0, "{summary}");
    let by_action = &summary["calls"]["by_action"];
    assert_eq!(by_action["BootNotification"], 20, "{summary}");
    assert!(
        by_action["StatusNotification"].as_u64() >= Some(80),
        "{summary}"
    );
}

#[tokio::test]
async fn a_station_does_what_it_is_asked() {
    let scene = strict().await;
    let ctl = scene.ctl();
    let running = simulate(&ctl, "--stations 1 --speed 1x --duration 8s");
    let asking = async {
        let booted = |request: &pipelet_tests::Request| {
            let body = request.json();
            body["event"] == "StatusNotification" && body["payload"]["connectorId"] == 2
        };
        scene.receiver.await_request("its state", booted).await;
        let start = "stations call SIM-01 RemoteStartTransaction --param idTag=FROM_AFAR";
        assert_eq!(ctl.json(start).await["status"], "answered");
        let started =
            |request: &pipelet_tests::Request| request.json()["payload"]["idTag"] == "FROM_AFAR";
        let started = scene.receiver.await_request("a start", started).await;
        assert_eq!(started.json()["event"], "StartTransaction");
        let reset = "stations call SIM-01 Reset --param type=Soft";
        assert_eq!(ctl.json(reset).await["payload"]["status"], "Accepted");
        let stopped =
            |request: &pipelet_tests::Request| request.json()["payload"]["reason"] == "SoftReset";
        scene.receiver.await_request("a stop", stopped).await;
    };
    let (summary, ()) = tokio::join!(running, asking);
    assert_eq!(summary["commands_answered"], 2, "{summary}");
    assert_eq!(
        summary["calls"]["by_action"]["BootNotification"], 2,
        "{summary}"
    );
}

#[tokio::test]
async fn over_tls_with_a_password() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("a writable file");
        path.to_str().expect("UTF-8").to_owned()
    };
    let authority = Authority::new();
    let identity = authority.server();
    let builder = daemon()
        .flag("--stations", "registered")
        .with_station_tls(&identity, directory.path());
    let scene = Scene::with(builder, SAID).await;
    let body = json!({"password": "correct horse battery", "security_profile": 2});
    scene.api.put("/stations/SIM-01", &body).await.expect(201);
    let password = file("password", "correct horse battery\n");
    let authorities = file("ca.pem", &authority.pem());
    let line = format!(
        "--stations 1 --duration 1s --ocpp-url wss://{}/ocpp --ca-file {authorities}",
        scene.daemon.ocpps()
    );
    let with_password = format!("{line} --password-file {password}");
    let summary = simulate(&scene.ctl(), &with_password).await;
    assert_eq!(summary["connects"], 1, "{summary}");

    let refused = scene.ctl().line(&format!("simulate {line}")).await;
    assert_eq!(refused.code, 69, "{refused:?}");
    let why = "it answers 401: show the station's id and password with HTTP Basic";
    assert!(refused.stderr.contains(why), "{refused:?}");
}

#[tokio::test]
async fn another_machine_is_not_loaded_without_a_yes() {
    let scene = Scene::new(SAID).await;
    let elsewhere = "simulate --duration 1s --ocpp-url ws://192.0.2.1:9000/ocpp";
    let refused = scene.ctl().line(elsewhere).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("--yes"), "{refused:?}");
}

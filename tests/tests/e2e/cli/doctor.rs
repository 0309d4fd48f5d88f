//! `pipeletctl doctor`: what it finds of a daemon that is well, and of others.

use pipelet_tests::{Answer, Ctl, RawSocket, Receiver, Scrape, raw::HANDSHAKE_KEY};
use serde_json::{Value, json};

use crate::scene::{Scene, ctl, daemon};

/// Its findings and its exit code.
pub(crate) async fn examined(ctl: &Ctl) -> (Vec<Value>, i32) {
    let output = ctl.line("-o json doctor").await;
    let findings = serde_json::from_str(&output.stdout);
    (
        findings.unwrap_or_else(|error| panic!("{error}: {output:?}")),
        output.code,
    )
}

/// The one finding of a check.
fn of<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    let mut found = findings.iter().filter(|it| it["check"] == check);
    let one = found
        .next()
        .unwrap_or_else(|| panic!("{check}: {findings:?}"));
    assert_eq!(found.next(), None, "{findings:?}");
    one
}

#[track_caller]
fn says(finding: &Value, level: &str, words: &str) {
    assert_eq!(finding["level"], level, "{finding}");
    let text = finding.to_string();
    assert!(text.contains(words), "{words:?} is not in {text}");
}

#[tokio::test]
async fn a_daemon_that_is_well() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let (findings, code) = examined(&scene.ctl()).await;
    assert_eq!(code, 0, "{findings:?}");
    for check in ["daemon", "version", "clock", "ready", "certificate"] {
        says(of(&findings, check), "ok", "");
    }
    says(of(&findings, "key"), "ok", "admin; never expires");
    says(of(&findings, "webhooks"), "ok", "1 looked at");
    says(of(&findings, "books"), "ok", "accounted for");
    says(of(&findings, "stations"), "ok", "no handshake");
    // How full the disk is that the tests run on is not theirs to say.
    assert!(
        of(&findings, "disk")["message"]
            .as_str()
            .is_some_and(|message| message.contains("iB are free"))
    );
    let table = scene.ctl().line("doctor").await.ok();
    assert!(table.contains("✓ ok"), "{table}");
}

#[tokio::test]
async fn a_receiver_that_refuses_the_secret_and_one_that_is_gone() {
    let mut scene = Scene::new(&["Heartbeat"]).await;
    scene.receiver.answer(Answer::Status(401));
    let mut station = scene.station("S1").await;
    station.ok("Heartbeat", "{}").await;
    let retrying = json!({"retrying": 1});
    scene.api.await_stats(scene.webhook, retrying).await;
    let (findings, code) = examined(&scene.ctl()).await;
    assert_eq!(code, 1, "{findings:?}");
    let webhooks = of(&findings, "webhooks");
    says(webhooks, "problem", "the receiver answers 401");
    says(webhooks, "problem", "it has no secret");

    scene.receiver.stop();
    let gone = scene
        .api
        .subscribe(&Receiver::refused_url().await, &["Heartbeat"])
        .await;
    station.ok("Heartbeat", "{}").await;
    scene.api.await_stats(gone, json!({"retrying": 1})).await;
    let (findings, code) = examined(&scene.ctl()).await;
    assert_eq!(code, 1, "{findings:?}");
    let told = findings
        .iter()
        .any(|it| it["level"] == "problem" && it.to_string().contains("connection refused"));
    assert!(told, "{findings:?}");
}

#[tokio::test]
async fn a_key_that_only_reads_is_enough() {
    let daemon = daemon().start().await;
    let admin = ctl(&daemon);
    let made = admin
        .json("keys create --name eyes --role read-only --expires-in 3d")
        .await;
    let key = made["key"].as_str().expect("a key");
    let (findings, code) = examined(&admin.variable("PIPELET_API_KEY", key)).await;
    assert_eq!(code, 0, "{findings:?}");
    let key = of(&findings, "key");
    says(key, "warning", "read-only");
    says(key, "warning", "expires in 2 days");
}

#[tokio::test]
async fn a_key_that_is_wrong_and_a_daemon_that_is_not_there() {
    let daemon = daemon().start().await;
    let ctl = ctl(&daemon);
    let stranger = ctl.clone().variable("PIPELET_API_KEY", "hcpms_live_wrong");
    let (findings, code) = examined(&stranger).await;
    assert_eq!(code, 1, "{findings:?}");
    says(of(&findings, "key"), "problem", "unauthenticated");

    let nobody = Receiver::refused_url().await.replace("/webhooks/ocpp", "");
    let (findings, code) = examined(&ctl.variable("PIPELET_SERVER", &nobody)).await;
    assert_eq!(code, 69, "{findings:?}");
    says(of(&findings, "daemon"), "problem", "cannot reach pipeletd");
    says(of(&findings, "key"), "ok", "");
}

/// Whatever a charger does wrong in its handshake, the operator learns which one it was and why.
#[tokio::test]
async fn refused_handshakes_are_told_by_charger_reason_and_offer() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let ocpp = scene.daemon.ocpp();
    let head = |request: &str, offer: &str| {
        format!(
            "{request} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\n{offer}Sec-WebSocket-Key: {HANDSHAKE_KEY}\r\n\r\n"
        )
    };
    for _ in 0..3 {
        let mut socket = RawSocket::connect(ocpp).await;
        let offer = "Sec-WebSocket-Protocol: ocpp2.0.1, ocpp2.1\r\n";
        let answer = socket.shake_hands(&head("GET /ocpp/NEWER", offer)).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert_eq!(socket.closed().await, Some(1002));
    }
    let many = "x".repeat(256);
    let requests = [
        ("GET /wrong/CP1", "404", "stations connect to /ocpp/"),
        ("POST /ocpp/CP2", "405", "only GET"),
        ("GET /ocpp/a%00", "404", "has control characters"),
        ("GET /ocpp/%FF", "404", "is not UTF-8"),
        (
            &format!("GET /ocpp/{many}"),
            "404",
            "is longer than 255 bytes",
        ),
        (
            "GET /ocpp/\u{202e}\u{9b}x?token=hush",
            "404",
            "control characters",
        ),
    ];
    for (request, status, words) in requests {
        let mut socket = RawSocket::connect(ocpp).await;
        socket.write(head(request, "").as_bytes()).await;
        let answer = socket.rest().await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(answer.contains(words), "{answer}");
    }

    let scrape = Scrape::of(scene.api.get("/metrics").await.text);
    let refused = |reason| {
        scrape.get(&format!(
            "pipelet_handshakes_refused_total{{reason=\"{reason}\"}}"
        ))
    };
    assert_eq!(refused("no_common_subprotocol"), Some(3.0));
    assert_eq!(refused("bad_station_id"), Some(4.0));
    assert_eq!(refused("not_found"), Some(1.0));
    assert_eq!(refused("wrong_method"), Some(1.0));
    assert_eq!(refused("timeout"), Some(0.0));

    let log = scene.daemon.log();
    let lines: Vec<Value> = log
        .lines()
        .filter(|line| line.contains("handshake failed"))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 7, "{log}");
    let newer = &lines[0];
    assert_eq!(newer["reason"], "no_common_subprotocol", "{newer}");
    assert_eq!(newer["station"], "NEWER", "{newer}");
    assert_eq!(newer["path"], "/ocpp/NEWER", "{newer}");
    assert_eq!(newer["offered"], "ocpp2.0.1, ocpp2.1", "{newer}");
    assert_eq!(lines[1]["path"], "/wrong/CP1");
    assert!(!log.contains(['\u{202e}', '\u{9b}']), "{log:?}");
    assert!(!log.contains("hush"), "{log}");

    let (findings, code) = examined(&scene.ctl()).await;
    assert_eq!(code, 0, "{findings:?}");
    let stations = findings.iter().filter(|it| it["check"] == "stations");
    let stations: Vec<&Value> = stations.collect();
    assert_eq!(stations.len(), 1 + 7, "{findings:?}");
    says(stations[0], "warning", "refused since the start: 9");
    // The latest comes first.
    says(
        stations[7],
        "warning",
        "NEWER at /ocpp/NEWER from 127.0.0.1",
    );
    says(
        stations[7],
        "warning",
        "offered: ocpp2.0.1, ocpp2.1 (3 times",
    );
    says(stations[6], "warning", "/wrong/CP1 from");
}

//! `pipeletctl doctor`: what it finds of a daemon that is well, and of others.

use pipelet_tests::{Answer, Ctl, Receiver};
use serde_json::{Value, json};

use crate::scene::{Scene, ctl, daemon};

/// Its findings and its exit code.
async fn examined(ctl: &Ctl) -> (Vec<Value>, i32) {
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

//! The log: what happened to an event, and to a call, can be read out of it by an id.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _};

use pipelet_tests::{Answer, Daemon, deadline::eventually};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use serde_json::{Value, json};

use crate::scene::{Scene, daemon};

/// The lines so far that are as wanted. A line that is no JSON fails the test.
fn lines(daemon: &Daemon, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    let log = daemon.log();
    // The last line may still be on its way.
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    let lines = whole.lines().map(|line| {
        let line: Result<Value, _> = serde_json::from_str(line);
        line.unwrap_or_else(|error| panic!("{error} in the log:\n{log}"))
    });
    lines.filter(|line| wanted(line)).collect()
}

/// Waits for a line with this message, among those that are wanted.
async fn told(scene: &Scene, message: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let is = |line: &Value| line["message"] == message && wanted(line);
    let find = || async { lines(&scene.daemon, is) };
    let mut found = eventually(message, find, |found| !found.is_empty()).await;
    found.remove(0)
}

#[tokio::test]
async fn the_story_of_a_failing_delivery() {
    let builder = daemon()
        .flag("--log-level", "debug")
        .flag("--retry-schedule", "10ms")
        .flag("--max-attempts", "2");
    let scene = Scene::with(builder, &["Heartbeat"]).await;
    let failing = [Answer::Status(500), Answer::Status(401)];
    scene.receiver.answer_next(failing);
    let mut station = scene.station("S1").await;
    station.ok("Heartbeat", "{}").await;
    let id = scene.receiver.await_requests(2).await[0].id().to_owned();
    let of_event = |line: &Value| line["event_id"] == id.as_str();

    let line = told(&scene, "dead-lettered", of_event).await;
    assert_eq!(line["level"], "WARN", "{line}");
    assert_eq!(line["attempt"], 2, "{line}");
    assert_eq!(line["status"], 401, "{line}");
    let line = told(&scene, "attempt failed", of_event).await;
    assert_eq!(line["level"], "INFO", "{line}");
    assert_eq!(line["webhook"], 1, "{line}");
    assert_eq!(line["event"], "Heartbeat", "{line}");
    assert_eq!(line["station"], "S1", "{line}");
    assert_eq!(line["attempt"], 1, "{line}");
    assert_eq!(line["error"], "the receiver answered 500", "{line}");
    assert!(line["duration_ms"].is_u64(), "{line}");
    assert!(line["retry_at"].is_string(), "{line}");
    let line = told(&scene, "journaled", of_event).await;
    assert_eq!(line["level"], "DEBUG", "{line}");
    assert_eq!(line["station"], "S1", "{line}");
    assert!(line["message_id"].is_string(), "{line}");

    // The call that replays it leads to its attempt.
    let api = scene.api.with_header("x-request-id", "my-replay.1");
    scene.api.await_failed("", 1).await;
    let replay = api.post_empty("/failed-deliveries/1/replay").await;
    assert_eq!(replay.header("x-request-id"), Some("my-replay.1"));
    replay.expect(202);
    let line = told(&scene, "replayed", of_event).await;
    assert_eq!(line["span"]["request_id"], "my-replay.1", "{line}");
    let line = told(&scene, "delivered", of_event).await;
    assert_eq!(line["attempt"], 3, "{line}");
    assert_eq!(line["status"], 200, "{line}");
}

#[tokio::test]
async fn each_call_has_a_line() {
    let builder = daemon().flag("--log-level", "debug");
    let scene = Scene::with(builder, &["Heartbeat"]).await;
    let call = |id: &'static str| move |line: &Value| line["request_id"] == id;
    let api = |id| scene.api.with_header("x-request-id", id);

    let change = json!({"name": "Other"});
    api("change").put("/webhooks/1", &change).await.expect(200);
    let line = told(&scene, "API call", call("change")).await;
    for (field, expected) in [
        ("level", json!("INFO")),
        ("api", json!("rest")),
        ("method", json!("PUT")),
        ("route", json!("/api/v1/webhooks/{id}")),
        ("status", json!(200)),
        ("key", json!("admin")),
    ] {
        assert_eq!(line[field], expected, "{field} in {line}");
    }
    assert!(line["duration_ms"].is_u64(), "{line}");

    api("read").get("/webhooks/9").await.expect(404);
    let line = told(&scene, "API call", call("read")).await;
    assert_eq!(line["level"], "DEBUG", "{line}");
    assert_eq!(line["status"], 404, "{line}");

    // Without a key, nobody fills the log of a daemon that tells no details.
    let stranger = api("stranger").with_key(None);
    stranger.put("/webhooks/1", &change).await.expect(401);
    let line = told(&scene, "API call", call("stranger")).await;
    assert_eq!(line["level"], "DEBUG", "{line}");
    assert_eq!(line.get("key"), None, "{line}");

    // What is no plain word is not taken over.
    let reply = api("a b").get("/webhooks").await;
    let given = reply.header("x-request-id").expect("an id");
    assert!(given.starts_with("req_"), "{given}");

    scene.ctl().line("webhooks disable 1").await.ok();
    let by_grpc = |line: &Value| line["api"] == "grpc" && line["level"] == "INFO";
    let line = told(&scene, "API call", by_grpc).await;
    let route = line["route"].as_str().expect("a route");
    assert!(route.starts_with("/pipelet.v1.WebhookService/"), "{line}");
    assert_eq!(line["status"], 0, "{line}");
    assert!(!scene.daemon.log().contains(&scene.daemon.key()));
}

#[tokio::test]
async fn attempts_at_an_event_are_one_trace() {
    let builder = daemon().flag("--retry-schedule", "10ms");
    let scene = Scene::with(builder, &["Heartbeat"]).await;
    scene.receiver.answer_next([Answer::Status(500)]);
    let mut station = scene.station("S1").await;
    station.ok("Heartbeat", "{}").await;
    let requests = scene.receiver.await_requests(2).await;
    let parts = requests.iter().map(|request| {
        let parent = request.header("traceparent").expect("traceparent");
        let parts: Vec<_> = parent.split('-').map(str::to_owned).collect();
        assert_eq!(parts.len(), 4, "{parent}");
        assert_eq!(
            (parts[0].as_str(), parts[3].as_str()),
            ("00", "01"),
            "{parent}"
        );
        assert_eq!(format!("evt_{}", parts[1]), request.id());
        parts
    });
    let parts: Vec<_> = parts.collect();
    assert_ne!(parts[0][2], parts[1][2], "each attempt is a span");
}

/// Whoever reads the log has stopped to, and its pipe is full.
#[tokio::test]
async fn a_log_that_nobody_reads_holds_nothing_up() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("log");
    mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).expect("a pipe");
    let _reader = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(&path)
        .expect("a pipe");
    let path = path.to_str().expect("UTF-8");
    let builder = daemon()
        .under(&["sh", "-c", "exec \"$@\" 2> \"$0\"", path])
        .flag("--log-level", "trace");
    let mut scene = Scene::with(builder, &["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    // Far more than a pipe holds.
    for _ in 0..300 {
        station.ok("Heartbeat", "{}").await;
    }
    scene.receiver.await_requests(300).await;
    scene.api.get("/readyz").await.expect(200);
    let status = scene.daemon.terminate().await;
    assert!(status.success(), "{status}");
}

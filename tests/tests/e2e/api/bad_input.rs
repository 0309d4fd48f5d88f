//! Bad input gets a clear error, all faults at once, and changes nothing.

use std::{fs, os::unix::fs::PermissionsExt};

use http::Method;
use pipelet_tests::{Api, Reply};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::scene::{Scene, daemon};

fn webhook(change: &Value) -> Value {
    let mut webhook = json!({
        "name": "N",
        "url": "https://example.com/hook",
        "events": ["Heartbeat"],
        "secret_header": "X-Secret",
        "secret_value": "value",
    });
    for (key, value) in change.as_object().expect("an object") {
        webhook[key] = value.clone();
    }
    webhook
}

/// The faults of a 422, as (pointer, code), sorted.
fn faults(reply: &Reply) -> Vec<(String, String)> {
    let problem = reply.expect(422);
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(problem["status"], 422);
    assert!(
        problem["code"].is_string() && problem["request_id"].is_string(),
        "{problem}"
    );
    let text = |fault: &Value, key: &str| {
        fault[key]
            .as_str()
            .unwrap_or_else(|| panic!("{key} in {fault}"))
            .to_owned()
    };
    let faults = problem["errors"].as_array().expect("errors");
    let mut faults: Vec<_> = faults
        .iter()
        .inspect(|fault| assert!(!text(fault, "message").is_empty(), "{fault}"))
        .map(|fault| (text(fault, "pointer"), text(fault, "code")))
        .collect();
    faults.sort();
    faults
}

/// What is wrong with a webhook, and the faults that are told of it.
fn bad_webhooks() -> Vec<(Value, &'static [(&'static str, &'static str)])> {
    vec![
        (
            json!({"url": "ftp://example.com"}),
            &[("/url", "invalid_url")],
        ),
        (
            json!({"url": "example.com/hook"}),
            &[("/url", "invalid_url")],
        ),
        (json!({"url": "https://"}), &[("/url", "invalid_url")]),
        (
            json!({"url": "https://user:pw@example.com/"}),
            &[("/url", "invalid_url")],
        ),
        (
            json!({"url": "http://localhost:3000/"}),
            &[("/url", "private_target")],
        ),
        (
            json!({"url": "http://127.0.0.1/"}),
            &[("/url", "private_target")],
        ),
        (
            json!({"url": "http://2130706433/"}),
            &[("/url", "private_target")],
        ),
        (
            json!({"url": "http://10.1.2.3/"}),
            &[("/url", "private_target")],
        ),
        (
            json!({"url": "http://169.254.169.254/latest"}),
            &[("/url", "private_target")],
        ),
        (
            json!({"url": "http://[::1]/"}),
            &[("/url", "private_target")],
        ),
        (
            json!({"url": "http://[::ffff:192.168.0.1]/"}),
            &[("/url", "private_target")],
        ),
        (json!({"url": null}), &[("/url", "required")]),
        (json!({"name": ""}), &[("/name", "required")]),
        (json!({"events": []}), &[("/events", "required")]),
        (
            json!({"events": ["Heartbeat", "StartTransactoin"]}),
            &[("/events/1", "unknown_event")],
        ),
        (
            json!({"secret_header": "X Secret"}),
            &[("/secret_header", "invalid_header")],
        ),
        (
            json!({"secret_header": "Content-Length"}),
            &[("/secret_header", "forbidden_header")],
        ),
        (
            json!({"secret_header": "webhook-id"}),
            &[("/secret_header", "forbidden_header")],
        ),
        (
            json!({"secret_value": "a\r\nX-Evil: 1"}),
            &[("/secret_value", "invalid_secret")],
        ),
        (
            json!({"url": "nonsense", "name": "", "events": ["A", "Heartbeat", "B"], "secret_header": "host"}),
            &[
                ("/events/0", "unknown_event"),
                ("/events/2", "unknown_event"),
                ("/name", "required"),
                ("/secret_header", "forbidden_header"),
                ("/url", "invalid_url"),
            ],
        ),
    ]
}

async fn webhooks(api: &Api) -> Value {
    api.get("/webhooks").await.expect(200)["data"].clone()
}

#[tokio::test]
async fn a_bad_webhook_is_refused_with_all_its_faults() {
    let daemon = daemon().without("--allow-private-targets").start().await;
    let api = daemon.api();
    for (change, expected) in bad_webhooks() {
        let reply = api.post("/webhooks", &webhook(&change)).await;
        let seen = faults(&reply);
        let seen: Vec<_> = seen
            .iter()
            .map(|(at, code)| (at.as_str(), code.as_str()))
            .collect();
        assert_eq!(seen, expected, "{change}: {}", reply.text);
        assert!(
            !reply.text.contains("Evil"),
            "a secret came back: {}",
            reply.text
        );
    }
    assert_eq!(webhooks(&api).await, json!([]), "nothing was created");

    let suggested = api
        .post(
            "/webhooks",
            &webhook(&json!({"events": ["StartTransactoin"]})),
        )
        .await;
    assert!(
        suggested.text.contains("did you mean"),
        "{}",
        suggested.text
    );
    let unresolved = webhook(&json!({"url": "https://not-there-yet.invalid/hook"}));
    api.post("/webhooks", &unresolved).await.expect(201);
}

#[tokio::test]
async fn a_bad_update_changes_nothing() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let path = format!("/webhooks/{}", scene.webhook);
    let before = scene.api.get(&path).await.expect(200);
    let bad = json!({"name": "Renamed", "url": "nonsense", "events": ["Nothing"]});
    assert_eq!(faults(&scene.api.put(&path, &bad).await).len(), 2);
    assert_eq!(scene.api.get(&path).await.expect(200), before);
}

#[tokio::test]
async fn what_is_no_request_at_all_is_told_so() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let big = webhook(&json!({"name": "n".repeat(2 * 1024 * 1024)})).to_string();
    let good = webhook(&json!({})).to_string();
    let json_type = Some("application/json");
    let cases = [
        (Method::POST, "/webhooks", json_type, "{", 400),
        (Method::POST, "/webhooks", json_type, "", 400),
        (Method::POST, "/webhooks", json_type, "[]", 400),
        (Method::POST, "/webhooks", json_type, &big, 413),
        (Method::POST, "/webhooks", Some("text/plain"), &good, 415),
        (Method::POST, "/webhooks", None, &good, 415),
        (Method::GET, "/webhooks/999", None, "", 404),
        (Method::PUT, "/webhooks/999", json_type, "{}", 404),
        (Method::DELETE, "/webhooks/999", None, "", 404),
        (Method::POST, "/webhooks/999/test", None, "", 404),
        (Method::GET, "/webhooks/999/deliveries", None, "", 404),
        (Method::GET, "/failed-deliveries/999", None, "", 404),
        (Method::POST, "/failed-deliveries/999/replay", None, "", 404),
        (Method::GET, "/stations/nobody", None, "", 404),
        (Method::GET, "/nothing", None, "", 404),
        (Method::PATCH, "/webhooks", json_type, "{}", 405),
        (Method::GET, "/webhooks?limit=none", None, "", 422),
        (Method::GET, "/webhooks?cursor=none", None, "", 422),
        (
            Method::GET,
            "/failed-deliveries?since=yesterday",
            None,
            "",
            422,
        ),
    ];
    for (method, path, content_type, body, status) in cases {
        let what = format!("{method} {path}");
        let reply = scene
            .api
            .send(method, path, content_type, body.to_owned())
            .await;
        assert_eq!(reply.status, status, "{what}: {}", reply.text);
        assert_eq!(
            reply.header("content-type"),
            Some("application/problem+json"),
            "{what}"
        );
        let problem = reply.json();
        for key in ["code", "title", "request_id"] {
            assert!(problem[key].is_string(), "{what}: no {key} in {problem}");
        }
    }
    assert_eq!(webhooks(&scene.api).await.as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_key_that_stands_in_a_body_twice_is_named() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let ours = format!("/webhooks/{}", scene.webhook);
    let before = scene.api.get(&ours).await.expect(200);
    let twice = r#"{"name": "A", "n\u0061me": "B"}"#;
    let deeper = r#"{"event": "Heartbeat", "payload": {"a/b": [{"c": 1, "c": 2}]}}"#;
    let test = format!("{ours}/test");
    for (method, path, body, pointer) in [
        (Method::POST, "/webhooks", twice, "/name"),
        (Method::PUT, &ours, twice, "/name"),
        (Method::POST, &test, deeper, "/payload/a~1b/0/c"),
        (
            Method::PUT,
            "/stations/S1",
            r#"{"password": "0123456789abcdef", "password": "fedcba9876543210"}"#,
            "/password",
        ),
        (
            Method::POST,
            "/stations/S1/reset",
            r#"{"type": "Soft", "type": "Hard"}"#,
            "/type",
        ),
    ] {
        let json = Some("application/json");
        let reply = scene.api.send(method, path, json, body.to_owned()).await;
        assert_eq!(reply.status, 400, "{path}: {}", reply.text);
        let problem = reply.json();
        assert_eq!(problem["code"], "malformed_request", "{problem}");
        let named = format!("the key {pointer} twice");
        assert!(problem["detail"].to_string().contains(&named), "{problem}");
        assert!(!reply.text.contains("0123456789"), "{problem}");
    }
    assert_eq!(scene.api.get(&ours).await.expect(200), before);
    scene.api.get("/stations/S1").await.expect(404);
}

#[tokio::test]
async fn a_store_belongs_to_one_daemon() {
    let running = daemon().start().await;
    let data_dir = running.data_dir();
    let second = daemon()
        .flag("--data-dir", data_dir.to_str().expect("UTF-8"))
        .run_to_end()
        .await;
    assert!(second.code.is_some_and(|code| code != 0), "{second:?}");
    assert_eq!(second.stdout, "");
    assert!(
        second.stderr.contains("another process"),
        "{}",
        second.stderr
    );
    assert!(
        second.stderr.contains(data_dir.to_str().expect("UTF-8")),
        "{}",
        second.stderr
    );
    assert_eq!(running.api().get("/webhooks").await.status, 200);
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for flag in ["--http-listen", "--grpc-listen", "--ocpp-listen"] {
        let ended = daemon().flag(flag, &address).run_to_end().await;
        assert!(
            ended.code.is_some_and(|code| code != 0),
            "{flag}: {ended:?}"
        );
        assert_eq!(ended.stdout, "", "{flag}");
        assert!(ended.stderr.contains(&address), "{flag}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn nonsense_on_the_command_line_is_a_usage_error() {
    let cases = [
        ("--retry-schedule", "soon"),
        ("--retry-schedule", ""),
        ("--retry-schedule", "30s,,1m"),
        ("--max-attempts", "0"),
        ("--delivery-timeout", "never"),
        ("--http-listen", "nowhere"),
        ("--retention-size", "much"),
        ("--no-such-flag", "x"),
    ];
    for (flag, value) in cases {
        let ended = daemon().flag(flag, value).run_to_end().await;
        assert_eq!(ended.code, Some(2), "{flag} {value}: {}", ended.stderr);
        // As a flag, as a key of the file, or in words: a value may have come any way.
        let in_words = flag.trim_start_matches('-').replace('-', " ");
        let named = ended.stderr.replace('-', " ").contains(&in_words);
        assert!(named, "{flag} {value}: {}", ended.stderr);
        assert_eq!(ended.stdout, "");
    }
}

#[tokio::test]
async fn the_admin_key_is_for_its_owner_only() {
    let daemon = daemon().start().await;
    let file = daemon.data_dir().join("admin.key");
    let mode = fs::metadata(&file).expect("admin.key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let key = daemon.key();
    assert!(key.starts_with("hcpms_live_"), "another form of key");
    assert!(!daemon.log().contains(&key), "the key is in the log");
}

#[tokio::test]
async fn a_key_that_was_given_is_the_first_one() {
    let key = "hcpms_live_given-by-the-operator-0123456789";
    let daemon = daemon()
        .variable("PIPELETD_BOOTSTRAP_KEY", key)
        .start()
        .await;
    let api = Api::new(daemon.http(), Some(key.to_owned()));
    api.get("/webhooks").await.expect(200);
    assert!(!daemon.log().contains(key), "the key is in the log");
}

#[tokio::test]
async fn keys_can_be_made_and_revoked() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let ctl = scene.ctl();
    let made = ctl.json("keys create --name ci").await;
    let key = made["key"].as_str().expect("the key, shown once");
    let theirs = scene.api.with_key(Some(key));
    theirs.get("/webhooks").await.expect(200);
    let listed = ctl.json("keys list").await;
    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    assert!(
        !listed.to_string().contains(key),
        "keys come back: {listed}"
    );

    ctl.line(&format!("keys revoke {} --yes", made["id"]))
        .await
        .ok();
    theirs.get("/webhooks").await.expect(401);
    scene.api.get("/webhooks").await.expect(200);
}

#[tokio::test]
async fn a_secret_is_never_in_the_log() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let secret = "a-secret-that-nobody-sees";
    let change = json!({"secret_header": "X-Secret", "secret_value": secret});
    let path = format!("/webhooks/{}", scene.webhook);
    let answer = scene.api.put(&path, &change).await;
    assert!(!answer.text.contains(secret), "{}", answer.text);
    scene
        .api
        .post_empty(&format!("{path}/test"))
        .await
        .expect(200);
    let request = scene.receiver.await_requests(1).await.remove(0);
    assert_eq!(request.header("x-secret"), Some(secret));
    assert!(!request.text().contains(secret));
    let shown = scene
        .ctl()
        .line(&format!("webhooks get {}", scene.webhook))
        .await
        .ok();
    assert!(!shown.contains(secret), "{shown}");
    assert!(!scene.daemon.log().contains(secret));
}

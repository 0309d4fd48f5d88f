//! The life of a webhook, letter by letter as the contract tells it: over REST, and the same
//! over `pipeletctl`.

use pipelet_tests::{Answer, Receiver, Request};
use serde_json::{Value, json};

use crate::scene::{Scene, ctl, daemon};

const SECRET: &str = "my-secret-value-here";

/// The contract's request, as its `curl -d` has it.
fn seed_webhook(url: &str) -> Value {
    json!({
        "name": "My Integration",
        "url": url,
        "enabled": true,
        "events": ["StartTransaction", "StopTransaction", "StatusNotification", "MeterValues"],
        "secret_header": "X-Webhook-Secret",
        "secret_value": SECRET,
    })
}

fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = object
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

fn secret_of(request: &Request) -> Option<&str> {
    request.header("x-webhook-secret")
}

#[tokio::test]
async fn create_test_update_delete_as_the_contract_says() {
    let receiver = Receiver::start().await;
    let daemon = daemon().start().await;
    let api = daemon.api();

    let created = api.post("/webhooks", &seed_webhook(&receiver.url())).await;
    let webhook = created.expect(201);
    assert!(!created.text.contains(SECRET), "{}", created.text);
    assert_eq!(
        keys(&webhook),
        [
            "created_at",
            "description",
            "enabled",
            "events",
            "has_secret",
            "has_signing_secret",
            "health",
            "id",
            "name",
            "retiring_signing_secrets",
            "secret_header",
            "station_ids",
            "stats",
            "updated_at",
            "url"
        ]
    );
    assert_eq!(webhook["name"], "My Integration");
    assert_eq!(webhook["url"], receiver.url());
    assert_eq!(webhook["enabled"], true);
    assert_eq!(webhook["events"], seed_webhook("")["events"]);
    assert_eq!(webhook["secret_header"], "X-Webhook-Secret");
    assert_eq!(webhook["has_secret"], true);
    let id = webhook["id"].as_u64().expect("a numeric id");
    let location = created.header("location").expect("Location");
    assert!(
        location.ends_with(&format!("/api/v1/webhooks/{id}")),
        "{location}"
    );
    let path = format!("/webhooks/{id}");

    let tested = api.post_empty(&format!("{path}/test")).await.expect(200);
    assert_eq!(keys(&tested), ["duration_ms", "ok", "status_code"]);
    assert_eq!(tested["ok"], true);
    assert_eq!(tested["status_code"], 200);
    assert!(tested["duration_ms"].is_u64(), "{tested}");
    let requests = receiver.await_requests(1).await;
    assert_eq!(secret_of(&requests[0]), Some(SECRET));
    assert_eq!(requests[0].json()["event"], "StartTransaction");

    let updated = api
        .put(&path, &json!({"events": ["Heartbeat"], "name": "Renamed"}))
        .await;
    assert!(!updated.text.contains(SECRET), "{}", updated.text);
    let updated = updated.expect(200);
    assert_eq!(updated["events"], json!(["Heartbeat"]));
    assert_eq!(updated["name"], "Renamed");
    assert_eq!(updated["url"], receiver.url());
    assert_eq!(updated["has_secret"], true);
    api.post_empty(&format!("{path}/test")).await.expect(200);
    let requests = receiver.await_requests(2).await;
    assert_eq!(
        secret_of(&requests[1]),
        Some(SECRET),
        "an update leaves the secret"
    );

    let changed = api
        .put(&path, &json!({"secret_value": "another"}))
        .await
        .expect(200);
    assert_eq!(changed["secret_header"], "X-Webhook-Secret");
    api.post_empty(&format!("{path}/test")).await.expect(200);
    assert_eq!(
        secret_of(&receiver.await_requests(3).await[2]),
        Some("another")
    );

    let cleared = api
        .put(&path, &json!({"secret_header": null, "secret_value": null}))
        .await;
    let cleared = cleared.expect(200);
    assert_eq!(cleared["has_secret"], false);
    assert_eq!(cleared["secret_header"], Value::Null);
    api.post_empty(&format!("{path}/test")).await.expect(200);
    assert_eq!(
        secret_of(&receiver.await_requests(4).await[3]),
        None,
        "null clears the secret"
    );

    let deleted = api.delete(&path).await;
    assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    assert_eq!(api.get(&path).await.expect(404)["code"], "no_such_webhook");
    api.delete(&path).await.expect(404);
    assert_eq!(
        api.get("/webhooks").await.expect(200),
        json!({"data": [], "next_cursor": null})
    );
}

#[tokio::test]
async fn a_test_that_fails_says_why_in_plain_words() {
    let scene = Scene::new(&["StartTransaction"]).await;
    let path = format!("/webhooks/{}", scene.webhook);
    let test = format!("{path}/test");

    scene.receiver.answer(Answer::Status(401));
    let refused = scene.api.post_empty(&test).await.expect(200);
    assert_eq!(
        keys(&refused),
        ["code", "duration_ms", "error", "ok", "status_code"]
    );
    assert_eq!(refused["code"], "http_401");
    assert_eq!(refused["ok"], false);
    assert_eq!(refused["status_code"], 401);
    assert!(
        refused["error"]
            .as_str()
            .is_some_and(|error| error.contains("401")),
        "{refused}"
    );

    let nobody = Receiver::refused_url().await;
    scene
        .api
        .put(&path, &json!({"url": nobody}))
        .await
        .expect(200);
    let unreachable = scene.api.post_empty(&test).await.expect(200);
    assert_eq!(unreachable["ok"], false);
    assert_eq!(unreachable["status_code"], Value::Null);
    let error = unreachable["error"].as_str().expect("an error");
    assert!(error.contains("connection refused"), "{error}");
    assert!(!error.contains("Error"), "not for people: {error}");
}

#[tokio::test]
async fn a_test_picks_its_event_works_while_disabled_and_leaves_no_trace() {
    let scene = Scene::with(
        daemon().flag("--retry-schedule", "10ms"),
        &["StartTransaction"],
    )
    .await;
    let path = format!("/webhooks/{}", scene.webhook);
    let test = format!("{path}/test");
    scene
        .api
        .put(&path, &json!({"enabled": false}))
        .await
        .expect(200);

    scene
        .api
        .post(&test, &json!({"event": "StopTransaction"}))
        .await
        .expect(200);
    let request = scene.receiver.await_requests(1).await.remove(0);
    assert_eq!(request.json()["event"], "StopTransaction");
    assert_eq!(
        keys(&request.json()),
        ["event", "payload", "station_id", "timestamp"]
    );

    let refused = scene
        .api
        .post(&test, &json!({"event": "StopTransactoin"}))
        .await
        .expect(422);
    assert!(
        refused.to_string().contains("StopTransaction"),
        "no suggestion: {refused}"
    );

    scene.receiver.answer(Answer::Status(500));
    let failed = scene.api.post_empty(&test).await.expect(200);
    assert_eq!(
        (&failed["ok"], &failed["status_code"]),
        (&json!(false), &json!(500))
    );

    // A real event afterwards would come after whatever the tests had left behind.
    scene.receiver.answer(Answer::Status(200));
    scene
        .api
        .put(&path, &json!({"enabled": true}))
        .await
        .expect(200);
    scene.station("S1").await.start_transaction(0).await;
    scene
        .api
        .await_stats(scene.webhook, json!({"received": 1, "delivered": 1}))
        .await;
    assert_eq!(scene.receiver.count(), 3, "two tests and one event");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let daemon = daemon().start().await;
    let api = daemon.api();
    let mut created = Vec::new();
    for number in 0..5 {
        created.push(
            api.subscribe(&format!("http://127.0.0.1:9/{number}"), &["Heartbeat"])
                .await,
        );
    }
    let (mut listed, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api
            .get(&format!("/webhooks?limit=2{cursor}"))
            .await
            .expect(200);
        let data = page["data"].as_array().expect("data");
        assert!(data.len() <= 2, "{page}");
        listed.extend(
            data.iter()
                .map(|webhook| webhook["id"].as_u64().expect("id")),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(listed, created);
}

#[tokio::test]
async fn the_event_types_are_listed() {
    let daemon = daemon().start().await;
    let list = daemon.api().get("/event-types").await.expect(200);
    assert_eq!(list["next_cursor"], Value::Null);
    let types = list["data"].as_array().expect("data");
    assert!(types.len() >= 23, "{} types", types.len());
    let start = types
        .iter()
        .find(|kind| kind["name"] == "StartTransaction")
        .expect("a known type");
    assert_eq!(
        start,
        &json!({
            "name": "StartTransaction",
            "direction": "station_to_csms",
            "profile": "Core",
            "group": "standard",
        })
    );
}

#[tokio::test]
async fn health_needs_no_key_and_everything_else_does() {
    let daemon = daemon().start().await;
    let nobody = daemon.api().with_key(None);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(nobody.get(path).await.status, 200, "{path}");
    }
    for key in [None, Some(""), Some("hcpms_live_wrong"), Some("Bearer x")] {
        let answer = daemon.api().with_key(key).get("/webhooks").await;
        let problem = answer.expect(401);
        assert_eq!(problem["code"], "unauthenticated", "{problem}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
    }
}

#[tokio::test]
async fn the_same_life_over_pipeletctl() {
    let receiver = Receiver::start().await;
    let daemon = daemon().start().await;
    let ctl = ctl(&daemon);

    let webhook = ctl
        .json(&format!(
            "webhooks create --name Mine --url {} --event StartTransaction,StopTransaction \
             --event MeterValues --secret-header X-Webhook-Secret --secret-value {SECRET}",
            receiver.url()
        ))
        .await;
    let id = webhook["id"].as_u64().expect("a numeric id");
    assert_eq!(
        webhook["events"],
        json!(["StartTransaction", "StopTransaction", "MeterValues"])
    );
    assert_eq!(webhook["has_secret"], true);
    assert!(!webhook.to_string().contains(SECRET), "{webhook}");
    assert_eq!(
        keys(&webhook),
        keys(
            &daemon
                .api()
                .get(&format!("/webhooks/{id}"))
                .await
                .expect(200)
        ),
        "the tool's objects have REST's keys"
    );

    let tested = ctl.json(&format!("webhooks test {id}")).await;
    assert_eq!(
        (&tested["ok"], &tested["status_code"]),
        (&json!(true), &json!(200))
    );
    assert_eq!(
        secret_of(&receiver.await_requests(1).await[0]),
        Some(SECRET)
    );

    let updated = ctl
        .json(&format!("webhooks update {id} --event Heartbeat"))
        .await;
    assert_eq!(updated["events"], json!(["Heartbeat"]));
    assert_eq!(
        (&updated["name"], &updated["has_secret"]),
        (&json!("Mine"), &json!(true))
    );

    let secret = tempfile_with("from-a-file\n");
    let file = secret.path().to_str().expect("UTF-8");
    ctl.line(&format!("webhooks update {id} --secret-value-file {file}"))
        .await
        .ok();
    ctl.line(&format!("webhooks test {id}")).await.ok();
    assert_eq!(
        secret_of(&receiver.await_requests(2).await[1]),
        Some("from-a-file")
    );

    let cleared = ctl
        .json(&format!("webhooks update {id} --clear-secret"))
        .await;
    assert_eq!(cleared["has_secret"], false);

    assert_eq!(
        ctl.json(&format!("webhooks disable {id}")).await["enabled"],
        false
    );
    assert_eq!(
        ctl.json(&format!("webhooks enable {id}")).await["enabled"],
        true
    );
    assert_eq!(
        ctl.json("webhooks list").await.as_array().map(Vec::len),
        Some(1)
    );

    receiver.answer(Answer::Status(500));
    assert_eq!(ctl.line(&format!("webhooks test {id}")).await.code, 1);

    ctl.line(&format!("webhooks delete {id} --yes")).await.ok();
    assert_eq!(ctl.line(&format!("webhooks get {id}")).await.code, 3);
    assert_eq!(ctl.json("webhooks list").await, json!([]));
}

fn tempfile_with(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("a writable file");
    file
}

//! What gRPC has, REST has, too: with the very objects that the tool shows.

use pipelet_tests::{Answer, Receiver, deadline::eventually};
use serde_json::json;

use crate::scene::{Scene, daemon};

#[tokio::test]
async fn an_events_trace() {
    let scene = Scene::new(&["Heartbeat"]).await;
    scene.station("S1").await.ok("Heartbeat", "{}").await;
    let id = scene.receiver.await_requests(1).await[0].id().to_owned();
    let path = format!("/events/{id}/trace");
    let get = || async { scene.api.get(&path).await.expect(200) };
    let is_settled = |trace: &serde_json::Value| trace["webhooks"][0]["outcome"] == "delivered";
    let trace = eventually("the trace", get, is_settled).await;
    assert_eq!(trace["event"]["id"], json!(id));
    assert_eq!(trace, scene.ctl().json(&format!("trace {id}")).await);
    let unknown = scene.api.get("/events/evt_0/trace").await;
    assert_eq!(unknown.expect(404)["code"], "no_such_event");
}

#[tokio::test]
async fn the_books() {
    let scene = Scene::with(daemon().flag("--max-attempts", "1"), &["Heartbeat"]).await;
    scene.receiver.answer(Answer::Status(500));
    scene.station("S1").await.ok("Heartbeat", "{}").await;
    scene.api.await_failed("", 1).await;
    let other = scene.api.subscribe(&scene.receiver.url(), &["*"]).await;
    let audit = scene.api.get("/audit?since=2026-01-01T00:00:00Z").await;
    let audit = audit.expect(200);
    let books = &audit["webhooks"][0];
    assert_eq!(books["stats"]["dead"], 1, "{audit}");
    assert_eq!(
        books["booked"],
        json!({"retries": 0, "failed_deliveries": 1})
    );
    assert_eq!(books["booked"], books["kept"]);
    assert_eq!(books["since"]["received"], 1);
    assert_eq!(audit["webhooks"][1]["id"], other);
    assert_eq!(audit["forgotten"], json!(null));
    let one = scene.api.get(&format!("/audit?webhook_id={other}")).await;
    let one = one.expect(200);
    assert_eq!(one["webhooks"].as_array().map(Vec::len), Some(1), "{one}");
    assert_eq!(one["webhooks"][0]["since"], json!(null));
    let refused = scene.api.get("/audit?sinse=1h").await.expect(422);
    assert_eq!(refused["errors"][0]["code"], "unknown_parameter");
}

#[tokio::test]
async fn a_backfill_part_by_part() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    for _ in 0..3 {
        station.ok("Heartbeat", "{}").await;
    }
    scene.receiver.await_requests(3).await;
    let late = Receiver::start().await;
    let id = scene.api.subscribe(&late.url(), &["Heartbeat"]).await;
    let path = format!("/webhooks/{id}/backfill");
    let count = scene.api.post(&path, &json!({"dry_run": true})).await;
    let count = count.expect(200);
    assert_eq!((&count["matched"], &count["left"]), (&json!(3), &json!("")));
    assert_eq!(late.count(), 0);

    let (mut left, mut matched) = (json!(null), 0);
    while left != "" {
        let part = json!({"limit": 2, "left": left, "station_ids": ["S*"]});
        let part = scene.api.post(&path, &part).await.expect(200);
        matched += part["matched"].as_u64().expect("a number");
        left = part["left"].clone();
    }
    assert_eq!(matched, 3);
    late.await_requests(3).await;

    let wrong = json!({"since": "now", "events": ["Bogus"], "left": "x", "more": 1});
    let refused = scene.api.post(&path, &wrong).await.expect(422);
    let pointers = refused["errors"].as_array().expect("faults").iter();
    let pointers: Vec<_> = pointers.map(|fault| fault["pointer"].clone()).collect();
    assert_eq!(pointers, ["/since", "/more", "/events"], "{refused}");
    let refused = scene.api.post(&path, &json!({"left": "x"})).await;
    assert_eq!(refused.expect(422)["errors"][0]["pointer"], "/left");
}

#[tokio::test]
async fn the_daemon_at_a_glance() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    station.ok("Heartbeat", "{}").await;
    scene
        .api
        .await_stats(scene.webhook, json!({"delivered": 1}))
        .await;
    let status = scene.api.get("/status").await.expect(200);
    let mut shown = scene.ctl().json("status").await;
    // Others write to this disk meanwhile.
    shown["disk_free_bytes"] = status["disk_free_bytes"].clone();
    for (key, value) in shown.as_object().expect("an object") {
        assert_eq!(&status[key], value, "{key}");
    }
    assert_eq!(status["caller_role"], "admin");
    let overview = scene.api.get("/overview").await.expect(200);
    assert_eq!(overview["webhooks"][0]["id"], scene.webhook);
    assert_eq!(overview["webhooks"][0]["stats"]["delivered"], 1);
    let buckets = overview["latency_bounds_us"].as_array().map_or(0, Vec::len) + 1;
    let counted = overview["webhooks"][0]["latency_buckets"].as_array();
    assert_eq!(counted.map(Vec::len), Some(buckets));
}

#[tokio::test]
async fn api_keys() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let wanted = json!({"name": "ci", "role": "read-only", "expires_in": "90d"});
    let made = scene.api.post("/api-keys", &wanted).await.expect(201);
    let theirs = scene.api.with_key(made["key"].as_str());
    theirs.get("/webhooks").await.expect(200);
    assert_eq!(theirs.get("/api-keys").await.status, 403);
    let listed = scene.api.get("/api-keys").await.expect(200);
    let mut shown = scene.ctl().json("keys list").await;
    // Our own is used by each of them.
    shown[0]["last_used_at"] = listed["data"][0]["last_used_at"].clone();
    assert_eq!(listed["data"], shown);
    assert!(!listed.to_string().contains("hcpms_"), "{listed}");

    let wrong = json!({"name": "", "role": "root", "expires_in": "soon"});
    let refused = scene.api.post("/api-keys", &wrong).await.expect(422);
    let faults = refused["errors"].as_array().expect("faults");
    assert_eq!(faults.len(), 3, "{refused}");

    let path = format!("/api-keys/{}", made["id"]);
    assert_eq!(scene.api.delete(&path).await.status, 204);
    assert_eq!(
        theirs.get("/webhooks").await.expect(401)["code"],
        "unauthenticated"
    );
    assert_eq!(
        scene.api.delete(&path).await.expect(404)["code"],
        "no_such_api_key"
    );
    let own = scene.api.delete("/api-keys/1").await.expect(409);
    assert_eq!(own["code"], "last_api_key");
}

/// Free text, which is there to be read.
#[tokio::test]
async fn a_webhooks_description() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let path = format!("/webhooks/{}", scene.webhook);
    assert_eq!(
        scene.api.get(&path).await.expect(200)["description"],
        json!(null)
    );
    let said = json!({"description": "Tells our billing."});
    scene.api.put(&path, &said).await.expect(200);
    scene
        .api
        .put(&path, &json!({"name": "renamed"}))
        .await
        .expect(200);
    let ctl = scene.ctl();
    let text = ctl
        .line(&format!("webhooks get {}", scene.webhook))
        .await
        .ok();
    assert!(text.contains("Tells our billing."), "{text}");
    let run = async |verb: &str, more: &[&str]| {
        let id = scene.webhook.to_string();
        let line = ["-o", "json", "webhooks", verb, &id].into_iter();
        let line: Vec<_> = line.chain(more.iter().copied()).collect();
        let shown = ctl.run(&line).await.ok();
        serde_json::from_str::<serde_json::Value>(&shown).expect("JSON")
    };
    let changed = run("update", &["--description", "Two\nlines"]).await;
    assert_eq!(changed["description"], "Two\nlines");
    let removed = run("update", &["--description", ""]).await;
    assert_eq!(
        (&removed["description"], &removed["name"]),
        (&json!(null), &json!("renamed"))
    );
    let long = json!({"description": "x".repeat(2001)});
    let refused = scene.api.put(&path, &long).await.expect(422);
    assert_eq!(refused["errors"][0]["pointer"], "/description");
}

//! `pipeletctl trace`: what became of one event.

use std::fs;

use pipelet_tests::{Answer, Receiver};
use serde_json::{Value, json};

use crate::scene::{Scene, daemon};

#[tokio::test]
async fn the_fate_of_an_event_is_told_for_each_webhook() {
    let builder = daemon()
        .flag("--retry-schedule", "1h")
        .flag("--max-attempts", "2");
    let scene = Scene::with(builder, &["Heartbeat"]).await;
    let failing = Receiver::start().await;
    failing.answer(Answer::Status(503));
    scene.api.subscribe(&failing.url(), &["Heartbeat"]).await;
    scene.api.subscribe(&failing.url(), &["Reset"]).await;
    let off = json!({"name": "Off", "url": failing.url(), "events": ["*"], "enabled": false});
    scene.api.post("/webhooks", &off).await.expect(201);
    let mut station = scene.station("S1").await;
    station.ok("Heartbeat", "{}").await;
    scene.api.await_stats(1, json!({"delivered": 1})).await;
    scene.api.await_stats(2, json!({"retrying": 1})).await;
    // It comes later than the event.
    scene.api.subscribe(&failing.url(), &["*"]).await;

    let delivered = scene.receiver.await_requests(1).await.remove(0);
    let id = delivered.header("webhook-id").expect("an id").to_owned();
    let traced = scene.ctl().json(&format!("trace {id}")).await;
    assert_eq!(traced["event"]["id"], id);
    let webhooks = traced["webhooks"].as_array().expect("webhooks");
    let told = |webhook: &Value| (webhook["outcome"].clone(), webhook["reason"].clone());
    let told: Vec<_> = webhooks.iter().map(told).collect();
    let expected = [
        ("delivered", None),
        ("retrying", None),
        ("not_wanted", Some("other_events")),
        ("not_wanted", Some("disabled")),
        ("not_wanted", Some("created_later")),
    ];
    assert_eq!(
        told,
        expected.map(|(outcome, reason)| (json!(outcome), json!(reason)))
    );
    assert_eq!(webhooks[0]["attempts"][0]["status_code"], 200);
    assert_eq!(webhooks[1]["attempts"][0]["status_code"], 503);
    assert!(webhooks[1]["next_attempt_at"].is_string());

    let drawn = scene.ctl().line(&format!("trace {id}")).await.ok();
    assert!(
        drawn.contains("webhook 1") && drawn.contains('█'),
        "{drawn}"
    );

    // Of what is unknown there is nothing to tell.
    let unknown = scene
        .ctl()
        .line("trace evt_00000000000000000000000000000000")
        .await;
    assert_eq!(unknown.code, 3, "{unknown:?}");
}

#[tokio::test]
async fn a_dead_letter_is_named_and_old_deliveries_are_still_known_as_such() {
    let builder = daemon().flag("--max-attempts", "1");
    let mut scene = Scene::with(builder, &["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    station.ok("Heartbeat", "{}").await;
    scene.receiver.await_requests(1).await;
    scene.receiver.answer(Answer::Status(500));
    station.ok("Heartbeat", "{}").await;
    let dead = scene.api.await_failed("", 1).await.remove(0);
    let trace = async |scene: &Scene, id: &str| {
        let traced = scene.ctl().json(&format!("trace {id}")).await;
        traced["webhooks"][0].clone()
    };
    let id = dead["event_id"].as_str().expect("an id").to_owned();
    let traced = trace(&scene, &id).await;
    assert_eq!(
        (&traced["outcome"], &traced["failed_delivery_id"]),
        (&json!("dead"), &dead["id"])
    );

    // What is only in memory goes with the process; that it was delivered is known all the same.
    scene
        .api
        .await_stats(scene.webhook, json!({"delivered": 1, "dead": 1}))
        .await;
    let first = scene.receiver.requests().remove(0);
    let first = first.header("webhook-id").expect("an id").to_owned();
    scene.daemon.terminate().await;
    scene.start_again().await;
    let traced = trace(&scene, &first).await;
    assert_eq!(
        (&traced["outcome"], &traced["attempts_kept"]),
        (&json!("delivered"), &json!(false))
    );
}

/// Nowhere is it called delivered, and nobody is warned of what is not there any more.
#[tokio::test]
async fn a_dead_letter_that_was_purged_is_told_of_as_that() {
    let builder = daemon().flag("--max-attempts", "1");
    let mut scene = Scene::with(builder, &["Heartbeat"]).await;
    scene.receiver.answer(Answer::Status(500));
    let mut station = scene.station("S1").await;
    station.ok("Heartbeat", "{}").await;
    let dead = scene.api.await_failed("", 1).await.remove(0);
    let ctl = scene.ctl();
    let purge = format!("dlq purge {} --yes", dead["id"]);
    ctl.line(&purge).await.ok();

    let id = dead["event_id"].as_str().expect("an id").to_owned();
    let traced = ctl.json(&format!("trace {id}")).await;
    assert_eq!(traced["webhooks"][0]["outcome"], "purged", "{traced}");
    let log = scene.daemon.log();
    let purged = |line: &str| line.contains(r#""message":"purged""#) && line.contains(&id);
    assert!(log.lines().any(purged), "{log}");
    let books = json!({"received": 1, "delivered": 0, "dead": 1, "purged": 1});
    scene.api.await_stats(scene.webhook, books).await;
    let figures = ctl.json("webhooks stats").await;
    assert_eq!(figures[0]["dead"], 0, "{figures}");
    let audit = ctl.line("audit").await.ok();
    assert!(audit.contains("+ 1 dead (1 purged) +"), "{audit}");
    let lately = ctl.line("audit --since 1h").await;
    let said = "1 received = 1 delivered or purged + 0 pending + 0 dead";
    assert!(lately.stdout.contains(said), "{lately:?}");
    let healthy = ctl.line("doctor").await.ok();
    assert!(!healthy.contains("dead letter"), "{healthy}");

    let delete = format!("webhooks delete {} --yes", scene.webhook);
    let before = ctl.json("audit").await;
    assert_eq!(before["total"]["purged"], 1, "{before}");

    // Which it was is forgotten with the process, and is not made up.
    scene.daemon.terminate().await;
    scene.start_again().await;
    let traced = scene.ctl().json(&format!("trace {id}")).await;
    assert_eq!(traced["webhooks"][0]["outcome"], "settled", "{traced}");
    // The books remember it, even those of a webhook that is gone.
    let ctl = scene.ctl();
    ctl.line(&delete).await.ok();
    let after = ctl.json("audit").await;
    assert_eq!(after["total"]["purged"], 1, "{after}");
}

/// How long the parts of each attempt took, those that were made.
async fn parts(scene: &Scene, id: &str) -> Vec<[bool; 4]> {
    let traced = scene.ctl().json(&format!("trace {id}")).await;
    assert!(traced["durable_at"].is_string(), "{traced}");
    let attempts = traced["webhooks"][0]["attempts"].as_array();
    let attempts = attempts.expect("attempts").iter();
    let parts = attempts.map(|attempt| {
        ["lookup_us", "connect_us", "tls_us", "first_byte_us"].map(|part| {
            let micros = attempt[part].as_u64();
            let whole = attempt["duration_ms"].as_u64().expect("a duration");
            assert!(micros.is_none_or(|micros| micros <= (whole + 1) * 1000));
            micros.is_some()
        })
    });
    parts.collect()
}

#[tokio::test]
async fn the_parts_of_an_attempt_are_told() {
    for tls in [false, true] {
        let authority = tempfile::NamedTempFile::new().expect("a temporary file");
        let receiver = if tls {
            let receiver = Receiver::start_tls().await;
            fs::write(authority.path(), receiver.authority_pem()).expect("a writable file");
            receiver
        } else {
            Receiver::start().await
        };
        let file = authority.path().to_str().expect("UTF-8");
        let builder = if tls {
            daemon().flag("--ca-file", file)
        } else {
            daemon()
        };
        let scene = Scene::with(builder, &["Reset"]).await;
        // The certificate is one of the address, which needs no lookup.
        let url = if tls {
            receiver.url()
        } else {
            receiver.url().replace("127.0.0.1", "localhost")
        };
        let change = json!({"url": url, "events": ["Heartbeat"]});
        let path = format!("/webhooks/{}", scene.webhook);
        scene.api.put(&path, &change).await.expect(200);
        let mut station = scene.station("S1").await;
        let mut ids = Vec::new();
        for count in 1..=2 {
            station.ok("Heartbeat", "{}").await;
            let request = receiver.await_requests(count).await.remove(count - 1);
            ids.push(request.header("webhook-id").expect("an id").to_owned());
            // Only then the connection is kept.
            scene
                .api
                .await_stats(scene.webhook, json!({"delivered": count}))
                .await;
        }
        assert_eq!(
            parts(&scene, &ids[0]).await,
            [[!tls, true, tls, true]],
            "TLS: {tls}"
        );
        let kept = parts(&scene, &ids[1]).await;
        assert_eq!(kept, [[false, false, false, true]], "TLS: {tls}");
        let drawn = scene.ctl().line(&format!("trace {}", ids[1])).await.ok();
        assert!(drawn.contains("kept connection, first byte"), "{drawn}");
    }
}

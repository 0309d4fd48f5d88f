//! Who may call the API, for what, for how long and how often.

use http::Method;
use pipelet_tests::{Api, Rpc, deadline::eventually};
use serde_json::Value;

use crate::scene::{Scene, daemon};

/// The roles by ascending power, as a key is made with them.
const ROLES: [&str; 3] = ["read-only", "operator", "admin"];
const READ_ONLY: usize = 0;
const OPERATOR: usize = 1;
const ADMIN: usize = 2;

/// Every route, and the role that it needs. Nothing of what they name is there.
const ROUTES: &[(Method, &str, usize)] = &[
    (Method::GET, "/webhooks", READ_ONLY),
    (Method::POST, "/webhooks", OPERATOR),
    (Method::GET, "/webhooks/9", READ_ONLY),
    (Method::PUT, "/webhooks/9", OPERATOR),
    (Method::DELETE, "/webhooks/9", OPERATOR),
    (Method::POST, "/webhooks/9/test", OPERATOR),
    (Method::POST, "/webhooks/9/retry", OPERATOR),
    (Method::POST, "/webhooks/9/rotate-secret", OPERATOR),
    (Method::GET, "/webhooks/9/deliveries", READ_ONLY),
    (Method::GET, "/failed-deliveries", READ_ONLY),
    (Method::GET, "/failed-deliveries/9", READ_ONLY),
    (Method::DELETE, "/failed-deliveries/9", OPERATOR),
    (Method::POST, "/failed-deliveries/9/replay", OPERATOR),
    (Method::POST, "/failed-deliveries/replay", OPERATOR),
    (Method::GET, "/transactions", READ_ONLY),
    (Method::GET, "/transactions/9", READ_ONLY),
    (Method::GET, "/id-tags", READ_ONLY),
    (Method::POST, "/id-tags", OPERATOR),
    (Method::GET, "/id-tags/T", READ_ONLY),
    (Method::PUT, "/id-tags/T", OPERATOR),
    (Method::DELETE, "/id-tags/T", OPERATOR),
    (Method::GET, "/event-types", READ_ONLY),
    (Method::GET, "/events", READ_ONLY),
    (Method::POST, "/events", OPERATOR),
    (Method::GET, "/events/evt_1", READ_ONLY),
    (Method::HEAD, "/event-types", READ_ONLY),
    (Method::GET, "/stations", READ_ONLY),
    (Method::GET, "/stations/S", READ_ONLY),
    (Method::PUT, "/stations/S", OPERATOR),
    (Method::DELETE, "/stations/S", OPERATOR),
    (Method::POST, "/stations/S/commands/Reset", OPERATOR),
    (Method::POST, "/stations/S/reset", OPERATOR),
    (Method::POST, "/stations/S/availability", OPERATOR),
    (Method::POST, "/stations/S/unlock", OPERATOR),
    (Method::POST, "/stations/S/transactions/start", OPERATOR),
    (Method::POST, "/stations/S/transactions/stop", OPERATOR),
    (Method::POST, "/stations/S/trigger", OPERATOR),
    (Method::GET, "/stations/S/configuration", OPERATOR),
    (Method::PUT, "/stations/S/configuration", OPERATOR),
    (Method::POST, "/stations/S/disconnect", OPERATOR),
    (Method::POST, "/webhooks/9/backfill", OPERATOR),
    (Method::GET, "/audit", READ_ONLY),
    (Method::GET, "/events/evt_1/trace", READ_ONLY),
    (Method::GET, "/status", READ_ONLY),
    (Method::GET, "/overview", READ_ONLY),
    (Method::GET, "/api-keys", ADMIN),
    (Method::POST, "/api-keys", ADMIN),
    (Method::DELETE, "/api-keys/9", ADMIN),
];

/// Every method, and the role that it needs.
const METHODS: &[(&str, usize)] = &[
    ("WebhookService/CreateWebhook", OPERATOR),
    ("WebhookService/GetWebhook", READ_ONLY),
    ("WebhookService/ListWebhooks", READ_ONLY),
    ("WebhookService/UpdateWebhook", OPERATOR),
    ("WebhookService/DeleteWebhook", OPERATOR),
    ("WebhookService/TestWebhook", OPERATOR),
    ("WebhookService/RetryDeliveries", OPERATOR),
    ("WebhookService/RotateSigningSecret", OPERATOR),
    ("WebhookService/ListDeliveries", READ_ONLY),
    ("WebhookService/AuditWebhooks", READ_ONLY),
    ("FailedDeliveryService/ListFailedDeliveries", READ_ONLY),
    ("FailedDeliveryService/GetFailedDelivery", READ_ONLY),
    ("FailedDeliveryService/Replay", OPERATOR),
    ("FailedDeliveryService/Purge", OPERATOR),
    ("EventService/ListEventTypes", READ_ONLY),
    ("EventService/ListEvents", READ_ONLY),
    ("EventService/GetEvent", READ_ONLY),
    ("EventService/TraceEvent", READ_ONLY),
    ("EventService/Backfill", OPERATOR),
    ("EventService/TriggerEvent", OPERATOR),
    ("EventService/TailEvents", READ_ONLY),
    ("StationService/ListStations", READ_ONLY),
    ("StationService/GetStation", READ_ONLY),
    ("StationService/Call", OPERATOR),
    ("StationService/Disconnect", OPERATOR),
    ("StationService/RegisterStation", OPERATOR),
    ("StationService/UpdateStation", OPERATOR),
    ("StationService/RemoveStation", OPERATOR),
    ("TransactionService/ListTransactions", READ_ONLY),
    ("TransactionService/GetTransaction", READ_ONLY),
    ("IdTagService/CreateIdTag", OPERATOR),
    ("IdTagService/GetIdTag", READ_ONLY),
    ("IdTagService/ListIdTags", READ_ONLY),
    ("IdTagService/UpdateIdTag", OPERATOR),
    ("IdTagService/DeleteIdTag", OPERATOR),
    ("ApiKeyService/CreateApiKey", ADMIN),
    ("ApiKeyService/ListApiKeys", ADMIN),
    ("ApiKeyService/RevokeApiKey", ADMIN),
    ("DaemonService/GetStatus", READ_ONLY),
    ("DaemonService/GetOverview", READ_ONLY),
    ("DaemonService/BackUp", ADMIN),
];

const PERMISSION_DENIED: u16 = 7;
const RESOURCE_EXHAUSTED: u16 = 8;
const UNIMPLEMENTED: u16 = 12;
const UNAUTHENTICATED: u16 = 16;

async fn key(scene: &Scene, options: &str) -> String {
    let line = format!("keys create --name theirs {options}");
    let made = scene.ctl().json(line.trim()).await;
    made["key"].as_str().expect("the key").to_owned()
}

async fn ask(api: &Api, method: &Method, path: &str) -> pipelet_tests::Reply {
    let body = Some("application/json");
    api.send(method.clone(), path, body, "{}".to_owned()).await
}

#[tokio::test]
async fn each_role_may_do_what_it_is_for() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let rpc = Rpc::new(scene.daemon.grpc());
    for (power, role) in ROLES.into_iter().enumerate() {
        let key = key(&scene, &format!("--role {role}")).await;
        let api = scene.api.with_key(Some(&key));
        for (method, path, needed) in ROUTES {
            let what = format!("{method} {path} as {role}");
            let reply = ask(&api, method, path).await;
            if power < *needed {
                let problem = reply.expect(403);
                assert_eq!(problem["code"], "forbidden", "{what}");
                assert_eq!(problem["needed_role"], ROLES[*needed], "{what}");
                let kind = reply.header("content-type");
                assert_eq!(kind, Some("application/problem+json"), "{what}");
            } else {
                let refused = matches!(reply.status, 401 | 403 | 405 | 500..);
                assert!(!refused, "{what}: {} {}", reply.status, reply.text);
            }
        }
        for (method, needed) in METHODS {
            let status = rpc.call(method, Some(&key)).await;
            let denied = status == Some(PERMISSION_DENIED);
            assert_eq!(denied, power < *needed, "{method} as {role}: {status:?}");
            let refused = matches!(status, Some(UNAUTHENTICATED | UNIMPLEMENTED));
            assert!(!refused, "{method} as {role}: {status:?}");
        }
    }
    // Nothing was changed by who may not.
    scene.api.get("/webhooks/1").await.expect(200);
}

#[tokio::test]
async fn without_a_key_there_is_nothing() {
    let daemon = daemon().start().await;
    let (api, rpc) = (daemon.api(), Rpc::new(daemon.grpc()));
    // So few that the address is not yet held back for its guesses.
    for (method, path, _) in ROUTES.iter().step_by(5) {
        let stranger = api.with_key(None);
        assert_eq!(ask(&stranger, method, path).await.status, 401, "{path}");
    }
    for (method, _) in METHODS.iter().step_by(5) {
        let status = rpc.call(method, None).await;
        assert_eq!(status, Some(UNAUTHENTICATED), "{method}");
    }
    let key = daemon.key();
    let status = rpc.call("DaemonService/Nothing", Some(&key)).await;
    assert_eq!(status, Some(UNIMPLEMENTED));
    assert_eq!(api.with_key(None).get("/healthz").await.status, 200);
}

#[tokio::test]
async fn who_may_not_is_told_so_on_the_command_line() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let key = key(&scene, "--role read-only").await;
    let ctl = scene.ctl().variable("PIPELET_API_KEY", &key);
    ctl.line("webhooks list").await.ok();
    let refused = ctl.line("webhooks delete 1 --yes").await;
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("role operator"), "{refused:?}");
    let refused = ctl.line("keys list").await;
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("role admin"), "{refused:?}");
}

#[tokio::test]
async fn a_key_that_has_expired_is_shown_and_lets_nobody_in() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let key = key(&scene, "--role operator --expires-in 2s").await;
    let theirs = scene.api.with_key(Some(&key));
    let look = || async { theirs.get("/webhooks").await };
    let expired = eventually("the key's end", look, |reply| reply.status != 200).await;
    assert_eq!(expired.expect(401)["code"], "key_expired");
    let rpc = Rpc::new(scene.daemon.grpc());
    let status = rpc.call("DaemonService/GetStatus", Some(&key)).await;
    assert_eq!(status, Some(UNAUTHENTICATED));

    let listed = scene.ctl().json("keys list").await;
    let theirs = &listed[1];
    assert_eq!(theirs["role"], "operator", "{listed}");
    assert_eq!(theirs["expired"], true, "{listed}");
    assert!(theirs["expires_at"].is_string(), "{listed}");
    let shown = scene.ctl().line("keys list").await.ok();
    assert!(shown.contains("(expired)"), "{shown}");
}

#[tokio::test]
async fn when_a_key_was_last_used_is_kept_over_a_restart() {
    let mut scene = Scene::new(&["Heartbeat"]).await;
    let key = key(&scene, "--role read-only").await;
    let last_used = |keys: &Value| keys[1]["last_used_at"].clone();
    assert_eq!(last_used(&scene.ctl().json("keys list").await), Value::Null);
    let theirs = scene.api.with_key(Some(&key));
    theirs.get("/webhooks").await.expect(200);
    let before = last_used(&scene.ctl().json("keys list").await);
    assert!(before.is_string(), "{before}");
    scene.daemon.terminate().await;
    scene.start_again().await;
    let after = scene.ctl().json("keys list").await;
    assert_eq!(last_used(&after), before);
    assert_eq!(after[1]["role"], "read-only");
}

#[tokio::test]
async fn the_last_key_that_can_make_others_for_ever_stays() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let ctl = scene.ctl();
    key(&scene, "--role operator").await;
    key(&scene, "--role admin --expires-in 90d").await;
    let refused = ctl.line("keys revoke 1 --yes").await;
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.stderr.contains("last_api_key"), "{refused:?}");
    key(&scene, "").await;
    ctl.line("keys revoke 1 --yes").await.ok();
    for wrong in ["--role root", "--expires-in 0s", "--expires-in 20000d"] {
        let line = format!("keys create --name theirs {wrong}");
        let refused = ctl.line(&line).await;
        assert!(matches!(refused.code, 2 | 4), "{wrong}: {refused:?}");
    }
}

#[tokio::test]
async fn a_key_that_is_used_too_often_is_held_back_and_others_are_not() {
    let scene = Scene::with(daemon().flag("--api-rate", "5/s"), &["Heartbeat"]).await;
    let key = key(&scene, "--role admin").await;
    let theirs = scene.api.with_key(Some(&key));
    let look = || async { theirs.get("/event-types").await };
    let held_back = eventually("a 429", look, |reply| reply.status != 200).await;
    assert_eq!(held_back.expect(429)["code"], "too_many_requests");
    let wait = held_back.header("retry-after").expect("a time to wait");
    assert_eq!(wait, "1");
    let rpc = Rpc::new(scene.daemon.grpc());
    let call = || rpc.call("EventService/ListEventTypes", Some(&key));
    eventually("the same over gRPC", call, |status| {
        *status == Some(RESOURCE_EXHAUSTED)
    })
    .await;
    scene.api.get("/webhooks").await.expect(200);
    eventually("its turn", look, |reply| reply.status == 200).await;
}

#[tokio::test]
async fn keys_that_are_shown_are_never_in_the_log_and_guesses_are_held_back() {
    let scene = Scene::with(daemon().flag("--log-level", "trace"), &["Heartbeat"]).await;
    let (right, wrong) = (scene.daemon.key(), "hcpms_live_planted-by-a-stranger");
    let stranger = scene.api.with_key(Some(wrong));
    let guess = || async { stranger.get("/webhooks").await };
    let refused = guess().await.expect(401);
    assert_eq!(refused["code"], "unauthenticated");
    // Who is on the daemon's own machine learns where the first key is.
    let first_key = scene.daemon.data_dir().join("admin.key");
    let detail = refused["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(first_key.to_str().unwrap()), "{detail}");
    let held_back = eventually("a 429", guess, |reply| reply.status == 429).await;
    assert_eq!(held_back.expect(429)["code"], "too_many_guesses");
    assert!(held_back.header("retry-after").is_some());
    // They count for both interfaces, and a key that is right is not held back.
    let rpc = Rpc::new(scene.daemon.grpc());
    let call = || rpc.call("DaemonService/GetStatus", Some(wrong));
    eventually("the same over gRPC", call, |status| {
        *status == Some(RESOURCE_EXHAUSTED)
    })
    .await;
    scene.api.get("/webhooks").await.expect(200);
    let status = rpc.call("DaemonService/GetStatus", Some(&right)).await;
    assert_eq!(status, None);
    let made = key(&scene, "--expires-in 1d").await;

    let log = scene.daemon.log();
    assert!(log.contains("an API caller was refused"), "{log}");
    for key in [right.as_str(), wrong, &made] {
        let secret = key.trim_start_matches("hcpms_live_");
        assert!(!log.contains(secret), "{key} is in the log");
    }
}

#[tokio::test]
async fn readers_of_the_tail_are_counted_and_make_room_when_they_go() {
    let daemon = daemon().start().await;
    let (rpc, key) = (Rpc::new(daemon.grpc()), daemon.key());
    let tail = "EventService/TailEvents";
    let mut readers = Vec::new();
    let refused = loop {
        match rpc.open(tail, Some(&key)).await {
            Ok(reader) => readers.push(reader),
            Err(status) => break status,
        }
    };
    assert_eq!((readers.len(), refused), (64, RESOURCE_EXHAUSTED));
    drop(readers);
    let again = || rpc.call(tail, Some(&key));
    eventually("room for another", again, Option::is_none).await;
}

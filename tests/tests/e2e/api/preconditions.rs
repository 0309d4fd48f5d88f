//! Changes that are meant for what somebody has read, and requests that are sent again.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use http::Method;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::scene::Scene;

/// Asks as the scene's API does, with further headers.
async fn ask(
    scene: &Scene,
    method: Method,
    path: &str,
    headers: &[(&'static str, &str)],
    body: Option<&Value>,
) -> Response {
    let url = format!("http://{}/api/v1{path}", scene.daemon.http());
    let client = reqwest::Client::new();
    let mut request = client
        .request(method, url)
        .header("x-api-key", scene.daemon.key());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    request.send().await.expect("an answer")
}

fn header(response: &Response, name: &str) -> Option<String> {
    let value = response.headers().get(name)?;
    Some(value.to_str().expect("text").to_owned())
}

#[tokio::test]
async fn a_change_can_be_meant_for_what_was_read() {
    let mut scene = Scene::new(&["Heartbeat"]).await;
    let path = format!("/webhooks/{}", scene.webhook);
    let read = ask(&scene, Method::GET, &path, &[], None).await;
    let first = header(&read, "etag").expect("a tag");
    let again = ask(
        &scene,
        Method::GET,
        &path,
        &[("if-none-match", &first)],
        None,
    )
    .await;
    assert_eq!(
        again.status(),
        StatusCode::OK,
        "the statistics may have changed"
    );

    // Ten have read the same, and one of them is the first.
    let changes: Vec<_> = (0..10)
        .map(|number| json!({"name": format!("N{number}")}))
        .collect();
    let only = [("if-match", first.as_str())];
    let writers = changes
        .iter()
        .map(|change| ask(&scene, Method::PUT, &path, &only, Some(change)));
    let answers = join_all(writers).await;
    let statuses: Vec<_> = answers
        .iter()
        .map(|answer| answer.status().as_u16())
        .collect();
    assert_eq!(
        statuses.iter().filter(|status| **status == 200).count(),
        1,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|status| **status == 412).count(),
        9,
        "{statuses:?}"
    );
    let winner = answers
        .iter()
        .find(|answer| answer.status() == 200)
        .expect("one");
    let second = header(winner, "etag").expect("a tag");
    assert_ne!(first, second);

    // The tag outlives a crash, and the secret's rotation is a change.
    scene.crash().await;
    let read = ask(&scene, Method::GET, &path, &[], None).await;
    assert_eq!(header(&read, "etag"), Some(second.clone()));
    let rotate = format!("{path}/rotate-secret");
    let both = format!("\"0-0\", {second}");
    let rotated = ask(&scene, Method::POST, &rotate, &[("if-match", &both)], None).await;
    assert_eq!(rotated.status(), 200);
    let third = header(&rotated, "etag").expect("a tag");
    assert_ne!(second, third);

    for (tag, status) in [
        (second.as_str(), 412),
        ("W/\"1-3\"", 412),
        ("nonsense", 412),
    ] {
        let refused = ask(&scene, Method::DELETE, &path, &[("if-match", tag)], None).await;
        assert_eq!(refused.status(), status, "{tag}");
        let problem: Value = refused.json().await.expect("JSON");
        assert_eq!(problem["code"], "precondition_failed", "{problem}");
    }
    let deleted = ask(&scene, Method::DELETE, &path, &[("if-match", &third)], None).await;
    assert_eq!(deleted.status(), 204);
    let gone = ask(&scene, Method::DELETE, &path, &[("if-match", "*")], None).await;
    assert_eq!(gone.status(), 404);
}

#[tokio::test]
async fn what_is_sent_again_is_done_once() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let body = json!({
        "name": "Once", "url": scene.receiver.url(), "events": ["Heartbeat"],
        "generate_signing_secret": true,
    });
    let key = [("idempotency-key", "order-7")];
    let all = (0..20).map(|_| ask(&scene, Method::POST, "/webhooks", &key, Some(&body)));
    let mut ids = BTreeSet::new();
    for answer in join_all(all).await {
        match answer.status().as_u16() {
            201 => {
                let webhook: Value = answer.json().await.expect("JSON");
                ids.insert(webhook["id"].as_u64().expect("an id"));
            }
            409 => {
                let problem: Value = answer.json().await.expect("JSON");
                assert_eq!(problem["code"], "idempotency_in_flight", "{problem}");
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
    let list = scene.api.get("/webhooks").await.expect(200);
    assert_eq!(list["data"].as_array().map(Vec::len), Some(2), "{list}");

    // The answer comes again whole, the secret that is shown once in it.
    let quoted = [("idempotency-key", "\"order-7\"")];
    let again = ask(&scene, Method::POST, "/webhooks", &quoted, Some(&body)).await;
    assert_eq!(again.status(), 201);
    assert_eq!(
        header(&again, "idempotency-replayed").as_deref(),
        Some("true")
    );
    let id = ids.first().expect("one");
    let location = format!("/api/v1/webhooks/{id}");
    assert_eq!(header(&again, "location"), Some(location));
    assert!(header(&again, "etag").is_some());
    let again: Value = again.json().await.expect("JSON");
    assert!(again["signing_secret"].is_string(), "{again}");

    // It is another request, and so it is with another's key.
    let other = json!({"name": "Other", "url": scene.receiver.url(), "events": ["Reset"]});
    let taken = ask(&scene, Method::POST, "/webhooks", &key, Some(&other)).await;
    assert_eq!(taken.status(), 422);
    let problem: Value = taken.json().await.expect("JSON");
    assert_eq!(
        problem["errors"][0]["code"], "idempotency_key_reused",
        "{problem}"
    );
    let made = scene
        .ctl()
        .json("keys create --name second --role operator")
        .await;
    let url = format!("http://{}/api/v1/webhooks", scene.daemon.http());
    let client = reqwest::Client::new().post(url).json(&body);
    let client = client.header("idempotency-key", "order-7");
    let theirs = client.header("x-api-key", made["key"].as_str().expect("a key"));
    assert_eq!(theirs.send().await.expect("an answer").status(), 201);

    // A refusal is an answer, too; what can't be a key is refused.
    let wrong = json!({"name": ""});
    let key = [("idempotency-key", "order-8")];
    for replayed in [None, Some("true")] {
        let refused = ask(&scene, Method::POST, "/webhooks", &key, Some(&wrong)).await;
        assert_eq!(refused.status(), 422);
        assert_eq!(
            header(&refused, "idempotency-replayed").as_deref(),
            replayed
        );
        let kind = header(&refused, "content-type");
        assert_eq!(kind.as_deref(), Some("application/problem+json"));
    }
    let long = "k".repeat(256);
    for wrong in ["", "a b", &long] {
        let key = [("idempotency-key", wrong)];
        let refused = ask(&scene, Method::POST, "/webhooks", &key, Some(&body)).await;
        assert_eq!(refused.status(), 422, "{wrong:?}");
    }
}

#[tokio::test]
async fn a_command_is_sent_once() {
    let scene = Scene::new(&["Reset"]).await;
    let mut station = scene.station("S1").await;
    station.boot().await;
    let body = json!({"type": "Soft"});
    let key = [("idempotency-key", "k")];
    let answering = async {
        let asked = station.asked().await;
        station.answer(&asked, json!({"status": "Accepted"})).await;
    };
    let asking = ask(
        &scene,
        Method::POST,
        "/stations/S1/reset",
        &key,
        Some(&body),
    );
    let (first, ()) = tokio::join!(asking, answering);
    assert_eq!(first.status(), 200);
    let again = ask(
        &scene,
        Method::POST,
        "/stations/S1/reset",
        &key,
        Some(&body),
    )
    .await;
    assert_eq!(again.status(), 200);
    assert_eq!(
        header(&again, "idempotency-replayed").as_deref(),
        Some("true")
    );
    scene.receiver.await_requests(1).await;
    let listed = scene.api.get("/events?event=Reset").await.expect(200);
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1), "{listed}");
}

#[tokio::test]
async fn what_failed_on_our_side_can_be_sent_again() {
    let scene = Scene::new(&["Reset"]).await;
    let mut station = scene.station("S1").await;
    station.boot().await;
    let body = json!({"type": "Soft"});
    let key = [("idempotency-key", "k")];
    let path = "/stations/S1/reset?timeout=1s";
    // Nobody answers the first one in time.
    let late = ask(&scene, Method::POST, path, &key, Some(&body)).await;
    assert_eq!(late.status(), 504);
    assert_eq!(station.asked().await.action, "Reset");
    let answering = async {
        let asked = station.asked().await;
        station.answer(&asked, json!({"status": "Accepted"})).await;
    };
    let asking = ask(&scene, Method::POST, path, &key, Some(&body));
    let (again, ()) = tokio::join!(asking, answering);
    assert_eq!(again.status(), 200);
    assert_eq!(header(&again, "idempotency-replayed"), None);
}

#[tokio::test]
async fn a_problem_names_its_own_request() {
    let scene = Scene::new(&["Reset"]).await;
    let wrong = json!({"name": ""});
    let key = [("idempotency-key", "k"), ("x-request-id", "first")];
    let refused = ask(&scene, Method::POST, "/webhooks", &key, Some(&wrong)).await;
    assert_eq!(header(&refused, "x-request-id").as_deref(), Some("first"));
    let problem: Value = refused.json().await.expect("JSON");
    assert_eq!(problem["request_id"], "first", "{problem}");
}

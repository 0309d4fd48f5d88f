//! What a receiver gets: four keys, the station's own bytes, and the headers.

use jiff::Timestamp;
use serde_json::json;

use crate::scene::Scene;

#[tokio::test]
async fn the_body_has_the_four_keys_and_no_more() {
    let scene = Scene::new(&["StatusNotification"]).await;
    let status = json!({"connectorId": 1, "errorCode": "NoError", "status": "Available"});
    scene
        .station("WALLBOX_001")
        .await
        .ok("StatusNotification", &status)
        .await;

    let request = scene.receiver.await_requests(1).await.remove(0);
    assert_eq!(request.method, "POST");
    assert_eq!(request.path, "/webhooks/ocpp");
    let body = request.json();
    let timestamp = body["timestamp"].as_str().expect("a timestamp");
    assert_eq!(
        body,
        json!({
            "event": "StatusNotification",
            "station_id": "WALLBOX_001",
            "timestamp": timestamp,
            "payload": status,
        })
    );
    assert_eq!(
        timestamp.len(),
        "2026-04-14T12:34:56.789Z".len(),
        "{timestamp}"
    );
    assert!(timestamp.ends_with('Z'), "{timestamp}");
    timestamp.parse::<Timestamp>().expect("RFC 3339");
}

/// Numbers that a parser would rewrite, odd spacing, a key twice, an unknown key, escapes.
#[tokio::test]
async fn the_payloads_bytes_are_the_stations_own() {
    let scene = Scene::new(&["*"]).await;
    let mut station = scene.station("odd").await;
    let payloads = [
        (
            "MeterValues",
            r#"{ "connectorId" :1.0,"meterValue":[ ] ,	"x":1e2,"x":12345678901234567890123 }"#,
        ),
        (
            "DataTransfer",
            r#"{"vendorId":"caf\u00e9 \/","data":"{\"a\":1}","null":null}"#,
        ),
        ("Heartbeat", "{ }"),
    ];
    for (action, payload) in payloads {
        station.call(action, payload).await.result();
        let request = scene
            .receiver
            .await_request(action, |request| {
                request.header("pipelet-event") == Some(action)
            })
            .await;
        let expected = format!(r#""payload":{payload}}}"#);
        assert!(
            request.text().ends_with(&expected),
            "{} has no {expected}",
            request.text()
        );
    }
}

#[tokio::test]
async fn a_start_transaction_carries_the_id_of_its_answer() {
    let scene = Scene::new(&["StartTransaction"]).await;
    let mut station = scene.station("WALLBOX_001").await;
    let payload = r#"{"connectorId":1, "idTag":"RFID_12345678","meterStart":12345.0,"timestamp":"2026-04-14T12:34:56Z"}"#;
    let answer = station.ok("StartTransaction", payload).await;
    let id = answer["transactionId"].as_i64().expect("transactionId");

    let request = scene.receiver.await_requests(1).await.remove(0);
    assert_eq!(request.json()["payload"]["transactionId"], id);
    let untouched = payload.strip_suffix('}').expect("an object");
    assert!(request.text().contains(untouched), "{}", request.text());
}

#[tokio::test]
async fn the_headers_say_the_rest() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let secret = json!({"secret_header": "X-Webhook-Secret", "secret_value": "s3cret  value"});
    scene
        .api
        .put(&format!("/webhooks/{}", scene.webhook), &secret)
        .await
        .expect(200);
    let mut station = scene.station("S1").await;
    station.ok("Heartbeat", "{}").await;
    station.ok("Heartbeat", "{}").await;

    let requests = scene.receiver.await_requests(2).await;
    for request in &requests {
        assert_eq!(request.header("content-type"), Some("application/json"));
        let agent = concat!("Pipelet/", env!("CARGO_PKG_VERSION"));
        assert_eq!(request.header("user-agent"), Some(agent));
        assert_eq!(request.header("x-webhook-secret"), Some("s3cret  value"));
        assert_eq!(request.header("pipelet-event"), Some("Heartbeat"));
        assert_eq!(request.attempt(), "1");
        let sent: i64 = request
            .header("webhook-timestamp")
            .expect("a time")
            .parse()
            .expect("seconds");
        let body = request.json();
        let happened: Timestamp = body["timestamp"]
            .as_str()
            .expect("a time")
            .parse()
            .expect("RFC 3339");
        assert!(
            (sent - happened.as_second()).abs() <= 60,
            "{sent} for {happened}"
        );
    }
    assert_ne!(requests[0].id(), requests[1].id());
}

#[tokio::test]
async fn a_webhook_gets_only_what_it_asked_for() {
    let scene = Scene::new(&["StopTransaction"]).await;
    let mut station = scene.station("S1").await;
    station.boot().await;
    let id = station.start_transaction(0).await;
    let stop = json!({"transactionId": id, "meterStop": 9, "timestamp": "2026-04-14T13:00:00Z"});
    station.ok("StopTransaction", &stop).await;

    scene
        .api
        .await_stats(scene.webhook, json!({"received": 1, "delivered": 1}))
        .await;
    let requests = scene.receiver.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].json()["payload"], stop);
}

#[tokio::test]
async fn a_stations_events_arrive_in_their_order() {
    let scene = Scene::new(&["MeterValues"]).await;
    let mut station = scene.station("S1").await;
    for number in 0..100 {
        station
            .ok(
                "MeterValues",
                json!({"connectorId": number, "meterValue": []}),
            )
            .await;
    }
    let requests = scene.receiver.await_requests(100).await;
    let order: Vec<_> = requests
        .iter()
        .map(|request| request.json()["payload"]["connectorId"].as_u64())
        .collect();
    assert_eq!(order, (0..100).map(Some).collect::<Vec<_>>());
}

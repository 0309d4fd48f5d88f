//! Quirks of what stations say: repeats, boots, and contents that the standard does not know.

use pipelet_tests::{Called, Frame};
use serde_json::{Value, json};

use crate::scene::Scene;

const START: &str =
    r#"{"connectorId":1,"idTag":"T","meterStart":7,"timestamp":"2026-04-14T12:34:56Z"}"#;

/// [MicroOcpp#50, mobilityhouse/ocpp#376]: the answer was lost on its way, so the CALL comes again,
/// on the same connection, on the next one, and after the daemon was gone as well.
#[tokio::test]
async fn a_resent_message_is_answered_again_and_happens_once() {
    let calls = [
        (
            "2",
            "StatusNotification",
            r#"{"connectorId":1,"errorCode":"NoError","status":"Preparing"}"#,
        ),
        ("3", "StartTransaction", START),
        ("4", "MeterValues", r#"{"connectorId":1,"meterValue":[]}"#),
        (
            "5",
            "StopTransaction",
            r#"{"transactionId":5,"meterStop":9,"timestamp":"2026-04-14T13:00:00Z"}"#,
        ),
    ];
    let mut scene = Scene::new(&calls.map(|(_, action, _)| action)).await;
    for (id, action, payload) in calls {
        let mut station = scene.station("S1").await;
        let first = station.call_as(id, action, payload).await.result();
        let again = station.call_as(id, action, payload).await.result();
        assert_eq!(again, first, "{action}, on the same connection");
        drop(station);
        let mut station = scene.station("S1").await;
        let again = station.call_as(id, action, payload).await.result();
        assert_eq!(again["transactionId"], first["transactionId"], "{action}");
        drop(station);
        scene.crash().await;
        let mut station = scene.station("S1").await;
        let again = station.call_as(id, action, payload).await.result();
        assert_eq!(again["transactionId"], first["transactionId"], "{action}");
    }
    // The same id with another body is another message: some count from 1 each time.
    let mut station = scene.station("S1").await;
    let other = r#"{"transactionId":6,"meterStop":9,"timestamp":"2026-04-14T13:00:00Z"}"#;
    station
        .call_as("5", "StopTransaction", other)
        .await
        .result();
    let count = calls.len() + 1;
    let stats = json!({"received": count, "delivered": count});
    scene.api.await_stats(scene.webhook, stats).await;
}

/// [libocpp#688]
#[tokio::test]
async fn a_start_retried_under_a_new_message_id_is_the_same_transaction() {
    let mut scene = Scene::new(&["StartTransaction"]).await;
    let mut station = scene.station("S1").await;
    let id = station.ok("StartTransaction", START).await["transactionId"].clone();
    // Other things happen before it tries once more.
    station.ok("Heartbeat", "{}").await;
    assert_eq!(
        station.ok("StartTransaction", START).await["transactionId"],
        id
    );
    drop(station);
    scene.crash().await;
    let mut station = scene.station("S1").await;
    let retried = station.call_as("another", "StartTransaction", START).await;
    assert_eq!(retried.result()["transactionId"], id);
    let mut other = scene.station("S2").await;
    let elsewhere = other.ok("StartTransaction", START).await;
    assert_ne!(elsewhere["transactionId"], id);
    let next = START.replace("12:34:56", "12:34:57");
    assert_ne!(
        station.ok("StartTransaction", next).await["transactionId"],
        id
    );
    let stats = json!({"received": 3, "delivered": 3});
    scene.api.await_stats(scene.webhook, stats).await;
}

#[tokio::test]
async fn who_reconnects_need_not_boot_again() {
    let mut scene = Scene::new(&["BootNotification"]).await;
    let mut station = scene.station("S1").await;
    station.boot().await;
    station.close().await;
    scene.crash().await;
    let mut station = scene.station("S1").await;
    assert!(station.start_transaction(1).await > 0);
    let known = scene.api.get("/stations/S1").await.expect(200);
    assert_eq!(known["boot_status"], "Accepted");
    assert_eq!(known["model"], "Wallbox");
    let stats = json!({"received": 1, "delivered": 1});
    scene.api.await_stats(scene.webhook, stats).await;
}

/// Some count their messages from 1 after every start: then the same words are no repeat.
#[tokio::test]
async fn who_starts_again_and_again_is_told_of_each_time() {
    let scene = Scene::new(&["BootNotification"]).await;
    for boots in 1..=3 {
        scene.station("S1").await.boot().await;
        scene.receiver.await_requests(boots).await;
    }
}

#[tokio::test]
async fn a_status_that_comes_before_the_boots_answer_is_heard() {
    let scene = Scene::new(&["BootNotification", "StatusNotification"]).await;
    let boot = r#"[2,"b","BootNotification",{"chargePointVendor":"V","chargePointModel":"M"}]"#;
    let status = r#"[2,"s","StatusNotification",{"connectorId":1,"errorCode":"NoError","status":"Available"}]"#;
    for (number, frames) in (0..).zip([[boot, status], [status, boot]]) {
        let mut station = scene.station(&format!("S{number}")).await;
        for frame in frames {
            station.send(frame).await;
        }
        for frame in frames {
            let Frame::Json(answer) = station.next().await else {
                panic!("closed after {frame}");
            };
            assert_eq!((&answer[0], &answer[1]), (&json!(3), &json!(&frame[4..5])));
        }
        scene.receiver.await_requests(2 * (number + 1)).await;
    }
}

/// Each of them is answered, and its bytes are the event's payload. Refusing one would lose
/// billing data or, as in lbbrhzn/ocpp#2030, leave the power on.
#[tokio::test]
async fn odd_contents_are_answered_and_forwarded_as_they_are() {
    let cases = [
        // Stops of transactions that nobody knows [steve#1569, #2058, mobilityhouse/ocpp#617].
        (
            "StopTransaction",
            r#"{"transactionId":-1,"meterStop":2,"timestamp":"2026-04-14T13:00:00Z"}"#,
        ),
        (
            "StopTransaction",
            r#"{"transactionId":0,"meterStop":2,"timestamp":"2026-04-14T13:00:00+02"}"#,
        ),
        (
            "StopTransaction",
            r#"{"transactionId":9223372036854775807,"meterStop":2,"timestamp":"2026-04-14T13:00:00"}"#,
        ),
        (
            "StopTransaction",
            r#"{"transactionId":-1,"idTag":"","meterStop":2,"timestamp":""}"#,
        ),
        (
            "MeterValues",
            r#"{"connectorId":1,"transactionId":9223372036854775807,"meterValue":[]}"#,
        ),
        // Serial numbers of more than 25 characters [mobilityhouse/ocpp#122, #273].
        (
            "BootNotification",
            r#"{"chargePointVendor":"V","chargePointModel":"M","chargePointSerialNumber":"12345678901234567890123456"}"#,
        ),
        (
            "BootNotification",
            r#"{"chargePointVendor":"V","chargePointModel":"M","chargePointSerialNumber":"1234567890123456789012345678901234"}"#,
        ),
        // Id tags of more than 20 characters, with control bytes in them [lbbrhzn/ocpp#2030].
        ("Authorize", r#"{"idTag":"\u0000\u000412345678901234567X"}"#),
        (
            "Authorize",
            r#"{"idTag":"1234567890123456789\u007f\u0001Z"}"#,
        ),
        // An error code and units that the standard does not list.
        (
            "StatusNotification",
            r#"{"connectorId":1,"errorCode":"Error","status":"Faulted","info":""}"#,
        ),
        (
            "MeterValues",
            r#"{"connectorId":1,"meterValue":[{"timestamp":"2026-04-14T12:40:00Z","sampledValue":[{"value":"50","unit":"Hz","measurand":"Frequency"},{"value":"21","unit":"Celcius"},{"value":"21","unit":"Celsius"}]}]}"#,
        ),
        // Keys too many, and keys twice [OCPP.Core#36].
        (
            "StatusNotification",
            r#"{"connectorId":1,"errorCode":"NoError","status":"Available","status":"Charging","vendorExtra":{"deep":[1,2]}}"#,
        ),
        ("Heartbeat", r#"{"currentTime":"2026-04-14T12:40:00Z"}"#),
        (
            "DataTransfer",
            r#"{"data":{"not":"a string"},"vendorId":7}"#,
        ),
    ];
    let scene = Scene::new(&cases.map(|(action, _)| action)).await;
    let mut station = scene.station("S1").await;
    for (number, (action, payload)) in (1..).zip(cases) {
        let Called::Result(_) = station.call(action, payload).await else {
            panic!("{action} {payload} was refused");
        };
        let requests = scene.receiver.await_requests(number).await;
        let text = requests[number - 1].text();
        assert!(
            text.ends_with(&format!(r#","payload":{payload}}}"#)),
            "{text}"
        );
    }
    let known = scene.api.get("/stations/S1").await.expect(200);
    assert_eq!(known["serial_number"], "1234567890123456789012345678901234");
}

/// A tag that is too long still starts its transaction, and the id is the event's only addition.
#[tokio::test]
async fn a_start_with_an_odd_id_tag_has_its_transaction() {
    let scene = Scene::new(&["StartTransaction"]).await;
    let mut station = scene.station("S1").await;
    for (number, tag) in (1..).zip([r"\u000212345678901234567890", "123456789012345678901", ""]) {
        let payload = START.replace(r#""T""#, &format!(r#""{tag}""#));
        let answer = station.ok("StartTransaction", &payload).await;
        let id = answer["transactionId"].as_i64().expect("transactionId");
        let requests = scene.receiver.await_requests(number).await;
        let expected = payload.replace('}', &format!(r#","transactionId":{id}}}"#));
        assert!(
            requests[number - 1]
                .text()
                .ends_with(&format!("{expected}}}"))
        );
    }
}

/// [MicroOcpp#240]
#[tokio::test]
async fn a_long_batch_of_meter_values_arrives_whole() {
    let scene = Scene::new(&["MeterValues"]).await;
    let sample = |minute: u32| {
        json!({"timestamp": format!("2026-04-14T{:02}:{:02}:00Z", minute / 60, minute % 60), "sampledValue": [
            {"value": minute.to_string(), "context": "Sample.Periodic", "measurand": "Energy.Active.Import.Register", "unit": "Wh"},
            {"value": "16.0", "context": "Sample.Periodic", "measurand": "Current.Import", "phase": "L1", "unit": "A"},
        ]})
    };
    let values: Vec<Value> = (0..120).map(sample).collect();
    let batch = json!({"connectorId": 1, "transactionId": 7, "meterValue": values});
    assert!(batch.to_string().len() > 30_000);
    let mut station = scene.station("S1").await;
    assert_eq!(station.ok("MeterValues", &batch).await, json!({}));
    let request = scene.receiver.await_requests(1).await.remove(0);
    assert_eq!(request.json()["payload"], batch);
}

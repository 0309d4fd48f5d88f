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

/// Some count from 1 after every start, and some give every message the same id: only the CALL right
/// before can come again, for a station has one outstanding at a time.
#[tokio::test]
async fn a_message_id_that_is_used_again_is_a_new_message() {
    let scene = Scene::new(&["StatusNotification", "BootNotification", "Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    let status = |status: &str| json!({"connectorId": 1, "errorCode": "NoError", "status": status});
    for (number, word) in (1..).zip(["Available", "Charging", "Available"]) {
        station
            .call_as("1", "StatusNotification", status(word))
            .await
            .result();
        let requests = scene.receiver.await_requests(number).await;
        assert_eq!(requests[number - 1].json()["payload"]["status"], word);
        let known = scene.api.get("/stations/S1").await.expect(200);
        assert_eq!(known["connectors"][0]["status"], word);
    }
    // One that was refused stood between the two, and one that is no CALL at all did not.
    station.call_as("2", "Bogus", "{}").await.error_code();
    station
        .call_as("1", "StatusNotification", status("Available"))
        .await
        .result();
    scene.receiver.await_requests(4).await;
    station.send(r#"[1,"x"]"#).await;
    station
        .call_as("1", "StatusNotification", status("Available"))
        .await
        .result();

    // What asks for the time gets the time that it is: the new event's.
    let boot = json!({"chargePointVendor": "V", "chargePointModel": "M"});
    let mut asked = 4;
    for (action, payload) in [("BootNotification", boot), ("Heartbeat", json!({}))] {
        for _ in 0..2 {
            let answer = station.call_as("1", action, &payload).await.result();
            asked += 1;
            let requests = scene.receiver.await_requests(asked).await;
            let event = requests[asked - 1].json();
            assert_eq!(event["event"], action);
            assert_eq!(answer["currentTime"], event["timestamp"], "{action}");
        }
    }
}

/// With a clock that begins in 1970 at every start, two transactions may well look the same.
#[tokio::test]
async fn a_start_like_one_that_was_stopped_is_another_transaction() {
    let mut scene = Scene::new(&["StartTransaction", "StopTransaction"]).await;
    let start = START.replace("2026-04-14T12:34:56Z", "1970-01-01T00:00:30Z");
    let mut known = Vec::new();
    for round in 0..3 {
        let mut station = scene.station("S1").await;
        let first = station.ok("StartTransaction", &start).await["transactionId"].clone();
        assert!(!known.contains(&first), "{first} was stopped");
        if round == 1 {
            drop(station);
            scene.crash().await;
            station = scene.station("S1").await;
        }
        // A real retry comes before the stop.
        let retried = station.call_as("again", "StartTransaction", &start).await;
        assert_eq!(retried.result()["transactionId"], first);
        let stop =
            json!({"transactionId": first, "meterStop": 9, "timestamp": "1970-01-01T01:00:00Z"});
        station.ok("StopTransaction", &stop).await;
        let path = format!("/transactions/{first}");
        let ended = scene.api.get(&path).await.expect(200);
        assert_eq!(ended["status"], "stopped");
        known.push(first);
        drop(station);
        if round == 1 {
            scene.crash().await;
        }
    }
    let stats = json!({"received": 6, "delivered": 6});
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

/// Which of the two a receiver would read, nobody knows: the id is the one that we gave.
#[tokio::test]
async fn a_start_that_brings_an_id_of_its_own_has_ours_alone() {
    let scene = Scene::new(&["StartTransaction"]).await;
    let mut station = scene.station("S1").await;
    let cases = [
        (r#"{"transactionId":7,"idTag":"T"}"#, r#"{"idTag":"T""#),
        (r#"{"idTag":"U", "transactionId" : 7 }"#, r#"{"idTag":"U""#),
        (
            r#"{"idTag":"T","transaction\u0049d":{"a":[1,2]},"transactionId":null,"meterStart":5}"#,
            r#"{"idTag":"T","meterStart":5"#,
        ),
        (r#"{"transactionId":7}"#, "{"),
    ];
    for (number, (payload, rest)) in (1..).zip(cases) {
        let answer = station.call_as("1", "StartTransaction", payload).await;
        let id = answer.result()["transactionId"].clone();
        let requests = scene.receiver.await_requests(number).await;
        let comma = if rest == "{" { "" } else { "," };
        let expected = format!(r#""payload":{rest}{comma}"transactionId":{id}}}}}"#);
        let text = requests[number - 1].text();
        assert!(text.ends_with(&expected), "{text}");
        // And it is known again under its message id.
        let again = station.call_as("1", "StartTransaction", payload).await;
        assert_eq!(again.result()["transactionId"], id);
    }
    let stats = json!({"received": cases.len(), "delivered": cases.len()});
    scene.api.await_stats(scene.webhook, stats).await;
}

/// Receivers and tools read JSON with a limit of their own, so nothing deeper may become an event.
#[tokio::test]
async fn what_is_nested_too_deeply_is_refused_before_it_is_an_event() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    let nested = |depth: usize| {
        let arrays = depth - 1;
        format!(
            r#"{{"]x\"[":{}{}}}"#,
            "[".repeat(arrays),
            "]".repeat(arrays)
        )
    };
    station.ok("Heartbeat", nested(64)).await;
    for payload in [nested(65), nested(150_000)] {
        let refused = station.call("Heartbeat", payload).await;
        assert_eq!(
            refused,
            Called::Error {
                code: "FormationViolation".to_owned(),
                description: "the payload is nested deeper than 64 levels".to_owned(),
            }
        );
    }
    // Breadth is no depth, and a bracket in a text is no bracket.
    let broad = format!(
        r#"{{"a":"{}","b":[{}0]}}"#,
        "[".repeat(500),
        "[],".repeat(500)
    );
    station.ok("Heartbeat", broad).await;
    let stats = json!({"received": 2, "delivered": 2});
    scene.api.await_stats(scene.webhook, stats).await;
    let listed = scene.ctl().line("events list -o yaml").await.ok();
    assert_eq!(listed.matches("Heartbeat").count(), 2, "{listed}");
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

//! Commands: what an API caller asks of a station, the station's answer, and the event.

use http::Method;
use pipelet_tests::{
    Answer, Api, Asked, Frame, Receiver, Reply, Request, Station,
    deadline::{eventually, within},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::scene::{Scene, daemon};

/// Every action that the central system sends, with a body that passes.
pub(crate) const ACTIONS: &[(&str, &str)] = &[
    ("CancelReservation", r#"{ "reservationId" : 7 }"#),
    (
        "ChangeAvailability",
        r#"{"type":"Operative","connectorId":1}"#,
    ),
    ("ChangeConfiguration", r#"{"value":"60","key":"K"}"#),
    ("ClearCache", "{}"),
    (
        "ClearChargingProfile",
        r#"{"id":1,"chargingProfilePurpose":"TxProfile"}"#,
    ),
    ("DataTransfer", r#"{"vendorId":"V","data":"\u00e4"}"#),
    (
        "GetCompositeSchedule",
        r#"{"duration":60,"connectorId":1,"chargingRateUnit":"W"}"#,
    ),
    ("GetConfiguration", r#"{"key":["B","A"]}"#),
    ("GetDiagnostics", r#"{"location":"ftp://h/d","retries":1}"#),
    ("GetLocalListVersion", "{}"),
    ("RemoteStartTransaction", r#"{"idTag":"T","connectorId":1}"#),
    ("RemoteStopTransaction", r#"{"transactionId":42}"#),
    (
        "ReserveNow",
        r#"{"reservationId":7,"idTag":"T","expiryDate":"2026-04-14T12:34:56Z","connectorId":1}"#,
    ),
    ("Reset", r#"{"type":"Soft"}"#),
    (
        "SendLocalList",
        r#"{"listVersion":1,"localAuthorizationList":[{"idTag":"T","idTagInfo":{"status":"Accepted"}}],"updateType":"Full"}"#,
    ),
    (
        "SetChargingProfile",
        r#"{"csChargingProfiles":{"stackLevel":0,"chargingProfileId":1,"chargingProfilePurpose":"TxDefaultProfile","chargingProfileKind":"Absolute","chargingSchedule":{"chargingRateUnit":"A","chargingSchedulePeriod":[{"startPeriod":0,"limit":16.0}]}},"connectorId":1}"#,
    ),
    (
        "TriggerMessage",
        r#"{"requestedMessage":"MeterValues","connectorId":1}"#,
    ),
    ("UnlockConnector", r#"{"connectorId":1}"#),
    (
        "UpdateFirmware",
        r#"{"retrieveDate":"2026-04-14T12:34:56Z","location":"https://h/f"}"#,
    ),
    ("CertificateSigned", r#"{"certificateChain":"PEM"}"#),
    (
        "DeleteCertificate",
        r#"{"certificateHashData":{"serialNumber":"7","hashAlgorithm":"SHA256","issuerNameHash":"a","issuerKeyHash":"b"}}"#,
    ),
    (
        "ExtendedTriggerMessage",
        r#"{"requestedMessage":"LogStatusNotification"}"#,
    ),
    (
        "GetInstalledCertificateIds",
        r#"{"certificateType":"CentralSystemRootCertificate"}"#,
    ),
    (
        "GetLog",
        r#"{"requestId":1,"logType":"SecurityLog","log":{"remoteLocation":"ftp://h/l"}}"#,
    ),
    (
        "InstallCertificate",
        r#"{"certificate":"PEM","certificateType":"ManufacturerRootCertificate"}"#,
    ),
    (
        "SignedUpdateFirmware",
        r#"{"requestId":1,"firmware":{"location":"https://h/f","retrieveDateTime":"2026-04-14T12:34:56Z","signingCertificate":"PEM","signature":"s"}}"#,
    ),
];

async fn post(api: &Api, path: &str, body: &str) -> Reply {
    let json = Some("application/json");
    api.send(Method::POST, path, json, body.to_owned()).await
}

/// Asks in the background.
fn ask(api: &Api, path: &str, body: &str) -> tokio::task::JoinHandle<Reply> {
    let (api, path, body) = (api.clone(), path.to_owned(), body.to_owned());
    tokio::spawn(async move { post(&api, &path, &body).await })
}

/// Answers the next CALL, which must be this one.
async fn answer_next(station: &mut Station, action: &str, answer: &str) -> Asked {
    let asked = station.asked().await;
    assert_eq!(asked.action, action);
    station.answer(&asked, answer).await;
    asked
}

fn event_bodies(receiver: &Receiver) -> Vec<Value> {
    let requests = receiver.requests();
    requests.iter().map(Request::json).collect()
}

#[tokio::test]
async fn every_action_is_sent_answered_and_an_event() {
    assert_eq!(ACTIONS.len(), 19 + 7);
    let actions: Vec<&str> = ACTIONS.iter().map(|(action, _)| *action).collect();
    let scene = Scene::new(&actions).await;
    let mut station = scene.station("S1").await;
    station.boot().await;
    for (number, (action, body)) in (1..).zip(ACTIONS) {
        let reply = ask(&scene.api, &format!("/stations/S1/commands/{action}"), body);
        let answer = format!(r#"{{"z": {number}.50,"a":"é"}}"#);
        let asked = answer_next(&mut station, action, &answer).await;
        assert_eq!(asked.payload, *body, "{action} goes out as it was given");
        assert!(asked.id.len() <= 36, "{}", asked.id);
        let reply = reply.await.expect("a reply");
        assert_eq!(reply.status, 200, "{action}: {}", reply.text);
        assert_eq!(
            reply.text,
            format!(r#"{{"status":"answered","payload":{answer}}}"#)
        );
        let event = scene
            .receiver
            .await_request(action, |request| request.json()["event"] == *action)
            .await;
        assert!(
            event.text().ends_with(&format!(r#","payload":{body}}}"#)),
            "{}",
            event.text()
        );
        assert_eq!(event.json()["station_id"], "S1");
        assert_eq!(event.id(), asked.id, "the event has the CALL's id");
    }
    scene
        .api
        .await_stats(scene.webhook, json!({"delivered": ACTIONS.len()}))
        .await;
}

#[tokio::test]
async fn a_local_list_goes_out_in_the_standards_order() {
    let scene = Scene::new(&["SendLocalList"]).await;
    let mut station = scene.station("S1").await;
    let body = r#"{"updateType":"Full","localAuthorizationList":[],"listVersion":3}"#;
    let reply = ask(&scene.api, "/stations/S1/commands/SendLocalList", body);
    let asked = answer_next(&mut station, "SendLocalList", r#"{"status":"Accepted"}"#).await;
    let ordered = r#"{"listVersion":3,"localAuthorizationList":[],"updateType":"Full"}"#;
    assert_eq!(asked.payload, ordered);
    reply.await.expect("a reply").expect(200);
    let event = &scene.receiver.await_requests(1).await[0];
    assert!(event.text().ends_with(&format!("{ordered}}}")));
}

#[tokio::test]
async fn what_is_wrong_is_refused_before_it_leaves() {
    let scene = Scene::new(&["*"]).await;
    let api = &scene.api;
    let reset = r#"{"type":"Soft"}"#;
    let reply = post(api, "/stations/S1/commands/Reset", reset).await;
    assert_eq!(reply.expect(404)["code"], "no_such_station");
    let mut station = scene.station("S1").await;
    station.boot().await;

    for action in ["Nonsense", "reset", "Heartbeat", "StationConnected"] {
        let reply = post(api, &format!("/stations/S1/commands/{action}"), "{}").await;
        assert_eq!(reply.expect(404)["code"], "no_such_action", "{action}");
    }
    let wrong = r#"{"connectorId":"1","expiryDate":"soon","idTag":"123456789012345678901","x":1}"#;
    let reply = post(api, "/stations/S1/commands/ReserveNow", wrong).await;
    let faults = reply.expect(422)["errors"].clone();
    let faults: Vec<(&str, &str)> = faults
        .as_array()
        .expect("errors")
        .iter()
        .map(|fault| {
            let text = |key: &str| fault[key].as_str().expect("text");
            (text("pointer"), text("code"))
        })
        .collect();
    assert_eq!(
        faults,
        [
            ("/connectorId", "wrong_type"),
            ("/expiryDate", "invalid_value"),
            ("/idTag", "invalid_value"),
            ("/reservationId", "required"),
            ("/x", "unknown_field"),
        ]
    );
    for (path, body, status) in [
        ("/stations/S1/commands/Reset", "[]", 400),
        ("/stations/S1/commands/Reset", "{", 400),
        ("/stations/S1/commands/Reset?timeout=0s", reset, 422),
        ("/stations/S1/commands/Reset?timeout=11m", reset, 422),
        ("/stations/S1/commands/Reset?patience=1s", reset, 422),
    ] {
        post(api, path, body).await.expect(status);
    }
    let plain = api
        .send(
            Method::POST,
            "/stations/S1/commands/Reset",
            None,
            reset.to_owned(),
        )
        .await;
    plain.expect(415);

    // Nothing of all this has reached the station, and nothing is an event.
    station.ok("Heartbeat", "{}").await;
    station.close().await;
    let state = || async { api.get("/stations/S1").await.expect(200) };
    eventually("S1 to be gone", state, |known| known["connected"] == false).await;
    let reply = post(api, "/stations/S1/commands/Reset", reset).await;
    assert_eq!(reply.expect(409)["code"], "station_not_connected");
    let reply = api.post_empty("/stations/S1/disconnect").await;
    assert_eq!(reply.expect(409)["code"], "station_not_connected");
    scene.receiver.await_requests(4).await;
    let events: Vec<Value> = event_bodies(&scene.receiver)
        .into_iter()
        .map(|event| event["event"].clone())
        .collect();
    assert_eq!(
        events,
        [
            "StationConnected",
            "BootNotification",
            "Heartbeat",
            "StationDisconnected"
        ]
    );
}

#[tokio::test]
async fn a_callerror_is_an_answer_too() {
    let scene = Scene::new(&["UnlockConnector"]).await;
    let mut station = scene.station("S1").await;
    for (answer, expected) in [
        (
            r#""NotSupported","no lock",{"b":1,"a":2}"#,
            r#"{"code":"NotSupported","description":"no lock","details":{"b":1,"a":2}}"#,
        ),
        // Four elements, and the corrected spelling, which is the station's own.
        (
            r#""OccurrenceConstraintViolation","""#,
            r#"{"code":"OccurrenceConstraintViolation","description":"","details":{}}"#,
        ),
    ] {
        let body = r#"{"connectorId":1}"#;
        let reply = ask(&scene.api, "/stations/S1/commands/UnlockConnector", body);
        let asked = station.asked().await;
        station
            .send(format!(r#"[4,"{}",{answer}]"#, asked.id))
            .await;
        let reply = reply.await.expect("a reply");
        assert_eq!(reply.status, 200);
        assert_eq!(
            reply.text,
            format!(r#"{{"status":"error","error":{expected}}}"#)
        );
    }
    scene.receiver.await_requests(2).await;
}

/// Codes that the standard does not know tell an operator more than the one that stands for all.
#[tokio::test]
async fn a_stations_own_error_code_is_told_as_it_is() {
    let scene = Scene::new(&["Reset"]).await;
    let mut station = scene.station("S1").await;
    for code in ["VendorTimeout", "notsupported", "", "ä\"b"] {
        let reply = ask(
            &scene.api,
            "/stations/S1/commands/Reset",
            r#"{"type":"Soft"}"#,
        );
        let asked = station.asked().await;
        let answer = json!([4, asked.id, code, "the relay is stuck", {"relay": 2}]);
        station.send(answer.to_string()).await;
        let reply = reply.await.expect("a reply").expect(200);
        let error =
            json!({"code": code, "description": "the relay is stuck", "details": {"relay": 2}});
        assert_eq!(reply, json!({"status": "error", "error": error}));
    }
}

/// Nobody waits for what can't come any more, and the next command goes out at once.
#[tokio::test]
async fn an_answer_that_can_not_be_read_ends_the_command() {
    let scene = Scene::new(&["Reset"]).await;
    let mut station = scene.station("S1").await;
    let long = "x".repeat(5_000);
    let deep = format!(r#"[3,ID,{{"a":{}{}}}]"#, "[".repeat(64), "]".repeat(64));
    let answers = [
        "[3,ID,[]]",
        r#"[3,ID,"x"]"#,
        "[4,ID]",
        "[4,ID,null,null,null]",
        r#"[3,ID,{"status":"Acc"#,
        "[4,ID",
        &format!(r#"[3,ID,"{long}"]"#),
        "[3,ID,\"\u{9b}2J\u{202e}\"]",
        &deep,
    ];
    for (number, answer) in (1..).zip(answers) {
        let path = "/stations/S1/commands/Reset?timeout=10m";
        let reply = ask(&scene.api, path, r#"{"type":"Soft"}"#);
        let asked = station.asked().await;
        let next = ask(&scene.api, "/stations/S1/commands/ClearCache", "{}");
        let answer = answer.replace("ID", &format!("\"{}\"", asked.id));
        station.send(answer.as_str()).await;
        let problem = reply.await.expect("a reply").expect(502);
        assert_eq!(problem["code"], "malformed_answer", "{answer}");
        let detail = problem["detail"].as_str().expect("a detail");
        let came = answer.replace('\u{9b}', r"\u{9b}");
        let came = came.replace('\u{202e}', r"\u{202e}");
        assert!(detail.contains(&came[..came.len().min(100)]), "{detail}");
        assert!(detail.len() < 1_000, "{detail}");
        answer_next(&mut station, "ClearCache", "{}").await;
        next.await.expect("a reply").expect(200);
        // It was sent, so it is an event.
        scene.receiver.await_requests(number).await;
    }
    let told = ask(
        &scene.api,
        "/stations/S1/commands/Reset",
        r#"{"type":"Soft"}"#,
    );
    let asked = station.asked().await;
    // What answers something else ends nothing.
    station.send(r#"[3,"another",[]]"#).await;
    station.send("[3]").await;
    station.send(r#"[3,null,"x"]"#).await;
    station.answer(&asked, "{}").await;
    told.await.expect("a reply").expect(200);
}

#[tokio::test]
async fn silence_is_a_time_out_and_an_event() {
    let scene = Scene::new(&["ClearCache"]).await;
    let mut station = scene.station("S1").await;
    let path = "/stations/S1/commands/ClearCache?timeout=50ms";
    let reply = ask(&scene.api, path, "{}");
    let late = station.asked().await;
    assert_eq!(
        reply.await.expect("a reply").expect(504)["code"],
        "station_timeout"
    );
    let event = &scene.receiver.await_requests(1).await[0];
    assert_eq!(event.id(), late.id);

    // The late answer answers nothing else.
    let reply = ask(&scene.api, "/stations/S1/commands/ClearCache", "");
    let asked = station.asked().await;
    station.answer(&late, r#"{"status":"Rejected"}"#).await;
    station.answer(&asked, r#"{"status":"Accepted"}"#).await;
    let answer = reply.await.expect("a reply").expect(200);
    assert_eq!(answer["payload"]["status"], "Accepted");
    scene.receiver.await_requests(2).await;
}

#[tokio::test]
async fn commands_go_out_one_by_one_and_in_order() {
    let scene = Scene::new(&["ChangeConfiguration"]).await;
    let mut station = scene.station("S1").await;
    let path = "/stations/S1/commands/ChangeConfiguration";
    let body = |n: usize| format!(r#"{{"key":"K","value":"{n}"}}"#);
    let first = ask(&scene.api, path, &body(0));
    let outstanding = station.asked().await;

    // Whichever of these comes last finds the queue full.
    let mut waiting = JoinSet::new();
    for n in 1..=33 {
        let (api, body) = (scene.api.clone(), body(n));
        waiting.spawn(async move { post(&api, path, &body).await });
    }
    let refused = within("the queue to be full", waiting.join_next()).await;
    let refused = refused.expect("33 wait").expect("a reply");
    assert_eq!(refused.expect(429)["code"], "station_busy");

    // The two directions cross: the station is heard while it owes an answer.
    station.send(r#"[2,"h","Heartbeat",{}]"#).await;
    let Frame::Json(heartbeat) = station.next().await else {
        panic!("closed");
    };
    assert_eq!((&heartbeat[0], &heartbeat[1]), (&json!(3), &json!("h")));

    station
        .answer(&outstanding, r#"{"status":"Accepted"}"#)
        .await;
    first.await.expect("a reply").expect(200);
    let mut seen = Vec::new();
    for _ in 0..32 {
        let asked = answer_next(&mut station, "ChangeConfiguration", "{}").await;
        seen.push(asked.payload);
        let answered = within("its reply", waiting.join_next()).await;
        answered.expect("one waits").expect("a reply").expect(200);
    }
    assert!(waiting.join_next().await.is_none());
    let requests = scene.receiver.await_requests(33).await;
    let told: Vec<String> = requests[1..]
        .iter()
        .map(|request| request.json()["payload"].to_string())
        .collect();
    assert_eq!(told, seen, "the events are in the order of the CALLs");
}

#[tokio::test]
async fn a_caller_that_waits_in_vain_for_its_turn_has_sent_nothing() {
    let scene = Scene::new(&["ClearCache", "Reset"]).await;
    let mut station = scene.station("S1").await;
    let first = ask(&scene.api, "/stations/S1/commands/ClearCache", "{}");
    let outstanding = station.asked().await;
    let path = "/stations/S1/commands/Reset?timeout=20ms";
    let second = post(&scene.api, path, r#"{"type":"Hard"}"#).await;
    assert_eq!(second.expect(429)["code"], "station_busy");
    station.answer(&outstanding, "{}").await;
    first.await.expect("a reply").expect(200);
    let third = ask(&scene.api, "/stations/S1/commands/ClearCache", "{}");
    answer_next(&mut station, "ClearCache", "{}").await;
    third.await.expect("a reply").expect(200);
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_cancel_what_was_sent() {
    let scene = Scene::new(&["Reset"]).await;
    let mut station = scene.station("S1").await;
    let reply = ask(
        &scene.api,
        "/stations/S1/commands/Reset",
        r#"{"type":"Soft"}"#,
    );
    let asked = station.asked().await;
    reply.abort();
    assert!(reply.await.is_err(), "the caller has gone away");
    station.answer(&asked, r#"{"status":"Accepted"}"#).await;
    let event = &scene.receiver.await_requests(1).await[0];
    assert_eq!(event.id(), asked.id);
}

#[tokio::test]
async fn a_lost_connection_is_told_and_kept() {
    let scene = Scene::new(&["Reset", "StationDisconnected"]).await;
    let mut station = scene.station("S1").await;
    let path = "/stations/S1/commands/Reset";
    let asked = ask(&scene.api, path, r#"{"type":"Hard"}"#);
    let sent = station.asked().await;
    let queued = ask(&scene.api, path, r#"{"type":"Soft"}"#);
    drop(station);
    let replies = [asked.await, queued.await].map(|reply| reply.expect("a reply"));
    assert_eq!(replies[0].expect(504)["code"], "station_connection_lost");
    assert_eq!(replies[1].expect(409)["code"], "station_not_connected");
    let requests = scene.receiver.await_requests(2).await;
    assert_eq!(requests[0].id(), sent.id);
    assert_eq!(requests[1].json()["event"], "StationDisconnected");
}

#[tokio::test]
async fn what_the_caller_was_told_survives_a_crash() {
    let mut scene = Scene::new(&["Reset"]).await;
    scene.receiver.answer(Answer::Hang);
    let mut station = scene.station("S1").await;
    let path = "/stations/S1/commands/Reset";
    let reply = ask(&scene.api, path, r#"{"type":"Soft"}"#);
    let asked = answer_next(&mut station, "Reset", r#"{"status":"Accepted"}"#).await;
    reply.await.expect("a reply").expect(200);
    scene.receiver.await_requests(1).await;
    scene.receiver.answer(Answer::Status(200));
    scene.crash().await;
    let event = &scene.receiver.await_requests(2).await[1];
    assert_eq!(event.id(), asked.id);
}

#[tokio::test]
async fn a_station_repeats_its_data_transfer_after_ours() {
    let scene = Scene::new(&["DataTransfer"]).await;
    let mut station = scene.station("S1").await;
    let body = r#"{"vendorId":"V"}"#;
    let theirs = station.call_as("7", "DataTransfer", body).await;
    let reply = ask(&scene.api, "/stations/S1/commands/DataTransfer", body);
    answer_next(&mut station, "DataTransfer", r#"{"status":"Accepted"}"#).await;
    reply.await.expect("a reply").expect(200);
    // On a new connection, where only the station's state tells what came before.
    drop(station);
    let mut station = scene.station("S1").await;
    assert_eq!(station.call_as("7", "DataTransfer", body).await, theirs);
    scene
        .api
        .await_stats(scene.webhook, json!({"received": 2, "delivered": 2}))
        .await;
}

#[tokio::test]
async fn shortcuts_speak_ocpp() {
    let scene = Scene::new(&["Reset"]).await;
    let mut station = scene.station("S1").await;
    for (path, body, action, sent) in [
        ("reset", r#"{"type":"Hard"}"#, "Reset", r#"{"type":"Hard"}"#),
        (
            "availability",
            r#"{"type":"Inoperative","connector_id":0}"#,
            "ChangeAvailability",
            r#"{"connectorId":0,"type":"Inoperative"}"#,
        ),
        (
            "unlock",
            r#"{"connector_id":2}"#,
            "UnlockConnector",
            r#"{"connectorId":2}"#,
        ),
        (
            "transactions/start",
            r#"{"id_tag":"T"}"#,
            "RemoteStartTransaction",
            r#"{"idTag":"T"}"#,
        ),
        (
            "transactions/stop?timeout=5s",
            r#"{"transaction_id":42}"#,
            "RemoteStopTransaction",
            r#"{"transactionId":42}"#,
        ),
        (
            "trigger",
            r#"{"message":"StatusNotification","connector_id":1}"#,
            "TriggerMessage",
            r#"{"connectorId":1,"requestedMessage":"StatusNotification"}"#,
        ),
    ] {
        let reply = ask(&scene.api, &format!("/stations/S1/{path}"), body);
        let asked = answer_next(&mut station, action, r#"{"status":"Accepted"}"#).await;
        assert_eq!(asked.payload, sent, "{path}");
        reply.await.expect("a reply").expect(200);
    }

    let api = scene.api.clone();
    let reply =
        tokio::spawn(async move { api.get("/stations/S1/configuration?key=A&key=B").await });
    let answer = r#"{"configurationKey":[],"unknownKey":["A","B"]}"#;
    let asked = answer_next(&mut station, "GetConfiguration", answer).await;
    assert_eq!(asked.payload, r#"{"key":["A","B"]}"#);
    let reply = reply.await.expect("a reply").expect(200);
    assert_eq!(reply["payload"]["unknownKey"], json!(["A", "B"]));

    let api = scene.api.clone();
    let setting = json!({"key": "K", "value": "1"});
    let put = tokio::spawn(async move { api.put("/stations/S1/configuration", &setting).await });
    answer_next(&mut station, "ChangeConfiguration", "{}").await;
    put.await.expect("a reply").expect(200);

    let faulty = r#"{"connectorId":1,"type":5}"#;
    let reply = post(&scene.api, "/stations/S1/availability", faulty).await;
    let errors = reply.expect(422)["errors"].clone();
    let pointers: Vec<&Value> = errors
        .as_array()
        .expect("errors")
        .iter()
        .map(|fault| &fault["pointer"])
        .collect();
    assert_eq!(pointers, ["/connector_id", "/type", "/connectorId"]);
}

#[tokio::test]
async fn an_operator_ends_a_connection() {
    let scene = Scene::new(&["StationDisconnected"]).await;
    let mut station = scene.station("S1").await;
    scene
        .api
        .post_empty("/stations/S1/disconnect")
        .await
        .expect(202);
    assert_eq!(station.closed().await, Some(1000));
    let event = &scene.receiver.await_requests(1).await[0];
    assert_eq!(
        event.json()["payload"]["reason"],
        "disconnected_by_operator"
    );
    let mut station = scene.station("S1").await;
    scene.ctl().line("stations disconnect S1").await.ok();
    assert_eq!(station.closed().await, Some(1000));
}

#[tokio::test]
async fn the_tool_calls_too() {
    let scene = Scene::with(daemon(), &["RemoteStartTransaction"]).await;
    let ctl = scene.ctl();
    let run = |line: &str| {
        let (ctl, line) = (ctl.clone(), line.to_owned());
        tokio::spawn(async move { ctl.line(&line).await })
    };
    let unknown = run("stations call S1 Reset --param type=Soft").await;
    assert_eq!(unknown.expect("its output").code, 3);
    let mut station = scene.station("S1").await;

    let start = "stations call S1 RemoteStartTransaction --param connectorId=1 --param idTag=42";
    let output = run(&format!("-o json {start}"));
    let answer = r#"{"status":"Accepted"}"#;
    let asked = answer_next(&mut station, "RemoteStartTransaction", answer).await;
    assert_eq!(asked.payload, r#"{"connectorId":1,"idTag":"42"}"#);
    let output = output.await.expect("its output").ok();
    let shown: Value = serde_json::from_str(&output).expect("JSON");
    assert_eq!(
        shown,
        json!({"status": "answered", "payload": {"status": "Accepted"}})
    );

    let output = run(r#"stations call S1 Reset --json {"type":"Soft"}"#);
    let asked = station.asked().await;
    station
        .send(format!(r#"[4,"{}","NotSupported","never",{{}}]"#, asked.id))
        .await;
    let output = output.await.expect("its output");
    assert_eq!((output.code, output.stdout.as_str()), (1, ""));
    assert_eq!(
        output.stderr,
        "refused: the station answered NotSupported: never\n"
    );

    let input = {
        let ctl = ctl.clone();
        tokio::spawn(async move {
            let args = ["stations", "call", "S1", "Reset", "--json", "-"];
            ctl.run_with_input(&args, r#"{"type":"Hard"}"#).await
        })
    };
    answer_next(&mut station, "Reset", answer).await;
    let output = input.await.expect("its output").ok();
    assert_eq!(output, "{\n  \"status\": \"Accepted\"\n}\n");

    let faulty = run("stations call S1 Reset --param type=Warm --param x=1").await;
    let faulty = faulty.expect("its output");
    assert_eq!(faulty.code, 2);
    for fault in [
        "payload.type: must be one of",
        "payload.x: is not a known field",
    ] {
        assert!(faulty.stderr.contains(fault), "{}", faulty.stderr);
    }
    for action in ["Nonsense", "Heartbeat"] {
        let output = run(&format!("stations call S1 {action}")).await;
        assert_eq!(output.expect("its output").code, 2, "{action}");
    }

    let silent = run("stations call S1 ClearCache --timeout 100ms");
    station.asked().await;
    let silent = silent.await.expect("its output");
    assert_eq!(silent.code, 1, "{}", silent.stderr);
    assert!(
        silent.stderr.contains("station_timeout"),
        "{}",
        silent.stderr
    );

    station.close().await;
    let state = || async { scene.api.get("/stations/S1").await.expect(200) };
    eventually("S1 to be gone", state, |known| known["connected"] == false).await;
    let gone = run("stations call S1 ClearCache")
        .await
        .expect("its output");
    assert_eq!(gone.code, 5, "{}", gone.stderr);
}

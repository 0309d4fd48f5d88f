//! What real chargers do that the standard does not say, one test for each kind.
//!
//! The names in brackets are the reports it was learnt from. Whatever is odd must be served,
//! must become the event that it is, and must not cost the next message anything.

use pipelet_tests::{
    Called, Frame, RawSocket, Receiver, Station,
    deadline::eventually,
    raw::{HANDSHAKE_KEY, first_byte},
};
use serde_json::{Value, json};

use crate::scene::{Scene, daemon};

const HEARTBEAT: &[u8] = br#"[2,"1","Heartbeat",{}]"#;
const START: &str =
    r#"{"connectorId":1,"idTag":"T","meterStart":7,"timestamp":"2026-04-14T12:34:56Z"}"#;

/// A request's head: the request line, and these headers beside a host.
fn head(target: &str, headers: &[&str]) -> String {
    let headers = headers.join("\r\n");
    format!("GET {target} HTTP/1.1\r\nHost: csms\r\n{headers}\r\n\r\n")
}

const UPGRADE: &str = "Upgrade: websocket";
const CONNECTION: &str = "Connection: Upgrade";
const VERSION: &str = "Sec-WebSocket-Version: 13";
const PROTOCOL: &str = "Sec-WebSocket-Protocol: ocpp1.6";

#[tokio::test]
async fn a_handshake_that_is_clear_enough_is_taken() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let key = format!("Sec-WebSocket-Key: {HANDSHAKE_KEY}");
    let lower_key = format!("sec-websocket-key:{HANDSHAKE_KEY}");
    let all: &[&str] = &[UPGRADE, CONNECTION, VERSION, PROTOCOL, &key];
    let url = format!("ws://{}/ocpp/absolute-form", scene.daemon.ocpp());
    let url_in_path = format!("/ws://{}/ocpp/inside-the-path", scene.daemon.ocpp());
    let cases: &[(&str, &[&str], &str, Option<&str>)] = &[
        // No subprotocol at all [Grizzl-E: lbbrhzn/ocpp#442, steve#1109].
        (
            "/ocpp/grizzl-e",
            &[UPGRADE, CONNECTION, VERSION, &key],
            "grizzl-e",
            None,
        ),
        // No `Connection` header [lbbrhzn/ocpp#1933], or one that says something else too.
        (
            "/ocpp/unconnected",
            &[UPGRADE, VERSION, PROTOCOL, &key],
            "unconnected",
            Some("ocpp1.6"),
        ),
        (
            "/ocpp/kept-alive",
            &[
                UPGRADE,
                "Connection: keep-alive, Upgrade",
                VERSION,
                PROTOCOL,
                &key,
            ],
            "kept-alive",
            Some("ocpp1.6"),
        ),
        // Names and values in another case, without a space.
        (
            "/ocpp/lower-case",
            &[
                "upgrade:WebSocket",
                "connection:upgrade",
                "sec-websocket-version:13",
                "sec-websocket-protocol:OCPP1.6",
                &lower_key,
            ],
            "lower-case",
            Some("OCPP1.6"),
        ),
        // Ids that need escapes [citrineos-core#1093], or look as if they did.
        ("/ocpp/A%20B", all, "A B", Some("ocpp1.6")),
        ("/ocpp/A%7CB", all, "A|B", Some("ocpp1.6")),
        ("/ocpp/A%7cC", all, "A|C", Some("ocpp1.6")),
        ("/ocpp/_A_B-C_", all, "_A_B-C_", Some("ocpp1.6")),
        // Slashes too many [lbbrhzn/ocpp#1078].
        ("/ocpp//doubled", all, "doubled", Some("ocpp1.6")),
        ("//ocpp/doubled-too", all, "doubled-too", Some("ocpp1.6")),
        ("/ocpp/trailing/", all, "trailing", Some("ocpp1.6")),
        // A whole URL for a path [OpenEMS#1401].
        (&url, all, "absolute-form", Some("ocpp1.6")),
        (&url_in_path, all, "inside-the-path", Some("ocpp1.6")),
        ("/ocpp/queried?x=1", all, "queried", Some("ocpp1.6")),
    ];
    for (number, (target, headers, id, subprotocol)) in (1..).zip(cases) {
        let mut socket = RawSocket::connect(scene.daemon.ocpp()).await;
        let answer = socket.shake_hands(&head(target, headers)).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{target}: {answer}");
        let agreed = answer
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: "));
        assert_eq!(agreed, *subprotocol, "{target}");
        socket.frame(first_byte::TEXT, HEARTBEAT).await;
        let called = socket.next_json().await.expect(target);
        assert_eq!((&called[0], &called[1]), (&json!(3), &json!("1")));
        let requests = scene.receiver.await_requests(number).await;
        assert_eq!(requests[number - 1].json()["station_id"], *id, "{target}");
    }
}

/// A modem cuts and glues as it likes, and some chargers speak before the handshake's answer.
#[tokio::test]
async fn what_comes_in_pieces_or_all_at_once_is_read() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let key = format!("Sec-WebSocket-Key: {HANDSHAKE_KEY}");
    let request = head("/ocpp/S1", &[UPGRADE, CONNECTION, VERSION, PROTOCOL, &key]);

    let mut glued = RawSocket::connect(scene.daemon.ocpp()).await;
    glued.write(request.as_bytes()).await;
    glued.frame(first_byte::TEXT, HEARTBEAT).await;
    let answer = glued.shake_hands("").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert_eq!(glued.next_json().await.expect("an answer")[0], 3);

    let mut cut = RawSocket::connect(scene.daemon.ocpp()).await;
    for byte in request.as_bytes() {
        cut.write(&[*byte]).await;
    }
    let answer = cut.shake_hands("").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let (one, rest) = HEARTBEAT.split_at(3);
    let (two, three) = rest.split_at(8);
    cut.frame(first_byte::TEXT_BEGINS, one).await;
    cut.frame(first_byte::PING, b"amid a message").await;
    cut.frame(first_byte::GOES_ON, two).await;
    cut.frame(first_byte::ENDS, three).await;
    assert_eq!(cut.next_json().await.expect("an answer")[0], 3);
    scene.receiver.await_requests(2).await;
}

/// [lbbrhzn/ocpp#2012]: some look for a few seconds whether anybody is there, and then connect.
#[tokio::test]
async fn a_probe_before_the_real_connection_is_no_matter() {
    let scene = Scene::new(&["StationConnected", "StationDisconnected", "Heartbeat"]).await;
    let ocpp = scene.daemon.ocpp();
    drop(RawSocket::connect(ocpp).await);
    let mut half = RawSocket::connect(ocpp).await;
    half.write(b"GET /ocpp/S1 HTTP/1.1\r\nHost: cs").await;
    drop(half);
    drop(RawSocket::open(ocpp, "S1").await);
    let mut station = scene.station("S1").await;
    station.ok("Heartbeat", "{}").await;

    let told = |receiver: &Receiver| -> Vec<String> {
        let requests = receiver.requests();
        let kinds = requests.iter().map(|r| r.json()["event"].clone());
        kinds
            .map(|kind| kind.as_str().expect("a name").to_owned())
            .collect()
    };
    scene
        .receiver
        .await_request("a heartbeat", |r| r.json()["event"] == "Heartbeat")
        .await;
    // The probe's end may have been seen before the real connection came, or not at all.
    let told = told(&scene.receiver);
    let heard = told.last().expect("events");
    assert_eq!(heard, "Heartbeat", "{told:?}");
    let known = scene.api.get("/stations/S1").await.expect(200);
    assert_eq!(known["connected"], true, "{told:?}");
}

#[tokio::test]
async fn a_frame_that_is_none_costs_no_other_frame_anything() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    let broken = Some("FormationViolation");
    let cases = [
        // CALLERROR with four elements, and a CALLRESULT for nobody [lbbrhzn/ocpp#899].
        (r#"[4,"x","NotSupported",""]"#, None),
        (r#"[4,"x","NotSupported","",{}]"#, None),
        (r#"[3,"x",{}]"#, None),
        // Message types from elsewhere [OCPP.Core#16].
        (r#"[1,"x","Heartbeat",{}]"#, None),
        (r"[1]", None),
        // A frame that was cut off [lbbrhzn/ocpp#442].
        (r#"[2,"x","MeterValues",{"connectorId":1,"met"#, broken),
        (r#"[2,"x","Heartbeat",{}"#, broken),
        ("", broken),
    ];
    for (number, (frame, code)) in (1..).zip(cases) {
        station.send(frame).await;
        if let Some(code) = code {
            let Frame::Json(answer) = station.next().await else {
                panic!("closed after {frame}");
            };
            assert_eq!((&answer[0], &answer[2]), (&json!(4), &json!(code)));
        }
        // Its answer is the next frame: the one before it got what it had to get, and no more.
        station.ok("Heartbeat", "{}").await;
        scene.receiver.await_requests(number).await;
    }
}

/// [ocpp-go#358] RFC 6455, section 5.2 leaves no choice but to fail the connection: who sets the
/// bit may have compressed what follows. The charger dials again, and all is well.
#[tokio::test]
async fn a_reserved_bit_ends_the_connection_with_a_reason() {
    let scene = Scene::new(&["StationDisconnected"]).await;
    let mut socket = RawSocket::open(scene.daemon.ocpp(), "S1").await;
    socket.frame(first_byte::TEXT, HEARTBEAT).await;
    socket.next_json().await.expect("an answer");
    socket
        .frame(first_byte::TEXT | first_byte::RSV1, HEARTBEAT)
        .await;
    assert_eq!(socket.closed().await, Some(1002));
    let gone = scene.receiver.await_requests(1).await.remove(0);
    assert_eq!(gone.json()["payload"]["reason"], "protocol_violation");
    scene.station("S1").await.ok("Heartbeat", "{}").await;
}

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

/// [ts-ocpp#19, ocpp-go#314]
#[tokio::test]
async fn the_newest_socket_speaks_for_its_station_whatever_the_old_one_does() {
    let scene = Scene::new(&["StationConnected", "StationDisconnected", "Heartbeat"]).await;
    let mut old = RawSocket::open(scene.daemon.ocpp(), "S1").await;
    scene.receiver.await_requests(1).await;
    let mut new = scene.station("S1").await;
    scene.receiver.await_requests(2).await;
    assert_eq!(old.closed().await, Some(1000));
    drop(old);
    new.ok("Heartbeat", "{}").await;
    let known = scene.api.get("/stations/S1").await.expect(200);
    assert_eq!(known["connected"], true);
    new.close().await;

    let told = scene.receiver.await_requests(4).await;
    let told: Vec<Value> = told.iter().map(|r| r.json()["event"].clone()).collect();
    let expected = [
        "StationConnected",
        "StationConnected",
        "Heartbeat",
        "StationDisconnected",
    ];
    assert_eq!(told, expected);
}

/// [lbbrhzn/ocpp#211]
#[tokio::test]
async fn who_never_answers_a_ping_but_speaks_is_alive() {
    let builder = daemon()
        .flag("--ping-interval", "100ms")
        .flag("--heartbeat-interval", "1s");
    let scene = Scene::with(builder, &["StationDisconnected"]).await;
    let mut socket = RawSocket::open(scene.daemon.ocpp(), "S1").await;
    let started = std::time::Instant::now();
    let mut pings = 0;
    // Three heartbeats that stay away would be its end.
    while started.elapsed().as_millis() < 3_500 {
        let frame = socket.next().await.expect("an open connection");
        if frame.first_byte != first_byte::PING {
            continue;
        }
        pings += 1;
        if pings % 5 == 0 {
            socket.frame(first_byte::TEXT, HEARTBEAT).await;
        }
    }
    assert!(pings >= 10, "{pings} pings");
    let known = scene.api.get("/stations/S1").await.expect(200);
    assert_eq!(known["connected"], true);
    assert_eq!(scene.receiver.count(), 0);
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

/// A station that is gone without a word is not connected for long.
#[tokio::test]
async fn a_socket_that_breaks_off_is_noticed() {
    let scene = Scene::new(&["StationDisconnected"]).await;
    drop(Station::connect(scene.daemon.ocpp(), "S1").await);
    let gone = scene.receiver.await_requests(1).await.remove(0);
    assert_eq!(gone.json()["payload"]["reason"], "connection_lost");
    let state = || async { scene.api.get("/stations/S1").await.expect(200) };
    eventually("S1 to be gone", state, |known| known["connected"] == false).await;
}

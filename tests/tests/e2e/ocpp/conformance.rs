//! The station's side: what OCPP 1.6J demands. What real chargers do instead is in `quirks`.

use pipelet_tests::{Called, Frame, Station};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::scene::{Scene, daemon};

fn start(meter: u32) -> Value {
    json!({"connectorId": 1, "idTag": "T", "meterStart": meter, "timestamp": "2026-04-14T12:34:56Z"})
}

#[tokio::test]
async fn the_ten_actions_are_answered() {
    let scene = Scene::with(daemon().flag("--heartbeat-interval", "77s"), &["*"]).await;
    let mut station = scene.station("S1").await;
    assert_eq!(station.handshake().status, 101);
    assert_eq!(station.handshake().subprotocol.as_deref(), Some("ocpp1.6"));

    let boot = station.boot().await;
    assert_eq!(
        (&boot["status"], &boot["interval"]),
        (&json!("Accepted"), &json!(77))
    );
    let accepted = json!({"idTagInfo": {"status": "Accepted"}});
    let heartbeat = station.ok("Heartbeat", "{}").await;
    for time in [&boot["currentTime"], &heartbeat["currentTime"]] {
        let time = time.as_str().expect("currentTime");
        assert!(
            time.ends_with('Z') && time.parse::<jiff::Timestamp>().is_ok(),
            "{time}"
        );
    }
    assert_eq!(
        station.ok("Authorize", json!({"idTag": "T"})).await,
        accepted
    );
    let started = station.ok("StartTransaction", start(1)).await;
    assert_eq!(started["idTagInfo"]["status"], "Accepted");
    let id = started["transactionId"].as_i64().expect("transactionId");
    let values = json!([{"timestamp": "2026-04-14T12:35:00Z", "sampledValue": [{"value": "1"}]}]);
    let stop = json!({"transactionId": id, "meterStop": 2, "timestamp": "2026-04-14T13:00:00Z"});
    let mut tagged = stop.clone();
    tagged["idTag"] = json!("T");
    let cases = [
        (
            "MeterValues",
            json!({"connectorId": 1, "transactionId": id, "meterValue": values}),
            json!({}),
        ),
        ("StopTransaction", tagged, accepted),
        ("StopTransaction", stop, json!({})),
        (
            "StatusNotification",
            json!({"connectorId": 1, "errorCode": "NoError", "status": "Available"}),
            json!({}),
        ),
        (
            "DataTransfer",
            json!({"vendorId": "acme"}),
            json!({"status": "Accepted"}),
        ),
        (
            "DiagnosticsStatusNotification",
            json!({"status": "Uploaded"}),
            json!({}),
        ),
        (
            "FirmwareStatusNotification",
            json!({"status": "Installed"}),
            json!({}),
        ),
    ];
    for (action, payload, expected) in cases {
        assert_eq!(station.ok(action, payload).await, expected, "{action}");
    }
}

#[tokio::test]
async fn what_is_odd_is_answered_and_forwarded() {
    let scene = Scene::new(&[
        "StartTransaction",
        "StopTransaction",
        "StatusNotification",
        "BootNotification",
    ])
    .await;
    let mut station = scene.station("S1").await;
    let long = "x".repeat(40);
    let cases = [
        (
            "StopTransaction",
            json!({"transactionId": -1, "meterStop": 2, "timestamp": "2026-04-14T13:00:00Z"}),
        ),
        (
            "StopTransaction",
            json!({"transactionId": i64::MAX, "meterStop": 2, "timestamp": "2026-04-14T13:00:00+02"}),
        ),
        ("StopTransaction", json!({})),
        (
            "StatusNotification",
            json!({"connectorId": 1, "errorCode": "Error", "status": "Available"}),
        ),
        (
            "BootNotification",
            json!({
                "chargePointVendor": long, "chargePointModel": long, "chargePointSerialNumber": long, "extra": 1,
            }),
        ),
        (
            "StartTransaction",
            json!({"connectorId": 1, "idTag": format!("{long}\u{1}"), "meterStart": 0}),
        ),
        ("StartTransaction", json!({})),
        (
            "StartTransaction",
            json!({"connectorId": "one", "idTag": 5, "meterStart": "x", "timestamp": 1}),
        ),
    ];
    for (number, (action, payload)) in (1..).zip(cases) {
        let answer = station.ok(action, &payload).await;
        if action == "StartTransaction" {
            assert!(answer["transactionId"].is_i64(), "{answer}");
            assert!(answer["idTagInfo"]["status"].is_string(), "{answer}");
        }
        let requests = scene.receiver.await_requests(number).await;
        assert_eq!(requests[number - 1].header("pipelet-event"), Some(action));
    }
}

#[tokio::test]
async fn what_can_not_be_understood_gets_its_error_and_the_connection_lives() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    let cases = [
        (r#"[2,"a","NoSuchAction",{}]"#, "a", "NotImplemented"),
        (r#"[2,"b","heartbeat",{}]"#, "b", "NotImplemented"),
        (
            r#"[2,"c","RemoteStartTransaction",{}]"#,
            "c",
            "NotSupported",
        ),
        (r#"[2,"d","Heartbeat",[]]"#, "d", "FormationViolation"),
        (r#"[2,"e","Heartbeat",{"#, "-1", "FormationViolation"),
        ("no JSON at all", "-1", "FormationViolation"),
        ("{}", "-1", "FormationViolation"),
        ("[]", "-1", "FormationViolation"),
        ("[2]", "-1", "FormationViolation"),
        (r#"[2,"f"]"#, "f", "FormationViolation"),
    ];
    for (frame, id, code) in cases {
        station.send(frame).await;
        let Frame::Json(answer) = station.next().await else {
            panic!("closed after {frame}");
        };
        assert_eq!(
            (&answer[0], &answer[1], &answer[2]),
            (&json!(4), &json!(id), &json!(code)),
            "{frame}"
        );
        assert!(answer[3].is_string() && answer[4].is_object(), "{answer}");
    }
    // Neither an answer to nothing nor an unknown message type is worth a word.
    for ignored in [
        r#"[3,"x",{}]"#,
        r#"[4,"x","GenericError",""]"#,
        r#"[1,"x"]"#,
        r#"[9,"x",{}]"#,
    ] {
        station.send(ignored).await;
    }
    station.ok("Heartbeat", "null").await;
    scene
        .api
        .await_stats(scene.webhook, json!({"received": 1, "delivered": 1}))
        .await;
}

#[tokio::test]
async fn subprotocols_are_negotiated_as_the_standard_says() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let ocpp = scene.daemon.ocpp();

    let mut none = Station::dial(ocpp, "/ocpp/grizzl-e", None)
        .await
        .expect("a handshake");
    assert_eq!(none.handshake().subprotocol, None);
    none.ok("Heartbeat", "{}").await;

    let mut among = Station::dial(ocpp, "/ocpp/S2", Some("ocpp2.0.1, ocpp1.6"))
        .await
        .expect("a handshake");
    assert_eq!(among.handshake().subprotocol.as_deref(), Some("ocpp1.6"));
    among.ok("Heartbeat", "{}").await;

    // 101 without the header, then a close: the client library may notice either first.
    match Station::dial(ocpp, "/ocpp/S3", Some("ocpp2.0.1")).await {
        Ok(mut station) => {
            station.closed().await;
        }
        Err(error) => assert!(matches!(error, tungstenite::Error::Protocol(_)), "{error}"),
    }
}

#[tokio::test]
async fn a_path_without_a_station_is_not_found() {
    let scene = Scene::new(&["Heartbeat"]).await;
    for path in ["/", "/ocpp", "/ocpp/", "/elsewhere/S1"] {
        let refused = Station::dial(scene.daemon.ocpp(), path, Some("ocpp1.6")).await;
        let Err(tungstenite::Error::Http(answer)) = refused else {
            panic!("{path}: {refused:?}");
        };
        assert_eq!(answer.status(), 404, "{path}");
    }
}

#[tokio::test]
async fn a_frame_has_at_most_a_mebibyte() {
    let scene = Scene::new(&["DataTransfer"]).await;
    let mut station = scene.station("S1").await;
    let frame = |bytes: usize| {
        let frame = format!(
            r#"[2,"1","DataTransfer",{{"vendorId":"v","data":"{}"}}]"#,
            ""
        );
        frame.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - frame.len())))
    };
    station.send(frame(1024 * 1024)).await;
    let Frame::Json(answer) = station.next().await else {
        panic!("closed after a frame of exactly 1 MiB");
    };
    assert_eq!(answer[0], 3, "{answer}");
    assert_eq!(scene.receiver.await_requests(1).await.len(), 1);

    station.send(frame(1024 * 1024 + 1)).await;
    assert_eq!(station.closed().await, Some(1009));
    scene.station("S1").await.ok("Heartbeat", "{}").await;
}

#[tokio::test]
async fn a_binary_frame_is_read_as_text_where_it_is_text() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    station
        .send_message(Message::binary(br#"[2,"1","Heartbeat",{}]"#.as_slice()))
        .await;
    assert!(matches!(station.next().await, Frame::Json(answer) if answer[0] == 3));
    station
        .send_message(Message::binary([0xff, 0xfe].as_slice()))
        .await;
    assert!(matches!(station.next().await, Frame::Json(answer) if answer[0] == 4));
    station.ok("Heartbeat", "{}").await;
}

#[tokio::test]
async fn a_message_id_of_any_kind_comes_back() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    let long = "i".repeat(64);
    assert!(matches!(
        station.call_as(&long, "Heartbeat", "{}").await,
        Called::Result(_)
    ));
    station.send(r#"[2,17,"Heartbeat",{}]"#).await;
    let Frame::Json(answer) = station.next().await else {
        panic!("closed after a number as message id");
    };
    assert_eq!((&answer[0], &answer[1]), (&json!(3), &json!(17)));
}

#[tokio::test]
async fn calls_that_are_sent_ahead_are_answered_in_their_order() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    for number in 0..50 {
        station
            .send(format!(r#"[2,"{number}","Heartbeat",{{}}]"#))
            .await;
    }
    for number in 0..50 {
        let Frame::Json(answer) = station.next().await else {
            panic!("closed at {number}");
        };
        assert_eq!(
            (&answer[0], &answer[1]),
            (&json!(3), &json!(number.to_string()))
        );
    }
    scene.receiver.await_requests(50).await;
}

#[tokio::test]
async fn at_shutdown_stations_are_closed_with_1001() {
    let mut scene = Scene::new(&["Heartbeat"]).await;
    let mut stations = vec![scene.station("S1").await, scene.station("S2").await];
    stations[0].ok("Heartbeat", "{}").await;
    scene.daemon.signal("INT").await;
    for station in &mut stations {
        assert_eq!(station.closed().await, Some(1001));
    }
    assert!(scene.daemon.ended().await.success());
}

#[tokio::test]
async fn a_second_signal_ends_the_daemon_at_once() {
    let builder = daemon()
        .flag("--shutdown-grace", "1h")
        .flag("--delivery-timeout", "1h");
    let mut scene = Scene::with(builder, &["Heartbeat"]).await;
    scene.receiver.answer(pipelet_tests::Answer::Hang);
    let mut station = scene.station("S1").await;
    station.ok("Heartbeat", "{}").await;
    scene.receiver.await_requests(1).await;
    scene.daemon.signal("TERM").await;
    station.closed().await;
    scene.daemon.signal("TERM").await;
    assert!(!scene.daemon.ended().await.success());
}

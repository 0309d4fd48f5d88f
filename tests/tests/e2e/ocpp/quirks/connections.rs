//! Quirks of handshakes, frames, and connections that come and go.

use pipelet_tests::{
    Frame, RawSocket, Receiver, Station,
    deadline::eventually,
    raw::{HANDSHAKE_KEY, first_byte},
};
use serde_json::{Value, json};

use crate::scene::{Scene, daemon};

const HEARTBEAT: &[u8] = br#"[2,"1","Heartbeat",{}]"#;

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

/// [ocpp-go#358] The bit says that what follows is compressed, which it is not.
#[tokio::test]
async fn a_bit_that_says_compressed_is_overlooked() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let mut socket = RawSocket::open(scene.daemon.ocpp(), "S1").await;
    for _ in 0..3 {
        socket
            .frame(first_byte::TEXT | first_byte::RSV1, HEARTBEAT)
            .await;
        assert_eq!(socket.next_json().await.expect("an answer")[0], 3);
    }
    scene.receiver.await_requests(1).await;
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

    // The old one's end is told before its successor.
    let told = scene.receiver.await_requests(5).await;
    let told: Vec<Value> = told.iter().map(|r| r.json()["event"].clone()).collect();
    let expected = [
        "StationConnected",
        "StationDisconnected",
        "StationConnected",
        "Heartbeat",
        "StationDisconnected",
    ];
    assert_eq!(told, expected);
    let requests = scene.receiver.requests();
    let ends = [1, 4].map(|at| requests[at].json()["payload"].clone());
    assert_eq!(ends[0]["reason"], "replaced");
    assert!(ends[0]["duration"].is_number(), "{}", ends[0]);
    assert_eq!(ends[1]["reason"], "closed_by_station");
}

#[tokio::test]
async fn every_connection_that_was_told_of_has_its_end() {
    let scene = Scene::new(&["StationConnected", "StationDisconnected"]).await;
    // All at once, so that they replace each other at any moment of their lives.
    let ocpp = scene.daemon.ocpp();
    let dials: Vec<_> = (0..30)
        .map(|_| tokio::spawn(Station::dial(ocpp, "/ocpp/S1", Some("ocpp1.6"))))
        .collect();
    let mut dialled = Vec::new();
    for dial in dials {
        // One that was replaced at once may have been too late for its own handshake.
        dialled.extend(dial.await.expect("a task that ends"));
    }
    drop(dialled);
    // The last connection's end is the last that is told: the state is left before, in one turn.
    let words = eventually(
        "as many ends as beginnings",
        || async {
            let events = scene.api.get("/events?limit=500").await.expect(200);
            let events = events["data"].as_array().expect("a list").clone();
            let words = events.iter().rev().map(|event| event["event"].clone());
            words.collect::<Vec<Value>>()
        },
        |words| {
            words
                .last()
                .is_some_and(|last| last == "StationDisconnected")
        },
    )
    .await;
    for pair in words.chunks(2) {
        assert_eq!(
            pair,
            ["StationConnected", "StationDisconnected"],
            "{words:?}"
        );
    }
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

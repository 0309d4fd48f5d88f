//! Addresses that open connections and never say who they are: whatever they do, those of other
//! addresses come in, and those that are in stay.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use pipelet_tests::{
    Dial, Frame, RawSocket, Station,
    deadline::{eventually, within},
    raw::HANDSHAKE_KEY,
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    scene::{Scene, ctl, daemon},
    security::profiles::Tls,
};

const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const NEIGHBOUR: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// Connections that begin like this, and go no further; another comes for each that was ended.
fn flood(flood: &mut JoinSet<()>, count: usize, to: SocketAddr, beginning: &'static [u8]) {
    for _ in 0..count {
        flood.spawn(async move {
            loop {
                let mut socket = RawSocket::connect_from(ATTACKER, to).await;
                socket.write_while_open(beginning).await;
                socket.ended().await;
            }
        });
    }
}

/// A station's handshake whose head does not come in one piece.
async fn connect_slowly(ocpp: SocketAddr, id: &str) -> RawSocket {
    let mut socket = RawSocket::connect_from(NEIGHBOUR, ocpp).await;
    socket.write(b"GET /ocpp/").await;
    let rest = format!(
        "{id} HTTP/1.1\r\nHost: csms\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: ocpp1.6\r\n\
         Sec-WebSocket-Key: {HANDSHAKE_KEY}\r\n\r\n"
    );
    let answer = socket.shake_hands(&rest).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    socket
}

/// More of them than there are turns, and none that time would end.
#[tokio::test]
async fn half_a_handshake_keeps_no_station_out() {
    const HELD: usize = 600;
    let tls = Tls::new();
    let patient = tls.daemon().flag("--ocpp-handshake-timeout", "1h");
    let scene = Scene::with(patient, &["Heartbeat"]).await;
    let (ocpp, ocpps) = (scene.daemon.ocpp(), scene.daemon.ocpps());
    let mut established = scene.station("ESTABLISHED").await;
    let mut attack = JoinSet::new();
    flood(&mut attack, HELD, ocpp, b"G");
    flood(&mut attack, 100, ocpps, b"\x16");
    for round in 0..5 {
        let mut station = connect_slowly(ocpp, &format!("SLOW{round}")).await;
        station.frame(0x81, br#"[2,"1","Heartbeat",{}]"#).await;
        assert!(station.next_json().await.is_some());
        let dial = Dial::new(ocpps, &format!("TLS{round}")).tls(tls.authority.trusting(None));
        let mut secure = dial.connect().await.expect("a handshake");
        secure.ok("Heartbeat", "{}").await;
        established.ok("Heartbeat", "{}").await;
    }
    // Behind the very address, whoever has its head ready is served.
    let head = format!(
        "GET /ocpp/SAME HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {HANDSHAKE_KEY}\r\n\r\n"
    );
    let mut same = RawSocket::connect_from(ATTACKER, ocpp).await;
    let answer = same.shake_hands(&head).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
}

/// The same where connections are few: those that say nothing are the first to go.
#[tokio::test]
async fn connections_that_say_nothing_keep_no_station_out() {
    let patient = daemon().flag("--ocpp-handshake-timeout", "1h");
    let scene = Scene::with(patient.flag("--max-connections", "20"), &["Heartbeat"]).await;
    let mut established = scene.station("ESTABLISHED").await;
    let mut attack = JoinSet::new();
    flood(&mut attack, 400, scene.daemon.ocpp(), b"");
    for round in 0..5 {
        let mut station = connect_slowly(scene.daemon.ocpp(), &format!("S{round}")).await;
        station.frame(0x81, br#"[2,"1","Heartbeat",{}]"#).await;
        assert!(station.next_json().await.is_some());
        established.ok("Heartbeat", "{}").await;
    }
    attack.shutdown().await;
    established.send(r#"[2,"last","Heartbeat",{}]"#).await;
    assert!(matches!(established.next().await, Frame::Json(_)));
}

#[tokio::test]
async fn half_a_request_keeps_no_caller_out() {
    let daemon = daemon().flag("--api-max-connections", "4").start().await;
    let mut attack = JoinSet::new();
    let half = b"GET /api/v1/webhooks HTTP/1.1\r\nHost: h\r\nX-Slow: ";
    flood(&mut attack, 150, daemon.http(), half);
    // A whole one without a key is no better.
    let strange = b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n";
    flood(&mut attack, 150, daemon.http(), strange);
    flood(&mut attack, 150, daemon.grpc(), b"PRI * HTTP/2.0\r\n");
    flood(
        &mut attack,
        150,
        daemon.grpc(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    );
    for _ in 0..5 {
        daemon.api().get("/webhooks").await.expect(200);
        ctl(&daemon).line("--timeout 25s status").await.ok();
    }
}

/// Those that stay can't be forgotten, and take no place of those that were agreed on.
#[tokio::test]
async fn strangers_that_stay_keep_no_registered_station_out() {
    let builder = daemon().flag("--max-stations", "3");
    let scene = Scene::with(builder, &["Heartbeat"]).await;
    let mut strangers = Vec::new();
    for name in ["A", "B", "C"] {
        strangers.push(scene.station(name).await);
    }
    assert_eq!(Dial::new(scene.daemon.ocpp(), "D").refused().await, 503);
    let registered = scene.api.put("/stations/OURS", &json!({})).await;
    registered.expect(201);
    scene.station("OURS").await.ok("Heartbeat", "{}").await;
    for stranger in &mut strangers {
        stranger.ok("Heartbeat", "{}").await;
    }
}

/// From its first byte to its last one, whatever comes in between.
#[tokio::test]
async fn a_handshake_has_an_end() {
    let scene = Scene::with(
        daemon().flag("--ocpp-handshake-timeout", "200ms"),
        &["Heartbeat"],
    )
    .await;
    let mut socket = RawSocket::connect_from(NEIGHBOUR, scene.daemon.ocpp()).await;
    socket.write(b"GET /ocpp/").await;
    let dripping = async {
        // A byte now and then buys no time.
        while socket.write_while_open(b"S").await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    within("the daemon to hang up", dripping).await;
    assert!(scene.daemon.log().contains("it took too long"));
}

/// As many stations as may be known, nearly all of them names that come once.
#[tokio::test]
async fn ever_new_names_keep_no_new_station_out() {
    const MOST: usize = 20;
    const BOOT: &str = r#"{"chargePointVendor":"Acme","chargePointModel":"Wallbox"}"#;
    let builder = daemon().flag("--max-stations", &MOST.to_string());
    let mut scene = Scene::with(builder, &["BootNotification"]).await;
    let entry = json!({});
    let registered = scene.api.put("/stations/REGISTERED", &entry).await;
    registered.expect(201);
    let come_and_go = async |ocpp, name: &str| Station::connect(ocpp, name).await.close().await;
    let ocpp = scene.daemon.ocpp();
    come_and_go(ocpp, "REGISTERED").await;
    let mut booted = scene.station("BOOTED").await;
    booted.ok("BootNotification", BOOT).await;
    let transaction = booted.start_transaction(5).await;
    booted.close().await;
    let mut connected = scene.station("CONNECTED").await;
    for number in 0..3 * MOST {
        come_and_go(ocpp, &format!("STRANGER{number}")).await;
    }
    let mut honest = scene.station("HONEST").await;
    honest.ok("BootNotification", BOOT).await;
    connected.ok("Heartbeat", "{}").await;

    let known = async |scene: &Scene| -> Vec<String> {
        let list = scene.api.get("/stations?limit=100").await.expect(200);
        let list = list["data"].as_array().expect("a list").clone();
        let id = |station: &Value| station["id"].as_str().expect("an id").to_owned();
        list.iter().map(id).collect()
    };
    let are_known = async |scene: &Scene, names: &[&str]| {
        let known = known(scene).await;
        for name in names {
            assert!(known.iter().any(|one| one == name), "{name}: {known:?}");
        }
        let booted = scene.api.get("/stations/BOOTED").await.expect(200);
        assert_eq!(booted["model"], "Wallbox");
        let open = &booted["open_transactions"][0]["transaction_id"];
        assert_eq!(open, &json!(transaction));
        known.len()
    };
    let names = ["BOOTED", "CONNECTED", "HONEST", "REGISTERED"];
    assert_eq!(are_known(&scene, &names).await, MOST);
    let forgotten = 3 * MOST + names.len() - MOST;
    let figures = scene.api.with_key(None).get("/metrics").await.text;
    let counted = format!("pipelet_stations_forgotten_total {forgotten}");
    assert!(figures.lines().any(|line| line == counted), "{figures}");
    let log = async || scene.daemon.log();
    eventually("a line of the log", log, |log| log.contains("is forgotten")).await;

    // It is as full after a crash, and new ones get in nonetheless.
    scene.crash().await;
    are_known(&scene, &names).await;
    let ocpp = scene.daemon.ocpp();
    let mut back = scene.station("CONNECTED").await;
    back.ok("Heartbeat", "{}").await;
    for number in 0..MOST {
        come_and_go(ocpp, &format!("LATE{number}")).await;
    }
    let mut other = scene.station("HONEST2").await;
    other.ok("BootNotification", BOOT).await;
    let names = ["BOOTED", "CONNECTED", "HONEST", "HONEST2", "REGISTERED"];
    assert_eq!(are_known(&scene, &names).await, MOST);

    // The store has forgotten them, too, but not who came back.
    come_and_go(ocpp, "STRANGER0").await;
    let before = known(&scene).await;
    assert!(scene.daemon.terminate().await.success());
    scene.start_again().await;
    assert_eq!(known(&scene).await, before);
    are_known(&scene, &["STRANGER0"]).await;
}

//! Connections that misbehave, alone and by the thousand.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{StreamExt as _, future::join_all, stream};
use pipelet_tests::{
    Daemon, RawSocket, Scrape, Station,
    deadline::eventually,
    process,
    raw::{
        first_byte::{self, CLOSE, GOES_ON, PING, RSV2, TEXT, TEXT_BEGINS},
        masked,
    },
    skip,
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::scene::{Scene, daemon};

const HEARTBEAT: &[u8] = br#"[2,"1","Heartbeat",{}]"#;
const MEBIBYTE: usize = 1024 * 1024;

/// What a connection is ended for, and what the daemon says then.
type Fault = (&'static str, Vec<(u8, Vec<u8>)>, u16, &'static str);

#[tokio::test]
async fn what_breaks_the_websockets_rules_is_ended_with_its_reason() {
    let half = || vec![b'x'; MEBIBYTE / 2 + 1];
    let faults: [Fault; 8] = [
        (
            "too long a frame",
            vec![(TEXT, vec![b'x'; MEBIBYTE + 1])],
            1009,
            "frame_too_large",
        ),
        (
            "too long in two frames",
            vec![(TEXT_BEGINS, half()), (GOES_ON, half())],
            1009,
            "frame_too_large",
        ),
        (
            "no UTF-8",
            vec![(TEXT, vec![b'"', 0xff, 0xfe, b'"'])],
            1007,
            "not_utf8",
        ),
        (
            "half a character",
            vec![(TEXT, vec![b'"', 0xc3])],
            1007,
            "not_utf8",
        ),
        (
            "a reserved bit",
            vec![(TEXT | RSV2, HEARTBEAT.to_vec())],
            1002,
            "protocol_violation",
        ),
        (
            "an unknown opcode",
            vec![(0x83, HEARTBEAT.to_vec())],
            1002,
            "protocol_violation",
        ),
        (
            "more of nothing",
            vec![(GOES_ON, HEARTBEAT.to_vec())],
            1002,
            "protocol_violation",
        ),
        (
            "a long close",
            vec![(CLOSE, vec![3; 200])],
            1002,
            "protocol_violation",
        ),
    ];
    let scene = Scene::new(&["StationDisconnected"]).await;
    for (number, (fault, frames, code, reason)) in (1..).zip(faults) {
        let mut socket = RawSocket::open(scene.daemon.ocpp(), "S1").await;
        socket.frame(TEXT, HEARTBEAT).await;
        socket
            .next_json()
            .await
            .expect("an answer before the fault");
        for (first_byte, payload) in frames {
            socket.frame(first_byte, &payload).await;
        }
        assert_eq!(socket.closed().await, Some(code), "{fault}");
        let told = scene.receiver.await_requests(number).await;
        let gone = told[number - 1].json();
        assert_eq!(gone["payload"]["reason"], reason, "{fault}: {gone}");
    }
    let log = scene.daemon.log();
    assert_eq!(log.matches("connection ended").count(), 8);
}

/// The announcement alone must not take the memory, nor wait for what never comes.
#[tokio::test]
async fn a_gigantic_frame_is_refused_by_its_header() {
    let scene = Scene::new(&["StationDisconnected"]).await;
    let before = scene.daemon.memory();
    let mut socket = RawSocket::open(scene.daemon.ocpp(), "S1").await;
    socket.announce(TEXT, 1 << 40).await;
    assert_eq!(socket.closed().await, Some(1009));
    let gone = scene.receiver.await_requests(1).await.remove(0);
    assert_eq!(gone.json()["payload"]["reason"], "frame_too_large");
    assert!(scene.daemon.memory() < before + (8 << 20));
}

#[tokio::test]
async fn binary_frames_are_no_reason_to_part() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let mut socket = RawSocket::open(scene.daemon.ocpp(), "S1").await;
    for (bytes, kind) in [
        (HEARTBEAT, 3),
        (&[0xff, 0x00, 0xfe], 4),
        (&[], 4),
        (HEARTBEAT, 3),
    ] {
        socket.frame(first_byte::BINARY, bytes).await;
        let answer = socket.next_json().await.expect("an open connection");
        assert_eq!(answer[0], kind, "{answer}");
    }
}

/// All messages together have a limit as long as their end has not come, and the largest goes.
#[tokio::test]
async fn unfinished_messages_have_a_limit_in_all() {
    let builder = daemon().flag("--ocpp-max-unfinished", "1MiB");
    let scene = Scene::with(builder, &["StationDisconnected"]).await;
    let begin = async |id: &str, first_byte: u8, length: usize| {
        let mut socket = RawSocket::open(scene.daemon.ocpp(), id).await;
        socket.announce(first_byte, length).await;
        // What is held counts, and so does what room was made for.
        socket.write(&vec![b' '; length / 2]).await;
        socket
    };
    let held = async |bytes: f64| {
        let scrape = || async { Scrape::of(scene.api.get("/metrics").await.text) };
        let is = |scrape: &Scrape| scrape.get("pipelet_unfinished_message_bytes") == Some(bytes);
        eventually("the bytes to be told", scrape, is).await
    };
    let mut whole = begin("WHOLE", first_byte::BINARY, 400_000).await;
    held(400_000.0).await;
    let mut parts = RawSocket::open(scene.daemon.ocpp(), "PARTS").await;
    parts.frame(TEXT_BEGINS, &vec![b' '; 250_000]).await;
    parts.frame(GOES_ON, &vec![b' '; 250_000]).await;
    held(900_000.0).await;
    // It would be too many, and is not the largest.
    let mut next = begin("NEXT", first_byte::BINARY, 200_000).await;
    assert_eq!(parts.closed().await, Some(1013));
    held(600_000.0).await;
    let told = scene.receiver.await_requests(1).await[0].json();
    assert_eq!(told["station_id"], "PARTS");
    assert_eq!(told["payload"]["reason"], "too_much_unfinished");
    // The others finish what they have begun, and go on.
    for (socket, left) in [(&mut whole, 200_000), (&mut next, 100_000)] {
        socket.write(&vec![b' '; left]).await;
        let answer = socket.next_json().await.expect("an open connection");
        assert_eq!(answer[0], 4, "{answer}");
        socket.frame(TEXT, HEARTBEAT).await;
        assert_eq!(socket.next_json().await.expect("an answer")[0], 3);
    }
    let scrape = held(0.0).await;
    let ended = |reason| {
        scrape.get(&format!(
            "pipelet_station_connections_ended_total{{reason=\"{reason}\"}}"
        ))
    };
    assert_eq!(ended("too_much_unfinished"), Some(1.0));
    assert_eq!(ended("silent"), Some(0.0));
}

/// Who is closed for an unfinished message, and takes no notice of it, holds nothing of it.
#[tokio::test]
async fn unfinished_messages_are_let_go_before_the_station_goes() {
    const STATIONS: usize = 800;
    const LIMIT: u64 = 32 << 20;
    let scene = Scene::new(&["Heartbeat"]).await;
    let message = vec![b' '; 900_000];
    // More handshakes at once than there are turns for would be cut short on a busy machine.
    let sockets = stream::iter(0..STATIONS)
        .map(async |number| RawSocket::open(scene.daemon.ocpp(), &format!("S{number}")).await);
    let mut sockets: Vec<_> = sockets.buffer_unordered(64).collect().await;
    join_all(sockets.iter_mut().map(async |socket| {
        socket.announce(TEXT_BEGINS, message.len()).await;
        socket.write_while_open(&message).await;
    }))
    .await;
    let peak = scene.daemon.peak_memory();
    // Connections and what they read in one go come beside.
    assert!(peak < 4 * LIMIT, "{} MiB", peak >> 20);
}

/// What a connection needed for a large message is gone with the message, and whatever came with
/// it or after it is read.
#[tokio::test]
async fn a_large_message_leaves_no_large_buffer() {
    const STATIONS: usize = 100;
    let scene = Scene::new(&["Heartbeat"]).await;
    let filler = "x".repeat(MEBIBYTE - 100);
    let large = format!(r#"[2,"large","NoSuchAction",{{"filler":"{filler}"}}]"#);
    let mut before = 0;
    let mut sockets = Vec::with_capacity(STATIONS);
    for number in 0..STATIONS {
        let mut socket = RawSocket::open(scene.daemon.ocpp(), &format!("S{number}")).await;
        let frames = [
            masked(TEXT, large.as_bytes()),
            masked(PING, b"beside"),
            masked(TEXT, HEARTBEAT),
        ];
        socket.write(&frames.concat()).await;
        let refused = socket.next_json().await.expect("an answer");
        assert_eq!(refused[2], "NotImplemented");
        let beside = socket.next().await.expect("a pong");
        assert_eq!(beside.first_byte, first_byte::PONG);
        assert_eq!(socket.next_json().await.expect("an answer")[0], 3);
        sockets.push(socket);
        if number == 10 {
            before = scene.daemon.memory();
        }
    }
    let after = scene.daemon.memory();
    assert!(after < before + (30 << 20), "{before}, then {after}");
}

/// Half-open sockets: nothing comes from the one, and nobody has closed it. The other has nothing
/// to say either, but its pongs show that it lives.
#[tokio::test]
async fn silence_ends_a_connection_and_a_pong_breaks_it() {
    let builder = daemon()
        .flag("--ping-interval", "1s")
        .flag("--heartbeat-interval", "1s");
    let scene = Scene::with(builder, &["StationDisconnected"]).await;
    let mut gone = RawSocket::open(scene.daemon.ocpp(), "GONE").await;
    let mut quiet = scene.station("QUIET").await;
    let told = tokio::select! {
        told = scene.receiver.await_requests(1) => told,
        frame = quiet.next() => panic!("{frame:?} for the quiet one"),
    };
    let told = told[0].json();
    assert_eq!(told["station_id"], "GONE");
    assert_eq!(told["payload"]["reason"], "silent");
    let known = scene.api.get("/stations/GONE").await.expect(200);
    assert_eq!(known["connected"], false);
    assert_eq!(gone.closed().await, Some(1001));
    quiet.ok("Heartbeat", "{}").await;
    assert_eq!(scene.receiver.count(), 1);
}

/// Who answers pings and then does not any more is gone long before heartbeats would have to come.
#[tokio::test]
async fn pings_that_go_unanswered_end_a_connection() {
    let builder = daemon().flag("--ping-interval", "200ms");
    let scene = Scene::with(builder, &["StationDisconnected"]).await;
    let mut socket = RawSocket::open(scene.daemon.ocpp(), "GONE").await;
    let ping = socket.next().await.expect("an open connection");
    assert_eq!(ping.first_byte, first_byte::PING);
    socket.frame(first_byte::PONG, &ping.payload).await;
    let told = scene.receiver.await_requests(1).await;
    assert_eq!(told[0].json()["payload"]["reason"], "silent");
    assert_eq!(socket.closed().await, Some(1001));
}

/// Three storms on one daemon: every station is served in each, a station from before is served
/// meanwhile, and what a storm has taken serves the next one.
#[tokio::test]
async fn two_thousand_stations_come_back_at_once() {
    /// In a build for tests, with what a boot leaves in caches: 11 to 15 KB were seen.
    const PER_CONNECTION: u64 = 24 * 1024;

    let stations = as_many_as_fit(2_000);
    let scene = Scene::new(&["BootNotification"]).await;
    let mut before = scene.station("BEFORE").await;
    before.ok("Heartbeat", "{}").await;
    let answered = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&answered);
    let before = tokio::spawn(async move {
        loop {
            before.ok("Heartbeat", "{}").await;
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut memory = vec![scene.daemon.memory()];
    for storm in 1..=3 {
        answered.store(0, Ordering::Relaxed);
        let ocpp = scene.daemon.ocpp();
        let coming: JoinSet<_> = (0..stations)
            .map(|number| async move { comes_back(ocpp, &format!("S{number}")).await })
            .collect();
        let there = coming.join_all().await;
        let meanwhile = answered.load(Ordering::Relaxed);
        // Once all others had theirs, it would be one.
        assert!(meanwhile > 1, "{meanwhile} answers for one of old");
        let last = format!("/stations/S{}", stations - 1);
        let known = scene.api.get(&last).await.expect(200);
        assert_eq!(known["connected"], true);
        scene
            .api
            .await_stats(scene.webhook, json!({"delivered": storm * stations}))
            .await;
        memory.push(scene.daemon.memory());
        // As when the uplink of a whole region fails: nobody says good-bye.
        drop(there);
    }
    assert!(!before.is_finished(), "one of old was let down");
    before.abort();
    let grown: Vec<_> = memory
        .windows(2)
        .map(|pair| pair[1].saturating_sub(pair[0]))
        .collect();
    assert!(
        grown[0] < stations as u64 * PER_CONNECTION,
        "grows by {grown:?} bytes"
    );
    // Caches go on filling for a while; connections that stay would cost all of it each time.
    assert!(
        grown[1].min(grown[2]) < grown[0] / 2,
        "grows by {grown:?} bytes"
    );
}

/// As chargers do: one that was crowded out tries again.
async fn comes_back(ocpp: SocketAddr, id: &str) -> Station {
    loop {
        let dialled = Station::dial(ocpp, &format!("/ocpp/{id}"), Some("ocpp1.6")).await;
        if let Ok(mut station) = dialled {
            station.boot().await;
            return station;
        }
    }
}

/// Stations beyond the limit wait, while those that are there, the API and the deliveries have
/// what they need.
#[tokio::test]
async fn stations_take_no_descriptor_from_the_rest() {
    const LIMIT: usize = 256;
    let home = tempfile::tempdir().expect("a temporary directory");
    let limited = home.path().join("pipeletd");
    let real = env!("CARGO_BIN_EXE_e2e-pipeletd");
    let script = format!("#!/bin/sh\nulimit -n {LIMIT}\nexec {real} \"$@\"\n");
    fs::write(&limited, script).expect("a script");
    fs::set_permissions(&limited, fs::Permissions::from_mode(0o755)).expect("a script to run");

    let scene = Scene::with(Daemon::builder(limited), &["Heartbeat"]).await;
    let mut station = scene.station("BEFORE").await;
    let mut crowd = Vec::with_capacity(LIMIT);
    for _ in 0..LIMIT {
        crowd.push(RawSocket::connect(scene.daemon.ocpp()).await);
    }
    station.ok("Heartbeat", "{}").await;
    scene.receiver.await_requests(1).await;
    scene.daemon.api().get("/readyz").await.expect(200);
    assert!(!scene.daemon.log().contains("could not be accepted"));

    drop(crowd);
    scene.station("AFTER").await.ok("Heartbeat", "{}").await;
}

/// As many as there may be, or fewer where the process may not have so many sockets. The daemon has
/// the limits of the one who starts it.
fn as_many_as_fit(stations: usize) -> usize {
    /// What a process opens beside its stations.
    const OTHERS: usize = 200;
    let limit = process::open_files();
    let fit = limit.saturating_sub(OTHERS);
    if fit < stations {
        skip(
            "sockets",
            format!(
                "{} of {stations} stations, `ulimit -n` is {limit}",
                stations - fit
            ),
        );
    }
    fit.min(stations)
}

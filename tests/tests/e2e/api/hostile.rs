//! Callers that mean no good: too slow, too many, or not speaking HTTP at all. Whatever comes, it
//! costs nobody else anything, and there is no 5xx and no panic.

use std::net::SocketAddr;

use bytes::Bytes;
use pipelet_tests::{Daemon, Rpc, deadline::within};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::scene::{Scene, ctl, daemon};

/// Stands for the status where nothing was answered.
const HUNG_UP: u16 = 0;

async fn connect(address: SocketAddr) -> TcpStream {
    within("a connection", TcpStream::connect(address))
        .await
        .expect("a connection")
}

/// Sends bytes, and returns all that comes until the connection's end.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address).await;
    // The daemon may have heard enough before all is sent; what it said matters.
    let _ = within("bytes to leave", stream.write_all(bytes)).await;
    let mut answer = Vec::new();
    let _ = within("the connection's end", stream.read_to_end(&mut answer)).await;
    answer
}

/// A request with these lines behind its first one, after which the connection ends.
fn request(first: &str, lines: &[&str], body: &str) -> Vec<u8> {
    let mut text = format!("{first} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n");
    for line in lines {
        text.extend([line, "\r\n"]);
    }
    text.extend(["\r\n", body]);
    text.into_bytes()
}

/// The status of an answer, and its body.
fn parts(answer: &[u8]) -> (u16, String) {
    let text = String::from_utf8_lossy(answer);
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    let (_, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    (status.unwrap_or(HUNG_UP), body.to_owned())
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one entry for each case")]
async fn what_is_asked_in_bad_faith_is_refused_as_a_problem() {
    let daemon = daemon().start().await;
    let key = format!("X-API-Key: {}", daemon.key());
    let json = "Content-Type: application/json";
    let with_body = |first: &str, body: &str| {
        let length = format!("Content-Length: {}", body.len());
        request(first, &[&key, json, &length], body)
    };
    let deep = format!(
        "{{\"name\":{}1{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let wide = format!("{{\"name\":\"n\"{}}}", ",\"x\":1".repeat(50_000));
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        (
            "no method of HTTP's",
            request("BREW /api/v1/webhooks", &[&key], ""),
            &[405],
        ),
        (
            "TRACE",
            request("TRACE /api/v1/webhooks", &[&key], ""),
            &[405],
        ),
        ("CONNECT", request("CONNECT h:1", &[&key], ""), &[404, 400]),
        (
            "OPTIONS for all",
            request("OPTIONS *", &[&key], ""),
            &[404, 405],
        ),
        (
            "an absolute URI",
            request("GET http://other/api/v1/webhooks", &[&key], ""),
            &[200],
        ),
        (
            "a path that climbs",
            request("GET /api/v1/../../etc/passwd", &[&key], ""),
            &[404],
        ),
        (
            "an encoded slash",
            request("GET /api/v1/webhooks/..%2f1", &[&key], ""),
            &[404],
        ),
        (
            "bad UTF-8 in a path",
            request("GET /api/v1/stations/%ff%fe", &[&key], ""),
            &[400],
        ),
        (
            "bad UTF-8 in a command",
            request("POST /api/v1/stations/%ff/reset", &[&key], ""),
            &[400],
        ),
        (
            "bad UTF-8 in a query",
            request("GET /api/v1/webhooks?limit=%ff", &[&key], ""),
            &[422],
        ),
        (
            "a zero byte in a path",
            request("GET /api/v1/stations/a%00b", &[&key], ""),
            &[404],
        ),
        (
            "a huge number in a path",
            request("GET /api/v1/webhooks/99999999999999999999", &[&key], ""),
            &[404],
        ),
        (
            "a negative number in a path",
            request("GET /api/v1/webhooks/-1", &[&key], ""),
            &[404],
        ),
        (
            "a huge limit",
            request(
                "GET /api/v1/webhooks?limit=18446744073709551616",
                &[&key],
                "",
            ),
            &[422],
        ),
        (
            "a query twice",
            request("GET /api/v1/webhooks?limit=1&limit=2", &[&key], ""),
            &[422],
        ),
        (
            "a huge number in a body",
            with_body("PUT /api/v1/stations/S", r#"{"security_profile":1e400}"#),
            &[400],
        ),
        (
            "a number too big",
            with_body(
                "PUT /api/v1/stations/S",
                r#"{"security_profile":99999999999999999999}"#,
            ),
            &[422],
        ),
        (
            "deep JSON",
            with_body("POST /api/v1/webhooks", &deep),
            &[400],
        ),
        (
            "deep JSON for a station",
            with_body("POST /api/v1/stations/S/reset", &deep),
            &[400],
        ),
        (
            "a field again and again",
            with_body("POST /api/v1/webhooks", &wide),
            &[400],
        ),
        (
            "half a surrogate",
            with_body("POST /api/v1/webhooks", r#"{"name":"\ud800"}"#),
            &[400],
        ),
        (
            "a time beyond the calendar",
            request(
                "GET /api/v1/transactions?since=999999-01-01T00:00:00Z",
                &[&key],
                "",
            ),
            &[422],
        ),
        (
            "a timeout beyond all times",
            request(
                "POST /api/v1/stations/S/reset?timeout=99999999999999y",
                &[&key],
                "",
            ),
            &[422],
        ),
        (
            "two keys",
            request("GET /api/v1/webhooks", &[&key, &key], ""),
            &[401],
        ),
        (
            "a key of no characters",
            request("GET /api/v1/webhooks", &["X-API-Key: \u{e9}"], ""),
            &[401],
        ),
        (
            "an expectation",
            request(
                "POST /api/v1/webhooks",
                &[&key, json, "Content-Length: 2", "Expect: nonsense"],
                "{}",
            ),
            &[422, 417],
        ),
        (
            "too many headers",
            request("GET /api/v1/webhooks", &["A: b"; 100], ""),
            &[431],
        ),
        (
            "a header that is too long",
            request(
                "GET /api/v1/webhooks",
                &[&format!("A: {}", "b".repeat(70_000))],
                "",
            ),
            &[431],
        ),
        (
            "a head of 32 KiB and a little",
            request(
                "GET /api/v1/webhooks",
                &[&key, &format!("A: {}", "b".repeat(32 * 1024))],
                "",
            ),
            &[431],
        ),
        (
            "a head of nearly 32 KiB",
            request(
                "GET /api/v1/webhooks",
                &[&key, &format!("A: {}", "b".repeat(32 * 1024 - 500))],
                "",
            ),
            &[200],
        ),
        (
            "a URI of 32 KiB",
            request(&format!("GET /{}", "a".repeat(32 * 1024)), &[], ""),
            &[414, 431],
        ),
        (
            "a URI that is too long",
            request(&format!("GET /{}", "a".repeat(70_000)), &[], ""),
            &[414, 431],
        ),
        (
            "two lengths",
            request(
                "POST /api/v1/webhooks",
                &[&key, json, "Content-Length: 2", "Content-Length: 3"],
                "{} ",
            ),
            &[400],
        ),
        (
            "a length and chunks",
            request(
                "POST /api/v1/webhooks",
                &[
                    &key,
                    json,
                    "Content-Length: 2",
                    "Transfer-Encoding: chunked",
                ],
                "0\r\n\r\n",
            ),
            &[400],
        ),
        (
            "a length below zero",
            request(
                "POST /api/v1/webhooks",
                &[&key, json, "Content-Length: -1"],
                "",
            ),
            &[400],
        ),
        (
            "chunks that are none",
            request(
                "POST /api/v1/webhooks",
                &[&key, json, "Transfer-Encoding: chunked"],
                "zz\r\n",
            ),
            &[400],
        ),
        (
            "a header without a name",
            request("GET /api/v1/webhooks", &[": x"], ""),
            &[400],
        ),
        (
            "a folded header",
            request("GET /api/v1/webhooks", &["A: b", " c"], ""),
            &[400],
        ),
        (
            "a space before the colon",
            request("GET /api/v1/webhooks", &["A : b"], ""),
            &[400],
        ),
        (
            "another version",
            b"GET / HTTP/3.0\r\n\r\n".to_vec(),
            &[400],
        ),
        (
            "HTTP/2 without more ado",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
            &[HUNG_UP],
        ),
        (
            "TLS",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
            &[400],
        ),
        ("zeros", vec![0; 1000], &[400]),
    ];
    let mut wrong = Vec::new();
    for (what, bytes, expected) in cases {
        let answer = exchange(daemon.http(), &bytes).await;
        let (status, body) = parts(&answer);
        let problem: Option<Value> = serde_json::from_str(&body).ok();
        // What is no HTTP at all is refused below us, and without a body.
        let told = status < 400
            || body.is_empty()
            || problem
                .is_some_and(|problem| problem["status"] == status && problem["code"].is_string());
        if !told || !expected.contains(&status) {
            wrong.push(format!("{what}: {status} {body}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    daemon.api().get("/webhooks").await.expect(200);
}

#[tokio::test]
async fn requests_in_one_go_are_answered_in_their_order() {
    let daemon = daemon().start().await;
    let key = daemon.key();
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\nX-API-Key: {key}\r\n\r\n");
    let mut all = one("/api/v1/webhooks") + &one("/api/v1/webhooks/1") + &one("/nothing");
    all.push_str("GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let answer = exchange(daemon.http(), all.as_bytes()).await;
    let text = String::from_utf8(answer).expect("UTF-8");
    let statuses: Vec<_> = text
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| &answer[..3])
        .collect();
    assert_eq!(statuses, ["200", "404", "404", "200"], "{text}");
}

#[tokio::test]
async fn garbage_on_the_grpc_port_ends_its_connection_and_nothing_else() {
    let daemon = daemon().start().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    let frame = |frame: &[u8]| [preface, settings.as_slice(), frame].concat();
    let cases = [
        (
            "HTTP/1.1",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ),
        ("zeros", vec![0; 100]),
        (
            "a frame that is too long",
            frame(b"\xff\xff\xff\0\0\0\0\0\x01"),
        ),
        ("data on no stream", frame(b"\0\0\x01\0\0\0\0\0\0x")),
        ("a window of zero", frame(b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0")),
        (
            "headers that can't be unpacked",
            frame(b"\0\0\x04\x01\x04\0\0\0\x01\xff\xff\xff\xff"),
        ),
        (
            "a continuation of nothing",
            frame(b"\0\0\x01\x09\0\0\0\0\x01x"),
        ),
        (
            "a setting that may not be",
            frame(b"\0\0\x06\x04\0\0\0\0\0\0\x05\0\0\0\x01"),
        ),
    ];
    for (_, bytes) in cases {
        exchange(daemon.grpc(), &bytes).await;
    }
    let (rpc, key) = (Rpc::new(daemon.grpc()), daemon.key());
    let garbage = [
        vec![],
        vec![0, 0, 0, 0, 9],
        vec![1, 0, 0, 0, 1, 0],
        vec![9; 100],
        vec![0, 0xff, 0xff, 0xff, 0xff, 0],
        [vec![0, 0, 0, 0, 4], vec![0xff; 4]].concat(),
    ];
    for bytes in garbage {
        let status = rpc
            .send("WebhookService/CreateWebhook", Some(&key), bytes.clone())
            .await;
        assert!(status.is_some(), "{bytes:?}");
    }
    ctl(&daemon).line("status").await.ok();
}

/// Connections that would stay for ever, and take every place that there is.
async fn hold_places(address: SocketAddr, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        let mut stream = connect(address).await;
        stream.write_all(bytes).await.expect("an open socket");
        held.push(stream);
    }
    held
}

fn few_places() -> pipelet_tests::Builder {
    daemon().flag("--api-max-connections", "3")
}

/// Waits until the daemon has ended these.
async fn given_up(held: Vec<TcpStream>) {
    for mut stream in held {
        let mut rest = Vec::new();
        // Ended in order or not, it has ended.
        let _ = within("the connection's end", stream.read_to_end(&mut rest)).await;
    }
}

async fn answers(daemon: &Daemon) {
    daemon.api().get("/webhooks").await.expect(200);
    ctl(daemon).line("--timeout 25s status").await.ok();
}

#[tokio::test]
async fn who_says_nothing_loses_its_place() {
    let daemon = few_places().start().await;
    let rest = hold_places(daemon.http(), 3, b"").await;
    let grpc = hold_places(daemon.grpc(), 3, b"").await;
    answers(&daemon).await;
    given_up(rest).await;
    given_up(grpc).await;
}

#[tokio::test]
async fn who_never_ends_its_request_loses_its_place() {
    let daemon = few_places().start().await;
    let head = b"GET /api/v1/webhooks HTTP/1.1\r\nHost: h\r\nX-Slow: ";
    let rest = hold_places(daemon.http(), 3, head).await;
    let grpc = hold_places(daemon.grpc(), 3, b"PRI * HTTP/2.0\r\n").await;
    answers(&daemon).await;
    given_up(rest).await;
    given_up(grpc).await;
}

/// However many hold their connections so, they have one key, and that has half of what there is.
#[tokio::test]
async fn who_never_sends_its_body_is_told_so_and_keeps_no_other_key_out() {
    let daemon = daemon().flag("--api-max-connections", "6").start().await;
    let other = ctl(&daemon)
        .json("keys create --name other --role read-only")
        .await;
    let other = other["key"].as_str().expect("a key");
    let head = format!(
        "POST /api/v1/webhooks HTTP/1.1\r\nHost: h\r\nX-API-Key: {}\r\n\
         Content-Type: application/json\r\nContent-Length: 900000\r\n\r\n{{",
        daemon.key()
    );
    let streams = hold_places(daemon.http(), 5, head.as_bytes()).await;
    let list = request(
        "GET /api/v1/webhooks",
        &[&format!("X-API-Key: {other}")],
        "",
    );
    assert_eq!(parts(&exchange(daemon.http(), &list).await).0, 200);
    let mut statuses = Vec::new();
    for mut stream in streams {
        let mut answer = Vec::new();
        let _ = within("an answer", stream.read_to_end(&mut answer)).await;
        statuses.push(parts(&answer).0);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [400, 400, 400, 429, 429]);
    answers(&daemon).await;
}

#[tokio::test]
async fn who_never_reads_its_answers_loses_its_place() {
    let daemon = few_places().start().await;
    let key = daemon.key();
    let request =
        format!("GET /api/v1/event-types HTTP/1.1\r\nHost: h\r\nX-API-Key: {key}\r\n\r\n");
    let many = request.repeat(100);
    let flood = |address| {
        let many = many.clone();
        async move {
            // A small one is full at once, however slow the machine is.
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_recv_buffer_size(4096).expect("a buffer");
            let connecting = within("a connection", socket.connect(address));
            let mut stream = connecting.await.expect("a connection");
            // Until the answers that nobody takes have filled every buffer, and the daemon hangs up.
            while stream.write_all(many.as_bytes()).await.is_ok() {}
        }
    };
    let address = daemon.http();
    let floods = async { tokio::join!(flood(address), flood(address), flood(address)) };
    within("the daemon to hang up", floods).await;
    answers(&daemon).await;
}

#[tokio::test]
async fn a_flood_of_connections_waits_and_a_neighbour_is_served() {
    let scene = Scene::with(few_places(), &["Heartbeat"]).await;
    let address = scene.daemon.http();
    // Each asks once and hangs up: a hundred and more have their turn through three places.
    let asked = (0..150).map(|_| {
        tokio::spawn(async move { exchange(address, &request("GET /healthz", &[], "")).await })
    });
    for asked in asked.collect::<Vec<_>>() {
        let (status, body) = parts(&asked.await.expect("an exchange"));
        assert_eq!(status, 200, "{body}");
    }
    // Stations have listeners of their own.
    scene.station("S1").await.ok("Heartbeat", "{}").await;
}

/// Without a key, what a connection has asked for and does not take is little.
#[tokio::test]
async fn calls_without_a_key_are_few_on_a_connection() {
    const RESOURCE_EXHAUSTED: &str = "8";
    let daemon = daemon().start().await;
    // A message of two bytes with `list_services` ("") in it.
    let small = Bytes::from_static(&[0, 0, 0, 0, 2, 0x3a, 0]);
    let ask = async |request: Bytes, count: usize, window| {
        let stream = connect(daemon.grpc()).await;
        let mut builder = h2::client::Builder::new();
        let shaking = builder.initial_window_size(window).handshake(stream);
        let (mut client, connection) = within("a handshake", shaking).await.expect("HTTP/2");
        tokio::spawn(connection);
        let (mut refused, mut kept) = (0, Vec::new());
        for _ in 0..count {
            client = within("a stream", client.ready()).await.expect("a stream");
            let head = http::Request::post(
                "http://h/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            )
            .header("content-type", "application/grpc")
            .body(())
            .expect("a request");
            let (answer, mut body) = client.send_request(head, false).expect("a stream");
            body.send_data(request.clone(), false).expect("a stream");
            let answer = within("an answer", answer).await.expect("an answer");
            let status = answer.headers().get("grpc-status");
            refused += usize::from(status.is_some_and(|status| status == RESOURCE_EXHAUSTED));
            kept.push((answer, body));
        }
        (refused, kept)
    };
    let (refused, _kept) = ask(small.clone(), 20, 0).await;
    assert_eq!(refused, 16);
    let (refused, mut kept) = ask(small, 1, 65_535).await;
    assert_eq!(refused, 0);
    let (answer, _body) = &mut kept[0];
    let answer = within("a message", answer.body_mut().data()).await;
    assert!(answer.is_some_and(|data| data.is_ok_and(|data| data.len() > 5)));

    // Nor does it have memory by announcing what never comes.
    let large = Bytes::from_static(&[0, 0, 0x40, 0, 0, 0x3a]);
    let (_, mut kept) = ask(large, 1, 65_535).await;
    let (answer, _body) = &mut kept[0];
    let ended = async { while answer.body_mut().data().await.is_some() {} };
    within("the call to be ended", ended).await;
}

/// What is sent in pieces needs no more room than what it comes to, and none once it was read.
#[tokio::test]
async fn commands_that_wait_leave_room_for_lists() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let key = scene.daemon.key();
    let mut waiting = Vec::new();
    for id in ["S1", "S2", "S3"] {
        let mut silent = scene.station(id).await;
        let chunked = format!(
            "POST /api/v1/stations/{id}/reset HTTP/1.1\r\nHost: h\r\nX-API-Key: {key}\r\n\
             Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
             f\r\n{{\"type\":\"Soft\"}}\r\n0\r\n\r\n"
        );
        let caller = hold_places(scene.daemon.http(), 1, chunked.as_bytes()).await;
        assert_eq!(silent.asked().await.action, "Reset");
        waiting.push((silent, caller));
    }
    scene.api.get("/events").await.expect(200);
}

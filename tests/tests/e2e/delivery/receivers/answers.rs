//! Whole answers: every kind of status, and what HTTP lets a receiver do before, in and after one.

use std::time::Duration;

use pipelet_tests::Step;

use super::{Case, NOT_HTTP, case, check_both, cut, delivered, failed, rejected, scripted};

const INTERIM: &str = "more interim answers (1xx) than 8, or than 4 KiB of them";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn status(name: &'static str, status: u16) -> Case {
    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 4\r\n\r\nbody");
    case(name, answer, rejected(status, "body"))
}

fn after(before: &str) -> Vec<Step> {
    vec![Step::Read, Step::write(before.to_owned() + OK)]
}

#[tokio::test]
async fn of_every_status() {
    check_both(|| {
        let moved = |status, to: &str| {
            let head =
                format!("HTTP/1.1 {status} X\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
            case("redirect", head, rejected(status, ""))
        };
        vec![
            case("200", OK, delivered(200)),
            case(
                "202",
                "HTTP/1.1 202 X\r\ncontent-length: 0\r\n\r\n",
                delivered(202),
            ),
            case("204", "HTTP/1.1 204 No Content\r\n\r\n", delivered(204)),
            case(
                "204 with a body",
                "HTTP/1.1 204 X\r\n\r\nno body is allowed",
                delivered(204),
            ),
            case(
                "299",
                "HTTP/1.1 299 X\r\ncontent-length: 0\r\n\r\n",
                delivered(299),
            ),
            // To itself, for ever, if it were followed.
            moved(301, "/hook"),
            moved(302, "/hook"),
            moved(303, "/"),
            moved(307, "/hook"),
            moved(308, "http://127.0.0.1:1/"),
            moved(302, "file:///etc/passwd"),
            case(
                "304",
                "HTTP/1.1 304 Not Modified\r\n\r\n",
                rejected(304, ""),
            ),
            status("400", 400),
            status("401", 401),
            status("404", 404),
            status("410", 410),
            status("429", 429),
            status("500", 500),
            status("503", 503),
            status("599", 599),
            case(
                "a status that is none",
                "HTTP/1.1 99 X\r\n\r\n",
                failed(NOT_HTTP),
            ),
            status("a status that nobody knows", 999),
        ]
    })
    .await;
}

#[tokio::test]
async fn that_come_after_interim_ones() {
    check_both(|| {
        let never_asked = "HTTP/1.1 100 Continue\r\n\r\n";
        let hints = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
        let large = format!("HTTP/1.1 103 X\r\nx: {}\r\n\r\n", "y".repeat(4096));
        let endless = vec![Step::Read, Step::Flood(never_asked.into())];
        let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                      upgrade: websocket\r\n\r\n";
        vec![
            scripted("100", after(never_asked), delivered(200)),
            scripted(
                "102",
                after("HTTP/1.1 102 Processing\r\n\r\n"),
                delivered(200),
            ),
            scripted("103", after(hints), delivered(200)),
            scripted("several", after(&hints.repeat(8)), delivered(200)),
            scripted("one too many", after(&hints.repeat(9)), failed(INTERIM)),
            scripted("one that is too large", after(&large), failed(INTERIM)),
            scripted("no end of them", endless, failed(INTERIM)),
            // An upgrade that nobody asked for is no interim answer.
            case("101", switch, rejected(101, "")),
            scripted("101 and more", after(switch), rejected(101, "")),
        ]
    })
    .await;
}

#[tokio::test]
async fn in_forms_that_are_allowed_or_let_pass() {
    check_both(|| {
        let early = vec![Step::ReadSome, Step::write(OK), Step::Hang];
        let drip = vec![Step::Read, Step::Drip(OK.into(), Duration::from_millis(5))];
        vec![
            case(
                "HTTP/1.0 until it closes",
                "HTTP/1.0 200 OK\r\n\r\nthe end",
                delivered(200),
            ),
            case(
                "HTTP/1.1 until it closes",
                "HTTP/1.1 200 OK\r\n\r\nthe end",
                delivered(200),
            ),
            case("no reason phrase", "HTTP/1.1 204\r\n\r\n", delivered(204)),
            case(
                "LF only",
                "HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
                delivered(200),
            ),
            scripted("byte by byte, in time", drip, delivered(200)),
            scripted("before the request was read", early, delivered(200)),
            case(
                "chunks with extensions and trailers",
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                 2;x=y\r\nok\r\n0\r\ntrailer: x\r\n\r\n",
                delivered(200),
            ),
            case(
                "a body longer than it says",
                "HTTP/1.1 500 X\r\ncontent-length: 2\r\n\r\nno and no",
                rejected(500, "no"),
            ),
            case(
                "a second answer at once",
                format!("HTTP/1.1 500 X\r\ncontent-length: 2\r\n\r\nno{OK}"),
                rejected(500, "no"),
            ),
        ]
    })
    .await;
}

/// Compressed without having been asked for it: 10 MB of zeros and a beginning of it would be
/// kept, if anybody unpacked it.
#[tokio::test]
async fn that_would_burst_if_they_were_unpacked() {
    check_both(|| {
        let bomb = gzipped_zeros();
        let head = |status| {
            format!(
                "HTTP/1.1 {status} X\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
                bomb.len()
            )
        };
        let kept = String::from_utf8_lossy(&bomb);
        let whole = |status| [head(status).as_bytes(), &bomb].concat();
        vec![
            case("a gzip bomb", whole(200), delivered(200)),
            case(
                "a gzip bomb that is a refusal",
                whole(500),
                rejected(500, &kept),
            ),
        ]
    })
    .await;
}

/// A gzip stream of one deflate block that repeats a zero some thousand times a few bytes.
fn gzipped_zeros() -> Vec<u8> {
    // Fixed Huffman codes: a literal zero, then pairs of length 258 and distance 1.
    let mut bits: Vec<bool> = vec![true, true, false];
    let mut code = |value: u32, length: u32| {
        bits.extend((0..length).rev().map(|bit| value >> bit & 1 == 1));
    };
    code(0b0011_0000, 8);
    for _ in 0..1_000 {
        code(0b1100_0101, 8);
        code(0, 5);
    }
    code(0, 7);
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    for byte in bits.chunks(8) {
        let set = |(place, bit): (usize, &bool)| u8::from(*bit) << place;
        bytes.push(byte.iter().enumerate().map(set).sum());
    }
    bytes
}

#[tokio::test]
async fn that_never_end_are_not_waited_for() {
    check_both(|| {
        let flood =
            |head: &str, what: &str| vec![Step::Read, Step::write(head), Step::Flood(what.into())];
        let endless = "x".repeat(1000);
        let beginning = "x".repeat(4096);
        let chunks = "1000\r\n".to_owned() + &"x".repeat(4096) + "\r\n";
        let chunked = "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n";
        vec![
            scripted(
                "200",
                flood("HTTP/1.1 200 X\r\n\r\n", &endless),
                delivered(200),
            ),
            scripted("in chunks", flood(chunked, &chunks), delivered(200)),
            scripted(
                "500",
                flood("HTTP/1.1 500 X\r\n\r\n", &endless),
                rejected(500, &beginning),
            ),
            scripted(
                "a status line",
                flood("HTTP/1.1 200 ", &endless),
                failed(NOT_HTTP),
            ),
            scripted(
                "a header",
                flood("HTTP/1.1 200 X\r\nx: ", &endless),
                failed(NOT_HTTP),
            ),
            scripted(
                "headers",
                flood("HTTP/1.1 200 X\r\n", "x: y\r\n"),
                failed(NOT_HTTP),
            ),
            scripted(
                "a chunk's extension",
                flood(&(chunked.to_owned() + "1;"), &endless),
                cut(200, NOT_HTTP, ""),
            ),
            scripted(
                "trailers",
                flood(&(chunked.to_owned() + "0\r\n"), "x: y\r\n"),
                cut(200, NOT_HTTP, ""),
            ),
        ]
    })
    .await;
}

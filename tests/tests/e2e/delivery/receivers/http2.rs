//! Receivers that speak HTTP/2: streams that are reset, connections that are given up.

use std::time::Duration;

use h2::Reason;
use pipelet_tests::{Authority, Http2, Station, Stream};
use serde_json::{Value, json};

use super::{AMPLE, BROKEN_OFF, LIMIT, NO_ANSWER, quick};

const INTERIM: &str = "more interim answers (1xx) than 8, or than 4 KiB of them";
const RESET: &str = "the receiver reset the stream";

/// What a receiver does to its streams, and the attempts at the one event that come of it: the
/// status and the error of each.
struct Row {
    name: &'static str,
    streams: &'static [Stream],
    attempts: Vec<(Value, Value)>,
    /// The streams that were opened, by their connections.
    seen: &'static [usize],
}

fn answered(status: u16) -> (Value, Value) {
    (json!(status), Value::Null)
}

fn failed(error: &str) -> (Value, Value) {
    (Value::Null, json!(error))
}

fn rows() -> Vec<Row> {
    let row = |name, streams, attempts, seen| Row {
        name,
        streams,
        attempts,
        seen,
    };
    vec![
        row("2xx", &[Stream::Answer(204)], vec![answered(204)], &[1]),
        row(
            "5xx, over the same connection",
            &[Stream::Answer(500), Stream::Answer(200)],
            vec![answered(500), answered(200)],
            &[1, 1],
        ),
        row(
            "answered before it was read",
            &[Stream::AnswerEarly(200)],
            vec![answered(200)],
            &[1],
        ),
        row(
            "a reset",
            &[Stream::Reset(Reason::INTERNAL_ERROR), Stream::Answer(200)],
            vec![failed(RESET), answered(200)],
            &[1, 1],
        ),
        // Nothing was done with it (RFC 9113, section 8.7): no attempt.
        row(
            "a refusal of the stream",
            &[Stream::Reset(Reason::REFUSED_STREAM), Stream::Answer(200)],
            vec![answered(200)],
            &[1, 1],
        ),
        row(
            "a reset within the answer",
            &[
                Stream::ResetWithin(Reason::INTERNAL_ERROR),
                Stream::Answer(200),
            ],
            vec![(json!(200), json!(RESET)), answered(200)],
            &[1, 1],
        ),
        row(
            "an answer, and then it goes",
            &[Stream::AnswerAndGo(500), Stream::Answer(200)],
            vec![answered(500), answered(200)],
            &[1, 2],
        ),
        row(
            "it gives the connection up",
            &[
                Stream::GoAway(Reason::ENHANCE_YOUR_CALM),
                Stream::Answer(200),
            ],
            vec![failed(BROKEN_OFF), answered(200)],
            &[1, 2],
        ),
        row(
            "it closes the connection",
            &[Stream::Close, Stream::Answer(200)],
            vec![failed(BROKEN_OFF), answered(200)],
            &[1, 2],
        ),
        row(
            "interim answers, and then one",
            &[Stream::Interim(8, 200)],
            vec![answered(200)],
            &[1],
        ),
        row(
            "one interim answer too many",
            &[Stream::Interim(9, 200), Stream::Answer(200)],
            vec![failed(INTERIM), answered(200)],
            &[1, 2],
        ),
        row(
            "no end of interim answers",
            &[Stream::InterimFlood, Stream::Answer(200)],
            vec![failed(INTERIM), answered(200)],
            &[1, 2],
        ),
        row(
            "no answer, and the connection stays",
            &[Stream::Hang, Stream::Answer(200)],
            vec![failed(NO_ANSWER), answered(200)],
            &[1, 1],
        ),
    ]
}

#[tokio::test]
async fn whatever_they_do_to_streams() {
    let waits = |row: &Row| row.attempts.contains(&failed(NO_ANSWER));
    let (waiting, prompt): (Vec<_>, Vec<_>) = rows().into_iter().partition(waits);
    check(LIMIT, waiting).await;
    check(AMPLE, prompt).await;
}

async fn check(limit: Duration, rows: Vec<Row>) {
    let authority = Authority::new();
    let (_file, builder) = quick(&authority, limit);
    let daemon = builder.start().await;
    let api = daemon.api();
    let tls = authority.server().server_config(&["h2"]);
    let mut receivers = Vec::new();
    for row in rows {
        let receiver = Http2::start(tls.clone(), row.streams).await;
        let webhook = api.subscribe(&receiver.url(), &["Heartbeat"]).await;
        receivers.push((row, receiver, webhook));
    }
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    station.ok("Heartbeat", "{}").await;
    let mut wrong = Vec::new();
    for (row, receiver, webhook) in &receivers {
        api.await_stats(*webhook, json!({"received": 1, "pending": 0}))
            .await;
        let page = api.get(&format!("/webhooks/{webhook}/deliveries")).await;
        let attempts = page.expect(200)["data"][0]["attempts"].clone();
        let attempts = attempts.as_array().expect("attempts").iter();
        let attempts: Vec<_> = attempts
            .map(|attempt| (attempt["status_code"].clone(), attempt["error"].clone()))
            .collect();
        if (&attempts, &*receiver.seen()) != (&row.attempts, row.seen) {
            wrong.push(format!("{}: {:?} {attempts:?}", row.name, receiver.seen()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Says after each second stream that the connection takes no further ones (GOAWAY), and keeps it
/// open, because the first stream is never answered: what comes next goes over another connection,
/// and costs no attempt.
#[tokio::test]
async fn a_connection_that_takes_no_more_streams_is_not_used_again() {
    const CONNECTIONS: usize = 3;
    let authority = Authority::new();
    let (_file, builder) = quick(&authority, Duration::from_mins(5));
    let daemon = builder.flag("--retry-schedule", "1h").start().await;
    let api = daemon.api();
    let tls = authority.server().server_config(&["h2"]);
    let script = [Stream::Hang, Stream::AnswerAndGo(200)];
    let mut script: Vec<_> = script.into_iter().cycle().take(2 * CONNECTIONS).collect();
    script.push(Stream::Answer(200));
    let receiver = Http2::start(tls, &script).await;
    let webhook = api.subscribe(&receiver.url(), &["Heartbeat"]).await;
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    let mut count = 0;
    let mut hanging = Vec::new();
    for number in 0..CONNECTIONS {
        let mut other = Station::connect(daemon.ocpp(), &format!("HANGS_{number}")).await;
        other.ok("Heartbeat", "{}").await;
        hanging.push(other);
        count += 1;
        receiver.await_streams(&["/hook"], count).await;
        station.ok("Heartbeat", "{}").await;
        count += 1;
        receiver.await_streams(&["/hook"], count).await;
        let delivered = json!({"delivered": number + 1, "retrying": 0});
        api.await_stats(webhook, delivered).await;
    }
    for _ in 0..10 {
        station.ok("Heartbeat", "{}").await;
        count += 1;
        receiver.await_streams(&["/hook"], count).await;
    }
    let delivered = CONNECTIONS + 10;
    let books = json!({"delivered": delivered, "pending": CONNECTIONS, "retrying": 0});
    api.await_stats(webhook, books).await;
    let path = format!("/webhooks/{webhook}/deliveries?limit=100");
    let page = api.get(&path).await.expect(200);
    for delivery in page["data"].as_array().expect("data") {
        let attempts = delivery["attempts"].as_array().expect("attempts");
        assert_eq!(attempts.len(), 1, "{delivery}");
    }
    let seen = receiver.seen();
    assert_eq!(seen.len(), count);
    assert_eq!(seen.last(), Some(&(CONNECTIONS + 1)), "{seen:?}");
}

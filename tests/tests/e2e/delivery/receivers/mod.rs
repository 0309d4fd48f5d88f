//! Receivers that misbehave: what is counted, what the dead letter shows, how long it may take,
//! and that a healthy neighbour does not notice.
//!
//! The files hold tables, by theme; [`check`] is what each row goes through, over plain HTTP and
//! over TLS where that makes no difference. All rows of a table stand beside each other in one
//! daemon, and one event goes to all of them.

mod answers;
mod breaks;
mod http2;
mod kept;
mod names;
mod retry_after;
mod tls;

use std::time::{Duration, Instant};

use pipelet_tests::{Api, Authority, Builder, Receiver, Scripted, Station, Step, Tls};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::scene::daemon;

/// The deadline of an exchange here.
const LIMIT: Duration = Duration::from_secs(3);
/// The same where no row waits for it: on a busy machine, what takes no time may take some.
const AMPLE: Duration = Duration::from_secs(25);
const ATTEMPTS: usize = 2;
const NO_ANSWER: &str = "no answer within 3s";
/// Seven eighths of the limit.
const NO_CONNECTION: &str = "no connection within 2s 625ms";
const UNFINISHED: &str = "the answer did not end within 3s";
const BROKEN_OFF: &str = "the connection broke off";
const NOT_HTTP: &str = "the answer is not valid HTTP";

/// A row: what a receiver does to every connection, and what comes of it.
#[derive(Debug)]
struct Case {
    name: &'static str,
    script: Vec<Step>,
    ends: Ends,
    takes: Takes,
}

/// What the books and the dead letter show.
#[derive(Debug, Clone, PartialEq)]
enum Ends {
    Delivered {
        status: u16,
    },
    /// Dead after all of its attempts, each of which came to the same.
    Dead {
        status: Option<u16>,
        error: Option<String>,
        response: Option<String>,
        posts: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Takes {
    LessThanTheLimit,
    TheLimit,
}

/// Reads the request and writes an answer.
fn case(name: &'static str, answer: impl AsRef<[u8]>, ends: Ends) -> Case {
    scripted(name, vec![Step::Read, Step::write(answer)], ends)
}

fn scripted(name: &'static str, script: Vec<Step>, ends: Ends) -> Case {
    let takes = Takes::LessThanTheLimit;
    Case {
        name,
        script,
        ends,
        takes,
    }
}

impl Case {
    fn slow(self) -> Self {
        let takes = Takes::TheLimit;
        Self { takes, ..self }
    }

    fn waits(&self) -> bool {
        let connects = matches!(
            &self.ends,
            Ends::Dead { error: Some(error), .. } if error == NO_CONNECTION
        );
        connects || self.takes == Takes::TheLimit
    }
}

const fn delivered(status: u16) -> Ends {
    Ends::Delivered { status }
}

/// The receiver answered, and not with 2xx.
fn rejected(status: u16, response: &str) -> Ends {
    Ends::Dead {
        status: Some(status),
        error: None,
        response: (!response.is_empty()).then(|| response.to_owned()),
        posts: ATTEMPTS,
    }
}

/// No answer came.
fn failed(error: &str) -> Ends {
    Ends::Dead {
        status: None,
        error: Some(error.to_owned()),
        response: None,
        posts: ATTEMPTS,
    }
}

/// The head of an answer came, and not all of its body.
fn cut(status: u16, error: &str, response: &str) -> Ends {
    Ends::Dead {
        status: Some(status),
        error: Some(error.to_owned()),
        response: (!response.is_empty()).then(|| response.to_owned()),
        posts: ATTEMPTS,
    }
}

/// The same, where the receiver has not read a request either.
fn unsent(error: &str) -> Ends {
    Ends::Dead {
        status: None,
        error: Some(error.to_owned()),
        response: None,
        posts: 0,
    }
}

/// A daemon that tries twice, for so long each time, and trusts this authority.
fn quick(authority: &Authority, limit: Duration) -> (NamedTempFile, Builder) {
    let file = NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), authority.pem()).expect("a writable file");
    let builder = daemon()
        .flag("--ca-file", file.path().to_str().expect("UTF-8"))
        .flag("--delivery-timeout", &format!("{}s", limit.as_secs()))
        .flag("--max-attempts", &ATTEMPTS.to_string())
        .flag("--retry-schedule", "10ms");
    (file, builder)
}

/// A table whose rows are the same over plain HTTP and over TLS.
async fn check_both(cases: impl Fn() -> Vec<Case>) {
    let authority = Authority::new();
    let server = authority.server().server_config(&["http/1.1"]);
    let plain = cases().into_iter().map(|case| (Tls::None, case));
    let secure = cases()
        .into_iter()
        .map(|case| (Tls::Server(server.clone()), case));
    check(&authority, plain.chain(secure).collect()).await;
}

async fn check(authority: &Authority, cases: Vec<(Tls, Case)>) {
    let (waiting, prompt): (Vec<_>, Vec<_>) = cases.into_iter().partition(|(_, case)| case.waits());
    for (cases, limit) in [(waiting, LIMIT), (prompt, AMPLE)] {
        if !cases.is_empty() {
            check_within(limit, authority, cases).await;
        }
    }
}

async fn check_within(limit: Duration, authority: &Authority, cases: Vec<(Tls, Case)>) {
    let (_file, builder) = quick(authority, limit);
    let daemon = builder.start().await;
    let api = daemon.api();
    let mut rows = Vec::new();
    for (tls, case) in cases {
        let receiver = Scripted::always(tls, case.script.clone()).await;
        let webhook = api.subscribe(&receiver.url(), &["Heartbeat"]).await;
        rows.push((case, receiver, webhook));
    }
    let healthy = Receiver::start().await;
    let neighbour = api.subscribe(&healthy.url(), &["Heartbeat"]).await;
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    let called = Instant::now();
    station.ok("Heartbeat", "{}").await;
    let heard = healthy.await_requests(1).await[0].arrived - called;
    assert!(heard < limit, "the neighbour noticed: {heard:?}");

    let mut wrong = Vec::new();
    for (case, receiver, webhook) in &rows {
        let (ends, takes) = outcome(&api, *webhook, receiver, limit).await;
        if (&ends, takes) != (&case.ends, case.takes) {
            let (name, url) = (case.name, receiver.url());
            wrong.push(format!("{name} at {url}: {takes:?}, {ends:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    api.await_stats(neighbour, json!({"received": 1, "delivered": 1}))
        .await;
    assert_eq!(healthy.count(), 1);
}

/// How the one event of a webhook ended.
async fn outcome(api: &Api, webhook: u64, receiver: &Scripted, limit: Duration) -> (Ends, Takes) {
    let books = api
        .await_stats(webhook, json!({"received": 1, "pending": 0}))
        .await;
    let deliveries = api.get(&format!("/webhooks/{webhook}/deliveries")).await;
    let attempts = deliveries.expect(200)["data"][0]["attempts"].clone();
    let attempts = attempts.as_array().expect("attempts");
    for (number, attempt) in (1..).zip(attempts) {
        assert_eq!(attempt["number"], number);
    }
    // A row's attempts are all alike, but for what they took.
    let last = attempts.last().expect("an attempt");
    let same = |attempt| alike(attempt) == alike(last);
    assert!(attempts.iter().all(same), "{attempts:#?}");
    let limit = u64::try_from(limit.as_millis()).expect("a short time");
    let took = |attempt: &Value| attempt["duration_ms"].as_u64().expect("a number");
    assert!(
        attempts.iter().all(|attempt| took(attempt) < limit * 3),
        "over the limit: {attempts:#?}"
    );
    let takes = if attempts.iter().all(|attempt| took(attempt) < limit) {
        Takes::LessThanTheLimit
    } else {
        Takes::TheLimit
    };
    let status = last["status_code"].as_u64().map(|status| {
        let status = u16::try_from(status);
        status.expect("a status")
    });
    if books["delivered"] == 1 {
        assert_eq!(attempts.len(), 1);
        let status = status.expect("the status of a delivery");
        return (delivered(status), takes);
    }
    let failed = api.await_failed(&format!("?webhook_id={webhook}"), 1).await;
    let failed = api
        .get(&format!("/failed-deliveries/{}", failed[0]["id"]))
        .await
        .expect(200);
    assert_eq!(failed["reason"], "attempts_exhausted");
    assert_eq!(failed["attempts"].as_array(), Some(attempts));
    assert_eq!(attempts.len(), ATTEMPTS);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let response = text(&failed["last_response"]);
    // Of a slow answer nobody can tell how much came, so it is made of spaces.
    let response = response.filter(|response| !response.trim().is_empty());
    let ends = Ends::Dead {
        status,
        error: text(&last["error"]),
        response,
        posts: receiver.requests().len(),
    };
    (ends, takes)
}

fn alike(attempt: &Value) -> (&Value, Option<String>) {
    let error = attempt["error"].as_str().map(str::to_owned);
    (&attempt["status_code"], error)
}

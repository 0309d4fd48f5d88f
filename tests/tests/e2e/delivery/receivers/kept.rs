//! Connections that are kept from one attempt to the next: what happens to them in between is no
//! attempt, and an answer counts for the request that it follows.

use std::{fs, time::Duration};

use pipelet_tests::{Authority, Scripted, Station, Step, Tls, deadline::eventually};
use serde_json::{Value, json};

use super::{AMPLE, Api, quick};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";

/// What a receiver does to its first connection after a successful exchange, and what its second
/// one answers. The event that comes meanwhile is delivered or not as the second one says.
struct Row {
    name: &'static str,
    first: Vec<Step>,
    second: &'static str,
    /// The requests that were begun, by their connections.
    seen: &'static [usize],
}

fn row(name: &'static str, rest: Vec<Step>, seen: &'static [usize]) -> Row {
    Row {
        name,
        first: [vec![Step::Read, Step::write(OK)], rest].concat(),
        second: OK,
        seen,
    }
}

/// What is surplus in the first connection must not answer the next request.
fn surplus(name: &'static str, first: Vec<Step>) -> Row {
    Row {
        name,
        first,
        second: BUSY,
        seen: &[1, 2],
    }
}

fn rows() -> Vec<Row> {
    let kept = vec![Step::Read, Step::write(OK), Step::Hang];
    let at_once = |answers: String| vec![Step::Read, Step::write(answers), Step::Tell, Step::Hang];
    let later = |bytes: &str| {
        let first = vec![Step::Read, Step::write(OK), Step::AwaitSignal];
        let then = vec![Step::write(bytes), Step::Tell, Step::Hang];
        [first, then].concat()
    };
    let with_body = OK.replace("length: 0", "length: 2") + "ok";
    vec![
        row("it is used again", kept, &[1, 1]),
        row("closed at once", vec![], &[1, 2]),
        row("closed after a while", vec![Step::AwaitSignal], &[1, 2]),
        row(
            "reset after a while",
            vec![Step::AwaitSignal, Step::Reset],
            &[1, 2],
        ),
        row(
            "closed as a request comes",
            vec![Step::ReadSome],
            &[1, 1, 2],
        ),
        row(
            "reset as a request comes",
            vec![Step::ReadSome, Step::Reset],
            &[1, 1, 2],
        ),
        row("closed instead of an answer", vec![Step::Read], &[1, 1, 2]),
        surplus("a second answer after a while", later(OK)),
        surplus("half of an answer after a while", later("HTTP/1.1 200")),
        surplus("a second answer at once", at_once(OK.repeat(2))),
        surplus("a second answer after a body", at_once(with_body + OK)),
    ]
}

#[tokio::test]
async fn over_plain_http() {
    check(&Authority::new(), &Tls::None, rows()).await;
}

#[tokio::test]
async fn over_tls() {
    let authority = Authority::new();
    let server = authority.server().server_config(&["http/1.1"]);
    check(&authority, &Tls::Server(server), rows()).await;
}

async fn check(authority: &Authority, tls: &Tls, rows: Vec<Row>) {
    let (_file, builder) = quick(authority, AMPLE);
    let daemon = builder.flag("--retry-schedule", "1h").start().await;
    let api = daemon.api();
    let mut receivers = Vec::new();
    for row in rows {
        let second = vec![Step::Read, Step::write(row.second), Step::Hang];
        let scripts = vec![row.first.clone(), second];
        let receiver = Scripted::start(tls.clone(), scripts).await;
        let webhook = api.subscribe(&receiver.url(), &["Heartbeat"]).await;
        receivers.push((row, receiver, webhook));
    }
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    station.ok("Heartbeat", "{}").await;
    for (_, _, webhook) in &receivers {
        api.await_stats(*webhook, json!({"delivered": 1})).await;
    }
    for (row, receiver, _) in &receivers {
        receiver.signal();
        if row.second == BUSY {
            receiver.await_told().await;
            let unread = || async { underway(&receiver.url()) };
            eventually("the surplus to be there", unread, |bytes| *bytes == 0).await;
        }
    }
    station.ok("Heartbeat", "{}").await;
    for (row, receiver, webhook) in &receivers {
        let delivered = row.second == OK;
        let books = json!({
            "received": 2,
            "delivered": 1 + u64::from(delivered),
            "retrying": u64::from(!delivered),
        });
        api.await_stats(*webhook, books).await;
        let requests = receiver.requests();
        let seen: Vec<_> = requests.iter().map(|request| request.connection).collect();
        assert_eq!(seen, row.seen, "{}", row.name);
        let attempts = attempts(&api, *webhook).await;
        let status = if delivered { 200 } else { 503 };
        assert_eq!(attempts, [[status], [200]], "{}", row.name);
    }
}

/// Common servers close an idle connection after five seconds, and count it until then.
#[tokio::test]
async fn an_idle_one_is_closed_before_the_receiver_would() {
    let (_file, builder) = quick(&Authority::new(), AMPLE);
    let daemon = builder.start().await;
    let script = vec![Step::Read, Step::write(OK), Step::Hang, Step::Tell];
    let receiver = Scripted::always(Tls::None, script).await;
    daemon
        .api()
        .subscribe(&receiver.url(), &["Heartbeat"])
        .await;
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    station.ok("Heartbeat", "{}").await;
    let posted = receiver.await_requests(1).await[0].arrived;
    receiver.await_told().await;
    let kept = posted.elapsed();
    let expected = Duration::from_secs(3)..Duration::from_secs(8);
    assert!(expected.contains(&kept), "{kept:?}");
}

/// How many bytes a receiver has written that the other end's system has not got yet: on a busy
/// machine not even the loopback interface is done with them when the write is (proc(5)).
fn underway(url: &str) -> u64 {
    let (_, port) = url.rsplit_once(':').expect("a port");
    let (port, _) = port.split_once('/').expect("a path");
    let port = format!(":{:04X}", port.parse::<u16>().expect("a port"));
    let sockets = fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
    let queued = sockets.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let ours = fields.next()?.ends_with(&port);
        let (queued, _) = fields.nth(2)?.split_once(':')?;
        ours.then(|| u64::from_str_radix(queued, 16).expect("a hexadecimal number"))
    });
    queued.sum()
}

/// The statuses of the attempts at each event, the latest event first.
async fn attempts(api: &Api, webhook: u64) -> Vec<Vec<Value>> {
    let page = api.get(&format!("/webhooks/{webhook}/deliveries")).await;
    let deliveries = page.expect(200)["data"].as_array().expect("data").clone();
    let statuses = |delivery: &Value| -> Vec<Value> {
        let attempts = delivery["attempts"].as_array().expect("attempts").iter();
        attempts
            .map(|attempt| attempt["status_code"].clone())
            .collect()
    };
    deliveries.iter().map(statuses).collect()
}

//! What the machine can do with nothing in between: nobody's gateway is faster than this.

use std::{
    fs::File,
    io::{self, Write as _},
    net::SocketAddr,
    thread,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request as Upgrade, Response},
        http::HeaderValue,
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    calls::{Call, METER_VALUES},
    fleet::{Fleet, Load, Pacing},
    ledger::Ledger,
    options::Options,
    process,
    report::{Report, Table, float, thousands},
    sink::Sink,
};

/// POSTs at once, as pipeletd has them for one webhook.
const IN_FLIGHT: usize = 64;
const STATIONS: usize = 500;
const RECORD: [u8; 450] = [b'x'; 450];
const GROUPS: [usize; 3] = [1, 64, 256];

pub(crate) async fn run(options: &Options, report: &mut Report) -> io::Result<()> {
    let mut table = Table::new(
        "Limits of the machine",
        &["", "per second", "CPU each, of the side that drives"],
    );
    let posts = posts(options.window()).await;
    report.set("limits.posts_per_s", posts.per_second);
    report.set("limits.post_cpu_us", posts.cpu_us);
    table.row(posts.cells("POSTs, hyper-util's client, 64 in flight"));
    let calls = calls(options).await;
    report.set("limits.calls_per_s", calls.per_second);
    table.row(calls.cells("CALLs of 500 stations to a server that does nothing"));
    for group in GROUPS {
        let appends = appends(group, options.window() / 2)?;
        report.set(format!("limits.appends_{group}_per_s"), appends.per_second);
        table.row(appends.cells(&format!(
            "records of 450 bytes, synced in groups of {group}"
        )));
    }
    report.add(table)
}

/// A limit.
#[derive(Debug)]
struct Rate {
    per_second: f64,
    cpu_us: f64,
}

impl Rate {
    fn new(count: u64, elapsed: Duration, cpu: Duration) -> Self {
        Self {
            per_second: float(count) / elapsed.as_secs_f64(),
            cpu_us: cpu.as_secs_f64() * 1e6 / float(count.max(1)),
        }
    }

    fn cells(&self, what: &str) -> Vec<String> {
        vec![
            what.to_owned(),
            thousands(self.per_second),
            format!("{:.1} µs", self.cpu_us),
        ]
    }
}

/// POSTs of a delivery's size to our own receiver, from one thread.
async fn posts(window: Duration) -> Rate {
    let sink = Sink::start(1, &Ledger::new(1)).await;
    let url = sink.urls().remove(0);
    let (done, result) = oneshot::channel();
    let thread = thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let rate = runtime.expect("a runtime").block_on(post(url, window));
        let _ = done.send(rate);
    });
    let rate = result.await.expect("the POSTs end well");
    thread.join().expect("the POSTs end well");
    rate
}

async fn post(url: String, window: Duration) -> Rate {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let body = Bytes::from_static(METER_VALUES.1.as_bytes());
    let (began, cpu) = (Instant::now(), process::cpu_of_this_thread());
    let mut posting = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (client, url, body) = (client.clone(), url.clone(), body.clone());
        posting.spawn(async move {
            let mut posted = 0;
            while began.elapsed() < window {
                let request = Request::builder()
                    .method(Method::POST)
                    .uri(&url)
                    .header(CONTENT_TYPE, "application/json")
                    .body(Full::new(body.clone()))
                    .expect("a request");
                let answer = client.request(request).await.expect("an answer");
                answer.into_body().collect().await.expect("a whole answer");
                posted += 1;
            }
            posted
        });
    }
    let posted: Vec<u64> = posting.join_all().await;
    Rate::new(
        posted.iter().sum(),
        began.elapsed(),
        process::cpu_of_this_thread().saturating_sub(cpu),
    )
}

/// CALLs to a WebSocket server that answers and does nothing else, from our own stations.
async fn calls(options: &Options) -> Rate {
    let stop = CancellationToken::new();
    let (started, has_started) = oneshot::channel();
    let end = stop.clone();
    let server = thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let serving = end.run_until_cancelled(answer_all(started));
        runtime.expect("a runtime").block_on(serving);
    });
    let ledger = Ledger::new(1);
    let load = Load {
        ocpp: has_started.await.expect("the server listens"),
        name: "NULL",
        stations: STATIONS,
        calls: vec![(Call::new(METER_VALUES), 0)],
        pacing: Pacing::ClosedLoop,
    };
    let fleet = Fleet::start(load, &ledger).await;
    let began = Instant::now();
    sleep(options.window()).await;
    let calls = fleet.take().count();
    let elapsed = began.elapsed();
    let cpu = fleet.stop().await;
    stop.cancel();
    server.join().expect("the server ends well");
    Rate::new(calls, elapsed, cpu)
}

async fn answer_all(started: oneshot::Sender<SocketAddr>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let _ = started.send(listener.local_addr().expect("a bound socket"));
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(answer(stream));
    }
}

#[expect(
    clippy::result_large_err,
    reason = "the callback's type is tungstenite's"
)]
async fn answer(stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let protocol = |_: &Upgrade, mut response: Response| -> Result<Response, ErrorResponse> {
        let ocpp = HeaderValue::from_static("ocpp1.6");
        response
            .headers_mut()
            .insert("sec-websocket-protocol", ocpp);
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async(stream, protocol).await else {
        return;
    };
    while let Some(Ok(Message::Text(call))) = socket.next().await {
        // The id has ten digits, after `[2,"`.
        let id = call.get(4..14).unwrap_or_default();
        let result = Message::text(format!(r#"[3,"{id}",{{}}]"#));
        if socket.send(result).await.is_err() {
            return;
        }
    }
}

/// Records appended to a file, with one sync for each group.
fn appends(group: usize, window: Duration) -> io::Result<Rate> {
    let mut file: File = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR"))?;
    let batch = RECORD.repeat(group);
    let (began, cpu) = (Instant::now(), process::cpu_of_this_thread());
    let mut records = 0;
    while began.elapsed() < window {
        file.write_all(&batch)?;
        file.sync_data()?;
        records += group as u64;
    }
    let cpu = process::cpu_of_this_thread().saturating_sub(cpu);
    Ok(Rate::new(records, began.elapsed(), cpu))
}

//! Receivers that cost next to nothing, all on one thread: each finds where a request ends,
//! notes when it came and whether it came before, and answers 200.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime,
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    calls::stamp_in,
    histogram::{Histogram, now_ns},
    ledger::Ledger,
};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
/// How long nothing at all may come before what is owed counts as lost.
const PATIENCE: Duration = Duration::from_secs(40);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

pub(crate) struct Sink {
    endpoints: Vec<Arc<Endpoint>>,
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

struct Endpoint {
    address: SocketAddr,
    seen: Mutex<Seen>,
    ledger: Ledger,
}

/// What has come.
#[derive(Debug, Default)]
struct Seen {
    arrivals: Histogram,
    /// One bit for each event's number.
    numbers: Vec<u64>,
    once: u64,
    again: u64,
}

impl Sink {
    /// So many receivers, each at a port of its own.
    pub(crate) async fn start(count: usize, ledger: &Ledger) -> Self {
        Self::start_at(vec![SocketAddr::from(([127, 0, 0, 1], 0)); count], ledger).await
    }

    /// Receivers at these addresses.
    pub(crate) async fn start_at(addresses: Vec<SocketAddr>, ledger: &Ledger) -> Self {
        let (ledger, stop) = (ledger.clone(), CancellationToken::new());
        let (started, has_started) = oneshot::channel();
        let end = stop.clone();
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let mut endpoints = Vec::new();
                let mut serving = JoinSet::new();
                for address in addresses {
                    let listener = TcpListener::bind(address).await.expect("a free port");
                    let endpoint = Arc::new(Endpoint {
                        address: listener.local_addr().expect("a bound socket"),
                        seen: Mutex::default(),
                        ledger: ledger.clone(),
                    });
                    serving.spawn(accept(listener, Arc::clone(&endpoint)));
                    endpoints.push(endpoint);
                }
                let _ = started.send(endpoints);
                end.cancelled().await;
            });
        });
        Self {
            endpoints: has_started.await.expect("the receivers listen"),
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.endpoints.iter().map(|endpoint| endpoint.address);
        addresses.collect()
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        let addresses = self.addresses().into_iter();
        addresses
            .map(|address| format!("http://{address}/hook"))
            .collect()
    }

    /// The times from a station's frame to the POST's arrival, of those since the last time.
    pub(crate) fn take(&self) -> Histogram {
        let mut all = Histogram::default();
        for endpoint in &self.endpoints {
            all.merge(&std::mem::take(&mut endpoint.seen().arrivals));
        }
        all
    }

    /// POSTs so far, each event counted once for each receiver.
    pub(crate) fn distinct(&self) -> u64 {
        let once = self.endpoints.iter().map(|endpoint| endpoint.seen().once);
        once.sum()
    }

    /// POSTs so far, however often an event came: where webhooks share a receiver.
    pub(crate) fn posts(&self) -> u64 {
        self.distinct() + self.duplicates()
    }

    pub(crate) fn duplicates(&self) -> u64 {
        let again = self.endpoints.iter().map(|endpoint| endpoint.seen().again);
        again.sum()
    }

    /// Waits until so much has come, or nothing more comes, and says what has.
    pub(crate) async fn await_distinct(&self, owed: u64) -> u64 {
        Self::awaiting(owed, || self.distinct()).await
    }

    pub(crate) async fn await_posts(&self, owed: u64) -> u64 {
        Self::awaiting(owed, || self.posts()).await
    }

    async fn awaiting(owed: u64, count: impl Fn() -> u64) -> u64 {
        let (mut seen, mut changed) = (count(), Instant::now());
        while seen < owed && changed.elapsed() < PATIENCE {
            sleep(LOOK_AGAIN).await;
            let now = count();
            if now > seen {
                (seen, changed) = (now, Instant::now());
            }
        }
        seen
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.cancel();
        // The ports are free again when this returns.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Endpoint {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn note(&mut self, body: &[u8]) {
        let Some((number, sent)) = stamp_in(body) else {
            // An action without a field that carries a stamp is only counted.
            self.once += 1;
            return;
        };
        self.arrivals.record(now_ns().saturating_sub(sent));
        let word = usize::try_from(number / 64).unwrap_or(usize::MAX);
        if word >= self.numbers.len() {
            self.numbers.resize(word + 1024, 0);
        }
        let bit = 1 << (number % 64);
        if self.numbers[word] & bit == 0 {
            self.numbers[word] |= bit;
            self.once += 1;
        } else {
            self.again += 1;
        }
    }
}

async fn accept(listener: TcpListener, endpoint: Arc<Endpoint>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, Arc::clone(&endpoint)));
    }
}

async fn serve(mut stream: TcpStream, endpoint: Arc<Endpoint>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(8192);
    loop {
        while let Some((head, end)) = whole_request(&buffer) {
            endpoint.seen().note(&buffer[head..end]);
            buffer.drain(..end);
            stream.write_all(ANSWER).await?;
            endpoint.ledger.posted(1);
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// Where the body of the first request begins and ends, if it is all there.
fn whole_request(buffer: &[u8]) -> Option<(usize, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(buffer).ok()? else {
        return None;
    };
    let length = request
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))?;
    let length: usize = std::str::from_utf8(length.value).ok()?.parse().ok()?;
    (buffer.len() >= head + length).then_some((head, head + length))
}

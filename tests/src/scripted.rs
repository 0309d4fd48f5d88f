//! A receiver that does to each connection what a script says, below HTTP: what no server would
//! answer, halves of it, nothing at all, with or without TLS.
//!
//! Invariant: a request is recorded before anything that follows it in the script is done.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::interval,
};
use tokio_rustls::TlsAcceptor;

use crate::{deadline::within, flood::let_others_first, server::Server};

/// One thing that is done to a connection. After the last one it is closed.
#[derive(Debug, Clone)]
pub enum Step {
    /// Reads one request, head and body, and records it.
    Read,
    /// Reads the beginning of a request, and records that.
    ReadSome,
    Write(Vec<u8>),
    /// Writes byte by byte, at this pace.
    Drip(Vec<u8>, Duration),
    /// Writes the same again and again, for as long as the other side takes it.
    Flood(Vec<u8>),
    /// Waits for [`Scripted::signal`].
    AwaitSignal,
    /// Lets [`Scripted::await_told`] know that the script has come so far.
    Tell,
    /// Does nothing until the other side closes.
    Hang,
    /// Ends the connection with an RST.
    Reset,
}

impl Step {
    pub fn write(bytes: impl AsRef<[u8]>) -> Self {
        Self::Write(bytes.as_ref().to_vec())
    }
}

/// How connections begin.
#[derive(Debug, Clone)]
pub enum Tls {
    None,
    Server(Arc<ServerConfig>),
    /// The URL says https, and the script is what comes instead of it.
    Unspoken,
}

/// One request, as it came.
#[derive(Debug, Clone)]
pub struct RawRequest {
    /// The connection that it came over, counted from 1.
    pub connection: usize,
    pub text: String,
    pub arrived: Instant,
}

impl RawRequest {
    pub fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.text
            .lines()
            .find_map(|line| line.strip_prefix(&*prefix))
    }
}

/// A scripted receiver, which stops when it is dropped.
#[derive(Debug)]
pub struct Scripted {
    secure: bool,
    shared: Arc<Shared>,
    server: Server,
}

#[derive(Debug)]
struct Shared {
    tls: Tls,
    /// One for each connection; the last one repeats.
    scripts: Vec<Vec<Step>>,
    connections: AtomicUsize,
    requests: watch::Sender<Vec<RawRequest>>,
    signals: watch::Sender<usize>,
    told: watch::Sender<bool>,
}

impl Scripted {
    /// Does the same to every connection.
    pub async fn always(tls: Tls, script: Vec<Step>) -> Self {
        Self::start(tls, vec![script]).await
    }

    /// Does to each connection what its script says; the last script repeats.
    pub async fn start(tls: Tls, scripts: Vec<Vec<Step>>) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), tls, scripts).await
    }

    pub async fn start_at(address: SocketAddr, tls: Tls, scripts: Vec<Vec<Step>>) -> Self {
        let secure = !matches!(tls, Tls::None);
        let shared = Arc::new(Shared {
            tls,
            scripts,
            connections: AtomicUsize::new(0),
            requests: watch::Sender::new(Vec::new()),
            signals: watch::Sender::new(0),
            told: watch::Sender::new(false),
        });
        let state = Arc::clone(&shared);
        let server = Server::start(address, |listener| serve(listener, state)).await;
        Self {
            secure,
            shared,
            server,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub fn url(&self) -> String {
        self.url_of(&self.address().ip().to_string())
    }

    /// The URL by a name that leads here.
    pub fn url_of(&self, host: &str) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{host}:{}/hook", self.address().port())
    }

    /// Lets every [`Step::AwaitSignal`] go on that waits now.
    pub fn signal(&self) {
        self.shared.signals.send_modify(|count| *count += 1);
    }

    /// Waits until a script has come to [`Step::Tell`].
    pub async fn await_told(&self) {
        let mut told = self.shared.told.subscribe();
        let told = within("a script's word", told.wait_for(|told| *told)).await;
        told.expect("the sender lives");
    }

    pub fn requests(&self) -> Vec<RawRequest> {
        self.shared.requests.borrow().clone()
    }

    /// Waits until at least `count` requests have come since the start, and returns them all.
    pub async fn await_requests(&self, count: usize) -> Vec<RawRequest> {
        let mut requests = self.shared.requests.subscribe();
        let what = format!("request {count} at {}", self.address());
        let enough = requests.wait_for(|requests| requests.len() >= count);
        within(&what, enough)
            .await
            .expect("the sender lives")
            .clone()
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::spawn(converse(stream, number, Arc::clone(&shared)));
    }
}

async fn converse(stream: TcpStream, number: usize, shared: Arc<Shared>) {
    let script = shared.scripts.get(number - 1).or(shared.scripts.last());
    let script = script.cloned().unwrap_or_default();
    let resets = matches!(script.last(), Some(Step::Reset));
    if resets {
        stream.set_zero_linger().expect("an open socket");
    }
    match &shared.tls {
        Tls::None | Tls::Unspoken => perform(stream, number, script, &shared).await,
        Tls::Server(config) => {
            // One who does not trust us hangs up here.
            if let Ok(stream) = TlsAcceptor::from(Arc::clone(config)).accept(stream).await {
                perform(stream, number, script, &shared).await;
            }
        }
    }
}

async fn perform<S>(mut stream: S, number: usize, script: Vec<Step>, shared: &Shared)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut signals = shared.signals.subscribe();
    let resets = matches!(script.last(), Some(Step::Reset));
    for step in script {
        let gone = match step {
            Step::Read => match read_request(&mut stream).await {
                Some(text) => record(shared, number, text),
                None => true,
            },
            Step::ReadSome => {
                let mut some = [0; 16];
                let read = stream.read_exact(&mut some).await;
                let text = String::from_utf8_lossy(&some).into_owned();
                read.is_err() || record(shared, number, text)
            }
            Step::Write(bytes) => write(&mut stream, &bytes).await,
            Step::Drip(bytes, pace) => {
                let mut pace = interval(pace);
                let mut gone = false;
                for byte in bytes {
                    pace.tick().await;
                    gone = gone || write(&mut stream, &[byte]).await;
                }
                gone
            }
            Step::Flood(bytes) => {
                let_others_first();
                while !write(&mut stream, &bytes).await {
                    tokio::task::yield_now().await;
                }
                true
            }
            Step::AwaitSignal => signals.changed().await.is_err(),
            Step::Tell => {
                shared.told.send_replace(true);
                false
            }
            Step::Hang => {
                while stream.read(&mut [0; 512]).await.is_ok_and(|n| n > 0) {}
                false
            }
            Step::Reset => true,
        };
        if gone {
            break;
        }
    }
    if !resets {
        // Over TLS, an end is said and not only made.
        let _ = stream.shutdown().await;
    }
}

/// Always goes on.
fn record(shared: &Shared, connection: usize, text: String) -> bool {
    let arrived = Instant::now();
    shared.requests.send_modify(|requests| {
        requests.push(RawRequest {
            connection,
            text,
            arrived,
        });
    });
    false
}

/// Whether the other side has gone.
async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> bool {
    stream.write_all(bytes).await.is_err() || stream.flush().await.is_err()
}

/// Head and body of one request, or none where the connection ended first.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&request).into_owned();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    request.extend(body);
    Some(String::from_utf8_lossy(&request).into_owned())
}

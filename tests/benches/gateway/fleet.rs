//! Stations, on a thread of their own that does nothing else.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::{
    net::{TcpSocket, TcpStream},
    runtime, select,
    sync::oneshot,
    task::JoinSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    calls::Call,
    frames::Socket,
    histogram::{Histogram, SharedHistogram, now_ns},
    ledger::Ledger,
    process,
};

/// Handshakes at once.
const DIALLING: usize = 128;
/// Connections from one loopback address: an address has about 28,000 ports to give.
const PER_SOURCE: usize = 20_000;

/// What the stations do.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) ocpp: SocketAddr,
    /// Of the stations' names, so that two fleets don't take each other's connections.
    pub(crate) name: &'static str,
    pub(crate) stations: usize,
    /// What each station sends in turn, and to how many receivers it goes.
    pub(crate) calls: Vec<(Call, u32)>,
    pub(crate) pacing: Pacing,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Pacing {
    /// The next CALL as soon as the last one is answered and there is room.
    ClosedLoop,
    /// So many CALLs a second, of all stations together.
    PerSecond(f64),
    /// Closed, until so many events were sent.
    Until(u64),
}

pub(crate) struct Fleet {
    latencies: SharedHistogram,
    /// From the first handshake to the last.
    connecting: Duration,
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
    ended: oneshot::Receiver<Duration>,
}

impl Fleet {
    /// Connects the stations and lets them begin.
    pub(crate) async fn start(load: Load, ledger: &Ledger) -> Self {
        let (latencies, stop) = (SharedHistogram::default(), CancellationToken::new());
        let (connected, has_connected) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let station = StationTask {
            ledger: ledger.clone(),
            latencies: latencies.clone(),
            stop: stop.clone(),
        };
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            runtime.block_on(run(load, station, connected));
            let _ = end.send(process::cpu_of_this_thread());
        });
        Self {
            connecting: has_connected.await.expect("every station connects"),
            latencies,
            stop,
            thread: Some(thread),
            ended,
        }
    }

    pub(crate) fn connecting(&self) -> Duration {
        self.connecting
    }

    /// The times from CALL to CALLRESULT, of those since the last time.
    pub(crate) fn take(&self) -> Histogram {
        self.latencies.take()
    }

    /// Lets every station hear its last answer, and says what CPU time they all took.
    pub(crate) async fn stop(self) -> Duration {
        self.stop.cancel();
        self.ended().await
    }

    /// Waits until the stations have sent all that they were to send.
    pub(crate) async fn ended(mut self) -> Duration {
        let cpu = (&mut self.ended).await.expect("the stations end well");
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the stations end well");
        }
        cpu
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What every station goes by.
#[derive(Clone)]
struct StationTask {
    ledger: Ledger,
    latencies: SharedHistogram,
    stop: CancellationToken,
}

async fn run(load: Load, task: StationTask, connected: oneshot::Sender<Duration>) {
    let began = Instant::now();
    let sockets: Vec<_> = stream::iter(0..load.stations)
        .map(|number| dial(&load, number))
        .buffer_unordered(DIALLING)
        .collect()
        .await;
    let _ = connected.send(began.elapsed());
    let mut stations = JoinSet::new();
    let began = Instant::now();
    for (number, socket) in sockets.into_iter().enumerate() {
        let socket = socket.expect("the gateway accepts every station");
        let (load, task) = (load.clone(), task.clone());
        stations.spawn(async move {
            let result = match load.pacing {
                Pacing::ClosedLoop => {
                    task.send_in_closed_loop(socket, &load.calls, u64::MAX)
                        .await
                }
                Pacing::Until(events) => {
                    task.send_in_closed_loop(socket, &load.calls, events).await
                }
                Pacing::PerSecond(rate) => {
                    let turn = |stations: usize| period(stations, rate);
                    let first = began + turn(number);
                    let ticks = time::interval_at(first, turn(load.stations));
                    task.send_at_rate(socket, &load.calls, ticks).await
                }
            };
            result.expect("the gateway keeps every connection");
        });
    }
    while let Some(ended) = stations.join_next().await {
        ended.expect("a station that does not panic");
    }
}

/// In how much time so many stations have each had their turn.
#[expect(clippy::cast_precision_loss, reason = "there are no 2^52 stations")]
fn period(stations: usize, rate: f64) -> Duration {
    Duration::from_secs_f64(stations as f64 / rate)
}

async fn dial(load: &Load, number: usize) -> io::Result<Socket> {
    let stream = match u8::try_from(number / PER_SOURCE).unwrap_or(u8::MAX) {
        0 => TcpStream::connect(load.ocpp).await?,
        source => {
            let socket = TcpSocket::new_v4()?;
            socket.bind((Ipv4Addr::new(127, 0, 0, 1 + source), 0).into())?;
            socket.connect(load.ocpp).await?
        }
    };
    Socket::upgrade(stream, &format!("{}_{number:05}", load.name)).await
}

impl StationTask {
    async fn send_in_closed_loop(
        &self,
        mut socket: Socket,
        calls: &[(Call, u32)],
        until: u64,
    ) -> io::Result<()> {
        let mut calls = calls.to_vec();
        for turn in 0.. {
            let turn = turn % calls.len();
            let (call, posts) = &mut calls[turn];
            let admitted = self.stop.run_until_cancelled(self.ledger.admit(*posts));
            match admitted.await {
                Some(number) if number < until => {
                    self.call(&mut socket, call, *posts, number).await?;
                }
                Some(_) | None => break,
            }
        }
        Ok(())
    }

    /// Sends at its times, and listens in between, as a station at rest must.
    async fn send_at_rate(
        &self,
        mut socket: Socket,
        calls: &[(Call, u32)],
        mut ticks: time::Interval,
    ) -> io::Result<()> {
        let mut calls = calls.to_vec();
        for turn in 0.. {
            let turn = turn % calls.len();
            let (call, posts) = &mut calls[turn];
            select! {
                () = self.stop.cancelled() => break,
                _ = ticks.tick() => {
                    let number = self.ledger.admit(*posts).await;
                    self.call(&mut socket, call, *posts, number).await?;
                }
                // It ends with the connection: nobody answers what was not asked.
                unasked = socket.answered() => { unasked?; }
            }
        }
        Ok(())
    }

    async fn call(
        &self,
        socket: &mut Socket,
        call: &mut Call,
        posts: u32,
        number: u64,
    ) -> io::Result<()> {
        let sent = now_ns();
        socket.send(call.stamped(number, sent)).await?;
        if socket.answered().await? {
            self.latencies.record(now_ns() - sent);
            self.ledger.acknowledged(posts);
        } else {
            self.ledger.refused(posts);
        }
        Ok(())
    }
}

//! Stations in a closed loop: each sends its next CALL when the last one was answered.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue},
};
use tokio_util::sync::CancellationToken;

/// The zero of this process's clock.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since the bench began.
pub(crate) fn now_ns() -> u64 {
    u64::try_from(EPOCH.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Samples, in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<u64>);

impl Latencies {
    pub(crate) fn push(&mut self, nanoseconds: u64) {
        self.0.push(nanoseconds);
    }

    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn quantile_ms(&self, per_mille: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let nanoseconds = sorted.get(last * per_mille / 1000).copied().unwrap_or(0);
        Duration::from_nanos(nanoseconds).as_secs_f64() * 1e3
    }
}

/// Samples that many tasks add to.
pub(crate) type Shared = Arc<Mutex<Latencies>>;

pub(crate) fn take(shared: &Shared) -> Latencies {
    std::mem::take(&mut *shared.lock().unwrap_or_else(PoisonError::into_inner))
}

pub(crate) fn add(shared: &Shared, nanoseconds: u64) {
    shared
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(nanoseconds);
}

pub(crate) struct Fleet {
    stations: JoinSet<()>,
    latencies: Shared,
    stop: CancellationToken,
}

impl Fleet {
    pub(crate) async fn connect(ocpp: SocketAddr, count: usize) -> Self {
        let latencies = Shared::default();
        let stop = CancellationToken::new();
        let mut stations = JoinSet::new();
        for number in 0..count {
            let socket = dial(ocpp, number).await;
            let (latencies, stop) = (Arc::clone(&latencies), stop.clone());
            stations.spawn(async move {
                stop.run_until_cancelled(charge(socket, latencies)).await;
            });
        }
        Self {
            stations,
            latencies,
            stop,
        }
    }

    /// The time from CALL to CALLRESULT, of those since the last time.
    pub(crate) fn take(&self) -> Latencies {
        take(&self.latencies)
    }

    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while self.stations.join_next().await.is_some() {}
    }
}

type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

async fn dial(ocpp: SocketAddr, number: usize) -> Socket {
    let url = format!("ws://{ocpp}/ocpp/BENCH_{number:05}");
    let mut request = url.into_client_request().expect("a URL");
    let protocol = HeaderValue::from_static("ocpp1.6");
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocol);
    let stream = TcpStream::connect(ocpp).await.expect("the daemon listens");
    stream.set_nodelay(true).expect("a TCP socket");
    client_async(request, stream)
        .await
        .expect("the daemon accepts")
        .0
}

async fn charge(mut socket: Socket, latencies: Shared) {
    for id in 0_u64.. {
        let sent = now_ns();
        let body = super::meter_values(sent);
        let call = format!(r#"[2,"{id}","MeterValues",{body}]"#);
        if socket.send(Message::text(call)).await.is_err() {
            return;
        }
        match socket.next().await {
            Some(Ok(Message::Text(answer))) if answer.starts_with("[3,") => {}
            other => panic!("no CALLRESULT but {other:?}"),
        }
        add(&latencies, now_ns() - sent);
    }
}

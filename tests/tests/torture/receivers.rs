//! The receivers of all webhooks, each webhook with a path and a character of its own: one server,
//! and another one of HTTPS, at which several webhooks are neighbours.
//!
//! What one does with a request follows from the seed, the event and the attempt alone. No
//! connection is for two webhooks.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{ConnectInfo, State, connect_info::Connected},
    response::Response,
    serve::IncomingStream,
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request};
use pipelet_tests::{
    Authority,
    oracle::{Arrival, Key, Number},
};
use serde_json::Value;
use tokio::{net::TcpListener, sync::oneshot};

use crate::{neighbours, run::Run, secrets};

/// The webhooks at the server of HTTPS.
pub(crate) const NEIGHBOURS: [Key; 3] = [Key(6), Key(7), UNRULY];
/// The one of these that also breaks connections.
pub(crate) const UNRULY: Key = Key(8);
/// The webhooks whose receivers take everything at once.
pub(crate) const HEALTHY: [Key; 2] = [Key(1), Key(6)];

/// How a webhook's receiver behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Character {
    Healthy,
    /// Fails this often, of a thousand.
    Failing(u32),
    Slow,
    /// Hangs at the first attempt at one in five, so that some attempt nearly always hangs.
    Hanging,
    /// Does what only HTTP/2 has, and what a neighbour would have part in on its connection.
    Unruly,
}

impl Character {
    /// By the webhook's key: those that come and go fail now and then.
    const fn of(key: Key) -> Self {
        match key.0 {
            1 | 5 | 6 => Self::Healthy,
            2 => Self::Failing(250),
            3 => Self::Slow,
            4 => Self::Failing(600),
            7 => Self::Hanging,
            8 => Self::Unruly,
            _ => Self::Failing(100),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Conduct {
    Take,
    TakeAfter(Duration),
    /// Takes it, and wants no more over this connection.
    TakeAndGo,
    Refuse(u16),
    /// Says that it took it, and closes the connection in the middle of that.
    BreakOff,
    Hang,
    /// Says again and again that it is still there.
    Interim,
}

/// The servers; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Receivers {
    base: String,
    neighbours: String,
    _stop: oneshot::Sender<Infallible>,
}

impl Receivers {
    /// For a daemon that trusts this authority.
    pub(crate) async fn start(run: Arc<Run>, authority: &Authority) -> Self {
        let tls = authority.server().server_config(&["h2"]);
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let (bound, addresses) = oneshot::channel();
        // A thread of its own, so that arrivals are stamped when they come.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let (one, one_at) = bind().await;
                let (two, two_at) = bind().await;
                let bases = [format!("http://{one_at}"), format!("https://{two_at}")];
                let receiver = |base: &String| Receiver {
                    run: Arc::clone(&run),
                    base: base.clone(),
                };
                let routes = Router::new().fallback(take).with_state(receiver(&bases[0]));
                let routes = routes.into_make_service_with_connect_info::<Connection>();
                let neighbours = neighbours::serve(two, tls, receiver(&bases[1]));
                let _ = bound.send(bases);
                tokio::select! {
                    ended = axum::serve(one, routes) => ended.expect("the receivers serve"),
                    () = neighbours => {}
                    _ = stopped => {}
                }
            });
        });
        let [base, neighbours] = addresses.await.expect("the receivers' addresses");
        Self {
            base,
            neighbours,
            _stop: stop,
        }
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn url(&self, key: Key) -> String {
        let base = if NEIGHBOURS.contains(&key) {
            &self.neighbours
        } else {
            &self.base
        };
        format!("{base}/{}", key.0)
    }
}

async fn bind() -> (TcpListener, SocketAddr) {
    let any_port = (Ipv4Addr::LOCALHOST, 0);
    let listener = TcpListener::bind(any_port).await.expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    (listener, address)
}

/// The key in a URL of [`Receivers::url`], with or without something behind it.
pub(crate) fn key_in(url: &str) -> Option<Key> {
    url.split('/').nth(3)?.parse().ok().map(Key)
}

/// The webhook that a connection is for: that of its first request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connection(Arc<OnceLock<Key>>);

impl Connected<IncomingStream<'_, TcpListener>> for Connection {
    fn connect_info(_: IncomingStream<'_, TcpListener>) -> Self {
        Self::default()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Receiver {
    run: Arc<Run>,
    base: String,
}

impl Receiver {
    /// What to do with a request that has come to this path.
    pub(crate) fn receive(
        &self,
        connection: &Connection,
        path: &str,
        headers: &HeaderMap,
        body: &[u8],
        at: Instant,
    ) -> Conduct {
        let Self { run, base } = self;
        let header = |name| headers.get(name)?.to_str().ok();
        let url = format!("{base}{path}");
        let read = || {
            let event = header("webhook-id")?.strip_prefix("evt_")?;
            let arrival = Arrival {
                number: number_in(std::str::from_utf8(body).ok()?)?,
                attempt: header("pipelet-attempt")?.parse().ok()?,
                event: u128::from_str_radix(event, 16).ok()?,
                transaction: transaction_in(header("pipelet-event")?, body),
                at,
                taken: false,
            };
            Some((key_in(&url)?, arrival))
        };
        let Some((key, mut arrival)) = read() else {
            let fault = format!("a request that is none: {path} {headers:?} {body:?}");
            run.oracle().fault(fault);
            return Conduct::Refuse(400);
        };
        let owner = connection.0.get_or_init(|| key);
        if *owner != key {
            let fault = format!("webhooks {} and {} share a connection", owner.0, key.0);
            run.oracle().fault(fault);
        }
        if let Some(fault) = secrets::fault(run, key, &url, headers, body, at) {
            run.oracle().fault(fault);
        }
        let conduct = conduct(run, key, &arrival);
        arrival.taken = match conduct {
            Conduct::Take | Conduct::TakeAfter(_) | Conduct::TakeAndGo => true,
            Conduct::Refuse(_) | Conduct::BreakOff | Conduct::Hang | Conduct::Interim => false,
        };
        run.oracle().arrived(key, arrival);
        conduct
    }
}

async fn take(
    State(receiver): State<Receiver>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    request: Request<Body>,
) -> Response {
    let at = Instant::now();
    let (head, body) = request.into_parts();
    // A daemon that is killed may leave half a request.
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return answer(400, Body::empty());
    };
    match receiver.receive(&connection, head.uri.path(), &head.headers, &body, at) {
        Conduct::Take => answer(200, Body::empty()),
        Conduct::TakeAfter(time) => {
            tokio::time::sleep(time).await;
            answer(200, Body::empty())
        }
        Conduct::Refuse(status) => answer(status, Body::from("not now")),
        Conduct::BreakOff => {
            let broken = [
                Ok(Bytes::from_static(b"it is")),
                Err(io::Error::other("no")),
            ];
            answer(200, Body::from_stream(stream::iter(broken)))
        }
        Conduct::Hang => std::future::pending().await,
        Conduct::TakeAndGo | Conduct::Interim => unreachable!("only neighbours do so"),
    }
}

fn conduct(run: &Run, key: Key, arrival: &Arrival) -> Conduct {
    let what = format!("{}/{}/{}", key.0, arrival.number, arrival.attempt);
    let mut random = run.choices(&what);
    match Character::of(key) {
        Character::Slow => Conduct::TakeAfter(Duration::from_millis(random.u64(1..20))),
        Character::Failing(often) if random.u32(..1000) < often => match random.u32(..100) {
            0..2 => Conduct::Hang,
            2..20 => Conduct::BreakOff,
            20..60 => Conduct::Refuse(500),
            60..80 => Conduct::Refuse(503),
            _ => Conduct::Refuse(404),
        },
        Character::Hanging if arrival.attempt == 1 && random.u32(..5) == 0 => Conduct::Hang,
        Character::Unruly => match random.u32(..100) {
            0..10 => Conduct::Interim,
            10..20 => Conduct::BreakOff,
            20..30 => Conduct::Refuse(503),
            30..50 => Conduct::TakeAndGo,
            50..80 => Conduct::TakeAfter(Duration::from_millis(random.u64(1..200))),
            _ => Conduct::Take,
        },
        Character::Healthy | Character::Failing(_) | Character::Hanging => Conduct::Take,
    }
}

fn answer(status: u16, body: Body) -> Response {
    Response::builder()
        .status(status)
        .body(body)
        .expect("a valid answer")
}

/// The number that stands in a payload as `"#42#"`.
pub(crate) fn number_in(text: &str) -> Option<Number> {
    let (_, rest) = text.split_once("\"#")?;
    let (digits, _) = rest.split_once("#\"")?;
    digits.parse().ok()
}

fn transaction_in(event: &str, body: &[u8]) -> Option<i64> {
    if event != "StartTransaction" {
        return None;
    }
    let body: Value = serde_json::from_slice(body).ok()?;
    body["payload"]["transactionId"].as_i64()
}

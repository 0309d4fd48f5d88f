//! The receivers of all webhooks, one server, each webhook with a path and a character of its own.
//!
//! What one does with a request follows from the seed, the event and the attempt alone.

#![expect(
    clippy::disallowed_types,
    reason = "the daemon's callers are not those of this receiver"
)]

use std::{convert::Infallible, io, net::Ipv4Addr, sync::Arc, time::Duration, time::Instant};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
    routing::post,
};
use bytes::Bytes;
use futures_util::stream;
use pipelet_tests::oracle::{Arrival, Key, Number};
use serde_json::Value;
use tokio::{net::TcpListener, sync::oneshot};

use crate::world::World;

/// How a webhook's receiver behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Character {
    Healthy,
    /// Fails this often, of a thousand.
    Failing(u32),
    Slow,
}

impl Character {
    /// By the webhook's key: those that come and go fail now and then.
    const fn of(key: Key) -> Self {
        match key.0 {
            1 | 5 => Self::Healthy,
            2 => Self::Failing(250),
            3 => Self::Slow,
            4 => Self::Failing(600),
            _ => Self::Failing(100),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Conduct {
    Take,
    TakeAfter(Duration),
    Refuse(u16),
    /// Says that it took it, and closes the connection in the middle of that.
    BreakOff,
    Hang,
}

/// The server; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Receivers {
    base: String,
    _stop: oneshot::Sender<Infallible>,
}

impl Receivers {
    pub(crate) async fn start(world: Arc<World>) -> Self {
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let (bound, address) = oneshot::channel();
        // A thread of its own, so that arrivals are stamped when they come.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let any_port = (Ipv4Addr::LOCALHOST, 0);
                let listener = TcpListener::bind(any_port).await.expect("a free port");
                let _ = bound.send(listener.local_addr().expect("a bound address"));
                let routes = Router::new()
                    .route("/{key}", post(take))
                    .route("/{key}/{version}", post(take_version))
                    .with_state(world);
                tokio::select! {
                    ended = axum::serve(listener, routes) => ended.expect("the receivers serve"),
                    _ = stopped => {}
                }
            });
        });
        let address = address.await.expect("the receivers' address");
        Self {
            base: format!("http://{address}"),
            _stop: stop,
        }
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn url(&self, key: Key) -> String {
        format!("{}/{}", self.base, key.0)
    }
}

/// The key in a URL of [`Receivers::url`], with or without something behind it.
pub(crate) fn key_in(url: &str) -> Option<Key> {
    url.split('/').nth(3)?.parse().ok().map(Key)
}

async fn take_version(
    world: State<Arc<World>>,
    Path((key, _)): Path<(u32, u32)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    take(world, Path(key), headers, body).await
}

async fn take(
    State(world): State<Arc<World>>,
    Path(key): Path<u32>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let at = Instant::now();
    let key = Key(key);
    // A daemon that is killed may leave half a request.
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return answer(400, Body::empty());
    };
    let header = |name| headers.get(name)?.to_str().ok();
    let read = || {
        let event = header("webhook-id")?.strip_prefix("evt_")?;
        Some(Arrival {
            number: number_in(std::str::from_utf8(&body).ok()?)?,
            attempt: header("pipelet-attempt")?.parse().ok()?,
            event: u128::from_str_radix(event, 16).ok()?,
            transaction: transaction_in(header("pipelet-event")?, &body),
            at,
            taken: false,
        })
    };
    let Some(mut arrival) = read() else {
        let fault = format!("a request that is none: {headers:?} {body:?}");
        world.oracle().fault(fault);
        return answer(400, Body::empty());
    };
    let conduct = conduct(&world, key, &arrival);
    arrival.taken = matches!(conduct, Conduct::Take | Conduct::TakeAfter(_));
    world.oracle().arrived(key, arrival);
    match conduct {
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
    }
}

fn conduct(world: &World, key: Key, arrival: &Arrival) -> Conduct {
    let what = format!("{}/{}/{}", key.0, arrival.number, arrival.attempt);
    let mut random = world.choices(&what);
    match Character::of(key) {
        Character::Slow => Conduct::TakeAfter(Duration::from_millis(random.u64(1..20))),
        Character::Failing(often) if random.u32(..1000) < often => match random.u32(..100) {
            0..2 => Conduct::Hang,
            2..20 => Conduct::BreakOff,
            20..60 => Conduct::Refuse(500),
            60..80 => Conduct::Refuse(503),
            _ => Conduct::Refuse(404),
        },
        Character::Healthy | Character::Failing(_) => Conduct::Take,
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

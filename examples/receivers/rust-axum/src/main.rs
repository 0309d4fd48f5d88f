// A receiver for Pipelet's webhooks, in axum.
use std::{collections::HashSet, env, error::Error, sync::Mutex};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde::Deserialize;
use standardwebhooks::Webhook;
use subtle::ConstantTimeEq;
use tokio::{net::TcpListener, sync::mpsc};

#[derive(Deserialize)]
struct Event {
    event: String,
    station_id: String,
}

struct Receiver {
    secret: String,
    webhook: Webhook,
    // In production, use a database table with a unique key on the id instead, and write the work
    // in the same transaction: then neither is lost when this process ends.
    seen: Mutex<HashSet<String>>,
    work: mpsc::Sender<Event>,
}

async fn receive(
    State(receiver): State<&'static Receiver>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let shown = headers.get("x-webhook-secret");
    let shown = shown.map_or(&b""[..], |value| value.as_bytes());
    if !bool::from(shown.ct_eq(receiver.secret.as_bytes())) {
        return StatusCode::UNAUTHORIZED;
    }
    if receiver.webhook.verify(&body, &headers).is_err() {
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(event) = serde_json::from_slice(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    // Without room for more work, the answer is 503, and Pipelet sends the event again later.
    let Ok(room) = receiver.work.try_reserve() else {
        return StatusCode::SERVICE_UNAVAILABLE;
    };
    let id = headers["webhook-id"].to_str().unwrap_or_default();
    if receiver.seen.lock().unwrap().insert(id.to_owned()) {
        room.send(event);
    }
    StatusCode::NO_CONTENT
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (work, mut events) = mpsc::channel::<Event>(1000);
    let receiver: &'static Receiver = Box::leak(Box::new(Receiver {
        secret: env::var("WEBHOOK_SECRET")?,
        webhook: Webhook::new(&env::var("SIGNING_SECRET")?)?,
        seen: Mutex::default(),
        work,
    }));
    tokio::spawn(async move {
        while let Some(Event { event, station_id }) = events.recv().await {
            println!("{event} {station_id}");
        }
    });
    let host = env::var("HOST").unwrap_or("127.0.0.1".into());
    let port = env::var("PORT").unwrap_or("3001".into());
    let listener = TcpListener::bind(format!("{host}:{port}")).await?;
    eprintln!("listening on port {}", listener.local_addr()?.port());
    let router = Router::new()
        .route("/", post(receive))
        .route("/{*path}", post(receive));
    Ok(axum::serve(listener, router.with_state(receiver)).await?)
}

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
use tokio::{net::TcpListener, sync::mpsc};

#[derive(Deserialize)]
struct Event {
    event: String,
    station_id: String,
}

struct Receiver {
    webhook: Webhook,
    /// Yours: a table with a unique key, written together with the work.
    seen: Mutex<HashSet<String>>,
    work: mpsc::Sender<Event>,
}

async fn receive(
    State(receiver): State<&'static Receiver>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    if receiver.webhook.verify(&body, &headers).is_err() {
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(event) = serde_json::from_slice(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    // With no room left for work, it comes again later.
    let Ok(place) = receiver.work.try_reserve() else {
        return StatusCode::SERVICE_UNAVAILABLE;
    };
    let id = headers["webhook-id"].to_str().unwrap_or_default();
    if receiver.seen.lock().unwrap().insert(id.to_owned()) {
        place.send(event);
    }
    StatusCode::NO_CONTENT
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (work, mut events) = mpsc::channel::<Event>(1000);
    let receiver: &'static Receiver = Box::leak(Box::new(Receiver {
        webhook: Webhook::new(&env::var("SIGNING_SECRET")?)?,
        seen: Mutex::default(),
        work,
    }));
    tokio::spawn(async move {
        while let Some(Event { event, station_id }) = events.recv().await {
            println!("{event} {station_id}");
        }
    });
    let port = env::var("PORT").unwrap_or("3001".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    eprintln!("listening on port {}", listener.local_addr()?.port());
    let router = Router::new()
        .route("/", post(receive))
        .route("/{*path}", post(receive));
    Ok(axum::serve(listener, router.with_state(receiver)).await?)
}

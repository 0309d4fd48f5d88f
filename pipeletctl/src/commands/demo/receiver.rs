//! The integrator's side of the demo: an HTTP server that can be broken on purpose.
//!
//! Invariant: a request without the secret is refused with 401. Its mode, which the tour sets,
//! decides how the others are answered.

use std::{io, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    http::{Request, StatusCode},
};
use serde::Deserialize;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};

pub(super) const SECRET_HEADER: &str = "X-Webhook-Secret";

/// More than any body of the demo's chargers has.
const MAX_BODY: usize = 1024 * 1024;

/// Longer than the daemon waits.
const HANG: Duration = Duration::from_mins(1);

/// How the receiver answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReceiverMode {
    Healthy,
    /// Answers 500.
    Failing,
    /// Takes the request, and never answers.
    Hanging,
}

/// A POST that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Post {
    pub(super) event: String,
    pub(super) station: String,
    pub(super) attempt: u32,
    pub(super) answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Taken,
    Failed,
    WrongSecret,
    None,
}

/// The two of four keys that the demo shows.
#[derive(Deserialize)]
struct EventKeys {
    event: String,
    station_id: String,
}

#[derive(Clone)]
struct ReceiverState {
    secret: String,
    mode: watch::Receiver<ReceiverMode>,
    posts: mpsc::Sender<Post>,
}

/// Listens on a free port, and returns its webhook URL.
pub(super) async fn listen() -> io::Result<(TcpListener, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/webhooks/ocpp", listener.local_addr()?);
    Ok((listener, url))
}

/// Serves until it is dropped.
pub(super) async fn serve(
    listener: TcpListener,
    secret: String,
    mode: watch::Receiver<ReceiverMode>,
    posts: mpsc::Sender<Post>,
) -> io::Result<()> {
    let state = ReceiverState {
        secret,
        mode,
        posts,
    };
    axum::serve(listener, Router::new().fallback(receive).with_state(state)).await
}

async fn receive(State(state): State<ReceiverState>, request: Request<Body>) -> StatusCode {
    let (head, body) = request.into_parts();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let secret_is_right = header(SECRET_HEADER) == Some(state.secret.as_str());
    let attempt = header("pipelet-attempt").and_then(|text| text.parse().ok());
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return StatusCode::BAD_REQUEST;
    };
    let Ok(keys) = serde_json::from_slice::<EventKeys>(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    let mode = *state.mode.borrow();
    let (answer, status) = match mode {
        _ if !secret_is_right => (Answer::WrongSecret, StatusCode::UNAUTHORIZED),
        ReceiverMode::Healthy => (Answer::Taken, StatusCode::NO_CONTENT),
        ReceiverMode::Failing => (Answer::Failed, StatusCode::INTERNAL_SERVER_ERROR),
        ReceiverMode::Hanging => (Answer::None, StatusCode::NO_CONTENT),
    };
    let post = Post {
        event: keys.event,
        station: keys.station_id,
        attempt: attempt.unwrap_or(1),
        answer,
    };
    // At the demo's end the posts are not read any more.
    let _ = state.posts.send(post).await;
    if answer == Answer::None {
        tokio::time::sleep(HANG).await;
    }
    status
}

impl Answer {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "204 ok",
            Self::Failed => "500 failed",
            Self::WrongSecret => "401 secret",
            Self::None => "no answer",
        }
    }

    pub(super) const fn is_good(self) -> bool {
        matches!(self, Self::Taken)
    }
}

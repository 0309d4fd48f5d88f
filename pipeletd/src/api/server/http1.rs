//! HTTP/1.1 on the connections of a [`Door`]: one request at a time on each, its head read in time.

use std::time::Duration;

use axum::{Router, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use super::{Connection, Door};

/// From the connection, or the last answer, to the end of a request's head: an idle connection is
/// kept for as long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// In bytes; a request's head is longer only where somebody means it.
const MAX_HEAD: usize = 32 * 1024;
const MAX_HEADERS: usize = 64;

/// Serves the routes until the shutdown, then lets requests finish.
pub(in crate::api) async fn serve(door: Door, routes: Router, shutdown: CancellationToken) {
    let stopping = shutdown.clone();
    let one = move |connection| serve_one(connection, routes.clone(), stopping.clone());
    door.run(shutdown, one).await;
}

async fn serve_one(connection: Connection, routes: Router, shutdown: CancellationToken) {
    let peer = connection.peer();
    let answer = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        routes.clone().call(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(connection), answer);
    let mut serving = std::pin::pin!(serving);
    let served = tokio::select! {
        served = &mut serving => served,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(peer = %peer.0, %error, "an API caller's connection ended early");
    }
}

//! HTTP/1.1 on the connections of a [`Listener`]: one request at a time on each, its head read in
//! time.

use std::time::Duration;

use axum::{Router, extract::Request, response::IntoResponse as _};
use http::{HeaderValue, StatusCode, header, request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use super::{Connection, Listener};

/// From the connection, or the last answer, to the end of a request's head: an idle connection is
/// kept for as long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// In bytes; a request's head is longer only where somebody means it.
const MAX_HEAD: usize = 32 * 1024;
const MAX_HEADERS: usize = 64;

/// Serves the routes until the shutdown, then lets requests finish.
pub(in crate::api) async fn serve(listener: Listener, routes: Router, shutdown: CancellationToken) {
    let stopping = shutdown.clone();
    let one = move |connection| serve_one(connection, routes.clone(), stopping.clone());
    listener.run(shutdown, one).await;
}

async fn serve_one(connection: Connection, routes: Router, shutdown: CancellationToken) {
    let peer = connection.peer();
    let address = peer.address;
    let answer = service_fn(move |request: Request<Incoming>| {
        let (mut routes, peer) = (routes.clone(), peer.clone());
        async move {
            let (mut head, body) = request.into_parts();
            if size(&head) > MAX_HEAD {
                // As hyper itself answers, without a body.
                let close = [(header::CONNECTION, HeaderValue::from_static("close"))];
                let too_large = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                return Ok((too_large, close).into_response());
            }
            head.extensions.insert(peer);
            routes.call(Request::from_parts(head, body)).await
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        // Bounds what is buffered, which may be a last read more than that.
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
        tracing::debug!(peer = %address, %error, "an API caller's connection ended early");
    }
}

/// Of a request's head as it was sent, but for what may stand around values.
fn size(head: &request::Parts) -> usize {
    const BEYOND_METHOD_AND_TARGET: usize = "  HTTP/1.1\r\n\r\n".len();
    const BEYOND_NAME_AND_VALUE: usize = ": \r\n".len();
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + BEYOND_NAME_AND_VALUE);
    let target = head.uri.to_string();
    head.method.as_str().len() + target.len() + BEYOND_METHOD_AND_TARGET + headers.sum::<usize>()
}

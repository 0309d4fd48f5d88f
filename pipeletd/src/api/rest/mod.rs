//! REST under `/api/v1`, and the health checks and metrics beside it.

mod access;
mod api_keys;
mod body;
mod cluster;
mod commands;
mod daemon;
mod docs;
mod etag;
mod events;
mod failed_deliveries;
pub(crate) mod fuzzing;
mod health;
mod id_tags;
mod idempotency;
mod metrics;
mod openapi;
mod page;
mod path;
mod problem;
mod services;
mod shortcuts;
mod stations;
mod transactions;
mod webhooks;

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{MatchedPath, Request, State},
    http::Method,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use self::{idempotency::Idempotency, problem::Problem};
use super::{
    REQUEST_TIMEOUT,
    access_log::Call,
    authenticator::{Authenticator, Peer},
    cluster::Cluster,
    error::ApiError,
    grpc::Services,
    keys::ApiKeys,
    metrics::Metrics,
    readers,
    request_id::RequestId,
    server::{self, Listener},
    status::Readiness,
    webhooks::Webhooks,
};
use crate::{
    registries::{Caller, IdTags, Registrations},
    system::clock::Clock,
};

/// In bytes; a webhook takes a few hundred.
pub const MAX_BODY: usize = 1 << 20;

/// What the routes work with.
#[derive(Debug, Clone)]
pub struct Handles {
    pub webhooks: Webhooks,
    pub registrations: Registrations,
    pub services: Services,
    pub id_tags: IdTags,
    pub authenticator: Authenticator,
    pub readiness: Readiness,
    pub metrics: Metrics,
    pub keys: ApiKeys,
    pub clock: Clock,
    pub cluster: Cluster,
}

/// Serves until the shutdown, then lets requests finish.
pub async fn serve(listener: Listener, routes: Router, shutdown: CancellationToken) {
    server::serve(listener, routes, shutdown).await;
}

/// All that is answered.
pub fn router(handles: Handles) -> Router {
    let Services {
        webhooks,
        failed_deliveries,
        events,
        stations,
        transactions,
        daemon,
    } = handles.services;
    let api = webhooks::routes(handles.webhooks, webhooks, Arc::clone(&events))
        .merge(failed_deliveries::routes(failed_deliveries))
        .merge(events::routes(events))
        .merge(commands::routes(Arc::clone(&stations)))
        .merge(shortcuts::routes(Arc::clone(&stations)))
        .merge(stations::routes(handles.registrations, stations))
        .merge(transactions::routes(transactions))
        .merge(id_tags::routes(handles.id_tags))
        .merge(api_keys::routes(handles.keys, handles.clock))
        .merge(daemon::routes(daemon))
        .merge(cluster::routes(handles.cluster));
    debug_assert_eq!(
        *api.needs(),
        openapi::described(),
        "routes, and openapi.json"
    );
    let api = behind_a_key(api, handles.authenticator);
    Router::new()
        .nest("/api/v1", api)
        .merge(health::routes(handles.readiness))
        .merge(metrics::routes(handles.metrics))
        .merge(openapi::routes())
        .merge(docs::routes())
        .fallback(no_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(problem::of_panic))
        .layer(middleware::from_fn(give_id))
}

/// Whether a request is to be done once, however often it comes.
pub(super) fn is_done_once(request: &Request) -> bool {
    request.headers().contains_key(idempotency::KEY)
}

/// The API, for those with a key.
fn behind_a_key(api: access::Routes, authenticator: Authenticator) -> Router {
    api.into_router()
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(no_route)
        .layer(middleware::from_fn_with_state(
            Idempotency::default(),
            idempotency::once,
        ))
        .layer(middleware::from_fn_with_state(authenticator, authenticate))
}

/// An error as the answer to the request of this task.
pub(super) fn problem(error: ApiError) -> Response {
    Problem::from(error).into_response()
}

async fn no_route(Extension(id): Extension<RequestId>) -> Problem {
    Problem::new(ApiError::no_route(), id)
}

async fn method_not_allowed(Extension(id): Extension<RequestId>) -> Problem {
    Problem::new(ApiError::MethodNotAllowed, id)
}

/// Every request has an id, which its answer and the log name.
async fn give_id(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let call = Call::begin("rest", request.method().as_str(), &id);
    let answer = async {
        let late = |_| Problem::from(ApiError::took_too_long()).into_response();
        timeout(REQUEST_TIMEOUT, next.run(request))
            .await
            .unwrap_or_else(late)
    };
    let response = id.answer(answer).await;
    let caller = response.extensions().get::<Caller>();
    let route = route.as_ref().map(MatchedPath::as_str);
    call.end(route, response.status().as_u16(), caller, changes);
    response
}

async fn authenticate(
    State(authenticator): State<Authenticator>,
    Extension(id): Extension<RequestId>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    match authenticator.admit(request.headers(), &peer).await {
        Ok(caller) => {
            let validity = authenticator.validity(&caller);
            let reader = authenticator.reader(&caller);
            let sent = std::mem::take(request.body_mut());
            *request.body_mut() = readers::reserving(sent, reader.clone(), MAX_BODY, Into::into);
            request.extensions_mut().insert(reader);
            request.extensions_mut().insert(caller.clone());
            request.extensions_mut().insert(validity.clone());
            let answer = validity.run(next.run(request)).await;
            let answer = answer.unwrap_or_else(|ended| Problem::new(ended, id).into_response());
            let mut response = readers::keep(answer);
            // For the log.
            response.extensions_mut().insert(caller);
            response
        }
        Err(error) => Problem::new(error, id).into_response(),
    }
}

//! REST under `/api/v1`, and the health checks beside it.

mod body;
mod commands;
mod events;
mod failed_deliveries;
pub(crate) mod fuzzing;
mod health;
mod id_tags;
mod page;
mod problem;
mod shortcuts;
mod stations;
mod transactions;
mod view;
mod webhooks;

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::{HeaderValue, header::HeaderName},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tower_http::catch_panic::CatchPanicLayer;

use self::problem::{Problem, RequestId};
use super::{error::ApiError, roster::Roster, status::Readiness};
use crate::{auth::Keyring, delivery::Delivery, id_tags::IdTags, ocpp::Transactions};

/// In bytes; a webhook takes a few hundred.
pub const MAX_BODY: usize = 1 << 20;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the routes work with.
#[derive(Debug, Clone)]
pub struct Handles {
    pub delivery: Delivery,
    pub roster: Roster,
    pub transactions: Transactions,
    pub id_tags: IdTags,
    pub keyring: Keyring,
    pub readiness: Readiness,
}

pub fn router(handles: Handles) -> Router {
    let api = Router::new()
        .merge(webhooks::routes(handles.delivery.clone()))
        .merge(failed_deliveries::routes(handles.delivery))
        .merge(events::routes())
        .merge(commands::routes(handles.roster.stations().clone()))
        .merge(shortcuts::routes(handles.roster.stations().clone()))
        .merge(stations::routes(handles.roster))
        .merge(transactions::routes(handles.transactions))
        .merge(id_tags::routes(handles.id_tags))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(no_route)
        .layer(middleware::from_fn_with_state(
            handles.keyring,
            authenticate,
        ));
    Router::new()
        .nest("/api/v1", api)
        .merge(health::routes(handles.readiness))
        .fallback(no_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(problem::of_panic))
        .layer(middleware::from_fn(give_id))
}

async fn no_route(Extension(id): Extension<RequestId>) -> Problem {
    Problem::new(ApiError::no_route(), id)
}

async fn method_not_allowed(Extension(id): Extension<RequestId>) -> Problem {
    Problem::new(ApiError::MethodNotAllowed, id)
}

/// Every request has an id, which its answer and the log name.
async fn give_id(mut request: Request, next: Next) -> Response {
    let id = RequestId::random();
    request.extensions_mut().insert(id.clone());
    let mut response = problem::with_id(id.clone(), next.run(request)).await;
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

async fn authenticate(
    State(keyring): State<Keyring>,
    Extension(id): Extension<RequestId>,
    mut request: Request,
    next: Next,
) -> Response {
    let key = request
        .headers()
        .get(API_KEY)
        .and_then(|key| key.to_str().ok());
    match key.and_then(|key| keyring.check(key)) {
        Some(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        None => Problem::new(ApiError::Unauthenticated, id).into_response(),
    }
}

//! What each route needs, said beside it.
//!
//! A route can be added with its needs only: there is no way from an axum handler into the API
//! that does not go through [`reads`] or [`operates`].

use axum::{
    Extension, Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::MethodRouter,
};

use super::{
    super::{gate::permit, request_id::RequestId},
    problem::Problem,
};
use crate::auth::{Caller, Role};

/// Handlers whose callers have the role that they need.
pub(super) struct Permitted<S>(MethodRouter<S>);

/// For handlers that only read what the daemon knows.
pub(super) fn reads<S: Clone + Send + Sync + 'static>(handlers: MethodRouter<S>) -> Permitted<S> {
    needing(Role::ReadOnly, handlers)
}

/// For handlers that change something, or reach out to stations and receivers.
pub(super) fn operates<S: Clone + Send + Sync + 'static>(
    handlers: MethodRouter<S>,
) -> Permitted<S> {
    needing(Role::Operator, handlers)
}

fn needing<S: Clone + Send + Sync + 'static>(
    needed: Role,
    handlers: MethodRouter<S>,
) -> Permitted<S> {
    Permitted(handlers.route_layer(middleware::from_fn_with_state(needed, check)))
}

/// Runs behind the authentication, without which there is no caller.
async fn check(
    State(needed): State<Role>,
    Extension(caller): Extension<Caller>,
    Extension(id): Extension<RequestId>,
    request: Request,
    next: Next,
) -> Response {
    match permit(&caller, needed) {
        Ok(()) => next.run(request).await,
        Err(error) => Problem::new(error, id).into_response(),
    }
}

/// Routes that all say what they need.
pub(super) struct Routes<S = ()>(Router<S>);

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub(super) fn new() -> Self {
        Self(Router::new())
    }

    /// Handlers for different methods of a path.
    pub(super) fn route<const N: usize>(self, path: &str, handlers: [Permitted<S>; N]) -> Self {
        let handlers = handlers.into_iter().map(|Permitted(handlers)| handlers);
        let handlers = handlers.fold(MethodRouter::new(), MethodRouter::merge);
        Self(self.0.route(path, handlers))
    }

    pub(super) fn with_state<T: Clone + Send + Sync + 'static>(self, state: S) -> Routes<T> {
        Routes(self.0.with_state(state))
    }
}

impl Routes {
    pub(super) fn merge(self, other: Self) -> Self {
        Self(self.0.merge(other.0))
    }

    pub(super) fn into_router(self) -> Router {
        self.0
    }
}

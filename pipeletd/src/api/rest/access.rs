//! What each route needs, said beside it.
//!
//! A route can be added with its needs only: there is no way from an axum handler into the API
//! that does not go through [`reads`], [`operates`] or [`administers`].

use std::collections::BTreeSet;

use axum::{
    Extension, Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::MethodRouter,
};

use super::{
    super::{authenticator::permit, request_id::RequestId},
    problem::Problem,
};
use crate::{auth::Role, registries::Caller};

/// Handlers whose callers have the role that they need.
pub(super) struct Permitted<S> {
    handlers: MethodRouter<S>,
    needed: Role,
}

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

/// For handlers of what opens the API to others.
pub(super) fn administers<S: Clone + Send + Sync + 'static>(
    handlers: MethodRouter<S>,
) -> Permitted<S> {
    needing(Role::Admin, handlers)
}

fn needing<S: Clone + Send + Sync + 'static>(
    needed: Role,
    handlers: MethodRouter<S>,
) -> Permitted<S> {
    Permitted {
        handlers: handlers.route_layer(middleware::from_fn_with_state(needed, check)),
        needed,
    }
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
pub(super) struct Routes<S = ()> {
    router: Router<S>,
    /// Every path with the names of the roles that its methods need.
    needs: BTreeSet<(String, String)>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub(super) fn new() -> Self {
        Self {
            router: Router::new(),
            needs: BTreeSet::new(),
        }
    }

    /// Handlers for different methods of a path.
    pub(super) fn route<const N: usize>(mut self, path: &str, handlers: [Permitted<S>; N]) -> Self {
        let mut methods = MethodRouter::new();
        for Permitted { handlers, needed } in handlers {
            methods = methods.merge(handlers);
            let role = needed.name().to_owned();
            self.needs.insert((path.to_owned(), role));
        }
        self.router = self.router.route(path, methods);
        self
    }

    pub(super) fn with_state<T: Clone + Send + Sync + 'static>(self, state: S) -> Routes<T> {
        Routes {
            router: self.router.with_state(state),
            needs: self.needs,
        }
    }
}

impl Routes {
    pub(super) fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.needs.extend(other.needs);
        self
    }

    pub(super) fn needs(&self) -> &BTreeSet<(String, String)> {
        &self.needs
    }

    pub(super) fn into_router(self) -> Router {
        self.router
    }
}

//! Who answers a call: the owner of the shards where that is this daemon, and else the node that is,
//! to which it is forwarded.
//!
//! A node that owns no shard answers by itself whether it can do its work, and its own figures.

use std::{fmt, sync::Arc, time::Duration};

use axum::{Extension, Router, extract::Request, response::Response};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;
use tower_service::Service as _;

use super::{
    REQUEST_TIMEOUT,
    authenticator::{Authenticator, Peer},
    error::ApiError,
    grpc,
    readers::{self, Held},
    request_id::RequestId,
    rest,
    server::nodes::{self, ForwardError, Forwarder},
};
use crate::{
    cluster::{Peers, members::Owner},
    store::Ownership,
};

/// How long a call waits for a node to become the owner: about as long as that takes.
const OWNER_TIMEOUT: Duration = Duration::from_secs(10);
/// Before an owner that could not be reached is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Rest,
    Grpc,
}

/// What the owner answers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Routers {
    pub rest: Router,
    pub grpc: Router,
}

/// What a node works with that owns no shard.
#[derive(Debug, Clone)]
pub struct Standby {
    pub peers: Peers,
    pub authenticator: Authenticator,
    /// What it answers by itself.
    pub own: Routers,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Switch {
    current: Arc<dyn Fn() -> Option<(Ownership, Routers)> + Send + Sync>,
    /// None where this daemon is always the owner.
    standby: Option<(Standby, Forwarder)>,
}

impl Switch {
    /// `current` tells what answers here at the moment as the owner.
    pub fn new(
        current: impl Fn() -> Option<(Ownership, Routers)> + Send + Sync + 'static,
        standby: Option<Standby>,
    ) -> Self {
        Self {
            current: Arc::new(current),
            standby: standby.map(|standby| {
                let forwarder = Forwarder::new(standby.peers.clone());
                (standby, forwarder)
            }),
        }
    }

    /// What is answered to REST's callers.
    pub fn rest(&self) -> Router {
        self.router(Api::Rest)
    }

    /// What is answered to gRPC's callers.
    pub fn grpc(&self) -> Router {
        self.router(Api::Grpc)
    }

    fn router(&self, api: Api) -> Router {
        let switch = self.clone();
        Router::new().fallback(move |Extension(peer): Extension<Peer>, request: Request| {
            let switch = switch.clone();
            async move { switch.answer(api, &peer, request).await }
        })
    }

    async fn answer(&self, api: Api, peer: &Peer, request: Request) -> Response {
        let routers = if api.is_own(request.uri().path()) {
            // Also of an owner that can't renew its lease, which tells so.
            let current = (self.current)().map(|(_, routers)| routers);
            let standby = self.standby.as_ref().map(|(standby, _)| &standby.own);
            current.or_else(|| standby.cloned())
        } else {
            self.owner()
        };
        match routers {
            Some(routers) => call(routers.of(api), request).await,
            None => self.forward_for(api, peer, request).await,
        }
    }

    /// What the owner answers, where that is this node. One that may have been overtaken answers
    /// nothing.
    fn owner(&self) -> Option<Routers> {
        let (ownership, routers) = (self.current)()?;
        ownership.is_held().then_some(routers)
    }

    /// What is answered to another node's caller: nothing where this is no longer the owner.
    pub(super) async fn answer_as_owner(&self, api: Api, mut request: Request) -> Response {
        if let Some(routers) = self.owner() {
            return call(routers.of(api), request).await;
        }
        let id = RequestId::of(request.headers());
        id.set(request.headers_mut());
        id.answer(async { api.refuse(no_owner()) }).await
    }

    /// Forwards a call whose caller may come in.
    async fn forward_for(&self, api: Api, peer: &Peer, mut request: Request) -> Response {
        let id = RequestId::of(request.headers());
        id.set(request.headers_mut());
        let answer = async {
            let answer = async {
                let held = self.admit(api, peer, &request)?;
                let forwarded = timeout(REQUEST_TIMEOUT, self.forward(api, peer, request)).await;
                let mut response = forwarded.map_err(|_| ApiError::took_too_long())??;
                response.extensions_mut().extend(held);
                Ok(readers::keep(response))
            };
            answer.await.unwrap_or_else(|error| api.refuse(error))
        };
        id.answer(answer).await
    }

    /// What is held for a call without a known key until its answer was sent.
    fn admit(
        &self,
        api: Api,
        peer: &Peer,
        request: &Request,
    ) -> Result<http::Extensions, ApiError> {
        let mut held = http::Extensions::new();
        if let Some((standby, _)) = &self.standby
            && api.needs_key(request.uri().path())
        {
            match standby.authenticator.admit(request.headers(), peer) {
                Ok(_) => return Ok(held),
                // A key may be younger than all that this node has heard: the owner knows.
                Err(ApiError::Unauthenticated { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let place = peer.open_call().ok_or_else(ApiError::too_many_open_calls)?;
        held.insert(Held::new(place));
        Ok(held)
    }

    /// Forwards a call to the owner, as soon as there is one, or answers it as the owner.
    async fn forward(&self, api: Api, peer: &Peer, request: Request) -> Result<Response, ApiError> {
        let Some((standby, forwarder)) = &self.standby else {
            return Err(no_owner());
        };
        let mut seen = standby.peers.seen();
        let deadline = Instant::now() + OWNER_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(routers) = self.owner() {
                return Ok(call(routers.of(api), request).await);
            }
            let owner = seen.borrow_and_update().owner;
            let elsewhere = |owner: &Owner| owner.node != standby.peers.me();
            let why = match owner.filter(elsewhere) {
                Some(owner) => match timeout_at(deadline, forwarder.connection(owner)).await {
                    Err(_) => break,
                    Ok(Ok(connection)) => {
                        let sent = nodes::send(connection, api, peer.address, request).await;
                        return sent.map_err(ApiError::from);
                    }
                    Ok(Err(why)) => Some(why),
                },
                None => None,
            };
            if let Some(why) = why {
                tracing::debug!(%why, "a call could not be forwarded, trying again");
            }
            let next = deadline.min(Instant::now() + TRY_AGAIN);
            let _ = timeout_at(next, seen.changed()).await;
        }
        Err(no_owner())
    }
}

fn no_owner() -> ApiError {
    ApiError::Unavailable("no node owns the shards now, try again".to_owned())
}

impl Api {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Grpc => "grpc",
        }
    }

    pub(super) fn named(name: &[u8]) -> Option<Self> {
        [Self::Rest, Self::Grpc]
            .into_iter()
            .find(|api| api.name().as_bytes() == name)
    }

    /// Whether a node answers it by itself, whoever owns the shards.
    fn is_own(self, path: &str) -> bool {
        match self {
            Self::Rest => rest::is_own(path),
            Self::Grpc => grpc::is_own(path),
        }
    }

    fn needs_key(self, path: &str) -> bool {
        match self {
            Self::Rest => path.starts_with("/api/"),
            Self::Grpc => !grpc::is_open(path),
        }
    }

    fn refuse(self, error: ApiError) -> Response {
        match self {
            Self::Rest => rest::problem(error),
            Self::Grpc => Status::from(error).into_http(),
        }
    }
}

impl Routers {
    fn of(self, api: Api) -> Router {
        match api {
            Api::Rest => self.rest,
            Api::Grpc => self.grpc,
        }
    }
}

impl From<ForwardError> for ApiError {
    fn from(error: ForwardError) -> Self {
        let error = anyhow::Error::from(error);
        tracing::info!(
            error = format!("{error:#}"),
            "a forwarded call has no answer"
        );
        Self::Unavailable("the node that owns the shards has gone before its answer".to_owned())
    }
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switch")
            .field("standby", &self.standby)
            .finish_non_exhaustive()
    }
}

async fn call(mut router: Router, request: Request) -> Response {
    let Ok(response) = router.call(request).await;
    response
}

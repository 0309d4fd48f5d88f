//! Which node of a cluster answers a request that is to be done once (`Idempotency-Key`): the owner of
//! the first shard, wherever the request has come in. So what was answered before is known at each.

use axum::{Extension, Router, extract::Request, response::Response};
use pipelet_domain::shards::ShardId;
use tokio::time::{Duration, Instant, timeout, timeout_at};

use super::{
    REQUEST_TIMEOUT,
    authenticator::{Authenticator, Peer},
    error::ApiError,
    request_id::RequestId,
    rest,
    server::nodes::{self, Asked, Forwarder, call},
    shards::{Local, OWNER_TIMEOUT},
};
use crate::cluster::Peers;

/// Before an owner that could not be reached is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Cheap to clone.
#[derive(Clone)]
pub struct IdempotencyHome {
    /// What this node answers.
    rest: Router,
    authenticator: Authenticator,
    local: Local,
    peers: Peers,
    forwarder: Forwarder,
}

impl IdempotencyHome {
    pub fn new(rest: Router, authenticator: Authenticator, local: Local, peers: Peers) -> Self {
        Self {
            rest,
            authenticator,
            local,
            forwarder: Forwarder::new(peers.clone()),
            peers,
        }
    }

    /// What is answered to REST's callers.
    pub fn router(&self) -> Router {
        let home = self.clone();
        Router::new().fallback(move |Extension(peer): Extension<Peer>, request: Request| {
            let home = home.clone();
            async move { home.answer(&peer, request).await }
        })
    }

    async fn answer(&self, peer: &Peer, request: Request) -> Response {
        if !rest::is_done_once(&request) || (self.local)(ShardId(0)).is_some() {
            return call(self.rest.clone(), request).await;
        }
        let mut request = request;
        let id = RequestId::of(request.headers());
        id.set(request.headers_mut());
        let answer = async {
            let answer = async {
                self.authenticator.admit(request.headers(), peer).await?;
                let forwarded = timeout(REQUEST_TIMEOUT, self.forward(peer, request)).await;
                forwarded.map_err(|_| ApiError::took_too_long())?
            };
            answer.await.unwrap_or_else(rest::problem)
        };
        id.answer(answer).await
    }

    async fn forward(&self, peer: &Peer, request: Request) -> Result<Response, ApiError> {
        let mut seen = self.peers.seen();
        let deadline = Instant::now() + OWNER_TIMEOUT;
        while Instant::now() < deadline {
            if (self.local)(ShardId(0)).is_some() {
                return Ok(call(self.rest.clone(), request).await);
            }
            let owner = seen.borrow_and_update().owners.get(&ShardId(0)).copied();
            if let Some(owner) = owner.filter(|owner| owner.node != self.peers.me())
                && let Ok(Ok(connection)) =
                    timeout_at(deadline, self.forwarder.connection(owner.node)).await
            {
                let sent = nodes::send(connection, Asked::Node(peer.address), request).await;
                return sent.map_err(|error| {
                    let error = format!("{:#}", anyhow::Error::from(error));
                    tracing::info!(error, "a forwarded request has no answer");
                    let why = "the node that answers it has gone before its answer";
                    ApiError::Unavailable(why.to_owned())
                });
            }
            let next = deadline.min(Instant::now() + TRY_AGAIN);
            let _ = timeout_at(next, seen.changed()).await;
        }
        let why = "no node owns the first shard now, try again";
        Err(ApiError::Unavailable(why.to_owned()))
    }
}

impl std::fmt::Debug for IdempotencyHome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdempotencyHome").finish_non_exhaustive()
    }
}

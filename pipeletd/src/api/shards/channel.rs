//! The way to a shard: to its owner, be that this node or another one.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, extract::Request, response::Response};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use pipelet_domain::shards::ShardId;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tonic::{Status, body::Body};
use tower_service::Service;

use super::super::{
    error::ApiError,
    server::nodes::{self, Asked, Forwarder, call, is_misdirected},
};
use crate::cluster::{Peers, members::Seen};

/// How long a call waits for a node to become the owner: about as long as that takes.
pub(in crate::api) const OWNER_TIMEOUT: Duration = Duration::from_secs(10);
/// Before an owner that could not be reached is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Says of a request that it comes from the shard's own node.
#[derive(Debug, Clone, Copy)]
pub(super) struct SameNode;

/// What shards answer that are this node's.
pub type Local = Arc<dyn Fn(ShardId) -> Option<Router> + Send + Sync>;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct ShardChannel {
    shard: ShardId,
    /// How long a call waits for an owner.
    patience: Duration,
    local: Local,
    peers: Peers,
    forwarder: Forwarder,
}

impl ShardChannel {
    pub(super) fn new(shard: ShardId, local: Local, peers: Peers, forwarder: Forwarder) -> Self {
        Self {
            shard,
            patience: OWNER_TIMEOUT,
            local,
            peers,
            forwarder,
        }
    }

    /// The same, whose calls wait so long for an owner.
    pub(super) fn with_patience(&self, patience: Duration) -> Self {
        Self {
            patience,
            ..self.clone()
        }
    }

    async fn ask(self, request: http::Request<Body>) -> Response {
        let (head, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(status) => return status.into_http(),
        };
        let mut seen = self.peers.seen();
        let deadline = Instant::now() + self.patience;
        loop {
            let request = Request::from_parts(head.clone(), axum::body::Body::from(body.clone()));
            match self.try_ask(request, &mut seen, deadline).await {
                Ok(Some(response)) => return response,
                Ok(None) => {}
                Err(status) => return status.into_http(),
            }
            let next = Instant::now() + TRY_AGAIN;
            if next > deadline {
                return self.no_owner().into_http();
            }
            let _ = timeout_at(next, seen.changed()).await;
        }
    }

    /// None where it is to be asked again.
    async fn try_ask(
        &self,
        request: Request,
        seen: &mut watch::Receiver<Seen>,
        deadline: Instant,
    ) -> Result<Option<Response>, Status> {
        if let Some(router) = (self.local)(self.shard) {
            let mut request = request;
            request.extensions_mut().insert(SameNode);
            return Ok(Some(call(router, request).await));
        }
        let owner = seen.borrow_and_update().owners.get(&self.shard).copied();
        let Some(owner) = owner.filter(|owner| owner.node != self.peers.me()) else {
            return Ok(None);
        };
        let connection = self.forwarder.connection(owner.node);
        let connection = match timeout_at(deadline, connection).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(why)) => {
                tracing::debug!(shard = self.shard.0, %why, "an owner can't be asked");
                return Ok(None);
            }
            Err(_) => return Ok(None),
        };
        let sent = nodes::send(connection, Asked::Shard(self.shard), request).await;
        match sent {
            Ok(response) if is_misdirected(&response) => Ok(None),
            Ok(response) => Ok(Some(response)),
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::info!(shard = self.shard.0, error, "a call has no answer");
                let why = format!("the node that owns shard {} has gone", self.shard.0);
                Err(ApiError::Unavailable(why).into())
            }
        }
    }

    fn no_owner(&self) -> Status {
        let why = format!("no node owns shard {} now, try again", self.shard.0);
        ApiError::Unavailable(why).into()
    }

    /// Asks for something that is no gRPC.
    pub(super) async fn open(
        &self,
        method: http::Method,
        path: &str,
    ) -> Result<Response, ApiError> {
        let request = http::Request::builder().method(method).uri(path);
        let request = request.body(Body::empty()).map_err(ApiError::internal)?;
        let response = self.clone().ask(request).await;
        match Status::from_header_map(response.headers()) {
            Some(status) => Err(ApiError::of_status(status)),
            None if response.status().is_success() => Ok(response),
            None => Err(ApiError::internal(anyhow::anyhow!(
                "a shard answers {}",
                response.status()
            ))),
        }
    }

    /// The same, as a whole.
    pub(super) async fn fetch(&self, method: http::Method, path: &str) -> Result<Bytes, ApiError> {
        let response = self.open(method, path).await?;
        let body = response.into_body().collect().await;
        Ok(body.map_err(ApiError::internal)?.to_bytes())
    }
}

impl Service<http::Request<Body>> for ShardChannel {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.ask(request).await) })
    }
}

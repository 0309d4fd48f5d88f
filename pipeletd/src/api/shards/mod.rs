//! What is asked of all shards, whichever nodes own them: the services of the API, put together of
//! those of each shard.
//!
//! A shard answers as if there were no other ([`internal`]). What is here asks each over the same
//! messages that callers use, and adds up, merges, or finds the one that knows. Nothing is kept.

mod backup;
mod channel;
mod daemon;
mod deliverers;
mod events;
mod failed_deliveries;
mod internal;
mod merging;
mod paging;
mod stations;
mod tags;
mod transactions;
mod webhooks;

use std::{fmt, sync::Arc, time::Duration};

use axum::http::Method;
use futures_util::future::try_join_all;
use pipelet_domain::{
    events::StationId,
    shards::{ShardId, Shards},
};
use pipelet_proto::v1::{
    daemon_service_client::DaemonServiceClient, event_service_client::EventServiceClient,
    failed_delivery_service_client::FailedDeliveryServiceClient,
    station_service_client::StationServiceClient,
    transaction_service_client::TransactionServiceClient,
    webhook_service_client::WebhookServiceClient,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, metadata::MetadataValue};

pub(super) use self::channel::OWNER_TIMEOUT;
use self::{backup::ClusterBackup, channel::ShardChannel, paging::Page};
pub use self::{
    channel::Local,
    internal::{NodeHandles, router},
};
use super::{
    Daemon, Webhooks,
    error::ApiError,
    event_streams::{MAX_TAILS, too_many_tails},
    grpc::{Serving, WebhookRpc, request},
    readers::Reader,
    request_id::RequestId,
    server::nodes::Forwarder,
};
use crate::cluster::Peers;

/// In bytes; a page of the largest events.
const MAX_ANSWER: usize = 64 << 20;
/// For whom a shard is asked, by the number of the key.
const KEY: &str = "pipelet-key";
/// Of how many a shard is asked at once: its page has as many bytes less.
const PART_OF: &str = "pipelet-part-of";

/// The shards of a cluster. Cheap to clone.
#[derive(Clone)]
pub struct AllShards(Shards<Shard>);

/// One of them.
#[derive(Clone)]
struct Shard {
    id: ShardId,
    channel: ShardChannel,
}

impl AllShards {
    /// `local` are those of this node.
    pub fn new(count: u16, local: &Local, peers: &Peers) -> Self {
        let forwarder = Forwarder::new(peers.clone());
        let shards = (0..count).map(ShardId).map(|id| Shard {
            id,
            channel: ShardChannel::new(id, Arc::clone(local), peers.clone(), forwarder.clone()),
        });
        Self(Shards::new(shards))
    }

    fn iter(&self) -> impl Iterator<Item = &Shard> {
        self.0.iter()
    }

    /// What all of them answer, in their order.
    async fn each<T, E, F>(&self, ask: impl Fn(Shard) -> F) -> Result<Vec<T>, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        try_join_all(self.iter().cloned().map(ask)).await
    }

    /// What the one answers that doesn't say that it isn't there.
    async fn find<T, F>(&self, ask: impl Fn(Shard) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let answers = self.each(|shard| {
            let answer = ask(shard);
            async move {
                match answer.await {
                    Err(status) if status.code() == Code::NotFound => Ok(Err(status)),
                    answer => answer.map(Ok),
                }
            }
        });
        let mut missing = Status::not_found("there are no shards");
        for answer in answers.await? {
            match answer {
                Ok(found) => return Ok(found),
                Err(status) => missing = status,
            }
        }
        Err(missing)
    }

    /// The shard of a station; what is no id names no station of any.
    fn of(&self, station: &str) -> &Shard {
        match StationId::new(station) {
            Ok(station) => self.0.of(&station),
            Err(_) => &self.0.as_slice()[0],
        }
    }

    /// A page of a list that is merged of those of all shards, the smallest key first, and the token of
    /// the next. `fetch` asks a shard for so many items behind a token.
    async fn page<T, K: Ord, F>(
        &self,
        page_size: u32,
        page_token: &str,
        first: First,
        fetch: impl Fn(Shard, u32, String) -> F,
        key: impl Fn(&T) -> K,
    ) -> Result<(Vec<T>, String), Status>
    where
        F: Future<Output = Result<Page<T>, Status>>,
    {
        let first = match first {
            First::Latest if page_token.is_empty() => self.ends().await?,
            First::Latest | First::Lowest => vec![String::new(); self.0.count()],
        };
        let size = request::page_size(page_size);
        let fetch = |shard, size, token| {
            let size = u32::try_from(size).unwrap_or(u32::MAX);
            fetch(shard, size, token)
        };
        paging::page(self.0.as_slice(), size, page_token, first, fetch, key).await
    }

    /// Of each shard, the token of a first page that begins with what is its latest now.
    async fn ends(&self) -> Result<Vec<String>, ApiError> {
        self.each(|shard| async move {
            let end = shard.channel.fetch(Method::GET, internal::END).await?;
            Ok(String::from_utf8_lossy(&end).into_owned())
        })
        .await
    }

    /// For one that is asked beside all others.
    fn part_of<T>(&self, reader: &Reader, message: T) -> Request<T> {
        let mut request = asking(Some(reader), message);
        let count = MetadataValue::from(self.0.count() as u64);
        request.metadata_mut().insert(PART_OF, count);
        request
    }
}

/// What a list begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// With what was there last when its first page was asked for.
    Latest,
    /// With what its order begins with, whenever that came.
    Lowest,
}

/// The services of all shards, wherever these are.
pub type FrontServices = Serving<WebhookRpc<Front>, Front, Front, Front, Front, Front>;

impl FrontServices {
    pub fn of(front: Front, webhooks: Webhooks) -> Self {
        let webhooks = WebhookRpc {
            webhooks,
            deliveries: front.clone(),
        };
        let front = Arc::new(front);
        Self {
            webhooks: Arc::new(webhooks),
            failed_deliveries: Arc::clone(&front),
            events: Arc::clone(&front),
            stations: Arc::clone(&front),
            transactions: Arc::clone(&front),
            daemon: front,
        }
    }
}

/// What a node answers for all shards. Cheap to clone.
#[derive(Clone)]
pub struct Front {
    all: AllShards,
    daemon: Daemon,
    tails: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Front {
    /// Tails end with the shutdown.
    pub fn new(all: AllShards, daemon: Daemon, shutdown: CancellationToken) -> Self {
        Self {
            all,
            daemon,
            tails: Arc::new(Semaphore::new(MAX_TAILS)),
            shutdown,
        }
    }

    fn place_of_a_tail(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let place = Arc::clone(&self.tails).try_acquire_owned();
        place.map_err(|_| too_many_tails())
    }

    fn backup(&self) -> ClusterBackup {
        ClusterBackup::new(self.all.clone())
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").finish_non_exhaustive()
    }
}

impl fmt::Debug for AllShards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AllShards({})", self.0.count())
    }
}

impl Shard {
    /// The same, that waits so long for an owner.
    fn within(&self, patience: Duration) -> Self {
        let (id, channel) = (self.id, self.channel.with_patience(patience));
        Self { id, channel }
    }

    fn events(&self) -> EventServiceClient<ShardChannel> {
        EventServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    fn failed_deliveries(&self) -> FailedDeliveryServiceClient<ShardChannel> {
        let client = FailedDeliveryServiceClient::new(self.channel.clone());
        client.max_decoding_message_size(MAX_ANSWER)
    }

    fn webhooks(&self) -> WebhookServiceClient<ShardChannel> {
        WebhookServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    fn stations(&self) -> StationServiceClient<ShardChannel> {
        StationServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    fn transactions(&self) -> TransactionServiceClient<ShardChannel> {
        TransactionServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    fn daemon(&self) -> DaemonServiceClient<ShardChannel> {
        DaemonServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }
}

/// Asks a shard on behalf of a caller, under the present request's id.
fn asking<T>(reader: Option<&Reader>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    if let Ok(id) = MetadataValue::try_from(RequestId::current().as_str()) {
        metadata.insert("x-request-id", id);
    }
    if let Some(reader) = reader {
        metadata.insert(KEY, MetadataValue::from(reader.key_id()));
    }
    request
}

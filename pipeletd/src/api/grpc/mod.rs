//! gRPC `pipelet.v1`: one service for each noun, with health and reflection.

mod access;
mod api_keys;
mod cluster;
mod commands;
mod daemon;
mod events;
mod failed_deliveries;
mod id_tags;
pub(super) mod readers;
pub(super) mod request;
mod stations;
mod status;
mod transactions;
mod webhooks;

use std::{fmt, io, sync::Arc, time::Duration};

use axum::{Router, middleware};
use pipelet_proto::v1::{
    self,
    api_key_service_server::ApiKeyServiceServer,
    cluster_service_server::ClusterServiceServer,
    daemon_service_server::{DaemonService, DaemonServiceServer},
    event_service_server::{EventService, EventServiceServer},
    failed_delivery_service_server::{FailedDeliveryService, FailedDeliveryServiceServer},
    id_tag_service_server::IdTagServiceServer,
    station_service_server::{StationService, StationServiceServer},
    transaction_service_server::{TransactionService, TransactionServiceServer},
    webhook_service_server::{WebhookService, WebhookServiceServer},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    codegen::BoxStream,
    service::Routes,
    transport::{Server, server::Connected},
};

use self::{
    access::Guard, api_keys::ApiKeyRpc, cluster::ClusterRpc, daemon::DaemonRpc, events::EventRpc,
    failed_deliveries::FailedDeliveryRpc, id_tags::IdTagRpc, stations::StationRpc,
    transactions::TransactionRpc, webhooks::OwnDeliveries,
};
pub(super) use self::{
    access::validity,
    daemon::backed_up,
    status::statuses,
    webhooks::{Answer, Deliveries, WebhookRpc},
};
use super::{
    REQUEST_TIMEOUT,
    authenticator::{Authenticator, Peer},
    cluster::Cluster,
    daemon::{Daemon, ShardFigures},
    event_streams::EventStreams,
    keys::ApiKeys,
    server::{Connection, Listener},
    station_directory::StationDirectory,
    trigger::Trigger,
};
use crate::{
    delivery::Delivery, journal::Journals, ocpp, registries::IdTags, store::Backup,
    system::clock::Clock,
};

/// In bytes; a command's payload has a MiB at most, and all else is small.
const MAX_MESSAGE: usize = (1 << 20) + 64 * 1024;
/// In bytes, of what is sent without a key.
const MAX_OPEN_MESSAGE: usize = 8 * 1024;
/// In bytes, of one call's metadata.
const MAX_HEAD: u32 = 32 * 1024;
/// Calls and streams at once on one connection.
const MAX_STREAMS: u32 = 100;
/// In bytes: what a client may have sent that no method has read yet, in one call and in all calls
/// of a connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 128 * 1024;
/// How often a client is asked whether it is there still, and how long it may take to answer. This,
/// and no time-out, ends a stream that is meant to live long.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What every client of HTTP/2 sends first (RFC 9113, section 3.4), in bytes.
const PREFACE_LEN: usize = 24;
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// The services whose answers are the shards'.
#[derive(Clone)]
pub struct Services {
    pub(super) webhooks: Webhooks,
    pub(super) failed_deliveries: FailedDeliveries,
    pub(super) events: Events,
    pub(super) stations: Stations,
    pub(super) transactions: Transactions,
    pub(super) daemon: Daemons,
}

pub(super) type Webhooks = Arc<dyn WebhookService>;
pub(super) type FailedDeliveries =
    Arc<dyn FailedDeliveryService<ReplayStream = BoxStream<v1::ReplayResponse>>>;
pub(super) type Events =
    Arc<dyn EventService<TailEventsStream = BoxStream<v1::TailEventsResponse>>>;
pub(super) type Stations = Arc<dyn StationService>;
pub(super) type Transactions = Arc<dyn TransactionService>;
pub(super) type Daemons = Arc<dyn DaemonService<BackUpStream = BoxStream<v1::BackUpResponse>>>;

/// What the services of shards work with.
#[derive(Debug, Clone)]
pub struct ShardHandles {
    pub webhooks: super::Webhooks,
    pub delivery: Delivery,
    pub transactions: ocpp::Transactions,
    pub directory: StationDirectory,
    pub journals: Journals,
    pub figures: ShardFigures,
    /// None where it is another node that answers, too.
    pub daemon: Option<Daemon>,
    pub backup: Arc<dyn Backup>,
    pub streams: EventStreams,
    pub trigger: Trigger,
}

/// The services of some shards.
pub type ShardServices = Serving<
    WebhookRpc<OwnDeliveries>,
    FailedDeliveryRpc,
    EventRpc,
    StationRpc,
    TransactionRpc,
    DaemonRpc,
>;

/// The services whose answers are the shards'.
#[derive(Debug)]
pub struct Serving<W, F, E, S, T, D> {
    pub(in crate::api) webhooks: Arc<W>,
    pub(in crate::api) failed_deliveries: Arc<F>,
    pub(in crate::api) events: Arc<E>,
    pub(in crate::api) stations: Arc<S>,
    pub(in crate::api) transactions: Arc<T>,
    pub(in crate::api) daemon: Arc<D>,
}

impl ShardServices {
    pub fn new(handles: ShardHandles) -> Self {
        let ShardHandles {
            webhooks,
            delivery,
            transactions,
            directory,
            journals,
            figures,
            daemon,
            backup,
            streams,
            trigger,
        } = handles;
        Self {
            webhooks: Arc::new(WebhookRpc {
                webhooks,
                deliveries: OwnDeliveries(delivery.clone()),
            }),
            failed_deliveries: Arc::new(FailedDeliveryRpc {
                delivery: delivery.clone(),
            }),
            events: Arc::new(EventRpc {
                journals,
                delivery,
                streams,
                trigger,
            }),
            stations: Arc::new(StationRpc { directory }),
            transactions: Arc::new(TransactionRpc { transactions }),
            daemon: Arc::new(DaemonRpc {
                shards: figures,
                daemon,
                backup,
            }),
        }
    }
}

impl<W, F, E, S, T, D> Serving<W, F, E, S, T, D>
where
    W: WebhookService,
    F: FailedDeliveryService<ReplayStream = BoxStream<v1::ReplayResponse>>,
    E: EventService<TailEventsStream = BoxStream<v1::TailEventsResponse>>,
    S: StationService,
    T: TransactionService,
    D: DaemonService<BackUpStream = BoxStream<v1::BackUpResponse>>,
{
    /// What REST asks.
    pub fn shared(&self) -> Services {
        Services {
            webhooks: Arc::<W>::clone(&self.webhooks),
            failed_deliveries: Arc::<F>::clone(&self.failed_deliveries),
            events: Arc::<E>::clone(&self.events),
            stations: Arc::<S>::clone(&self.stations),
            transactions: Arc::<T>::clone(&self.transactions),
            daemon: Arc::<D>::clone(&self.daemon),
        }
    }

    /// Beside other routes.
    pub(in crate::api) fn beside(&self, routes: Routes) -> Routes {
        let Self {
            webhooks,
            failed_deliveries,
            events,
            stations,
            transactions,
            daemon,
        } = self;
        let webhooks = WebhookServiceServer::from_arc(Arc::clone(webhooks));
        let failed = FailedDeliveryServiceServer::from_arc(Arc::clone(failed_deliveries));
        let events = EventServiceServer::from_arc(Arc::clone(events));
        let stations = StationServiceServer::from_arc(Arc::clone(stations));
        let transactions = TransactionServiceServer::from_arc(Arc::clone(transactions));
        let daemon = DaemonServiceServer::from_arc(Arc::clone(daemon));
        routes
            .add_service(webhooks.max_decoding_message_size(MAX_MESSAGE))
            .add_service(failed.max_decoding_message_size(MAX_MESSAGE))
            .add_service(events.max_decoding_message_size(MAX_MESSAGE))
            .add_service(stations.max_decoding_message_size(MAX_MESSAGE))
            .add_service(transactions.max_decoding_message_size(MAX_MESSAGE))
            .add_service(daemon.max_decoding_message_size(MAX_MESSAGE))
    }
}

/// What all services besides those work with.
#[derive(Debug, Clone)]
pub struct Handles {
    pub id_tags: IdTags,
    pub keys: ApiKeys,
    pub authenticator: Authenticator,
    pub clock: Clock,
    pub cluster: Cluster,
}

/// All that is answered.
pub fn router<W, F, E, S, T, D>(
    shards: &Serving<W, F, E, S, T, D>,
    handles: Handles,
) -> Result<Router, anyhow::Error>
where
    W: WebhookService,
    F: FailedDeliveryService<ReplayStream = BoxStream<v1::ReplayResponse>>,
    E: EventService<TailEventsStream = BoxStream<v1::TailEventsResponse>>,
    S: StationService,
    T: TransactionService,
    D: DaemonService<BackUpStream = BoxStream<v1::BackUpResponse>>,
{
    let Handles {
        id_tags,
        keys,
        authenticator,
        clock,
        cluster,
    } = handles;
    // Whoever it is built by serves: that is its status from the start.
    let health = tonic_health::server::HealthService::from_health_reporter(
        tonic_health::server::HealthReporter::new(),
    );
    let health_service = tonic_health::pb::health_server::HealthServer::new(health);
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pipelet_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Many clients still ask for the older version.
    let (reflection, reflection_v1alpha) =
        (descriptors().build_v1()?, descriptors().build_v1alpha()?);
    let keys = ApiKeyServiceServer::new(ApiKeyRpc { keys, clock });
    let id_tags = IdTagServiceServer::new(IdTagRpc { id_tags });
    let cluster = ClusterServiceServer::new(ClusterRpc { cluster });
    let routes = Routes::new(health_service.max_decoding_message_size(MAX_OPEN_MESSAGE))
        .add_service(reflection.max_decoding_message_size(MAX_OPEN_MESSAGE))
        .add_service(reflection_v1alpha.max_decoding_message_size(MAX_OPEN_MESSAGE))
        .add_service(keys.max_decoding_message_size(MAX_MESSAGE))
        .add_service(id_tags.max_decoding_message_size(MAX_MESSAGE))
        .add_service(cluster.max_decoding_message_size(MAX_MESSAGE));
    let guard = Arc::new(Guard::new(authenticator));
    Ok(shards
        .beside(routes)
        .into_axum_router()
        .layer(middleware::from_fn_with_state(guard, access::guard)))
}

/// Serves until the shutdown, then lets calls finish; streams end with it.
pub async fn serve(
    listener: Listener,
    routes: Router,
    shutdown: CancellationToken,
) -> Result<(), anyhow::Error> {
    let (sender, connections) = mpsc::channel(1);
    let accepting = listener.run(shutdown.clone(), move |connection| {
        hand_over(connection, sender.clone())
    });
    let serving = Server::builder()
        .timeout(REQUEST_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(MAX_HEAD)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .add_routes(Routes::from(routes))
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), shutdown.cancelled_owned());
    let ((), served) = tokio::join!(accepting, serving);
    Ok(served?)
}

/// Gives a connection to the server once its client has said that it speaks HTTP/2: the server
/// itself would wait for that for ever.
async fn hand_over(connection: Connection, server: mpsc::Sender<io::Result<Connection>>) {
    if let Ok(connection) = connection.begun(PREFACE_LEN, PREFACE_TIMEOUT).await {
        // Where it is gone, the daemon ends.
        let _ = server.send(Ok(connection)).await;
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer()
    }
}

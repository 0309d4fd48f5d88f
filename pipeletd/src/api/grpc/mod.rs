//! gRPC `pipelet.v1`: one service for each noun, with health and reflection.

mod api_keys;
mod commands;
mod convert;
mod daemon;
mod events;
mod failed_deliveries;
mod id_tags;
mod stations;
mod status;
mod transactions;
mod webhooks;

use std::sync::Arc;

use pipelet_proto::v1::{
    api_key_service_server::ApiKeyServiceServer, daemon_service_server::DaemonServiceServer,
    event_service_server::EventServiceServer,
    failed_delivery_service_server::FailedDeliveryServiceServer,
    id_tag_service_server::IdTagServiceServer, station_service_server::StationServiceServer,
    transaction_service_server::TransactionServiceServer,
    webhook_service_server::WebhookServiceServer,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    transport::{Server, server::TcpIncoming},
};

use self::{
    api_keys::ApiKeyRpc, daemon::DaemonRpc, events::EventRpc, failed_deliveries::FailedDeliveryRpc,
    id_tags::IdTagRpc, stations::StationRpc, transactions::TransactionRpc, webhooks::WebhookRpc,
};
use super::{
    error::ApiError,
    keys::ApiKeys,
    roster::Roster,
    status::{Addresses, Readiness},
};
use crate::{
    auth::Keyring,
    clock::Clock,
    delivery::Delivery,
    id_tags::IdTags,
    journal::Journal,
    ocpp::{Stations, Transactions},
    store::Backup,
};

/// What the services work with.
#[derive(Debug, Clone)]
pub struct Handles {
    pub delivery: Delivery,
    pub stations: Stations,
    pub transactions: Transactions,
    pub id_tags: IdTags,
    pub roster: Roster,
    pub journal: Journal,
    pub keys: ApiKeys,
    pub keyring: Keyring,
    pub readiness: Readiness,
    pub addresses: Addresses,
    pub clock: Clock,
    pub backup: Arc<dyn Backup>,
}

/// Serves until the shutdown, then lets calls finish; streams end with it.
pub async fn serve(
    listener: TcpListener,
    handles: Handles,
    shutdown: CancellationToken,
) -> Result<(), anyhow::Error> {
    let Handles {
        delivery,
        stations,
        transactions,
        id_tags,
        roster,
        journal,
        keys,
        keyring,
        readiness,
        addresses,
        clock,
        backup,
    } = handles;
    let (health, health_service) = tonic_health::server::health_reporter();
    health
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pipelet_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Many clients still ask for the older version.
    let (reflection, reflection_v1alpha) =
        (descriptors().build_v1()?, descriptors().build_v1alpha()?);
    let webhooks = WebhookRpc {
        delivery: delivery.clone(),
    };
    let failed = FailedDeliveryRpc {
        delivery: delivery.clone(),
    };
    let events = EventRpc {
        journal: journal.clone(),
        shutdown: shutdown.clone(),
    };
    let daemon = DaemonRpc {
        delivery,
        stations,
        journal,
        readiness,
        addresses,
        backup,
        started_at: clock.now(),
    };
    let auth = |keyring: &Keyring| {
        let keyring = keyring.clone();
        move |request: Request<()>| authenticate(&keyring, request)
    };
    Server::builder()
        .add_service(health_service)
        .add_service(reflection)
        .add_service(reflection_v1alpha)
        .add_service(WebhookServiceServer::with_interceptor(
            webhooks,
            auth(&keyring),
        ))
        .add_service(FailedDeliveryServiceServer::with_interceptor(
            failed,
            auth(&keyring),
        ))
        .add_service(EventServiceServer::with_interceptor(events, auth(&keyring)))
        .add_service(StationServiceServer::with_interceptor(
            StationRpc { roster },
            auth(&keyring),
        ))
        .add_service(TransactionServiceServer::with_interceptor(
            TransactionRpc { transactions },
            auth(&keyring),
        ))
        .add_service(IdTagServiceServer::with_interceptor(
            IdTagRpc { id_tags },
            auth(&keyring),
        ))
        .add_service(ApiKeyServiceServer::with_interceptor(
            ApiKeyRpc { keys },
            auth(&keyring),
        ))
        .add_service(DaemonServiceServer::with_interceptor(
            daemon,
            auth(&keyring),
        ))
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            shutdown.cancelled_owned(),
        )
        .await?;
    Ok(())
}

/// Lets a call through that has a valid key in its metadata.
fn authenticate(keyring: &Keyring, mut request: Request<()>) -> Result<Request<()>, Status> {
    let key = request
        .metadata()
        .get("x-api-key")
        .and_then(|key| key.to_str().ok());
    let Some(caller) = key.and_then(|key| keyring.check(key)) else {
        return Err(ApiError::Unauthenticated.into());
    };
    request.extensions_mut().insert(caller);
    Ok(request)
}

//! The daemon's services, each call with the API key.
//!
//! Invariant: a channel connects at the first call, so only authorities that can't be used keep a
//! client from being built. It does not know what the calls mean.

mod listings;
mod named;
pub(crate) mod paging;
pub(crate) mod tail;

use std::time::Duration;

use pipelet_proto::v1::{
    api_key_service_client::ApiKeyServiceClient, cluster_service_client::ClusterServiceClient,
    daemon_service_client::DaemonServiceClient, event_service_client::EventServiceClient,
    failed_delivery_service_client::FailedDeliveryServiceClient,
    id_tag_service_client::IdTagServiceClient, station_service_client::StationServiceClient,
    transaction_service_client::TransactionServiceClient,
    webhook_service_client::WebhookServiceClient,
};
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::{
    error::Error,
    settings::{ApiKey, Settings},
};

/// A payload has up to 1 MiB, and a page may hold some of those.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// How often a connection with a stream on it is probed.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How much longer than what it waits for the daemon has to answer.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

type Transport = InterceptedService<Channel, ApiKeyInterceptor>;

#[derive(Debug, Clone)]
pub(crate) struct Client {
    endpoint: Endpoint,
    channel: Channel,
    interceptor: ApiKeyInterceptor,
    timeout: Duration,
}

impl Client {
    /// Must be called within a runtime.
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        let mut endpoint = Endpoint::from(settings.server.uri().clone())
            .connect_timeout(settings.timeout)
            // Until the answer begins: a stream may then take its time.
            .timeout(settings.timeout)
            // A stream may be silent for hours; a dead connection shall not be.
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(settings.timeout);
        if settings.server.speaks_tls() {
            endpoint = endpoint.tls_config(tls(settings)).map_err(Error::Tls)?;
        }
        Ok(Self {
            channel: endpoint.connect_lazy(),
            endpoint,
            interceptor: ApiKeyInterceptor(settings.key.value.clone()),
            timeout: settings.timeout,
        })
    }

    /// The daemon's host, as the user said.
    pub(crate) fn host(&self) -> &str {
        self.endpoint.uri().host().unwrap_or_default()
    }

    pub(crate) fn webhooks(&self) -> WebhookServiceClient<Transport> {
        WebhookServiceClient::with_interceptor(self.channel.clone(), self.interceptor.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The same, for a call that waits for what comes of it.
    pub(crate) fn webhooks_with_timeout(&self, wait: Duration) -> WebhookServiceClient<Transport> {
        WebhookServiceClient::with_interceptor(
            self.channel_with_timeout(wait),
            self.interceptor.clone(),
        )
    }

    pub(crate) fn failed_deliveries(&self) -> FailedDeliveryServiceClient<Transport> {
        FailedDeliveryServiceClient::with_interceptor(
            self.channel.clone(),
            self.interceptor.clone(),
        )
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn events(&self) -> EventServiceClient<Transport> {
        EventServiceClient::with_interceptor(self.channel.clone(), self.interceptor.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn stations(&self) -> StationServiceClient<Transport> {
        StationServiceClient::with_interceptor(self.channel.clone(), self.interceptor.clone())
    }

    /// The same, for calls in which a station has the time-out for itself.
    pub(crate) fn stations_for_calls(&self) -> StationServiceClient<Transport> {
        StationServiceClient::with_interceptor(
            self.channel_with_timeout(self.timeout),
            self.interceptor.clone(),
        )
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn channel_with_timeout(&self, wait: Duration) -> Channel {
        let timeout = wait.saturating_add(ANSWER_MARGIN);
        self.endpoint.clone().timeout(timeout).connect_lazy()
    }

    /// How long to wait for an answer, as the user said.
    pub(crate) const fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn transactions(&self) -> TransactionServiceClient<Transport> {
        TransactionServiceClient::with_interceptor(self.channel.clone(), self.interceptor.clone())
    }

    pub(crate) fn id_tags(&self) -> IdTagServiceClient<Transport> {
        IdTagServiceClient::with_interceptor(self.channel.clone(), self.interceptor.clone())
    }

    pub(crate) fn api_keys(&self) -> ApiKeyServiceClient<Transport> {
        ApiKeyServiceClient::with_interceptor(self.channel.clone(), self.interceptor.clone())
    }

    pub(crate) fn cluster(&self) -> ClusterServiceClient<Transport> {
        ClusterServiceClient::with_interceptor(self.channel.clone(), self.interceptor.clone())
    }

    pub(crate) fn daemon(&self) -> DaemonServiceClient<Transport> {
        DaemonServiceClient::with_interceptor(self.channel.clone(), self.interceptor.clone())
    }
}

fn tls(settings: &Settings) -> ClientTlsConfig {
    let config = ClientTlsConfig::new();
    match &settings.authorities {
        Some(pem) => config.ca_certificate(Certificate::from_pem(pem)),
        None => config.with_native_roots(),
    }
}

/// Puts the key into each request.
#[derive(Debug, Clone)]
pub(crate) struct ApiKeyInterceptor(Option<ApiKey>);

impl Interceptor for ApiKeyInterceptor {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request
                .metadata_mut()
                .insert("x-api-key", key.to_metadata());
        }
        Ok(request)
    }
}

//! `DaemonService`.

use jiff::Timestamp;
use pipelet_proto::v1::{self, daemon_service_server::DaemonService};
use tonic::{Request, Response, Status};

use super::{
    super::{
        error::ApiError,
        status::{Addresses, Readiness},
    },
    convert,
};
use crate::{delivery::Delivery, journal::Journal, ocpp::Stations};

pub(super) struct DaemonRpc {
    pub(super) delivery: Delivery,
    pub(super) stations: Stations,
    pub(super) journal: Journal,
    pub(super) readiness: Readiness,
    pub(super) addresses: Addresses,
    pub(super) started_at: Timestamp,
}

#[tonic::async_trait]
impl DaemonService for DaemonRpc {
    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let reasons = self.readiness.reasons();
        let stations = self.stations.counts();
        let totals = self.delivery.totals();
        let journal = self.journal.bounds().await.map_err(ApiError::from)?;
        Ok(Response::new(v1::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: Some(convert::time(self.started_at)),
            ready: reasons.is_empty(),
            reasons,
            http_address: self.addresses.http.to_string(),
            grpc_address: self.addresses.grpc.to_string(),
            ocpp_address: self.addresses.ocpp.to_string(),
            stations_connected: stations.connected as u64,
            stations_known: stations.known as u64,
            webhooks: totals.webhooks,
            webhooks_enabled: totals.enabled,
            journal_head: journal.end.0,
            journal_tail: journal.start.0,
            deliveries_pending: totals.pending,
            failed_deliveries: totals.failed_deliveries,
            ocpps_address: self.addresses.ocpps.map(|address| address.to_string()),
            handshakes_refused: stations.handshakes_refused,
        }))
    }
}

//! How the daemon is doing.

use pipelet_proto::v1;
use serde::Serialize;

use super::time::Time;
use crate::{
    output::Describe,
    table::Details,
    words::{counted, or_dash},
};

#[derive(Debug, Serialize)]
pub(crate) struct DaemonStatus {
    version: String,
    started_at: Option<Time>,
    pub(crate) ready: bool,
    reasons: Vec<String>,
    http_address: String,
    grpc_address: String,
    ocpp_address: String,
    ocpps_address: Option<String>,
    stations_connected: u64,
    stations_known: u64,
    handshakes_refused: u64,
    webhooks: u64,
    webhooks_enabled: u64,
    journal_head: u64,
    journal_tail: u64,
    deliveries_pending: u64,
    failed_deliveries: u64,
}

impl From<v1::GetStatusResponse> for DaemonStatus {
    fn from(wire: v1::GetStatusResponse) -> Self {
        Self {
            version: wire.version,
            started_at: Time::from_wire(wire.started_at),
            ready: wire.ready,
            reasons: wire.reasons,
            http_address: wire.http_address,
            grpc_address: wire.grpc_address,
            ocpp_address: wire.ocpp_address,
            ocpps_address: wire.ocpps_address,
            stations_connected: wire.stations_connected,
            stations_known: wire.stations_known,
            handshakes_refused: wire.handshakes_refused,
            webhooks: wire.webhooks,
            webhooks_enabled: wire.webhooks_enabled,
            journal_head: wire.journal_head,
            journal_tail: wire.journal_tail,
            deliveries_pending: wire.deliveries_pending,
            failed_deliveries: wire.failed_deliveries,
        }
    }
}

impl Describe for DaemonStatus {
    fn describe(&self) -> Details {
        let ready = if self.ready {
            "yes".to_owned()
        } else {
            format!("no: {}", self.reasons.join("; "))
        };
        let kept = self.journal_head.saturating_sub(self.journal_tail);
        let pending = counted(self.deliveries_pending, "delivery", "deliveries");
        Details::default()
            .line("version", &self.version)
            .line("ready", ready)
            .line("started", or_dash(self.started_at))
            .line("http", &self.http_address)
            .line("grpc", &self.grpc_address)
            .line("ocpp", &self.ocpp_address)
            .line("ocpp over TLS", or_dash(self.ocpps_address.as_ref()))
            .line(
                "stations",
                format!(
                    "{} connected, {} known; {} handshakes refused",
                    self.stations_connected, self.stations_known, self.handshakes_refused
                ),
            )
            .line(
                "webhooks",
                format!(
                    "{} enabled, {} in all",
                    self.webhooks_enabled, self.webhooks
                ),
            )
            .line("events", format!("{kept} kept in the journal"))
            .line("pending", pending)
            .line("dead letters", self.failed_deliveries.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_why_it_is_not_ready() {
        let status = DaemonStatus::from(v1::GetStatusResponse {
            version: "0.1.0".into(),
            reasons: vec!["disk full".into(), "journal behind".into()],
            journal_head: 12,
            journal_tail: 2,
            ..v1::GetStatusResponse::default()
        });
        let text = status.describe().draw();
        assert!(text.contains("no: disk full; journal behind"), "{text}");
        assert!(text.contains("10 kept in the journal"), "{text}");
    }
}

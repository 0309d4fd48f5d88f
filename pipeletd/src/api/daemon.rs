//! How the daemon is doing, as one answer: what its shards tell, and what the process itself does.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use pipelet_proto::v1;

use super::{
    error::ApiError,
    status::{Addresses, Disk, Readiness, directory_bytes},
    wire::{self, time},
};
use crate::{
    delivery::Delivery,
    journal::Journals,
    ocpp::{ConnectionStats, RefusedHandshake, Stations},
    registries::Caller,
    store::blocking,
    system::{clock::Clock, latencies::BOUNDS, tls::Shown},
};

/// So many stations that can't settle are shown.
const SHOWN: usize = 20;
/// And so many in an overview; of handshakes that were refused, those within this time.
const AT_A_GLANCE: usize = 5;
const LATELY: SignedDuration = SignedDuration::from_mins(10);

/// What its shards tell, without what the process itself does.
#[derive(Debug, Clone)]
pub struct ShardFigures {
    pub delivery: Delivery,
    pub stations: Stations,
    pub journals: Journals,
    pub clock: Clock,
}

/// The process.
#[derive(Debug, Clone)]
pub struct Daemon {
    pub connections: ConnectionStats,
    pub readiness: Readiness,
    pub addresses: Addresses,
    pub started_at: Timestamp,
    pub clock: Clock,
    pub data_dir: PathBuf,
    pub certificates: Vec<Shown>,
}

impl ShardFigures {
    pub(super) async fn status(&self) -> Result<v1::GetStatusResponse, ApiError> {
        let stations = self.stations.counts();
        let totals = self.delivery.totals();
        let journal = self.journals.bounds().await?;
        Ok(v1::GetStatusResponse {
            stations_connected: stations.connected as u64,
            stations_known: stations.known as u64,
            webhooks: totals.webhooks,
            webhooks_enabled: totals.enabled,
            journal_head: journal.end,
            journal_tail: journal.start,
            deliveries_pending: totals.pending,
            failed_deliveries: totals.failed_deliveries,
            unstable_stations: self.unstable(SHOWN),
            ..v1::GetStatusResponse::default()
        })
    }

    pub(super) async fn overview(&self) -> Result<v1::GetOverviewResponse, ApiError> {
        let seen = self.delivery.observe().await?;
        let mut webhooks = Vec::with_capacity(seen.webhooks.len());
        for observation in seen.webhooks {
            let id = observation.stored.webhook.id;
            // Only those that have any are looked up.
            let next = match observation.books.retrying {
                0 => None,
                _ => self.delivery.next_retry(id).await?,
            };
            webhooks.push(wire::overview(&observation, next));
        }
        let events = self.journals.committed();
        let events = events.filter(|(_, count)| *count > 0);
        let events = events.map(|(kind, count)| v1::EventCount {
            event: kind.name().to_owned(),
            count,
        });
        Ok(v1::GetOverviewResponse {
            stations_connected: self.stations.counts().connected as u64,
            failed_deliveries: seen.failed_deliveries,
            events: events.collect(),
            webhooks,
            unstable_stations: self.unstable(AT_A_GLANCE),
            ..v1::GetOverviewResponse::default()
        })
    }

    fn unstable(&self, limit: usize) -> Vec<v1::UnstableStation> {
        let unstable = self.stations.unstable(self.clock.now(), limit).into_iter();
        let unstable = unstable.map(|unstable| v1::UnstableStation {
            station_id: unstable.station.to_string(),
            reason: unstable.kind.name().to_owned(),
            count: unstable.count.into(),
            since: Some(time(unstable.since)),
            last_at: Some(time(unstable.last_at)),
            last_end_reason: unstable.last_end_reason.map(Into::into),
        });
        unstable.collect()
    }
}

impl Daemon {
    /// With what the shards tell.
    pub(super) async fn status(
        &self,
        caller: Option<&Caller>,
        mut of_shards: v1::GetStatusResponse,
    ) -> v1::GetStatusResponse {
        let reasons = self.readiness.reasons();
        let data_dir = self.data_dir.clone();
        let (disk, data_bytes) =
            blocking(move || (Disk::of(&data_dir), directory_bytes(&data_dir))).await;
        let certificates = self.certificates.iter().map(certificate).collect();
        let refused = self.connections.refused_of_late().into_iter();
        of_shards.unstable_stations.truncate(SHOWN);
        v1::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: Some(time(self.started_at)),
            ready: reasons.is_empty(),
            reasons,
            http_address: self.addresses.http.to_string(),
            grpc_address: self.addresses.grpc.to_string(),
            ocpp_address: self.addresses.ocpp.to_string(),
            ocpps_address: self.addresses.ocpps.map(|address| address.to_string()),
            handshakes_refused: self.connections.refused().values().sum(),
            now: Some(time(self.clock.now())),
            caller_role: caller.map_or_else(String::new, |caller| caller.role.to_string()),
            caller_expires_at: caller.and_then(|caller| caller.expires_at).map(time),
            disk_free_bytes: disk.map(|disk| disk.free),
            disk_size_bytes: disk.map(|disk| disk.size),
            certificates,
            refused_handshakes: refused.map(refused_handshake).collect(),
            disk_state: disk.map_or("ok", |disk| disk.state().name()).to_owned(),
            data_directory: self.data_dir.display().to_string(),
            data_bytes: data_bytes.unwrap_or_default(),
            ..of_shards
        }
    }

    /// The same at a glance.
    pub(super) fn overview(
        &self,
        mut of_shards: v1::GetOverviewResponse,
    ) -> v1::GetOverviewResponse {
        let reasons = self.readiness.reasons();
        let now = self.clock.now();
        let refused = self.connections.refused_of_late().into_iter();
        let refused = refused.filter(|it| now.duration_since(it.last_at) < LATELY);
        let refused = refused.take(AT_A_GLANCE).map(refused_handshake).collect();
        of_shards.unstable_stations.truncate(AT_A_GLANCE);
        v1::GetOverviewResponse {
            now: Some(time(now)),
            ready: reasons.is_empty(),
            reasons,
            latency_bounds_us: BOUNDS.to_vec(),
            refused_handshakes: refused,
            ..of_shards
        }
    }
}

fn certificate(shown: &Shown) -> v1::CertificateStatus {
    v1::CertificateStatus {
        shown_to: shown.to.to_owned(),
        expires_at: shown.certificates.expires().map(time),
    }
}

fn refused_handshake(refused: RefusedHandshake) -> v1::RefusedHandshake {
    v1::RefusedHandshake {
        reason: refused.reason.to_owned(),
        detail: refused.detail,
        station_id: refused.station.map(|station| station.to_string()),
        path: refused.path,
        subprotocols: refused.subprotocols,
        remote_address: refused.from.to_string(),
        count: refused.count,
        first_at: Some(time(refused.first_at)),
        last_at: Some(time(refused.last_at)),
    }
}

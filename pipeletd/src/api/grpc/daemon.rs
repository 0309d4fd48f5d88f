//! `DaemonService`.

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use pipelet_proto::v1::{self, daemon_service_server::DaemonService};
use tokio::{runtime::Handle, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{
    super::{
        error::ApiError,
        status::{Addresses, Disk, Readiness},
        wire,
    },
    access::{Needs, validity},
    status::statuses,
};
use crate::{
    auth::Role,
    delivery::Delivery,
    journal::Journal,
    ocpp::{ConnectionStats, RefusedHandshake, Stations},
    registries::Caller,
    store::{Backup, BackupError, blocking},
    system::{clock::Clock, latencies::BOUNDS, tls::Shown},
};

/// In bytes; a piece of a backup.
const PIECE: usize = 256 * 1024;
/// Pieces that wait for a slow reader.
const PIECES: usize = 4;
/// A reader that takes nothing for so long is given up: nothing is forgotten for its sake.
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) struct DaemonRpc {
    pub(super) delivery: Delivery,
    pub(super) stations: Stations,
    pub(super) connections: ConnectionStats,
    pub(super) journal: Journal,
    pub(super) readiness: Readiness,
    pub(super) addresses: Addresses,
    pub(super) started_at: Timestamp,
    pub(super) clock: Clock,
    pub(super) data_dir: PathBuf,
    pub(super) certificates: Vec<Shown>,
    pub(super) backup: Arc<dyn Backup>,
}

/// What the caller of each method needs. A backup holds all that there is, keys' hashes included.
pub(super) const NEEDS: Needs = &[
    ("GetStatus", Role::ReadOnly),
    ("GetOverview", Role::ReadOnly),
    ("BackUp", Role::Admin),
];

#[tonic::async_trait]
impl DaemonService for DaemonRpc {
    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let caller = request.extensions().get::<Caller>();
        let reasons = self.readiness.reasons();
        let stations = self.stations.counts();
        let totals = self.delivery.totals();
        let journal = self.journal.bounds().await.map_err(ApiError::from)?;
        let data_dir = self.data_dir.clone();
        let disk = blocking(move || Disk::of(&data_dir)).await;
        let certificates = self.certificates.iter().map(certificate).collect();
        let refused = self.connections.refused_of_late().into_iter();
        Ok(Response::new(v1::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: Some(wire::time(self.started_at)),
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
            handshakes_refused: self.connections.refused().values().sum(),
            now: Some(wire::time(self.clock.now())),
            caller_role: caller.map_or_else(String::new, |caller| caller.role.to_string()),
            caller_expires_at: caller.and_then(|caller| caller.expires_at).map(wire::time),
            disk_free_bytes: disk.map(|disk| disk.free),
            disk_size_bytes: disk.map(|disk| disk.size),
            certificates,
            refused_handshakes: refused.map(refused_handshake).collect(),
        }))
    }

    async fn get_overview(
        &self,
        _: Request<v1::GetOverviewRequest>,
    ) -> Result<Response<v1::GetOverviewResponse>, Status> {
        let reasons = self.readiness.reasons();
        let seen = self.delivery.observe().await.map_err(ApiError::from)?;
        let mut webhooks = Vec::with_capacity(seen.webhooks.len());
        for observation in seen.webhooks {
            let id = observation.stored.webhook.id;
            // Only those that have any are looked up.
            let next = match observation.books.retrying {
                0 => None,
                _ => self.delivery.next_retry(id).await.map_err(ApiError::from)?,
            };
            webhooks.push(wire::overview(&observation, next));
        }
        let events = self.journal.committed();
        let events = events.filter(|(_, count)| *count > 0);
        Ok(Response::new(v1::GetOverviewResponse {
            now: Some(wire::time(self.clock.now())),
            ready: reasons.is_empty(),
            reasons,
            stations_connected: self.stations.counts().connected as u64,
            failed_deliveries: seen.failed_deliveries,
            events: events
                .map(|(kind, count)| v1::EventCount {
                    event: kind.name().to_owned(),
                    count,
                })
                .collect(),
            webhooks,
            latency_bounds_us: BOUNDS.to_vec(),
        }))
    }

    type BackUpStream = BoxStream<v1::BackUpResponse>;

    async fn back_up(
        &self,
        request: Request<v1::BackUpRequest>,
    ) -> Result<Response<Self::BackUpStream>, Status> {
        let validity = validity(&request)?;
        let (pieces, stream) = mpsc::channel(PIECES);
        let backup = Arc::clone(&self.backup);
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            let mut out = BufWriter::with_capacity(
                PIECE,
                Pieces {
                    pieces: &pieces,
                    runtime: &runtime,
                },
            );
            tracing::info!("a backup begins");
            match backup.back_up(&mut out) {
                Ok(()) => tracing::info!("a backup is done"),
                Err(error) => {
                    // Who has gone away needs no answer.
                    let _ = pieces.try_send(Err(error.into()));
                }
            }
        });
        let told = validity.stream(ReceiverStream::new(stream));
        Ok(Response::new(Box::pin(statuses(told))))
    }
}

fn certificate(shown: &Shown) -> v1::CertificateStatus {
    v1::CertificateStatus {
        shown_to: shown.to.to_owned(),
        expires_at: shown.certificates.expires().map(wire::time),
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
        last_at: Some(wire::time(refused.last_at)),
    }
}

/// Sends what is written to a caller.
struct Pieces<'a> {
    pieces: &'a mpsc::Sender<Result<v1::BackUpResponse, ApiError>>,
    runtime: &'a Handle,
}

impl Write for Pieces<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let piece = Ok(v1::BackUpResponse {
            data: data.to_vec(),
        });
        let sending = async { timeout(PATIENCE, self.pieces.send(piece)).await };
        match self.runtime.block_on(sending) {
            Ok(Ok(())) => Ok(data.len()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<BackupError> for ApiError {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Store(error) => error.into(),
            BackupError::Write(error) => {
                tracing::warn!(%error, "a backup was given up");
                Self::Unavailable("the backup can't be written; the log knows more".to_owned())
            }
        }
    }
}

//! `DaemonService`.

use std::{
    io::{self, BufWriter, Write},
    sync::Arc,
    time::Duration,
};

use pipelet_proto::v1::{self, daemon_service_server::DaemonService};
use tokio::{runtime::Handle, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{
    super::{
        daemon::{Daemon, ShardFigures},
        error::ApiError,
        validity::Validity,
    },
    access::{Needs, validity},
    status::statuses,
};
use crate::{
    auth::Role,
    registries::Caller,
    store::{Backup, BackupError},
};

/// In bytes; a piece of a backup.
const PIECE: usize = 256 * 1024;
/// Pieces that wait for a slow reader.
const PIECES: usize = 4;
/// A reader that takes nothing for so long is given up: nothing is forgotten for its sake.
const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub struct DaemonRpc {
    pub(super) shards: ShardFigures,
    /// None where it is another node that answers, too.
    pub(super) daemon: Option<Daemon>,
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
        let of_shards = self.shards.status().await?;
        Ok(Response::new(match &self.daemon {
            Some(daemon) => daemon.status(caller, of_shards).await,
            None => of_shards,
        }))
    }

    async fn get_overview(
        &self,
        _: Request<v1::GetOverviewRequest>,
    ) -> Result<Response<v1::GetOverviewResponse>, Status> {
        let of_shards = self.shards.overview().await?;
        Ok(Response::new(match &self.daemon {
            Some(daemon) => daemon.overview(of_shards),
            None => of_shards,
        }))
    }

    type BackUpStream = BoxStream<v1::BackUpResponse>;

    async fn back_up(
        &self,
        request: Request<v1::BackUpRequest>,
    ) -> Result<Response<Self::BackUpStream>, Status> {
        let validity = validity(&request)?;
        Ok(backed_up(validity, Arc::clone(&self.backup)))
    }
}

/// A backup, as a caller gets it.
pub(in crate::api) fn backed_up(
    validity: Validity,
    backup: Arc<dyn Backup>,
) -> Response<BoxStream<v1::BackUpResponse>> {
    let told = validity.stream(pieces_of(backup));
    Response::new(Box::pin(statuses(told)))
}

/// A backup, which is whole only where no error is at its end.
fn pieces_of(backup: Arc<dyn Backup>) -> ReceiverStream<Result<v1::BackUpResponse, ApiError>> {
    let (pieces, stream) = mpsc::channel(PIECES);
    let out = Pieces {
        pieces: pieces.clone(),
        runtime: Handle::current(),
    };
    let writing = tokio::task::spawn_blocking(move || {
        tracing::info!("a backup begins");
        backup.back_up(&mut BufWriter::with_capacity(PIECE, out))
    });
    tokio::spawn(async move {
        let error = match writing.await {
            Ok(Ok(())) => return tracing::info!("a backup is done"),
            Ok(Err(error)) => error.into(),
            Err(panic) => ApiError::internal(panic),
        };
        // However slowly the pieces before it are taken. Who has gone away needs no answer.
        let _ = pieces.send(Err(error)).await;
    });
    ReceiverStream::new(stream)
}

/// Sends what is written to a caller.
struct Pieces {
    pieces: mpsc::Sender<Result<v1::BackUpResponse, ApiError>>,
    runtime: Handle,
}

impl Write for Pieces {
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

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;
    use tokio_stream::StreamExt as _;

    use super::*;

    /// Fails once it has written as much as waits for a reader.
    #[derive(Debug, Default)]
    struct Failing {
        panics: bool,
        fails: Notify,
    }

    impl Backup for Failing {
        fn back_up(&self, out: &mut dyn Write) -> Result<(), BackupError> {
            for _ in 0..PIECES {
                out.write_all(&vec![0; PIECE]).map_err(BackupError::Write)?;
            }
            self.fails.notify_one();
            assert!(!self.panics, "it was to panic");
            Err(BackupError::Write(io::ErrorKind::StorageFull.into()))
        }
    }

    #[tokio::test]
    async fn a_backup_that_fails_ends_with_an_error() {
        for panics in [false, true] {
            let failing = Arc::new(Failing {
                panics,
                ..Failing::default()
            });
            let pieces = pieces_of(Arc::<Failing>::clone(&failing));
            failing.fails.notified().await;
            let pieces: Vec<_> = pieces.collect().await;
            let (last, before) = pieces.split_last().expect("an end");
            assert!(last.is_err(), "{panics}");
            assert_eq!(before.len(), PIECES);
            assert!(before.iter().all(Result::is_ok));
        }
    }
}

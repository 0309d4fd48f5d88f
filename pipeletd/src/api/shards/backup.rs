//! A backup of all shards, put together of each one's.

use std::io::{self, Read, Write};

use pipelet_proto::v1;
use tokio::runtime::Handle;
use tonic::Streaming;

use super::{AllShards, asking};
use crate::store::{Backup, BackupError, backup_of_parts};

/// Blocks, as backups do.
#[derive(Debug)]
pub(super) struct ClusterBackup {
    all: AllShards,
    runtime: Handle,
}

impl ClusterBackup {
    pub(super) fn new(all: AllShards) -> Self {
        let runtime = Handle::current();
        Self { all, runtime }
    }
}

impl Backup for ClusterBackup {
    fn back_up(&self, out: &mut dyn Write) -> Result<(), BackupError> {
        let parts = self.all.0.iter().map(|shard| {
            let asked = asking(None, v1::BackUpRequest {});
            let mut daemon = shard.daemon();
            let begun = self.runtime.block_on(daemon.back_up(asked));
            let pieces = begun.map_err(|status| io::Error::other(status.message().to_owned()))?;
            Ok(Pieces {
                stream: pieces.into_inner(),
                piece: Vec::new(),
                read: 0,
                runtime: self.runtime.clone(),
            })
        });
        backup_of_parts(parts, out)
    }
}

/// A shard's backup, as it comes.
struct Pieces {
    stream: Streaming<v1::BackUpResponse>,
    piece: Vec<u8>,
    read: usize,
    runtime: Handle,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.read == self.piece.len() {
            let next = self.runtime.block_on(self.stream.message());
            let next = next.map_err(|status| io::Error::other(status.message().to_owned()))?;
            let Some(next) = next else { return Ok(0) };
            (self.piece, self.read) = (next.data, 0);
        }
        let mut left = &self.piece[self.read..];
        let read = left.read(into)?;
        self.read += read;
        Ok(read)
    }
}

//! Whether the daemon can do its work, where it listens, and how much room it has.

use std::{net::SocketAddr, path::Path};

use tokio_util::sync::CancellationToken;

use crate::{delivery::Delivery, journal::Journals};

/// Where the daemon listens, with the real ports.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub ocpp: SocketAddr,
    /// Where stations connect over TLS.
    pub ocpps: Option<SocketAddr>,
}

/// The disk of a directory, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disk {
    /// For the daemon, not for root.
    pub(super) free: u64,
    pub(super) size: u64,
}

impl Disk {
    /// Nothing where it can't be asked. Blocks.
    pub(super) fn of(directory: &Path) -> Option<Self> {
        let disk = rustix::fs::statvfs(directory).ok()?;
        Some(Self {
            free: disk.f_bavail.saturating_mul(disk.f_frsize),
            size: disk.f_blocks.saturating_mul(disk.f_frsize),
        })
    }
}

/// Tells whether events can be taken, and what becomes of them noted down. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness {
    pub journals: Journals,
    pub delivery: Delivery,
    pub shutdown: CancellationToken,
}

impl Readiness {
    /// What stands in the way; nothing where the daemon is ready.
    pub fn reasons(&self) -> Vec<String> {
        let outage = self.journals.outage();
        let outage = outage.map(|why| format!("events can't be kept: {why}"));
        let ledger = self.delivery.outage();
        let ledger = ledger.map(|why| format!("retries and dead letters can't be kept: {why}"));
        let stopping = self
            .shutdown
            .is_cancelled()
            .then(|| "shutting down".to_owned());
        outage.into_iter().chain(ledger).chain(stopping).collect()
    }
}

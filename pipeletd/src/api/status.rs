//! Whether the daemon can do its work, where it listens, and how much room it has.

use std::{fs, io, net::SocketAddr, path::Path};

use tokio_util::sync::CancellationToken;

use crate::{cluster::Peers, delivery::Delivery, journal::Journals, store::Ownership};

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

/// Whether there is room: the one rule for people, metrics and alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskState {
    Ok,
    /// A tenth is left, or less than 20 GiB where that is less.
    Low,
    /// A fiftieth is left, or less than 2 GiB where that is less; of a small disk 128 MiB, or a tenth.
    /// Events are refused soon.
    Critical,
}

impl DiskState {
    pub(super) const ALL: [Self; 3] = [Self::Ok, Self::Low, Self::Critical];

    /// These never change.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Low => "low",
            Self::Critical => "critical",
        }
    }
}

impl Disk {
    pub(super) fn state(self) -> DiskState {
        let least = (self.size / 10).min(128 << 20);
        let critical = (self.size / 50).min(2 << 30).max(least);
        let low = (self.size / 10).min(20 << 30).max(critical * 2);
        match self.free {
            free if free < critical => DiskState::Critical,
            free if free < low => DiskState::Low,
            _ => DiskState::Ok,
        }
    }
}

/// What all files take that are in a directory, in bytes. Blocks.
pub(super) fn directory_bytes(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            // Such as lost+found, which is not ours to read.
            Ok(found) if found.is_dir() => directory_bytes(&entry.path()).unwrap_or_default(),
            Ok(found) => found.len(),
            // The store removes files at its own time.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}

/// Tells whether events can be taken, and what becomes of them noted down. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness {
    pub part: Part,
    pub shutdown: CancellationToken,
}

/// What a daemon does with them.
#[derive(Debug, Clone)]
pub enum Part {
    Owner {
        ownership: Ownership,
        journals: Journals,
        delivery: Delivery,
    },
    /// It forwards them to the node that does.
    Standby(Peers),
}

impl Readiness {
    /// What stands in the way; nothing where the daemon is ready.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = self.part.reasons();
        if self.shutdown.is_cancelled() {
            reasons.push("shutting down".to_owned());
        }
        reasons
    }
}

impl Part {
    /// Whether the shards are this node's.
    pub(super) fn is_owner(&self) -> bool {
        match self {
            Self::Owner { ownership, .. } => ownership.is_held(),
            Self::Standby(_) => false,
        }
    }

    /// Whether the shards are somebody's, as far as is known.
    pub(super) fn has_owner(&self) -> bool {
        match self {
            Self::Owner { .. } => self.is_owner(),
            Self::Standby(peers) => {
                let seen = peers.seen();
                let seen = seen.borrow();
                seen.owner.is_some_and(|it| seen.there.contains(&it.node))
            }
        }
    }

    fn reasons(&self) -> Vec<String> {
        match self {
            Self::Owner {
                ownership,
                journals,
                delivery,
            } => {
                let outage = journals.outage();
                let outage = outage.map(|why| format!("events can't be kept: {why}"));
                let ledger = delivery.outage();
                let ledger =
                    ledger.map(|why| format!("retries and dead letters can't be kept: {why}"));
                let owner = (!ownership.is_held())
                    .then(|| "this node can't renew its lease of the shards".to_owned());
                outage.into_iter().chain(ledger).chain(owner).collect()
            }
            Self::Standby(_) => {
                let none = (!self.has_owner()).then(|| "no node owns the shards".to_owned());
                none.into_iter().collect()
            }
        }
    }
}

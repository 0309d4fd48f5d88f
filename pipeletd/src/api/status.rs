//! Whether the daemon can do its work, where it listens, and how much room it has.

use std::{fmt, fs, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use pipelet_domain::shards::ShardId;
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{Peers, members::Owner},
    delivery::Delivery,
    journal::Journals,
    store::Ownership,
};

/// A shard without an owner has another one by then, where there is a node that can own it.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(10);

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
#[derive(Clone)]
pub struct Readiness {
    /// Those that are this daemon's at the moment.
    pub shards: Arc<dyn Fn() -> Vec<ShardState> + Send + Sync>,
    /// The other nodes, and how many shards there are; none where the daemon is no node.
    pub cluster: Option<(Peers, u16)>,
    pub shutdown: CancellationToken,
}

/// What says of shards whether they do their work.
#[derive(Debug, Clone)]
pub struct ShardState {
    pub ownership: Ownership,
    pub journals: Journals,
    pub delivery: Delivery,
}

impl Readiness {
    /// What stands in the way; nothing where the daemon is ready.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for shard in (self.shards)() {
            reasons.extend(shard.reasons());
        }
        reasons.sort_unstable();
        reasons.dedup();
        let without = self.long_without_owner();
        if !without.is_empty() {
            let numbers: Vec<_> = without.iter().map(|it| it.0.to_string()).collect();
            reasons.push(match numbers.as_slice() {
                [one] => format!("no node owns shard {one}"),
                all => format!("no node owns the shards {}", all.join(", ")),
            });
        }
        if self.shutdown.is_cancelled() {
            reasons.push("shutting down".to_owned());
        }
        reasons
    }

    /// Shards that are nobody's for longer than it takes to hand them over, or to take them over: until
    /// then, what is for them waits.
    fn long_without_owner(&self) -> Vec<ShardId> {
        let Some((peers, _)) = &self.cluster else {
            return Vec::new();
        };
        let mut without = self.without_owner();
        without.retain(|shard| !peers.members().was_owned_within(*shard, TAKEN_OVER_WITHIN));
        without
    }

    /// Shards that are nobody's, as far as is known.
    pub(super) fn without_owner(&self) -> Vec<ShardId> {
        let Some((peers, count)) = &self.cluster else {
            return Vec::new();
        };
        let seen = peers.seen();
        let seen = seen.borrow();
        let is_there = |owner: &Owner| owner.node == peers.me() || seen.there.contains(&owner.node);
        let shards = (0..*count).map(ShardId);
        shards
            .filter(|shard| !seen.owners.get(shard).is_some_and(is_there))
            .collect()
    }
}

impl ShardState {
    fn reasons(&self) -> Vec<String> {
        let outage = self.journals.outage();
        let outage = outage.map(|why| format!("events can't be kept: {why}"));
        let ledger = self.delivery.outage();
        let ledger = ledger.map(|why| format!("retries and dead letters can't be kept: {why}"));
        let owner = (!self.ownership.is_held())
            .then(|| "this node can't renew its lease of a shard".to_owned());
        outage.into_iter().chain(ledger).chain(owner).collect()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").finish_non_exhaustive()
    }
}

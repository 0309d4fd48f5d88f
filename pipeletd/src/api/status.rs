//! Whether the daemon can do its work, and where it listens.

use std::net::SocketAddr;

use tokio_util::sync::CancellationToken;

use crate::journal::Journal;

/// Where the daemon listens, with the real ports.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub ocpp: SocketAddr,
    /// Where stations connect over TLS.
    pub ocpps: Option<SocketAddr>,
}

/// Tells whether events can be taken. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness {
    pub journal: Journal,
    pub shutdown: CancellationToken,
}

impl Readiness {
    /// What stands in the way; nothing where the daemon is ready.
    pub fn reasons(&self) -> Vec<String> {
        let outage = self.journal.outage();
        let outage = outage.map(|why| format!("events can't be kept: {why}"));
        let stopping = self
            .shutdown
            .is_cancelled()
            .then(|| "shutting down".to_owned());
        outage.into_iter().chain(stopping).collect()
    }
}

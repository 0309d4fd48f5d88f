//! How the daemon is told to read its certificates again: SIGHUP.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::tls::Certificates;

/// Certificates, and who sees them.
#[derive(Debug, Clone)]
pub struct Shown {
    pub to: &'static str,
    pub certificates: Certificates,
}

/// SIGHUP. Listens from its construction on, so that the signal never ends the daemon.
#[derive(Debug)]
pub struct Reload(Signal);

impl Reload {
    pub fn listen() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Reads the files at each signal, until the shutdown. Files that are wrong change nothing.
    pub async fn run(mut self, certificates: Vec<Shown>, shutdown: CancellationToken) {
        while let Some(Some(())) = shutdown.run_until_cancelled(self.0.recv()).await {
            if certificates.is_empty() {
                tracing::info!("SIGHUP: there is nothing to read again");
            }
            for Shown { to, certificates } in &certificates {
                match certificates.reload().await {
                    Ok(()) => tracing::info!("SIGHUP: read the certificates for {to} again"),
                    Err(error) => {
                        let cause = anyhow::Error::from(error);
                        let cause = format!("{cause:#}");
                        tracing::error!(cause, to, "SIGHUP: the certificates stay as they were");
                    }
                }
            }
        }
    }
}

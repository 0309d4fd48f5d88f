//! How the daemon is told to end: the first signal asks, the second one doesn't.

use std::{io, process};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// SIGINT and SIGTERM. Listens from its construction on.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Cancels the token at the first signal and ends the process at the second.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let first = self.next().await;
        tracing::info!(
            signal = first.name,
            "shutting down; a second signal ends it at once"
        );
        shutdown.cancel();
        let second = self.next().await;
        tracing::warn!(signal = second.name, "ended at once");
        process::exit(second.status);
    }

    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.interrupt.recv() => Received { name: "SIGINT", status: 130 },
            _ = self.terminate.recv() => Received { name: "SIGTERM", status: 143 },
        }
    }
}

struct Received {
    name: &'static str,
    /// What a shell reports of a process that the signal killed.
    status: i32,
}

//! What SIGHUP does: certificates and the configuration are read again.
//!
//! What can be taken over without a restart is; the rest is named and stays. Files that are wrong
//! change nothing.

use std::{io, mem};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{runtime_settings::RuntimeSettings, service_manager};
use crate::{
    config::{ConfigError, Loaded, Setting, Sources},
    system::tls::Shown,
    telemetry::{self, LogLevel},
};

/// The setting that the log takes over.
const LOG_LEVEL: &str = "log-level";

/// What can be changed.
#[derive(Debug)]
pub struct Reloadable {
    pub certificates: Vec<Shown>,
    pub runtime_settings: RuntimeSettings,
    pub log_level: LogLevel,
    pub sources: Sources,
    /// As they hold.
    pub settings: Vec<Setting>,
}

/// SIGHUP. Listens from its construction on, so that the signal never ends the daemon.
#[derive(Debug)]
pub struct Reload(Signal);

impl Reload {
    pub fn listen() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Reads the files at each signal, until the shutdown.
    pub async fn run(mut self, mut what: Reloadable, shutdown: CancellationToken) {
        while let Some(Some(())) = shutdown.run_until_cancelled(self.0.recv()).await {
            service_manager::reloading();
            what.read_certificates().await;
            what.read_settings().await;
            service_manager::reloaded();
        }
    }
}

impl Reloadable {
    async fn read_certificates(&self) {
        for Shown { to, certificates } in &self.certificates {
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

    async fn read_settings(&mut self) {
        let sources = self.sources.clone();
        let read = tokio::task::spawn_blocking(move || sources.load()).await;
        let Ok(read) = read else { return };
        match read {
            Ok(loaded) => self.take_over(loaded).await,
            Err(ConfigError::Faults(faults)) => {
                for fault in faults {
                    tracing::error!(cause = %fault, "SIGHUP: the settings stay as they were");
                }
            }
            Err(error) => {
                tracing::error!(cause = %error, "SIGHUP: the settings stay as they were");
            }
        }
    }

    async fn take_over(&mut self, Loaded { config, settings }: Loaded) {
        if let Err(error) = self.runtime_settings.apply(&config).await {
            let cause = format!("{:#}", anyhow::Error::from(error));
            tracing::error!(cause, "SIGHUP: the settings stay as they were");
            return;
        }
        match telemetry::filter(&config.log_level) {
            Ok(filter) => self.log_level.set(filter),
            Err(error) => tracing::error!(%error, "SIGHUP: the log's level stays"),
        }
        let (mut changes, mut waiting) = (Vec::new(), Vec::new());
        for (holds, new) in self.settings.iter_mut().zip(settings) {
            if holds.values == new.values {
                continue;
            }
            if RuntimeSettings::SETTINGS.contains(&new.name.as_str()) || new.name == LOG_LEVEL {
                let old = mem::replace(holds, new);
                changes.push(format!("{} {} → {}", old.name, old.shown(), holds.shown()));
            } else {
                waiting.push(new.name);
            }
        }
        if changes.is_empty() {
            tracing::info!("SIGHUP: read the settings again; none changed that can be taken over");
        } else {
            tracing::info!(changes = changes.join("; "), "SIGHUP: took settings over");
        }
        if !waiting.is_empty() {
            let settings = waiting.join(", ");
            tracing::warn!(settings, "SIGHUP: these changed, and need a restart");
        }
    }
}

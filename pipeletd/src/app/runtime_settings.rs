//! The settings that can be changed while the daemon runs, and how the parts receive them.
//!
//! Everything is made of the new configuration before anything is changed, so that one that can't
//! be used changes nothing.

use std::{path::PathBuf, time::Duration};

use pipelet_domain::webhooks::TargetPolicy;
use tokio::sync::watch;

use super::{OpenError, owner::Owners};
use crate::{
    config::Config,
    delivery::{
        DeliverySettings,
        http::{HttpOptions, Resources, Sender},
    },
    journal::retention::Retention,
    ocpp::{TimingConfig, TransactionRetention},
    registries::Keyring,
    telemetry::Spans,
};

/// Where each of them is changed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RuntimeSettings {
    /// Those that are told.
    pub(super) owners: watch::Receiver<Owners>,
    pub(super) delivery: watch::Sender<DeliverySettings>,
    pub(super) timing: watch::Sender<TimingConfig>,
    pub(super) keyring: Keyring,
    pub(super) retention: watch::Sender<Retention>,
    pub(super) transaction_retention: watch::Sender<TransactionRetention>,
    pub(super) shutdown_grace: watch::Sender<Duration>,
    pub(super) resources: Resources,
    pub(super) spans: Spans,
}

impl RuntimeSettings {
    /// The settings that [`Self::apply`] takes over.
    pub const SETTINGS: [&str; 17] = [
        "api-rate",
        "ocpp-rate",
        "retry-schedule",
        "max-attempts",
        "delivery-timeout",
        "webhook-concurrency",
        "backlog-age",
        "ca-file",
        "allow-private-targets",
        "allow-target",
        "retention",
        "retention-size",
        "transaction-retention",
        "transaction-abandon-after",
        "heartbeat-interval",
        "ping-interval",
        "shutdown-grace",
    ];

    /// Takes those settings over, or says why it can't and leaves all as they are.
    pub async fn apply(&self, config: &Config) -> Result<(), OpenError> {
        let settings = delivery_settings(config, &self.resources, &self.spans)?;
        self.delivery.send_replace(settings.clone());
        let owners: Vec<_> = self.owners.borrow().values().cloned().collect();
        for owner in owners {
            owner.delivery.change_settings(settings.clone()).await;
        }
        self.timing.send_replace(timing(config));
        self.keyring.set_rate(config.api_rate);
        self.retention.send_replace(retention(config));
        self.transaction_retention
            .send_replace(transaction_retention(config));
        self.shutdown_grace.send_replace(config.shutdown_grace);
        Ok(())
    }
}

pub(crate) fn delivery_settings(
    config: &Config,
    resources: &Resources,
    spans: &Spans,
) -> Result<DeliverySettings, OpenError> {
    let targets = TargetPolicy {
        allow_private: config.allow_private_targets,
        allowed: config.allow_targets.clone(),
    };
    let sender = Sender::new(&HttpOptions {
        timeout: config.delivery_timeout,
        targets: targets.clone(),
        extra_roots: extra_roots(config)?,
        resources: resources.clone(),
        spans: spans.clone(),
    })?;
    Ok(DeliverySettings {
        sender,
        targets,
        schedule: config.retry_schedule.clone(),
        max_attempts: config.max_attempts,
        concurrency: config.webhook_concurrency,
        backlog_age: config.backlog_age,
    })
}

pub(super) const fn timing(config: &Config) -> TimingConfig {
    TimingConfig {
        heartbeat_interval: config.heartbeat_interval,
        ping_interval: config.ping_interval,
        station_rate: config.ocpp_rate,
    }
}

pub(super) const fn transaction_retention(config: &Config) -> TransactionRetention {
    TransactionRetention {
        ended: config.transaction_retention,
        abandoned_after: config.transaction_abandon_after,
    }
}

pub(super) const fn retention(config: &Config) -> Retention {
    Retention {
        keep: config.retention,
        size: config.retention_size.bytes(),
    }
}

fn extra_roots(config: &Config) -> Result<Option<Vec<u8>>, OpenError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| OpenError::CaFile {
            path: path.clone(),
            source,
        })
    };
    config.ca_file.as_ref().map(read).transpose()
}

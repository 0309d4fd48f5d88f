//! `/metrics`: the daemon's figures in Prometheus's text format.
//!
//! Everything is read at the scrape from where it is counted anyway, and nothing is registered or
//! kept here; so a deleted webhook's series are gone with it. No label is unbounded: a webhook is
//! named by its id, and stations are never named. Knows no HTTP.

mod cluster;
mod daemon;
mod family;
mod process;
mod webhooks;

use std::{fmt, path::PathBuf, sync::Arc};

use futures_util::future::try_join_all;
use jiff::Timestamp;
use prometheus::{TEXT_FORMAT, TextEncoder, proto::MetricFamily};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::{cluster::Cluster, status::Readiness};
use crate::{
    delivery::{Delivery, Observations},
    journal::Journals,
    ocpp::{ConnectionStats, Stations},
    store::{StoreError, blocking},
    system::{clock::Clock, limits::memory::MemoryBudget, tls::Shown},
    telemetry::{DroppedLines, Spans},
};

/// What the text is, as a media type.
pub const CONTENT_TYPE: &str = TEXT_FORMAT;

/// Where the figures come from.
pub struct Sources {
    /// Of the shards that are this daemon's at the moment.
    pub owners: Owners,
    pub cluster: Cluster,
    pub connections: ConnectionStats,
    pub readiness: Readiness,
    pub data_dir: PathBuf,
    /// The connections of API callers, by the API.
    pub callers: [(&'static str, TaskTracker); 2],
    /// What is shown over TLS.
    pub certificates: Vec<Shown>,
    pub spans: Spans,
    pub dropped_lines: DroppedLines,
    pub memory: MemoryBudget,
    pub clock: Clock,
    pub started: Timestamp,
}

/// Tells them whenever it is asked.
pub type Owners = Arc<dyn Fn() -> Vec<Owner> + Send + Sync>;

#[derive(Debug)]
pub struct Owner {
    pub delivery: Delivery,
    pub stations: Stations,
    pub journals: Journals,
}

/// The handle. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    sources: Arc<Sources>,
    /// Scrapes take turns: nobody shows a key for one, so it must not be a way to make work.
    turn: Arc<Semaphore>,
}

#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the figures can't be written down")]
    Text(#[from] prometheus::Error),
}

async fn observe(owners: &[Owner]) -> Result<Observations, StoreError> {
    let seen = owners.iter().map(|owner| owner.delivery.observe());
    let seen = try_join_all(seen).await?.into_iter();
    Ok(seen.reduce(Observations::plus).unwrap_or_default())
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

impl Metrics {
    pub fn new(sources: Sources) -> Self {
        Self {
            sources: Arc::new(sources),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// All figures, as of now.
    pub async fn text(&self) -> Result<String, MetricsError> {
        // The semaphore is never closed.
        let _turn = self.turn.acquire().await;
        let families = self.families().await?;
        Ok(TextEncoder::new().encode_to_string(&families)?)
    }

    async fn families(&self) -> Result<Vec<MetricFamily>, MetricsError> {
        let sources = &*self.sources;
        let now = sources.clock.now();
        let mut families = daemon::families(sources);
        let owners = (sources.owners)();
        families.extend(cluster::families(
            &sources.cluster,
            &sources.readiness,
            owners.len(),
        ));
        if !owners.is_empty() {
            families.extend(daemon::owners(&owners, now));
            match observe(&owners).await {
                Ok(observations) => families.extend(webhooks::families(&observations, now)),
                // The rest is what tells of the outage.
                Err(error) if error.is_outage() => {}
                Err(error) => return Err(error.into()),
            }
            match try_join_all(owners.iter().map(|owner| owner.journals.bounds())).await {
                Ok(bounds) => families.extend(daemon::journal_bounds(&bounds)),
                Err(error) if error.is_outage() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (data_dir, started) = (sources.data_dir.clone(), sources.started);
        let read = blocking(move || {
            let mut read = process::disk(&data_dir);
            read.extend(process::process(started));
            read
        });
        families.extend(read.await);
        families.retain(|family| !family.get_metric().is_empty());
        Ok(families)
    }
}

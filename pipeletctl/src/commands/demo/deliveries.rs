//! The deliveries of the demo's webhook, as the daemon has them: their counts, and those that wait
//! for a retry.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use pipelet_proto::v1;
use serde::Serialize;
use tokio::{sync::watch, time::Instant};

use crate::{client::Client, error::Error};

/// How often it is asked.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How many of those that wait are looked at.
const MAX_PENDING: u32 = 50;

/// `received = delivered + pending + dead + cancelled`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct DeliveryCounts {
    pub(super) received: u64,
    pub(super) delivered: u64,
    pub(super) pending: u64,
    pub(super) dead: u64,
    pub(super) cancelled: u64,
    #[serde(skip)]
    pub(super) retrying: u64,
}

/// A delivery that waits for its next attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PendingRetry {
    pub(super) event: String,
    pub(super) station: String,
    /// Attempts so far.
    pub(super) attempts: usize,
    pub(super) next: Option<Timestamp>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// When the daemon was asked; none before the first time.
    pub(super) asked: Option<Instant>,
    pub(super) delivery_counts: DeliveryCounts,
    pub(super) pending_retries: Vec<PendingRetry>,
}

impl DeliveryCounts {
    pub(super) const fn is_balanced(&self) -> bool {
        self.received == self.delivered + self.pending + self.dead + self.cancelled
    }
}

impl fmt::Display for DeliveryCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            received,
            delivered,
            pending,
            dead,
            cancelled,
            ..
        } = self;
        write!(
            f,
            "{received} received = {delivered} delivered + {pending} pending + {dead} dead"
        )?;
        if *cancelled > 0 {
            write!(f, " + {cancelled} cancelled")?;
        }
        Ok(())
    }
}

/// Looks at the webhook until it is dropped, or the daemon does not answer.
pub(super) async fn watch(
    client: Client,
    webhook: u64,
    snapshots: watch::Sender<Snapshot>,
) -> Error {
    let mut ticks = tokio::time::interval(POLL_INTERVAL);
    loop {
        ticks.tick().await;
        match fetch(&client, webhook).await {
            Ok(snapshot) => snapshots.send_replace(snapshot),
            Err(error) => return error,
        };
    }
}

async fn fetch(client: &Client, webhook: u64) -> Result<Snapshot, Error> {
    let asked = Some(Instant::now());
    let delivery_counts = counts(client, webhook).await?;
    let request = v1::ListDeliveriesRequest {
        webhook_id: webhook,
        page_size: MAX_PENDING,
        page_token: String::new(),
        status: String::new(),
    };
    let deliveries = client.webhooks().list_deliveries(request).await?;
    let deliveries = deliveries.into_inner().deliveries.into_iter();
    let pending_retries = deliveries
        .filter(|delivery| delivery.status == "pending")
        .map(|delivery| PendingRetry {
            attempts: delivery.attempts.len(),
            next: delivery
                .next_attempt_at
                .and_then(|at| Timestamp::new(at.seconds, at.nanos).ok()),
            event: delivery.event,
            station: delivery.station_id,
        });
    Ok(Snapshot {
        asked,
        delivery_counts,
        pending_retries: pending_retries.collect(),
    })
}

pub(super) async fn counts(client: &Client, webhook: u64) -> Result<DeliveryCounts, Error> {
    let request = v1::GetWebhookRequest { id: webhook };
    let answer = client.webhooks().get_webhook(request).await?.into_inner();
    let stats = answer.webhook.and_then(|webhook| webhook.stats);
    let stats = stats.ok_or(Error::Incomplete("webhook's books"))?;
    Ok(DeliveryCounts {
        received: stats.received,
        delivered: stats.delivered,
        pending: stats.pending,
        dead: stats.dead,
        cancelled: stats.cancelled,
        retrying: stats.retrying,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line() {
        let mut delivery_counts = DeliveryCounts {
            received: 214,
            delivered: 214,
            ..DeliveryCounts::default()
        };
        let line = "214 received = 214 delivered + 0 pending + 0 dead";
        assert_eq!(delivery_counts.to_string(), line);
        assert!(delivery_counts.is_balanced());
        delivery_counts.cancelled = 1;
        assert_eq!(delivery_counts.to_string(), format!("{line} + 1 cancelled"));
        assert!(!delivery_counts.is_balanced());
    }
}

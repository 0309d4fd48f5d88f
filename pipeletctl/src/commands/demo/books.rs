//! What the daemon itself says of the demo's webhook: its books, and what waits for a retry.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use pipelet_proto::v1;
use serde::Serialize;
use tokio::{sync::watch, time::Instant};

use crate::{client::Client, error::Error};

/// How often it is asked.
const EVERY: Duration = Duration::from_millis(200);

/// How many of those that wait are looked at.
const WAITING: u32 = 50;

/// `received = delivered + pending + dead + cancelled`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Books {
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
pub(super) struct Waiting {
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
    pub(super) books: Books,
    pub(super) waiting: Vec<Waiting>,
}

impl Books {
    pub(super) const fn balance(&self) -> bool {
        self.received == self.delivered + self.pending + self.dead + self.cancelled
    }
}

impl fmt::Display for Books {
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
pub(super) async fn watch(client: Client, webhook: u64, seen: watch::Sender<Snapshot>) -> Error {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        match look(&client, webhook).await {
            Ok(snapshot) => seen.send_replace(snapshot),
            Err(error) => return error,
        };
    }
}

async fn look(client: &Client, webhook: u64) -> Result<Snapshot, Error> {
    let asked = Some(Instant::now());
    let books = books(client, webhook).await?;
    let request = v1::ListDeliveriesRequest {
        webhook_id: webhook,
        page_size: WAITING,
        page_token: String::new(),
        status: String::new(),
    };
    let deliveries = client.webhooks().list_deliveries(request).await?;
    let deliveries = deliveries.into_inner().deliveries.into_iter();
    let waiting = deliveries
        .filter(|delivery| delivery.status == "pending")
        .map(|delivery| Waiting {
            attempts: delivery.attempts.len(),
            next: delivery
                .next_attempt_at
                .and_then(|at| Timestamp::new(at.seconds, at.nanos).ok()),
            event: delivery.event,
            station: delivery.station_id,
        });
    Ok(Snapshot {
        asked,
        books,
        waiting: waiting.collect(),
    })
}

pub(super) async fn books(client: &Client, webhook: u64) -> Result<Books, Error> {
    let request = v1::GetWebhookRequest { id: webhook };
    let answer = client.webhooks().get_webhook(request).await?.into_inner();
    let stats = answer.webhook.and_then(|webhook| webhook.stats);
    let stats = stats.ok_or(Error::Incomplete("webhook's books"))?;
    Ok(Books {
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
        let mut books = Books {
            received: 214,
            delivered: 214,
            ..Books::default()
        };
        let line = "214 received = 214 delivered + 0 pending + 0 dead";
        assert_eq!(books.to_string(), line);
        assert!(books.balance());
        books.cancelled = 1;
        assert_eq!(books.to_string(), format!("{line} + 1 cancelled"));
        assert!(!books.balance());
    }
}

//! Failed deliveries: looking at them, replaying them, purging them.
//!
//! A replay gives a delivery a new round of attempts, durably, and then reports how the first of
//! them went; the round goes on when nobody listens any more.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{FailedDelivery, FailedFilter, FailedId, Retry, RetryKey},
    events::{EventId, EventType, StationId},
    webhooks::WebhookId,
};
use tokio::{
    sync::{mpsc, oneshot},
    time,
};

use super::{
    dispatcher::Control,
    ledger::Entry,
    policy::Verdict,
    webhooks::{Delivery, DeliveryError, Inner},
};
use crate::store::{Part, ReadLimit};

/// Failed deliveries that are read, replayed or purged at once.
const STRIDE: usize = 200;
/// How long a replay waits for the first attempts of what it has just replayed.
const OUTCOME_WAIT: Duration = Duration::from_mins(1);
/// Attempts that a delivery remembers over all its rounds.
const MAX_ATTEMPTS_KEPT: usize = 50;

/// Which failed deliveries are meant.
#[derive(Debug, Clone)]
pub enum Selection {
    Ids(Vec<FailedId>),
    Matching(FailedFilter),
}

/// How far a replay has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplayProgress {
    pub total: u64,
    /// Given a new round of attempts.
    pub replayed: u64,
    /// Of those: delivered at the first attempt.
    pub delivered: u64,
    /// Of those: failed at the first attempt.
    pub failed: u64,
    /// Of those that failed: dead letters again, because no attempt was left.
    pub dead: u64,
    /// Left as they are: the webhook is deleted or disabled, or someone else was faster.
    pub skipped: u64,
}

/// What is reported of a failed delivery that was purged: everything but its payload.
struct Purged {
    id: FailedId,
    webhook: WebhookId,
    event: EventId,
    kind: EventType,
    station: StationId,
}

impl Purged {
    fn of(failed: &FailedDelivery) -> Self {
        let event = &failed.event;
        Self {
            id: failed.id,
            webhook: failed.webhook,
            event: event.id,
            kind: event.kind,
            station: event.station.clone(),
        }
    }
}

type Outcomes = FuturesUnordered<oneshot::Receiver<Verdict>>;

impl Delivery {
    pub async fn failed_deliveries(
        &self,
        filter: FailedFilter,
        after: Option<FailedId>,
        limit: ReadLimit,
    ) -> Result<Part<FailedDelivery>, DeliveryError> {
        Ok(self.0.failed_deliveries(&filter, after, limit).await?)
    }

    pub async fn failed_delivery(&self, id: FailedId) -> Result<FailedDelivery, DeliveryError> {
        self.0
            .failed_delivery(id)
            .await?
            .ok_or(DeliveryError::NoSuchFailedDelivery(id))
    }

    /// Why this one, named alone, could not be replayed.
    pub async fn check_replay(&self, id: FailedId) -> Result<(), DeliveryError> {
        let webhook = self.failed_delivery(id).await?.webhook;
        let running = self.0.running(webhook);
        let running = running.map_err(|_| DeliveryError::WebhookDeleted(webhook))?;
        if running.stored().webhook.enabled {
            Ok(())
        } else {
            Err(DeliveryError::WebhookDisabled(webhook))
        }
    }

    /// Replays one, which must be there and its webhook too; doesn't wait for the attempt.
    pub async fn replay_one(&self, id: FailedId) -> Result<ReplayProgress, DeliveryError> {
        let failed = self.failed_delivery(id).await?;
        self.0
            .running(failed.webhook)
            .map_err(|_| DeliveryError::WebhookDeleted(failed.webhook))?;
        self.replay(Selection::Ids(vec![id]), None).await
    }

    /// Replays what is selected. With `progress`, also waits for the first attempts and reports
    /// how they went, as it goes.
    pub async fn replay(
        &self,
        selection: Selection,
        progress: Option<mpsc::Sender<ReplayProgress>>,
    ) -> Result<ReplayProgress, DeliveryError> {
        self.detached(move |inner| async move {
            let ids = inner.select(selection).await?;
            let mut state = ReplayProgress {
                total: ids.len() as u64,
                ..ReplayProgress::default()
            };
            for stride in ids.chunks(STRIDE) {
                let mut outcomes = Outcomes::new();
                for id in stride {
                    match inner.replay(*id, progress.is_some()).await? {
                        Some(outcome) => {
                            state.replayed += 1;
                            outcomes.extend(outcome);
                        }
                        None => state.skipped += 1,
                    }
                }
                if let Some(progress) = &progress {
                    report_outcomes(outcomes, &mut state, progress).await;
                }
            }
            Ok(state)
        })
        .await
    }

    /// Forgets what is selected. Returns how many that were.
    pub async fn purge(&self, selection: Selection) -> Result<u64, DeliveryError> {
        self.detached(move |inner| async move {
            let ids = inner.select(selection).await?;
            let mut purged = 0;
            for stride in ids.chunks(STRIDE) {
                let mut recorded = Vec::new();
                for id in stride {
                    let Some(failed) = inner.failed_delivery(*id).await? else {
                        continue;
                    };
                    let entry = Entry::Purged {
                        id: *id,
                        webhook: failed.webhook,
                        size: failed.size(),
                    };
                    let letter = Purged::of(&failed);
                    let ledger = &inner.shards.of_failed(*id).ledger;
                    recorded.push((letter, ledger.record(entry).await?));
                }
                for (letter, recorded) in recorded {
                    if recorded.await == Ok(true) {
                        purged += 1;
                        inner.report_purged(&letter);
                    }
                }
            }
            Ok(purged)
        })
        .await
    }
}

impl Inner {
    async fn failed_delivery(&self, id: FailedId) -> Result<Option<FailedDelivery>, DeliveryError> {
        let shard = self.shards.of_failed(id);
        Ok(shard.store.failed_delivery(id).await?)
    }

    fn report_purged(&self, purged: &Purged) {
        tracing::info!(
            webhook = purged.webhook.0, event_id = %purged.event, event = %purged.kind,
            station = %purged.station, failed_delivery = purged.id.0, "purged"
        );
        // That of a deleted webhook has nobody to remember it.
        if let Ok(running) = self.running(purged.webhook) {
            running.history.purged(purged.event);
        }
    }

    /// The ids that are meant now; what fails from here on is not among them.
    async fn select(&self, selection: Selection) -> Result<Vec<FailedId>, DeliveryError> {
        let filter = match selection {
            Selection::Ids(ids) => return Ok(ids),
            Selection::Matching(filter) => filter,
        };
        let mut ids: Vec<FailedId> = Vec::new();
        loop {
            let (after, limit) = (ids.last().copied(), ReadLimit::part(STRIDE));
            let page = self.failed_deliveries(&filter, after, limit).await?;
            if page.items.is_empty() {
                return Ok(ids);
            }
            ids.extend(page.items.iter().map(|failed| failed.id));
        }
    }

    /// Replays one. `None` where it is left as it is, else what to wait for, if anything.
    async fn replay(
        &self,
        id: FailedId,
        watched: bool,
    ) -> Result<Option<Option<oneshot::Receiver<Verdict>>>, DeliveryError> {
        let Some(failed) = self.failed_delivery(id).await? else {
            return Ok(None);
        };
        let Ok(running) = self.running(failed.webhook) else {
            return Ok(None);
        };
        let Some(dispatcher) = running.dispatcher_at(failed.seq) else {
            return Ok(None);
        };
        if !running.stored().webhook.enabled {
            return Ok(None);
        }
        let outcome = if watched {
            let (watch, outcome) = oneshot::channel();
            let seq = failed.seq;
            // A dispatcher that has ended drops the watch, which ends the wait for it.
            let _ = dispatcher.control.send(Control::Watch { seq, watch }).await;
            Some(outcome)
        } else {
            None
        };
        let (webhook, event_id) = (failed.webhook.0, failed.event.id);
        let ledger = &self.shards.of_failed(id).ledger;
        let retry = new_round(failed, ledger.clock().now());
        let replayed = Entry::Replayed { id, retry };
        if !ledger.record_durably(replayed).await? {
            return Ok(None);
        }
        tracing::debug!(webhook, %event_id, failed_delivery = id.0, "replayed");
        // One that has ended finds the retry at its next start.
        let _ = dispatcher.control.send(Control::Replayed).await;
        Ok(Some(outcome))
    }
}

fn new_round(failed: FailedDelivery, due: Timestamp) -> Retry {
    let mut attempts = failed.attempts;
    attempts.drain(..attempts.len().saturating_sub(MAX_ATTEMPTS_KEPT));
    Retry {
        key: RetryKey {
            webhook: failed.webhook,
            due_ms: due.as_millisecond(),
            seq: failed.seq,
        },
        event: failed.event,
        attempts,
        round: 0,
        last_response: failed.last_response,
    }
}

/// Counts the first attempts as they end, and reports after each.
async fn report_outcomes(
    mut outcomes: Outcomes,
    state: &mut ReplayProgress,
    progress: &mpsc::Sender<ReplayProgress>,
) {
    let _ = progress.send(*state).await;
    let deadline = time::Instant::now() + OUTCOME_WAIT;
    while let Ok(Some(outcome)) = time::timeout_at(deadline, outcomes.next()).await {
        match outcome {
            Ok(Verdict::Delivered) => state.delivered += 1,
            Ok(Verdict::RetryAt(_)) => state.failed += 1,
            Ok(Verdict::Dead) => {
                state.failed += 1;
                state.dead += 1;
            }
            // The webhook was deleted, or the daemon shuts down.
            Err(_) => {}
        }
        // A caller that has gone away changes nothing about the replay.
        let _ = progress.send(*state).await;
    }
}

impl From<FailedFilter> for Selection {
    fn from(filter: FailedFilter) -> Self {
        Self::Matching(filter)
    }
}

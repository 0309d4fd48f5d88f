//! What became of the events since a time, webhook by webhook.
//!
//! The books know no times, so this is put together from what is kept: the journal says what was
//! owed, and what is neither a retry, nor a dead letter, nor in the backlog has been delivered, or
//! was purged. Everything moves meanwhile, so the numbers are those of about now; nothing is left
//! over by construction, so they are no audit of themselves.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{DeliveryCounts, FailedFilter, is_owed},
    events::Seq,
    webhooks::WebhookId,
};

use super::{
    dispatcher::DispatcherContext,
    webhooks::{Delivery, DeliveryError, Inner, Running},
};
use crate::{
    journal::Journal,
    store::{LedgerStore, ReadLimit, StoreError},
};

/// Events, retries or dead letters that are read at once.
const STRIDE: usize = 512;

/// What became of a webhook's events since a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lately {
    pub books: DeliveryCounts,
    /// Where it was changed too often to know what it wanted at that time: since when that is
    /// known, and counted.
    pub counted_from: Option<Timestamp>,
}

/// A webhook, and what was found in the journal for it.
struct Counted {
    running: Arc<Running>,
    owed: u64,
}

impl Delivery {
    /// Of the webhooks that there are, or of the one. What the journal no longer keeps is not seen.
    pub async fn since(
        &self,
        since: Timestamp,
        only: Option<WebhookId>,
    ) -> Result<BTreeMap<WebhookId, Lately>, DeliveryError> {
        let mut counted: Vec<_> = {
            let webhooks = self.0.running.read();
            let webhooks = webhooks.unwrap_or_else(PoisonError::into_inner);
            let wanted = webhooks
                .iter()
                .filter(|(id, _)| only.is_none_or(|only| only == **id));
            let counted = wanted.map(|(_, running)| Counted {
                running: Arc::clone(running),
                owed: 0,
            });
            counted.collect()
        };
        let mut starts = Vec::new();
        for shard in &self.0.shards {
            starts.push(count(&shard.journal, since, &mut counted).await?);
        }
        let mut lately = BTreeMap::new();
        for counted in counted {
            let id = counted.running.stored().webhook.id;
            let (mut retrying, mut dead, mut counted_from) = (0, 0, None);
            for (shard, start) in self.0.shards.iter().zip(&starts) {
                let kept = kept(shard.store.as_ref(), id, since).await?;
                (retrying, dead) = (retrying + kept.0, dead + kept.1);
                let from = counted_from_in(shard, &counted.running, *start).await?;
                counted_from = counted_from.max(from);
            }
            let of_webhook = Lately {
                books: self.0.put_together(&counted, (retrying, dead)),
                counted_from,
            };
            lately.insert(id, of_webhook);
        }
        Ok(lately)
    }
}

/// Reads a journal once, for all of them. Returns where it began.
async fn count(
    journal: &Journal,
    since: Timestamp,
    all: &mut [Counted],
) -> Result<Seq, StoreError> {
    let start = journal.position_at(since).await?;
    let mut at = start;
    let end = journal.head();
    while at < end {
        let events = journal.read_from(at, ReadLimit::part(STRIDE)).await?;
        let Some((last, _)) = events.last() else {
            break;
        };
        at = last.next();
        let events = events.iter().filter(|(seq, _)| *seq < end);
        for (seq, event) in events.filter(|(_, event)| event.time >= since) {
            for counted in all.iter_mut() {
                let id = counted.running.stored().webhook.id;
                let versions = counted.running.versions_at(*seq);
                if is_owed(id, &versions, *seq, event) {
                    counted.owed += 1;
                }
            }
        }
    }
    Ok(start)
}

/// None where everything from `start` on is counted. Where the webhook was there before the
/// first of its wants that are known, earlier ones are forgotten.
async fn counted_from_in(
    shard: &DispatcherContext,
    running: &Running,
    start: Seq,
) -> Result<Option<Timestamp>, StoreError> {
    let stored = running.stored();
    let versions = running.versions_at(start);
    let first = versions.first().map_or(start, |version| version.from);
    if first <= start {
        return Ok(None);
    }
    let before = Seq(first.0 - 1);
    let around = shard.journal.read_from(before, ReadLimit::part(2)).await?;
    let time_of = |wanted: Seq| {
        let found = around.iter().find(|(seq, _)| *seq == wanted);
        found.map(|(_, event)| event.time)
    };
    let was_there = time_of(before).is_some_and(|time| time > stored.webhook.created_at);
    let now = || shard.clock.now();
    Ok(was_there.then(|| time_of(first).unwrap_or_else(now)))
}

impl Inner {
    fn put_together(&self, counted: &Counted, (retrying, dead): (u64, u64)) -> DeliveryCounts {
        let id = counted.running.stored().webhook.id;
        let now = self.books(&counted.running, id);
        let backlog = now.pending - now.retrying;
        // What was sent again from the journal was owed once more.
        let received = counted.owed.max(retrying + dead);
        let left = received - retrying - dead;
        // A backlog that begins before the window fills it, but for the few that overtook others.
        let waiting = backlog.min(left);
        DeliveryCounts {
            received,
            delivered: left - waiting,
            pending: waiting + retrying,
            retrying,
            dead,
            // Those are among the delivered ones: of what they were, nothing is kept.
            purged: 0,
            cancelled: 0,
        }
    }
}

/// How many retries and dead letters of a webhook are of events since then.
async fn kept(
    store: &dyn LedgerStore,
    id: WebhookId,
    since: Timestamp,
) -> Result<(u64, u64), StoreError> {
    let mut retrying = 0;
    let mut after = None;
    loop {
        let keys = store.retry_keys(id, after, STRIDE).await?;
        let (retries, looked_at) = store.retries(&keys, ReadLimit::part(STRIDE)).await?;
        let Some(last) = looked_at.checked_sub(1) else {
            break;
        };
        after = Some(keys[last]);
        let since = retries.iter().filter(|retry| retry.event.time >= since);
        retrying += since.count() as u64;
    }
    let filter = FailedFilter {
        webhook: Some(id),
        since: Some(since),
        ..FailedFilter::default()
    };
    let mut dead = 0;
    let mut after = None;
    loop {
        let failed = store
            .failed_deliveries(&filter, after, ReadLimit::part(STRIDE))
            .await?;
        let Some(last) = failed.items.last() else {
            break;
        };
        after = Some(last.id);
        dead += failed.items.len() as u64;
    }
    Ok((retrying, dead))
}

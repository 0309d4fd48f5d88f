//! Events that are sent to a webhook again, from what the journal still keeps.
//!
//! They go beside the happy path, as retries that are due at once, so the cursor and what it owes
//! stay as they are. Each counts as received once more. What still waits for its first attempt is
//! left to that: it would come twice, and before what had happened earlier. A caller takes the
//! journals, one after the other, in parts of a bounded number of events: how fast is its business.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{Retry, RetryKey},
    events::{Event, EventFilter, Seq},
    webhooks::WebhookId,
};

use super::{
    dispatcher::{Control, DispatcherContext},
    ledger::Entry,
    trace::wanted,
    webhooks::{Delivery, DeliveryError, Inner},
};
use crate::{
    journal::Journal,
    store::{BATCH_BYTES, ReadLimit},
};

/// Events that are read at once.
const STRIDE: usize = 512;
/// Events that one call looks at.
const MAX_LOOKED_AT: u64 = 64 * 1024;

/// What a caller wants to be sent again.
#[derive(Debug, Clone)]
pub struct Backfill {
    /// Where it says nothing of events or stations, the webhook's own choice holds.
    pub filter: EventFilter,
    /// The parts of the journals that are left; none at the beginning.
    pub left: Option<Vec<Range<Seq>>>,
    /// Events at most, in this part.
    pub limit: usize,
    /// Only counts.
    pub dry_run: bool,
}

/// One part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backfilled {
    pub matched: u64,
    /// What is left of the journals; nothing at the end.
    pub left: Vec<Range<Seq>>,
    /// How many deliveries of the webhook wait for their next attempt now.
    pub retrying: u64,
    /// When the last event of this part happened, where there is one shard.
    pub reached: Option<Timestamp>,
}

impl Delivery {
    /// Sends a part of the journal again. What was answered is durable.
    pub async fn backfill(
        &self,
        id: WebhookId,
        asked: Backfill,
    ) -> Result<Backfilled, DeliveryError> {
        self.detached(move |inner| async move { inner.backfill(id, asked).await })
            .await
    }
}

impl Inner {
    async fn backfill(
        self: &Arc<Self>,
        id: WebhookId,
        asked: Backfill,
    ) -> Result<Backfilled, DeliveryError> {
        // A webhook that is deleted meanwhile cancels what was added before, and gets nothing
        // after.
        let _changing = self.changing.lock().await;
        let running = self.running(id)?;
        let webhook = running.stored().webhook.clone();
        if !webhook.enabled && !asked.dry_run {
            return Err(DeliveryError::WebhookDisabled(id));
        }
        let mut filter = asked.filter;
        filter.kinds.get_or_insert(webhook.events);
        if filter.stations.patterns().is_empty() {
            filter.stations = webhook.stations;
        }
        let mut left = match asked.left {
            Some(left) => left,
            None => self.whole(&filter).await?,
        };
        let of_shard = left.first().map(|part| part.start);
        let of_shard = of_shard.and_then(|at| {
            let (shard, dispatcher) = (self.shards.at(at)?, running.dispatcher_at(at)?);
            Some((shard, dispatcher))
        });
        let Some((shard, dispatcher)) = of_shard else {
            return Ok(Backfilled {
                matched: 0,
                left: Vec::new(),
                retrying: self.sum_of(|shard| shard.ledger.counts(id).retrying),
                reached: None,
            });
        };
        let versions = dispatcher.subscriber.versions();
        let oldest = dispatcher.progress.oldest();
        let is_wanted = |seq, event: &Event| {
            let waits = || matches!(wanted(id, &versions, seq, event), Some(Ok(())));
            filter.contains(event) && event.is_for(id.0) && !(seq >= oldest && waits())
        };
        let part = left.remove(0);
        let (events, rest) = matching(&shard.journal, is_wanted, part, asked.limit).await?;
        left.splice(0..0, rest);
        let matched = events.len() as u64;
        // Of several journals, one after the other, no time says how far that is.
        let is_one = self.shards.count() == 1;
        let reached = events.last().filter(|_| is_one);
        let reached = reached.map(|(_, event)| event.time);
        if !asked.dry_run && !events.is_empty() {
            let due_ms = self.next_due(shard);
            let retries = events.into_iter().map(|(seq, event)| Retry {
                key: RetryKey {
                    webhook: id,
                    due_ms,
                    seq,
                },
                event,
                attempts: Vec::new(),
                round: 0,
                last_response: None,
            });
            let retries = retries.collect();
            let entry = Entry::Backfilled {
                webhook: id,
                retries,
            };
            shard.ledger.record_durably(entry).await?;
            // One that has ended finds them at its next start.
            let _ = dispatcher.control.send(Control::Replayed).await;
        }
        Ok(Backfilled {
            matched,
            left,
            retrying: self.sum_of(|shard| shard.ledger.counts(id).retrying),
            reached,
        })
    }

    /// All of each journal that may hold what is wanted, as it is now.
    async fn whole(&self, filter: &EventFilter) -> Result<Vec<Range<Seq>>, DeliveryError> {
        let mut whole = Vec::with_capacity(self.shards.count());
        for DispatcherContext { journal, .. } in &self.shards {
            let bounds = journal.bounds().await?;
            let start = match filter.since {
                Some(since) => journal.position_at(since).await?,
                None => bounds.start,
            };
            whole.push(start..journal.head());
        }
        whole.retain(|part| !part.is_empty());
        Ok(whole)
    }

    /// A time by which no backfill has anything due yet: two of the same event keep apart by it.
    fn next_due(&self, shard: &DispatcherContext) -> i64 {
        let now = shard.retry_clock.now().as_millisecond();
        let later = |last: i64| Some(now.max(last + 1));
        let last = self
            .backfilled_due
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
        last.map_or(now, |last| now.max(last + 1))
    }
}

/// At most `limit` events, and what is left behind them.
async fn matching(
    journal: &Journal,
    is_wanted: impl Fn(Seq, &Event) -> bool + Send,
    Range { start, end }: Range<Seq>,
    limit: usize,
) -> Result<(Vec<(Seq, Arc<Event>)>, Option<Range<Seq>>), DeliveryError> {
    let mut found = Vec::new();
    let mut bytes = 0;
    let mut at = start;
    while at < end {
        if found.len() >= limit || bytes >= BATCH_BYTES || at.0 - start.0 >= MAX_LOOKED_AT {
            return Ok((found, Some(at..end)));
        }
        let events = journal.read_from(at, ReadLimit::part(STRIDE)).await?;
        at = end;
        for (seq, event) in events {
            if seq >= end {
                break;
            }
            if found.len() >= limit || bytes >= BATCH_BYTES {
                at = seq;
                break;
            }
            if is_wanted(seq, &event) {
                bytes += event.size();
                found.push((seq, event));
            }
            at = seq.next();
        }
    }
    Ok((found, None))
}

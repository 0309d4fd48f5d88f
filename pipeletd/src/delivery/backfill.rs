//! Events that are sent to a webhook again, from what the journal still keeps.
//!
//! They go beside the happy path, as retries that are due at once, so the cursor and what it owes
//! stay as they are. Each counts as received once more. What still waits for its first attempt is
//! left to that: it would come twice, and before what had happened earlier. A caller takes the journal in parts, of a
//! bounded number of events: how fast is its business.

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
    dispatcher::Control,
    ledger::Entry,
    trace::wanted,
    webhooks::{Delivery, DeliveryError, Inner},
};
use crate::store::{BATCH_BYTES, ReadLimit};

/// Events that are read at once.
const STRIDE: usize = 512;
/// Events that one call looks at.
const MAX_LOOKED_AT: u64 = 64 * 1024;

/// What a caller wants to be sent again.
#[derive(Debug, Clone)]
pub struct Backfill {
    /// Where it says nothing of events or stations, the webhook's own choice holds.
    pub filter: EventFilter,
    /// The part of the journal that is left; none at the beginning.
    pub left: Option<Range<Seq>>,
    /// Events at most, in this part.
    pub limit: usize,
    /// Only counts.
    pub dry_run: bool,
}

/// One part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backfilled {
    pub matched: u64,
    /// What is left of the journal; none at the end.
    pub left: Option<Range<Seq>>,
    /// How many deliveries of the webhook wait for their next attempt now.
    pub retrying: u64,
    /// When the last event of this part happened.
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
        let left = match asked.left {
            Some(left) => left,
            None => self.whole(&filter).await?,
        };
        let versions = running.subscriber.versions();
        let oldest = running.progress.oldest();
        let is_wanted = |seq, event: &Event| {
            let waits = || matches!(wanted(id, &versions, seq, event), Some(Ok(())));
            filter.contains(event) && event.is_for(id.0) && !(seq >= oldest && waits())
        };
        let (events, left) = self.matching(is_wanted, left, asked.limit).await?;
        let matched = events.len() as u64;
        let reached = events.last().map(|(_, event)| event.time);
        if !asked.dry_run && !events.is_empty() {
            let due_ms = self.next_due();
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
            self.context.ledger.record_durably(entry).await?;
            // One that has ended finds them at its next start.
            let _ = running.control.send(Control::Replayed).await;
        }
        Ok(Backfilled {
            matched,
            left,
            retrying: self.context.ledger.counts(id).retrying,
            reached,
        })
    }

    /// All of the journal that may hold what is wanted, as it is now.
    async fn whole(&self, filter: &EventFilter) -> Result<Range<Seq>, DeliveryError> {
        let journal = &self.context.journal;
        let bounds = journal.bounds().await?;
        let start = match filter.since {
            Some(since) => journal.position_at(since).await?,
            None => bounds.start,
        };
        Ok(start..journal.head().max(start))
    }

    /// At most `limit` events, and what is left behind them.
    async fn matching(
        &self,
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
            let events = self
                .context
                .journal
                .read_from(at, ReadLimit::part(STRIDE))
                .await?;
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

    /// A time by which no backfill has anything due yet: two of the same event keep apart by it.
    fn next_due(&self) -> i64 {
        let now = self.context.retry_clock.now().as_millisecond();
        let later = |last: i64| Some(now.max(last + 1));
        let last = self
            .backfilled_due
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
        last.map_or(now, |last| now.max(last + 1))
    }
}

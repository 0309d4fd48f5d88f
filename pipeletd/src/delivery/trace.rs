//! What became of one event, webhook by webhook.
//!
//! Put together from what is kept anyway: the history of what each webhook wanted, retries, dead
//! letters, and the latest deliveries. Of one that went well longer ago it is known only that it
//! did. Everything moves meanwhile, so the answer is one of a moment.

use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{Attempt, FailedDelivery, FailedFilter, Retry, SubscriptionVersion},
    events::{Event, Seq},
    webhooks::WebhookId,
};

use super::webhooks::{Delivery, Running};
use crate::store::{LedgerStore, ReadLimit, StoreError};

/// Retries or dead letters that are read at once.
const STRIDE: usize = 500;

/// One webhook's part.
#[derive(Debug)]
pub struct Trace {
    pub webhook: WebhookId,
    pub name: String,
    pub fate: Fate,
}

#[derive(Debug)]
pub enum Fate {
    NotWanted {
        why: NotWanted,
        /// A backfill may have sent it all the same, which is no longer known.
        or_sent_again: bool,
    },
    /// Its first attempt is still to be made, or under way.
    Waiting,
    Retrying {
        attempts: Vec<Attempt>,
        due: Option<Timestamp>,
    },
    Dead(Box<FailedDelivery>),
    /// With its attempts, as long as they are kept.
    Delivered(Option<Vec<Attempt>>),
    /// It was a dead letter, which was purged.
    Purged,
    /// Delivered, or a dead letter that was purged: which, is no longer known.
    Settled,
    /// It was settled, or not wanted: what was wanted then is no longer kept.
    Forgotten,
}

/// Why an event was not owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotWanted {
    CreatedLater,
    /// It is synthetic, and for one other webhook.
    ForAnother,
    Disabled,
    OtherEvents,
    OtherStations,
}

impl NotWanted {
    pub const fn code(self) -> &'static str {
        match self {
            Self::CreatedLater => "created_later",
            Self::ForAnother => "for_another",
            Self::Disabled => "disabled",
            Self::OtherEvents => "other_events",
            Self::OtherStations => "other_stations",
        }
    }
}

impl Delivery {
    /// The webhooks that want the event at this position.
    pub fn owed(&self, seq: Seq, event: &Event) -> Vec<WebhookId> {
        let webhooks = self.0.running.read();
        let webhooks = webhooks.unwrap_or_else(PoisonError::into_inner);
        let owed = webhooks.iter().filter(|(id, running)| {
            let versions = running.versions_at(seq);
            matches!(wanted(**id, &versions, seq, event), Some(Ok(())))
        });
        owed.map(|(id, _)| *id).collect()
    }

    /// What became of the event at this position, by ascending webhook.
    pub async fn trace(&self, seq: Seq, event: &Arc<Event>) -> Result<Vec<Trace>, StoreError> {
        let running: Vec<_> = {
            let webhooks = self.0.running.read();
            let webhooks = webhooks.unwrap_or_else(PoisonError::into_inner);
            webhooks.values().cloned().collect()
        };
        let mut traces = Vec::new();
        for running in running {
            let stored = running.stored();
            let versions = running.versions_at(seq);
            let wanted = match wanted(stored.webhook.id, &versions, seq, event) {
                None if stored.webhook.created_at > event.time => {
                    Some(Err(NotWanted::CreatedLater))
                }
                wanted => wanted,
            };
            let is_owed = matches!(wanted, Some(Ok(())));
            // A backfill sends what was not wanted, too.
            let fate = match (self.fate(&running, seq, event, is_owed).await?, wanted) {
                (Fate::Forgotten, Some(Err(why))) => Fate::NotWanted {
                    why,
                    or_sent_again: self.0.counts_at(seq, stored.webhook.id).backfilled > 0,
                },
                (fate, _) => fate,
            };
            traces.push(Trace {
                webhook: stored.webhook.id,
                name: stored.webhook.name.clone(),
                fate,
            });
        }
        Ok(traces)
    }

    async fn fate(
        &self,
        running: &Running,
        seq: Seq,
        event: &Arc<Event>,
        is_owed: bool,
    ) -> Result<Fate, StoreError> {
        // Looked at first: what has left the backlog by then is found further down.
        let dispatcher = running.dispatcher_at(seq);
        let is_waiting = is_owed && dispatcher.is_some_and(|it| seq >= it.progress.oldest());
        let webhook = running.stored().webhook.id;
        let found = match self.0.shards.at(seq) {
            Some(shard) => exception(shard.store.as_ref(), webhook, seq, event).await?,
            None => None,
        };
        let settled = running.history.latest();
        let settled = settled
            .into_iter()
            .find(|settled| settled.event == event.id);
        Ok(match (found, settled) {
            (Some(Exception::Retry(retry)), _) => Fate::Retrying {
                due: self.due_at(retry.key),
                attempts: retry.attempts,
            },
            (Some(Exception::Failed(failed)), _) => Fate::Dead(failed),
            (None, Some(settled)) if settled.delivered => Fate::Delivered(Some(settled.attempts)),
            (None, _) if is_waiting => Fate::Waiting,
            (None, _) if running.history.was_purged(event.id) => Fate::Purged,
            (None, _) if is_owed && self.0.counts_at(seq, webhook).purged > 0 => Fate::Settled,
            (None, _) if is_owed => Fate::Delivered(None),
            (None, _) => Fate::Forgotten,
        })
    }
}

/// Whether the event was owed; none where that is no longer known.
pub(super) fn wanted(
    webhook: WebhookId,
    versions: &[SubscriptionVersion],
    seq: Seq,
    event: &Event,
) -> Option<Result<(), NotWanted>> {
    let version = versions.iter().rev().find(|version| version.from <= seq)?;
    let subscription = &version.subscription;
    Some(if !event.is_for(webhook.0) {
        Err(NotWanted::ForAnother)
    } else if !subscription.enabled {
        Err(NotWanted::Disabled)
    } else if !subscription.events.contains(event.kind) {
        Err(NotWanted::OtherEvents)
    } else if !subscription.stations.contains(&event.station) {
        Err(NotWanted::OtherStations)
    } else {
        Ok(())
    })
}

/// A record outside the happy path.
enum Exception {
    Retry(Retry),
    Failed(Box<FailedDelivery>),
}

async fn exception(
    store: &dyn LedgerStore,
    webhook: WebhookId,
    seq: Seq,
    event: &Event,
) -> Result<Option<Exception>, StoreError> {
    let mut after = None;
    loop {
        let keys = store.retry_keys(webhook, after, STRIDE).await?;
        after = keys.last().copied();
        for key in keys.into_iter().filter(|key| key.seq == seq) {
            let (found, _) = store.retries(&[key], ReadLimit::part(1)).await?;
            if let Some(retry) = found.into_iter().next() {
                return Ok(Some(Exception::Retry(retry)));
            }
        }
        if after.is_none() {
            break;
        }
    }
    let filter = FailedFilter {
        webhook: Some(webhook),
        kind: Some(event.kind),
        station: Some(event.station.as_str().to_owned()),
        since: Some(event.time),
        until: None,
    };
    let mut after = None;
    loop {
        let failed = store
            .failed_deliveries(&filter, after, ReadLimit::part(STRIDE))
            .await?;
        after = failed.items.last().map(|last| last.id);
        let mut failed = failed.items.into_iter();
        if let Some(failed) = failed.find(|failed| failed.seq == seq) {
            return Ok(Some(Exception::Failed(Box::new(failed))));
        }
        if after.is_none() {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipelet_domain::{
        deliveries::Subscription,
        events::{EventId, EventSelection, EventType, Payload, StationId, StationSelection},
    };

    #[test]
    fn what_was_wanted_is_judged_by_the_settings_of_then() {
        let version = |from, enabled, events: &str, stations: &str| SubscriptionVersion {
            from: Seq(from),
            subscription: Subscription {
                revision: from,
                enabled,
                events: EventSelection::parse(&[events]).unwrap(),
                stations: StationSelection::parse(&[stations]).unwrap(),
            },
        };
        let versions = [
            version(10, true, "*", "A*"),
            version(20, false, "*", "A*"),
            version(30, true, "Reset", "A*"),
            version(40, true, "*", "B*"),
        ];
        let time = Timestamp::UNIX_EPOCH;
        let event = Event::new(
            EventId::new(time, [0; 10]),
            EventType::Heartbeat,
            StationId::new("A1").unwrap(),
            time,
            None,
            Payload::empty(),
        );
        for (seq, expected) in [
            (9, None),
            (10, Some(Ok(()))),
            (20, Some(Err(NotWanted::Disabled))),
            (39, Some(Err(NotWanted::OtherEvents))),
            (40, Some(Err(NotWanted::OtherStations))),
        ] {
            assert_eq!(
                wanted(WebhookId(1), &versions, Seq(seq), &event),
                expected,
                "{seq}"
            );
        }
    }
}

//! Every webhook's books at one moment, those of deleted webhooks included: one by one as long as
//! they are kept, and then as a sum.
//!
//! Invariant: no webhook is listed twice, and one whose deletion is under way is listed without
//! books rather than left out. It adds nothing up: who reads the books judges them.

use std::{sync::PoisonError, time::Duration};

use futures_util::future::try_join_all;
use pipelet_domain::{
    deliveries::{ArchivedCounts, DeliveryCounts, Stage, StoredCounts},
    webhooks::WebhookId,
};
use tokio::time::sleep;

use super::webhooks::{Delivery, DeliveryError};

#[derive(Debug)]
pub struct Audit {
    /// By ascending id.
    pub webhooks: Vec<Audited>,
    /// The sum of what is in none of them.
    pub archived: ArchivedCounts,
}

/// How often a webhook's rows are counted before a difference is believed.
const LOOKS: u32 = 8;
const BETWEEN_LOOKS: Duration = Duration::from_millis(25);

/// One webhook's part of an audit.
#[derive(Debug)]
pub struct Audited {
    pub id: WebhookId,
    pub name: String,
    pub state: AuditState,
    /// Among what it has received, what it was sent again from the journal.
    pub backfilled: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditState {
    /// It has a dispatcher.
    Active(DeliveryCounts, Option<Comparison>),
    /// The same of one that is not enabled.
    Disabled(DeliveryCounts, Option<Comparison>),
    /// What it was owed is being cancelled; its books are closed after that.
    Deleting,
    Deleted(DeliveryCounts),
}

/// What the ledger counts beside the happy path, and what was counted in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    pub booked: StoredCounts,
    pub stored: StoredCounts,
}

impl Delivery {
    /// Of all webhooks that there ever were, or of the one.
    pub async fn audit(&self, only: Option<WebhookId>) -> Result<Audit, DeliveryError> {
        let wanted = |id: WebhookId| only.is_none_or(|only| only == id);
        let mut audited = self.active(wanted);
        // Read after those that run: a webhook that is deleted meanwhile is not missed, and one that
        // is created meanwhile comes after this audit.
        let stored = self.0.webhooks.list(None, |_| true, usize::MAX);
        // Read last: one that is archived meanwhile is in the sum.
        let books = self.0.ledger_books();
        let archived = books.archived;
        for stored in stored {
            let id = stored.webhook.id;
            let counts = books.counts(id);
            let state = match stored.stage {
                Stage::Active => continue,
                Stage::Deleting => AuditState::Deleting,
                Stage::Deleted => match books.closed.get(&id) {
                    // Those may go on after the deletion.
                    Some(closed) => AuditState::Deleted(DeliveryCounts {
                        purged: counts.purged,
                        ..*closed
                    }),
                    None => continue,
                },
            };
            if wanted(id) && !audited.iter().any(|audited| audited.id == id) {
                audited.push(Audited {
                    id,
                    name: stored.webhook.name.clone(),
                    state,
                    backfilled: counts.backfilled,
                });
            }
        }
        for audited in &mut audited {
            if let AuditState::Active(_, comparison) | AuditState::Disabled(_, comparison) =
                &mut audited.state
            {
                *comparison = self.compare(audited.id).await?;
            }
        }
        audited.sort_by_key(|audited| audited.id);
        match only {
            Some(id) if audited.is_empty() => Err(DeliveryError::NoSuchWebhook(id)),
            Some(_) => Ok(Audit {
                webhooks: audited,
                archived: ArchivedCounts::default(),
            }),
            None => Ok(Audit {
                webhooks: audited,
                archived: ArchivedCounts {
                    // None is archived before its last dead letter is gone.
                    books: DeliveryCounts {
                        purged: archived.books.dead,
                        ..archived.books
                    },
                    ..archived
                },
            }),
        }
    }

    /// Counts what is stored. None where it changes all the time, and never shows what the ledger
    /// says: a difference is one only if it stays while nothing moves.
    async fn compare(&self, id: WebhookId) -> Result<Option<Comparison>, DeliveryError> {
        let booked = || {
            let shards = self.0.shards.iter();
            let booked = shards.map(|shard| {
                let counts = shard.ledger.counts(id);
                StoredCounts {
                    retries: counts.retrying,
                    failed: counts.dead,
                }
            });
            booked.fold(StoredCounts::default(), StoredCounts::plus)
        };
        let mut last = None;
        let mut stayed = 0;
        for _ in 0..LOOKS {
            let before = booked();
            let shards = self.0.shards.iter();
            let stored = try_join_all(shards.map(|shard| shard.store.count_stored(id))).await?;
            let stored = stored.into_iter();
            let stored = stored.fold(StoredCounts::default(), StoredCounts::plus);
            let comparison = Comparison {
                booked: before,
                stored,
            };
            if booked() == before && stored == before {
                return Ok(Some(comparison));
            }
            stayed = if last == Some(comparison) {
                stayed + 1
            } else {
                0
            };
            last = Some(comparison);
            sleep(BETWEEN_LOOKS).await;
        }
        Ok(last.filter(|_| stayed == LOOKS - 1))
    }

    fn active(&self, wanted: impl Fn(WebhookId) -> bool) -> Vec<Audited> {
        let webhooks = self.0.running.read();
        let webhooks = webhooks.unwrap_or_else(PoisonError::into_inner);
        let webhooks = webhooks.iter().filter(|(id, _)| wanted(**id));
        let audited = webhooks.map(|(id, running)| {
            let webhook = &running.stored().webhook;
            let books = self.0.books(running, *id);
            Audited {
                id: *id,
                name: webhook.name.clone(),
                state: if webhook.enabled {
                    AuditState::Active(books, None)
                } else {
                    AuditState::Disabled(books, None)
                },
                backfilled: self.0.sum_of(|shard| shard.ledger.counts(*id).backfilled),
            }
        });
        audited.collect()
    }
}

//! Every webhook's books at one moment, those of deleted webhooks included: one by one as long as
//! they are kept, and then as a sum.
//!
//! Invariant: no webhook is told of twice, and one whose deletion is under way is told of without
//! books rather than left out. It adds nothing up: who reads the books judges them.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use pipelet_domain::{
    deliveries::{Books, Forgotten, Kept, Stage, StoredWebhook},
    webhooks::WebhookId,
};
use tokio::time::sleep;

use super::webhooks::{Delivery, DeliveryError};
use crate::store::{Store, StoreError, blocking};

#[derive(Debug)]
pub struct Audit {
    /// By ascending id.
    pub webhooks: Vec<Audited>,
    /// What is in none of them.
    pub forgotten: Forgotten,
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
    Active(Books, Option<Comparison>),
    /// What it was owed is being cancelled; its books are closed after that.
    Deleting,
    Deleted(Books),
}

/// What the account says is kept beside the happy path, and what was counted there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    pub booked: Kept,
    pub kept: Kept,
}

impl Delivery {
    /// Of all webhooks that there ever were, or of the one.
    pub async fn audit(&self, only: Option<WebhookId>) -> Result<Audit, DeliveryError> {
        let wanted = |id: WebhookId| only.is_none_or(|only| only == id);
        let mut audited = self.active(wanted);
        let store = Arc::clone(&self.0.context.store);
        // The store is read last: a webhook that is deleted meanwhile is not missed, and one that
        // is created meanwhile comes after this audit.
        let (stored, forgotten) = blocking(move || stored(store.as_ref())).await?;
        for stored in stored {
            let id = stored.webhook.id;
            let state = match stored.stage {
                Stage::Active => continue,
                Stage::Deleting => AuditState::Deleting,
                // Those may go on after the deletion.
                Stage::Deleted(books) => AuditState::Deleted(Books {
                    purged: self.0.context.ledger.account(id).purged,
                    ..books
                }),
            };
            if wanted(id) && !audited.iter().any(|audited| audited.id == id) {
                audited.push(Audited {
                    id,
                    name: stored.webhook.name,
                    state,
                    backfilled: self.0.context.ledger.account(id).backfilled,
                });
            }
        }
        for audited in &mut audited {
            if let AuditState::Active(_, comparison) = &mut audited.state {
                *comparison = self.compare(audited.id).await?;
            }
        }
        audited.sort_by_key(|audited| audited.id);
        match only {
            Some(id) if audited.is_empty() => Err(DeliveryError::NoSuchWebhook(id)),
            Some(_) => Ok(Audit {
                webhooks: audited,
                forgotten: Forgotten::default(),
            }),
            None => Ok(Audit {
                webhooks: audited,
                forgotten: Forgotten {
                    // None is forgotten before its last dead letter is gone.
                    books: Books {
                        purged: forgotten.books.dead,
                        ..forgotten.books
                    },
                    ..forgotten
                },
            }),
        }
    }

    /// Counts what is kept. None where it changes all the time, and never shows what the account
    /// says: a difference is one only if it stays while nothing moves.
    async fn compare(&self, id: WebhookId) -> Result<Option<Comparison>, DeliveryError> {
        let booked = || {
            let account = self.0.context.ledger.account(id);
            Kept {
                retries: account.retrying,
                failed: account.dead,
            }
        };
        let mut last = None;
        let mut stayed = 0;
        for _ in 0..LOOKS {
            let before = booked();
            let store = Arc::clone(&self.0.context.store);
            let kept = blocking(move || store.count_kept(id)).await?;
            let comparison = Comparison {
                booked: before,
                kept,
            };
            if booked() == before && kept == before {
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
        let webhooks = self.0.webhooks.read();
        let webhooks = webhooks.unwrap_or_else(PoisonError::into_inner);
        let webhooks = webhooks.iter().filter(|(id, _)| wanted(**id));
        let audited = webhooks.map(|(id, running)| Audited {
            id: *id,
            name: running.stored().webhook.name.clone(),
            state: AuditState::Active(self.0.books(running, *id), None),
            backfilled: self.0.context.ledger.account(*id).backfilled,
        });
        audited.collect()
    }
}

/// The webhooks and what is forgotten of others, as of one moment.
fn stored(store: &dyn Store) -> Result<(Vec<StoredWebhook>, Forgotten), StoreError> {
    loop {
        let before = store.forgotten()?;
        let webhooks = store.webhooks()?;
        // Else one was forgotten between the two, and would be told of twice or not at all.
        if store.forgotten()? == before {
            return Ok((webhooks, before));
        }
    }
}

//! Webhooks over their lives: what is set up is written down once, and the shards take it up.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use pipelet_domain::{
    deliveries::{Stage, StoredWebhook},
    events::EventType,
    webhooks::{Fault, SigningSecret, TargetPolicy, Webhook, WebhookDraft, WebhookId},
};
use pipelet_proto::v1;
use tokio::{sync::watch, time::timeout};
use tracing::Instrument as _;

use super::{error::ApiError, wire};
use crate::{
    delivery::{self, DeliverySettings, TestResult},
    registries::{self, IfRevision},
    system::clock::Clock,
};

/// How often a deletion is gone on with that could not be finished.
const FINISH_EVERY: Duration = Duration::from_secs(1);

/// How often shards are asked to cancel what they owe; those without an owner are waited for each time.
const DELETION_TRIES: usize = 5;

/// Cheap to clone.
#[derive(Clone)]
pub struct Webhooks {
    settings: registries::Webhooks,
    delivery: watch::Receiver<DeliverySettings>,
    clock: Clock,
    deliverers: Arc<dyn Deliverers>,
}

/// Those that deliver: in each shard one.
#[tonic::async_trait]
pub trait Deliverers: Send + Sync {
    /// Why a change can't be taken up now, as far as that is known before.
    fn check(&self, change: Change) -> Result<(), ApiError>;

    /// Has what is set up of a webhook taken up. Returns, where it is deleted, how many deliveries were
    /// cancelled, and which shards follow later.
    async fn take_up(&self, id: WebhookId) -> Result<TakenUp, ApiError>;

    /// Of each of these webhooks, what is delivered.
    async fn figures(&self, webhooks: &[Arc<StoredWebhook>]) -> Result<Vec<Figures>, ApiError>;

    /// Those whose books are still kept.
    async fn audited(&self) -> Result<BTreeSet<WebhookId>, ApiError>;
}

/// What a change leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Events are wanted.
    Wanting,
    /// None are wanted any more, which makes room in the end.
    Disabled,
    Deleted,
}

#[derive(Debug, Default)]
pub struct TakenUp {
    pub cancelled: u64,
    /// These have not done so.
    pub absent: Vec<u32>,
}

/// What is delivered to a webhook, and what not.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub stats: v1::WebhookStats,
    pub health: v1::WebhookHealth,
    /// What is in these shards is not among it.
    pub absent: Vec<u32>,
}

/// A webhook as callers see it.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) stored: Arc<StoredWebhook>,
    pub(super) figures: Figures,
}

impl Shown {
    pub(super) fn webhook(&self) -> &Webhook {
        &self.stored.webhook
    }

    pub(super) fn message(&self) -> v1::Webhook {
        wire::webhook(&self.stored.webhook, self.figures.clone())
    }
}

impl Webhooks {
    pub fn new(
        settings: registries::Webhooks,
        delivery: watch::Receiver<DeliverySettings>,
        clock: Clock,
        deliverers: Arc<dyn Deliverers>,
    ) -> Self {
        Self {
            settings,
            delivery,
            clock,
            deliverers,
        }
    }

    pub(super) async fn create(&self, draft: WebhookDraft) -> Result<Shown, ApiError> {
        self.to_its_end(|this| async move {
            let targets = this.targets();
            let faults = this.settings.faults(draft.clone(), None, &targets)?;
            if !faults.is_empty() {
                return Err(ApiError::Invalid(faults));
            }
            // One that can't be taken up is not stored.
            this.deliverers.check(Change::Wanting)?;
            let stored = this.settings.create(draft, &targets).await?;
            this.taken_up(stored).await
        })
        .await
    }

    /// Changes what the draft gives and leaves the rest.
    pub(super) async fn update(
        &self,
        id: WebhookId,
        draft: WebhookDraft,
        only: IfRevision,
    ) -> Result<Shown, ApiError> {
        self.to_its_end(move |this| async move {
            let targets = this.targets();
            let updated = this.settings.updated(id, draft.clone(), &targets)?;
            this.deliverers.check(if updated.enabled {
                Change::Wanting
            } else {
                Change::Disabled
            })?;
            let stored = this.settings.update(id, &draft, &targets, &only).await?;
            this.taken_up(stored).await
        })
        .await
    }

    /// As [`registries::Webhooks::rotate_signing_secret`].
    pub(super) async fn rotate_signing_secret(
        &self,
        id: WebhookId,
        new: SigningSecret,
        only: IfRevision,
    ) -> Result<Shown, ApiError> {
        self.to_its_end(move |this| async move {
            let rotated = this.settings.rotate_signing_secret(id, &new, &only);
            let stored = rotated.await?;
            this.taken_up(stored).await
        })
        .await
    }

    /// Cancels what the webhook is owed. Returns how many deliveries that were.
    pub(super) async fn delete(&self, id: WebhookId, only: IfRevision) -> Result<u64, ApiError> {
        self.to_its_end(move |this| async move {
            this.settings.get(id)?;
            this.deliverers.check(Change::Deleted)?;
            this.settings.begin_deletion(id, &only).await?;
            for _ in 0..DELETION_TRIES {
                let TakenUp { cancelled, absent } = this.deliverers.take_up(id).await?;
                if absent.is_empty() {
                    this.end_deletion(id).await?;
                    return Ok(cancelled);
                }
            }
            // Whoever tends deletions goes on with it.
            let why = "the webhook is deleted, and what shards without an owner owe it is cancelled \
                       once they have one";
            Err(ApiError::Unavailable(why.to_owned()))
        })
        .await
    }

    /// What is wrong with a draft of a new webhook, or of a change of an existing one.
    pub(super) fn faults(
        &self,
        draft: WebhookDraft,
        changed: Option<WebhookId>,
    ) -> Result<Vec<Fault>, ApiError> {
        Ok(self.settings.faults(draft, changed, &self.targets())?)
    }

    pub(super) async fn get(&self, id: WebhookId) -> Result<Shown, ApiError> {
        let stored = self.settings.get(id)?;
        self.shown(stored).await
    }

    /// At most `limit` webhooks with an id above `after`, ascending.
    pub(super) async fn list(
        &self,
        after: Option<WebhookId>,
        limit: usize,
    ) -> Result<Vec<Shown>, ApiError> {
        let stored = self.settings.list(after, limit);
        let figures = self.deliverers.figures(&stored).await?;
        let shown = stored.into_iter().zip(figures);
        let shown = shown.map(|(stored, figures)| Shown { stored, figures });
        Ok(shown.collect())
    }

    /// POSTs a synthetic event once, outside the journal. Works on disabled webhooks too.
    pub(super) async fn test(
        &self,
        id: WebhookId,
        kind: Option<EventType>,
    ) -> Result<TestResult, ApiError> {
        let stored = self.settings.get(id)?;
        let sender = self.delivery.borrow().sender.clone();
        Ok(delivery::test(self.clock, &sender, &stored.webhook, kind).await)
    }

    /// Ends deletions that something has broken off, for as long as it is polled.
    pub async fn tend_deletions(self) {
        let mut changes = self.settings.registry.changes();
        loop {
            changes.mark_unchanged();
            let stored = self.settings.registry.list(None, |_| true, usize::MAX);
            let is_deleting = |it: &&Arc<StoredWebhook>| it.stage == Stage::Deleting;
            let mut is_late = false;
            for stored in stored.iter().filter(is_deleting) {
                let id = stored.webhook.id;
                // Whoever deletes it is about to end that, too.
                match self.deliverers.take_up(id).await {
                    Ok(taken) if taken.absent.is_empty() => {
                        is_late |= self.end_deletion(id).await.is_err();
                    }
                    Ok(_) | Err(_) => is_late = true,
                }
            }
            if is_late {
                let _ = timeout(FINISH_EVERY, changes.changed()).await;
            } else if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Nobody owes it anything more.
    async fn end_deletion(&self, id: WebhookId) -> Result<(), ApiError> {
        self.settings.end_deletion(id).await?;
        self.deliverers.take_up(id).await?;
        // Names stay as long as there are books.
        let audited = self.deliverers.audited().await?;
        let registry = &self.settings.registry;
        for stored in registry.list(None, |id| !audited.contains(id), usize::MAX) {
            if stored.stage == Stage::Deleted {
                registry.remove(&stored.webhook.id).await?;
            }
        }
        Ok(())
    }

    async fn taken_up(&self, stored: Arc<StoredWebhook>) -> Result<Shown, ApiError> {
        let TakenUp { absent, .. } = self.deliverers.take_up(stored.webhook.id).await?;
        let mut shown = self.shown(stored).await?;
        let missing = &mut shown.figures.absent;
        missing.extend(absent);
        missing.sort_unstable();
        missing.dedup();
        Ok(shown)
    }

    async fn shown(&self, stored: Arc<StoredWebhook>) -> Result<Shown, ApiError> {
        let figures = self.deliverers.figures(&[Arc::clone(&stored)]).await?;
        let figures = figures.into_iter().next().unwrap_or_default();
        Ok(Shown { stored, figures })
    }

    fn targets(&self) -> TargetPolicy {
        self.delivery.borrow().targets.clone()
    }

    /// Runs a change to its end, also when its caller goes away meanwhile.
    async fn to_its_end<T, F>(&self, change: impl FnOnce(Self) -> F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
    {
        // Under the id of the request that asks for it.
        let change = change(self.clone()).in_current_span();
        let ended = tokio::spawn(change).await;
        ended.unwrap_or_else(|error| Err(ApiError::internal(error)))
    }
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhooks").finish_non_exhaustive()
    }
}

/// The shards of this daemon.
#[tonic::async_trait]
impl Deliverers for delivery::Delivery {
    fn check(&self, change: Change) -> Result<(), ApiError> {
        match change {
            Change::Wanting => self.check_journals()?,
            Change::Disabled => {}
            // What is put off would come after the webhook's end.
            Change::Deleted => self.check_ledgers()?,
        }
        Ok(())
    }

    async fn take_up(&self, id: WebhookId) -> Result<TakenUp, ApiError> {
        let cancelled = delivery::Delivery::take_up(self, id).await?;
        let absent = Vec::new();
        Ok(TakenUp { cancelled, absent })
    }

    async fn figures(&self, webhooks: &[Arc<StoredWebhook>]) -> Result<Vec<Figures>, ApiError> {
        let figures = webhooks.iter().map(|stored| async {
            match self.get(stored.webhook.id).await {
                Ok(view) => wire::figures(&view),
                // It is still to be taken up.
                Err(_) => Figures {
                    absent: self.shard_ids().map(|shard| shard.0.into()).collect(),
                    ..Figures::default()
                },
            }
        });
        Ok(futures_util::future::join_all(figures).await)
    }

    async fn audited(&self) -> Result<BTreeSet<WebhookId>, ApiError> {
        let audit = self.audit(None).await?;
        Ok(audit.webhooks.iter().map(|audited| audited.id).collect())
    }
}

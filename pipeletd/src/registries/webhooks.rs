//! Webhooks as they are set up, whoever delivers to them.
//!
//! What is changed here is durable; whoever delivers takes it up after that.

use std::sync::Arc;

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{Stage, StoredWebhook},
    webhooks::{Fault, SigningSecret, TargetPolicy, Webhook, WebhookDraft, WebhookId},
};

use super::{Registered, Registry};
use crate::{
    store::{self, ConfigurationStore, Counter, EntryKey, StoreError},
    system::clock::Clock,
};

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Webhooks {
    /// All that are stored, deleted ones included.
    pub registry: Registry<StoredWebhook>,
    clock: Clock,
}

#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("there is no webhook {}", .0.0)]
    NoSuchWebhook(WebhookId),
    #[error("webhook {} has been changed meanwhile, or the tag is none of its", .0.0)]
    Changed(WebhookId),
    #[error("the webhook is not valid")]
    Invalid(Vec<Fault>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which revisions of a webhook a change is meant for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfRevision {
    Any,
    OneOf(Vec<u64>),
}

impl IfRevision {
    fn check(&self, webhook: &Webhook) -> Result<(), WebhookError> {
        match self {
            Self::OneOf(revisions) if !revisions.contains(&webhook.revision) => {
                Err(WebhookError::Changed(webhook.id))
            }
            Self::OneOf(_) | Self::Any => Ok(()),
        }
    }
}

impl Webhooks {
    pub async fn open(
        store: Arc<dyn ConfigurationStore>,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        let registry = Registry::open(store).await?;
        Ok(Self { registry, clock })
    }

    /// One that is not deleted.
    pub fn get(&self, id: WebhookId) -> Result<Arc<StoredWebhook>, WebhookError> {
        let found = self.registry.find(&id).map(|found| found.value);
        let found = found.filter(|stored| stored.stage == Stage::Active);
        found.ok_or(WebhookError::NoSuchWebhook(id))
    }

    /// At most `limit` of those that are not deleted, with an id above `after`, ascending.
    pub fn list(&self, after: Option<WebhookId>, limit: usize) -> Vec<Arc<StoredWebhook>> {
        let all = self.registry.list(after.as_ref(), |_| true, usize::MAX);
        let active = all.into_iter().filter(|it| it.stage == Stage::Active);
        active.take(limit).collect()
    }

    pub async fn create(
        &self,
        draft: WebhookDraft,
        targets: &TargetPolicy,
    ) -> Result<Arc<StoredWebhook>, WebhookError> {
        let new = draft.create(targets).map_err(WebhookError::Invalid)?;
        let id = self.registry.store().reserve(Counter::Webhook, 1).await?;
        let webhook = new.into_webhook(WebhookId(id), self.clock.now());
        let stored = StoredWebhook {
            webhook,
            stage: Stage::Active,
        };
        let create = |_: Option<&StoredWebhook>| Ok(stored.clone());
        self.put(WebhookId(id), create).await
    }

    /// Changes what the draft gives and leaves the rest.
    pub async fn update(
        &self,
        id: WebhookId,
        draft: &WebhookDraft,
        targets: &TargetPolicy,
        only: &IfRevision,
    ) -> Result<Arc<StoredWebhook>, WebhookError> {
        let change = |was: &Webhook, now| draft.clone().update(was, targets, now);
        self.change(id, only, change).await
    }

    /// Has it sign with a new secret from now on, and with the present one beside it for
    /// [`Signing::GRACE`](pipelet_domain::webhooks::Signing::GRACE).
    pub async fn rotate_signing_secret(
        &self,
        id: WebhookId,
        new: &SigningSecret,
        only: &IfRevision,
    ) -> Result<Arc<StoredWebhook>, WebhookError> {
        let change = |was: &Webhook, now| Ok(was.rotated(new.clone(), now));
        self.change(id, only, change).await
    }

    async fn change(
        &self,
        id: WebhookId,
        only: &IfRevision,
        change: impl Fn(&Webhook, Timestamp) -> Result<Webhook, Vec<Fault>>,
    ) -> Result<Arc<StoredWebhook>, WebhookError> {
        let change = |was: Option<&StoredWebhook>| {
            let was = active(id, was, only)?;
            let webhook = change(was, self.clock.now()).map_err(WebhookError::Invalid)?;
            let stage = Stage::Active;
            Ok(StoredWebhook { webhook, stage })
        };
        self.put(id, change).await
    }

    /// It is gone for every caller from now on.
    pub async fn begin_deletion(
        &self,
        id: WebhookId,
        only: &IfRevision,
    ) -> Result<Arc<StoredWebhook>, WebhookError> {
        let delete = |was: Option<&StoredWebhook>| {
            let was = active(id, was, only)?;
            // The secret goes at once; the name stays for the failed deliveries.
            let webhook = Webhook {
                enabled: false,
                secret: None,
                signing: None,
                revision: was.revision + 1,
                ..was.clone()
            };
            let stage = Stage::Deleting;
            Ok(StoredWebhook { webhook, stage })
        };
        self.put(id, delete).await
    }

    /// What it was owed is cancelled.
    pub async fn end_deletion(&self, id: WebhookId) -> Result<(), StoreError> {
        let end = |was: Option<&StoredWebhook>| {
            let ended = was.cloned().map(|was| StoredWebhook {
                stage: Stage::Deleted,
                ..was
            });
            Ok::<_, StoreError>(ended)
        };
        self.registry.change(&id, end).await.map(drop)
    }

    /// What is wrong with a draft of a new webhook, or of a change of an existing one.
    pub fn faults(
        &self,
        draft: WebhookDraft,
        changed: Option<WebhookId>,
        targets: &TargetPolicy,
    ) -> Result<Vec<Fault>, WebhookError> {
        let checked = match changed {
            None => draft
                .create(targets)
                .map(drop)
                .map_err(WebhookError::Invalid),
            Some(id) => self.updated(id, draft, targets).map(drop),
        };
        match checked {
            Ok(()) => Ok(Vec::new()),
            Err(WebhookError::Invalid(faults)) => Ok(faults),
            Err(error) => Err(error),
        }
    }

    /// What a draft makes of a webhook.
    pub fn updated(
        &self,
        id: WebhookId,
        draft: WebhookDraft,
        targets: &TargetPolicy,
    ) -> Result<Webhook, WebhookError> {
        let current = &self.get(id)?.webhook;
        let updated = draft.update(current, targets, self.clock.now());
        updated.map_err(WebhookError::Invalid)
    }

    async fn put(
        &self,
        id: WebhookId,
        change: impl Fn(Option<&StoredWebhook>) -> Result<StoredWebhook, WebhookError>,
    ) -> Result<Arc<StoredWebhook>, WebhookError> {
        let stored = self.registry.change(&id, |was| change(was).map(Some));
        stored.await?.ok_or(WebhookError::NoSuchWebhook(id))
    }
}

/// The webhook, where it is not deleted and of a revision that is meant.
fn active<'a>(
    id: WebhookId,
    stored: Option<&'a StoredWebhook>,
    only: &IfRevision,
) -> Result<&'a Webhook, WebhookError> {
    let active = stored.filter(|stored| stored.stage == Stage::Active);
    let StoredWebhook { webhook, .. } = active.ok_or(WebhookError::NoSuchWebhook(id))?;
    only.check(webhook)?;
    Ok(webhook)
}

impl Registered for StoredWebhook {
    type Key = WebhookId;
    type Companion = ();

    fn key(&self) -> WebhookId {
        self.webhook.id
    }

    fn entry_key(key: WebhookId) -> EntryKey {
        EntryKey::Webhook(key)
    }

    fn into_entry(self) -> store::Entry {
        store::Entry::Webhook(self)
    }

    fn of(entry: &store::Entry) -> Option<&Self> {
        match entry {
            store::Entry::Webhook(stored) => Some(stored),
            store::Entry::ApiKey(_) | store::Entry::IdTag(_) | store::Entry::Registration(_) => {
                None
            }
        }
    }

    fn of_key(key: &EntryKey) -> Option<&WebhookId> {
        match key {
            EntryKey::Webhook(id) => Some(id),
            EntryKey::ApiKey(_) | EntryKey::IdTag(_) | EntryKey::Registration(_) => None,
        }
    }
}

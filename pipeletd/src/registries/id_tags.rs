//! The registered tags, and what a station is told of one.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use pipelet_domain::{
    events::{AuthorizationStatus, IdTagKey},
    id_tags::{IdTagDraft, IdTagEntry, IdTagInfo, Policy},
    webhooks::{Fault, Field},
};

use super::registry::{Registered, Registry};
use crate::{
    store::{ConfigurationStore, Entry, EntryKey, StoreError},
    system::clock::Clock,
};

/// About 200 bytes each in memory.
const MAX_ENTRIES: usize = 200_000;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct IdTags(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    policy: Policy,
    registry: Registry<IdTagEntry>,
    clock: Clock,
    /// Tags whose transaction is about to start.
    starting: Mutex<HashSet<IdTagKey>>,
}

impl Registered for IdTagEntry {
    type Key = IdTagKey;
    type Companion = ();

    fn key(&self) -> IdTagKey {
        self.id_tag.key()
    }

    fn entry_key(key: IdTagKey) -> EntryKey {
        EntryKey::IdTag(key)
    }

    fn into_entry(self) -> Entry {
        Entry::IdTag(self)
    }

    fn of(entry: &Entry) -> Option<&Self> {
        match entry {
            Entry::IdTag(entry) => Some(entry),
            Entry::Webhook(_) | Entry::ApiKey(_) | Entry::Registration(_) => None,
        }
    }

    fn of_key(key: &EntryKey) -> Option<&IdTagKey> {
        match key {
            EntryKey::IdTag(key) => Some(key),
            EntryKey::Webhook(_) | EntryKey::ApiKey(_) | EntryKey::Registration(_) => None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IdTagError {
    #[error("there is no id tag {0:?}")]
    NoSuchIdTag(String),
    #[error("the id tag {0:?} is registered already; change it instead")]
    Exists(String),
    #[error("{MAX_ENTRIES} id tags are registered, and no more are taken; remove some")]
    TooMany,
    #[error("the id tag is not valid")]
    Invalid(Vec<Fault>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A claim that a tag's transaction starts; it ends with the value. Between the verdict and the
/// journal nobody else may start one with the same tag.
#[derive(Debug)]
pub struct Starting {
    tags: IdTags,
    key: IdTagKey,
    /// Another one has the claim.
    pub taken: bool,
}

impl Drop for Starting {
    fn drop(&mut self) {
        if !self.taken {
            self.tags.starting().remove(&self.key);
        }
    }
}

impl IdTags {
    pub async fn open(
        policy: Policy,
        store: Arc<dyn ConfigurationStore>,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        Ok(Self(Arc::new(Inner {
            policy,
            registry: Registry::open(store).await?,
            clock,
            starting: Mutex::default(),
        })))
    }

    pub fn policy(&self) -> Policy {
        self.0.policy
    }

    /// What a station is told about a tag. `charges_elsewhere` is asked only where it matters.
    pub fn verdict(
        &self,
        tag: &IdTagKey,
        now: Timestamp,
        charges_elsewhere: impl FnOnce() -> bool,
    ) -> IdTagInfo {
        match self.0.policy {
            Policy::AcceptAll => IdTagInfo::of(AuthorizationStatus::Accepted),
            Policy::Registered => self.find(tag).map_or_else(
                || IdTagInfo::of(AuthorizationStatus::Invalid),
                |entry| entry.verdict(now, charges_elsewhere()),
            ),
        }
    }

    /// Claims that a transaction with this tag starts now.
    pub fn starting_with(&self, tag: IdTagKey) -> Starting {
        let taken = !self.starting().insert(tag.clone());
        Starting {
            tags: self.clone(),
            key: tag,
            taken,
        }
    }

    pub fn get(&self, tag: &str) -> Result<Arc<IdTagEntry>, IdTagError> {
        self.find(&IdTagKey::of(tag))
            .ok_or_else(|| IdTagError::NoSuchIdTag(tag.to_owned()))
    }

    /// At most `limit` entries after `after`, in the order of their tags in lower case.
    pub fn list(&self, after: Option<&IdTagKey>, limit: usize) -> Vec<Arc<IdTagEntry>> {
        self.0.registry.list(after, |_| true, limit)
    }

    pub async fn create(
        &self,
        id_tag: Field<String>,
        draft: IdTagDraft,
    ) -> Result<Arc<IdTagEntry>, IdTagError> {
        let entry = draft.create(id_tag, self.0.clock.now());
        let entry = entry.map_err(IdTagError::Invalid)?;
        let is_full = self.0.registry.read().len() >= MAX_ENTRIES;
        let create = |known: Option<&IdTagEntry>| match known {
            Some(known) => Err(IdTagError::Exists(known.id_tag.to_string())),
            None if is_full => Err(IdTagError::TooMany),
            None => Ok(Some(entry.clone())),
        };
        let created = self.0.registry.change(&entry.id_tag.key(), create).await?;
        Ok(created.unwrap_or_else(|| Arc::new(entry)))
    }

    /// What is wrong with a draft of a new tag, or of a change.
    pub fn faults(&self, new: Option<Field<String>>, draft: IdTagDraft) -> Vec<Fault> {
        // The faults of a change don't depend on what is changed.
        let id_tag = new.unwrap_or_else(|| Field::Value("-".to_owned()));
        let checked = draft.create(id_tag, self.0.clock.now());
        checked.err().unwrap_or_default()
    }

    /// Changes what the draft mentions and leaves the rest.
    pub async fn update(
        &self,
        tag: String,
        draft: IdTagDraft,
    ) -> Result<Arc<IdTagEntry>, IdTagError> {
        let update = |known: Option<&IdTagEntry>| {
            let known = known.ok_or_else(|| IdTagError::NoSuchIdTag(tag.clone()))?;
            let changed = draft.clone().update(known, self.0.clock.now());
            changed.map(Some).map_err(IdTagError::Invalid)
        };
        let changed = self.0.registry.change(&IdTagKey::of(&tag), update).await?;
        changed.ok_or(IdTagError::NoSuchIdTag(tag))
    }

    pub async fn remove(&self, tag: String) -> Result<(), IdTagError> {
        let remove = |known: Option<&IdTagEntry>| match known {
            Some(_) => Ok(None),
            None => Err(IdTagError::NoSuchIdTag(tag.clone())),
        };
        let removed = self.0.registry.change(&IdTagKey::of(&tag), remove).await;
        removed.map(drop)
    }

    fn find(&self, key: &IdTagKey) -> Option<Arc<IdTagEntry>> {
        self.0.registry.find(key).map(|found| found.value)
    }

    fn starting(&self) -> MutexGuard<'_, HashSet<IdTagKey>> {
        self.0
            .starting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    async fn open(policy: Policy, store: &Arc<MemoryStore>) -> IdTags {
        let opened = IdTags::open(policy, store.clone(), Clock::system()).await;
        opened.unwrap()
    }

    fn tag(text: &str) -> Field<String> {
        Field::Value(text.to_owned())
    }

    fn status(tags: &IdTags, tag: &str) -> AuthorizationStatus {
        tags.verdict(&IdTagKey::of(tag), Timestamp::UNIX_EPOCH, || false)
            .status
    }

    #[tokio::test]
    async fn a_tag_is_the_same_in_any_case_and_shown_as_given() {
        let store = Arc::default();
        let tags = open(Policy::Registered, &store).await;
        let created = tags.create(tag("Rfid_1"), IdTagDraft::default()).await;
        assert_eq!(created.unwrap().id_tag.as_str(), "Rfid_1");
        let again = tags.create(tag("RFID_1"), IdTagDraft::default()).await;
        assert!(matches!(again, Err(IdTagError::Exists(known)) if known == "Rfid_1"));
        assert_eq!(tags.get("rFID_1").unwrap().id_tag.as_str(), "Rfid_1");
        assert_eq!(status(&tags, "RFID_1"), AuthorizationStatus::Accepted);
        assert_eq!(status(&tags, "RFID_2"), AuthorizationStatus::Invalid);
        assert_eq!(
            status(&open(Policy::AcceptAll, &store).await, "RFID_2"),
            AuthorizationStatus::Accepted
        );
    }

    #[tokio::test]
    async fn changes_are_stored() {
        let store = Arc::default();
        let tags = open(Policy::Registered, &store).await;
        for name in ["b", "A", "C"] {
            tags.create(tag(name), IdTagDraft::default()).await.unwrap();
        }
        let blocked = IdTagDraft {
            status: tag("Blocked"),
            ..IdTagDraft::default()
        };
        tags.update("a".to_owned(), blocked).await.unwrap();
        tags.remove("c".to_owned()).await.unwrap();
        assert!(tags.remove("c".to_owned()).await.is_err());

        let again = open(Policy::Registered, &store).await;
        let names = |after: Option<&str>| -> Vec<String> {
            let after = after.map(IdTagKey::of);
            let found = again.list(after.as_ref(), 9);
            found.iter().map(|entry| entry.id_tag.to_string()).collect()
        };
        assert_eq!(names(None), ["A", "b"]);
        assert_eq!(names(Some("A")), ["b"]);
        assert_eq!(status(&again, "A"), AuthorizationStatus::Blocked);
    }

    #[tokio::test]
    async fn one_transaction_starts_at_a_time() {
        let tags = open(Policy::Registered, &Arc::default()).await;
        let first = tags.starting_with(IdTagKey::of("A"));
        assert!(!first.taken);
        assert!(tags.starting_with(IdTagKey::of("a")).taken);
        assert!(tags.starting_with(IdTagKey::of("A")).taken);
        assert!(!tags.starting_with(IdTagKey::of("B")).taken);
        drop(first);
        assert!(!tags.starting_with(IdTagKey::of("A")).taken);
    }
}

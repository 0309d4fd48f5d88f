//! The handle on the registered tags: all of them in memory, every change durable before it is
//! told or holds.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use jiff::Timestamp;
use pipelet_domain::{
    events::{AuthorizationStatus, IdTagKey},
    id_tags::{IdTagDraft, IdTagEntry, IdTagInfo, Policy},
    webhooks::{Fault, Field},
};

use crate::{
    store::{Change, Store, StoreError, blocking},
    system::clock::Clock,
};

/// About 200 bytes each in memory.
const MAX_ENTRIES: usize = 200_000;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct IdTags(Arc<Inner>);

type Entries = BTreeMap<IdTagKey, Arc<IdTagEntry>>;

#[derive(Debug)]
struct Inner {
    policy: Policy,
    store: Arc<dyn Store>,
    clock: Clock,
    entries: RwLock<Entries>,
    /// Held during a change, so that changes are stored and take effect in one order.
    changing: Mutex<()>,
    /// Tags whose transaction is about to start.
    starting: Mutex<HashSet<IdTagKey>>,
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
    /// Takes the stored entries up; blocks.
    pub fn open(policy: Policy, store: Arc<dyn Store>, clock: Clock) -> Result<Self, StoreError> {
        let entries = store.id_tags()?.into_iter();
        let entries = entries.map(|entry| (entry.id_tag.key(), Arc::new(entry)));
        Ok(Self(Arc::new(Inner {
            policy,
            entries: RwLock::new(entries.collect()),
            store,
            clock,
            changing: Mutex::default(),
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
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = self.entries();
        let entries = entries.range::<IdTagKey, _>((from, Bound::Unbounded));
        entries
            .take(limit)
            .map(|(_, entry)| Arc::clone(entry))
            .collect()
    }

    pub async fn create(
        &self,
        id_tag: Field<String>,
        draft: IdTagDraft,
    ) -> Result<Arc<IdTagEntry>, IdTagError> {
        self.change(move |tags| {
            let entry = draft.create(id_tag, tags.0.clock.now());
            let entry = entry.map_err(IdTagError::Invalid)?;
            if let Some(known) = tags.find(&entry.id_tag.key()) {
                return Err(IdTagError::Exists(known.id_tag.to_string()));
            }
            if tags.len() >= MAX_ENTRIES {
                return Err(IdTagError::TooMany);
            }
            tags.put(entry)
        })
        .await
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
        self.change(move |tags| {
            let current = tags.get(&tag)?;
            let changed = draft.update(&current, tags.0.clock.now());
            tags.put(changed.map_err(IdTagError::Invalid)?)
        })
        .await
    }

    pub async fn remove(&self, tag: String) -> Result<(), IdTagError> {
        self.change(move |tags| {
            let key = tags.get(&tag)?.id_tag.key();
            tags.0.store.commit(&[Change::IdTagGone(key.clone())])?;
            tags.entries_mut().remove(&key);
            Ok(())
        })
        .await
    }

    /// Runs a change to its end, also when its caller goes away meanwhile: what is stored and
    /// what holds never part.
    async fn change<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Self) -> Result<T, IdTagError> + Send + 'static,
    ) -> Result<T, IdTagError> {
        let tags = self.clone();
        blocking(move || {
            let changing = tags.0.changing.lock();
            let _changing = changing.unwrap_or_else(PoisonError::into_inner);
            run(&tags)
        })
        .await
    }

    fn put(&self, entry: IdTagEntry) -> Result<Arc<IdTagEntry>, IdTagError> {
        self.0.store.commit(&[Change::IdTag(entry.clone())])?;
        let entry = Arc::new(entry);
        self.entries_mut()
            .insert(entry.id_tag.key(), Arc::clone(&entry));
        Ok(entry)
    }

    fn find(&self, key: &IdTagKey) -> Option<Arc<IdTagEntry>> {
        self.entries().get(key).cloned()
    }

    fn len(&self) -> usize {
        self.entries().len()
    }

    fn entries(&self) -> RwLockReadGuard<'_, Entries> {
        self.0
            .entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn entries_mut(&self) -> RwLockWriteGuard<'_, Entries> {
        self.0
            .entries
            .write()
            .unwrap_or_else(PoisonError::into_inner)
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

    fn open(policy: Policy, store: &Arc<MemoryStore>) -> IdTags {
        let store: Arc<dyn Store> = store.clone();
        IdTags::open(policy, store, Clock::system()).unwrap()
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
        let tags = open(Policy::Registered, &store);
        let created = tags.create(tag("Rfid_1"), IdTagDraft::default()).await;
        assert_eq!(created.unwrap().id_tag.as_str(), "Rfid_1");
        let again = tags.create(tag("RFID_1"), IdTagDraft::default()).await;
        assert!(matches!(again, Err(IdTagError::Exists(known)) if known == "Rfid_1"));
        assert_eq!(tags.get("rFID_1").unwrap().id_tag.as_str(), "Rfid_1");
        assert_eq!(status(&tags, "RFID_1"), AuthorizationStatus::Accepted);
        assert_eq!(status(&tags, "RFID_2"), AuthorizationStatus::Invalid);
        assert_eq!(
            status(&open(Policy::AcceptAll, &store), "RFID_2"),
            AuthorizationStatus::Accepted
        );
    }

    #[tokio::test]
    async fn changes_are_stored() {
        let store = Arc::default();
        let tags = open(Policy::Registered, &store);
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

        let again = open(Policy::Registered, &store);
        let names = |after: Option<&str>| -> Vec<String> {
            let after = after.map(IdTagKey::of);
            let found = again.list(after.as_ref(), 9);
            found.iter().map(|entry| entry.id_tag.to_string()).collect()
        };
        assert_eq!(names(None), ["A", "b"]);
        assert_eq!(names(Some("A")), ["b"]);
        assert_eq!(status(&again, "A"), AuthorizationStatus::Blocked);
    }

    #[test]
    fn one_transaction_starts_at_a_time() {
        let tags = open(Policy::Registered, &Arc::default());
        let first = tags.starting_with(IdTagKey::of("A"));
        assert!(!first.taken);
        assert!(tags.starting_with(IdTagKey::of("a")).taken);
        assert!(tags.starting_with(IdTagKey::of("A")).taken);
        assert!(!tags.starting_with(IdTagKey::of("B")).taken);
        drop(first);
        assert!(!tags.starting_with(IdTagKey::of("A")).taken);
    }
}

//! The entries of one kind of the configuration, in memory.
//!
//! Invariant: what is here is durable. It is filled by watching the configuration, whoever changes
//! it; a change that is made here is seen here when its call returns. Changes don't wait for each
//! other: one that another has overtaken is made again, of what is there by then.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use tokio::sync::watch;

use crate::store::{
    ConfigurationChange, ConfigurationStore, Entry, EntryKey, PutError, Revision, StoreError,
};

/// A kind of entry.
pub trait Registered: Clone + Debug + Send + Sync + 'static {
    type Key: Clone + Debug + Ord + Send + Sync + 'static;
    /// What belongs to an entry for as long as it is there, and is not stored.
    type Companion: Clone + Debug + Default + Send + Sync + 'static;

    fn key(&self) -> Self::Key;
    fn entry_key(key: Self::Key) -> EntryKey;
    fn into_entry(self) -> Entry;
    fn of(entry: &Entry) -> Option<&Self>;
    fn of_key(key: &EntryKey) -> Option<&Self::Key>;

    /// The entry is no longer there.
    fn removed(_: &Self::Companion) {}
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry<V: Registered> {
    store: Arc<dyn ConfigurationStore>,
    entries: Arc<RwLock<Entries<V>>>,
    changed: watch::Sender<()>,
}

pub(super) type Entries<V> = BTreeMap<<V as Registered>::Key, Found<V>>;

/// An entry that is there.
#[derive(Debug, Clone)]
pub struct Found<V: Registered> {
    pub value: Arc<V>,
    pub companion: V::Companion,
    revision: Revision,
}

impl<V: Registered> Registry<V> {
    pub async fn open(store: Arc<dyn ConfigurationStore>) -> Result<Self, StoreError> {
        let entries = Arc::<RwLock<Entries<V>>>::default();
        let watched = Arc::clone(&entries);
        let changed = watch::Sender::default();
        let told = changed.clone();
        let observer = move |change: &ConfigurationChange| {
            if apply(&watched, change) {
                told.send_replace(());
            }
        };
        store.watch(Box::new(observer)).await?;
        Ok(Self {
            store,
            entries,
            changed,
        })
    }

    /// Tells whenever an entry is another than before.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub fn find(&self, key: &V::Key) -> Option<Found<V>> {
        self.read().get(key).cloned()
    }

    /// All of them, by key.
    pub fn read(&self) -> RwLockReadGuard<'_, Entries<V>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// At most `limit` of those after `after` that are wanted, by key.
    pub fn list(
        &self,
        after: Option<&V::Key>,
        wanted: impl Fn(&V::Key) -> bool,
        limit: usize,
    ) -> Vec<Arc<V>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = self.read();
        entries
            .range::<V::Key, _>((from, Bound::Unbounded))
            .filter(|(key, _)| wanted(key))
            .take(limit)
            .map(|(_, found)| Arc::clone(&found.value))
            .collect()
    }

    /// Makes of an entry, if it is there, what `change` makes of it: none removes it. Once begun,
    /// that goes to its end, also when the caller goes away meanwhile.
    pub async fn change<E: From<StoreError>>(
        &self,
        key: &V::Key,
        change: impl Fn(Option<&V>) -> Result<Option<V>, E>,
    ) -> Result<Option<Arc<V>>, E> {
        loop {
            let found = self.find(key);
            let changed = change(found.as_ref().map(|found| &*found.value))?;
            let expected = found.map(|found| found.revision);
            let changed = changed.map(Arc::new);
            let done = match (&changed, expected) {
                (Some(value), expected) => {
                    let entry = V::clone(value).into_entry();
                    self.store.put_if(entry, expected).await.map(drop)
                }
                (None, Some(expected)) => {
                    let key = V::entry_key(key.clone());
                    self.store.remove_if(key, expected).await
                }
                (None, None) => Ok(()),
            };
            match done {
                Ok(()) => return Ok(changed),
                Err(PutError::Store(error)) => return Err(error.into()),
                // It is seen here in a moment.
                Err(PutError::Conflict) => tokio::task::yield_now().await,
            }
        }
    }

    /// Stores an entry, in the place of the one that is there.
    pub async fn put(&self, value: V) -> Result<(), StoreError> {
        let put = |_: Option<&V>| Ok(Some(value.clone()));
        self.change(&value.key(), put).await.map(drop)
    }

    /// Removes an entry; one that isn't there is no error.
    pub async fn remove(&self, key: &V::Key) -> Result<(), StoreError> {
        self.change(key, |_| Ok(None)).await.map(drop)
    }

    pub const fn store(&self) -> &Arc<dyn ConfigurationStore> {
        &self.store
    }
}

/// Whether it is an entry of these.
fn apply<V: Registered>(entries: &RwLock<Entries<V>>, change: &ConfigurationChange) -> bool {
    let entries = || entries.write().unwrap_or_else(PoisonError::into_inner);
    match change {
        ConfigurationChange::Put(entry, revision) => {
            let Some(value) = V::of(entry) else {
                return false;
            };
            let mut entries = entries();
            let known = entries.get(&value.key());
            let companion = known.map(|known| known.companion.clone());
            let found = Found {
                value: Arc::new(value.clone()),
                companion: companion.unwrap_or_default(),
                revision: *revision,
            };
            entries.insert(value.key(), found);
            true
        }
        ConfigurationChange::Removed(key) => {
            let Some(removed) = V::of_key(key).and_then(|key| entries().remove(key)) else {
                return false;
            };
            // Who is woken by it finds the entry gone.
            V::removed(&removed.companion);
            true
        }
    }
}

//! The entries in memory, in step with the store.
//!
//! A change is durable before anyone sees it, and once begun it is finished whether or not the
//! caller still waits.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, PoisonError, RwLock},
};

use pipelet_domain::{
    events::StationId,
    projection::BootStatus,
    registration::{Admission, Registration, RegistrationDraft, Salt},
    webhooks::Fault,
};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

use crate::{
    store::{Change, Store, StoreError, blocking},
    system::clock::Clock,
};

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("the station {0} is not registered")]
    NotRegistered(StationId),
    #[error("the station {0} is registered already; change it instead (stations set)")]
    AlreadyRegistered(StationId),
    #[error("the registration is wrong in {} points", .0.len())]
    Invalid(Vec<Fault>),
    #[error("the system gives no random bytes")]
    Random(#[from] getrandom::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The stations that are registered. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn Store>,
    clock: Clock,
    admission: Admission,
    entries: RwLock<BTreeMap<StationId, Entry>>,
    /// Held during a change: each sees the one before.
    changing: Arc<Mutex<()>>,
}

/// A registration for as long as it stands.
#[derive(Debug, Clone)]
pub struct Entry {
    pub registration: Arc<Registration>,
    /// Cancelled when the station is no longer registered.
    pub removed: CancellationToken,
}

impl Registry {
    pub fn open(
        store: Arc<dyn Store>,
        admission: Admission,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        let entries = store.registrations()?.into_iter().map(|registration| {
            let station = registration.station.clone();
            let entry = Entry {
                registration: Arc::new(registration),
                removed: CancellationToken::new(),
            };
            (station, entry)
        });
        let entries = RwLock::new(entries.collect());
        Ok(Self(Arc::new(Inner {
            store,
            clock,
            admission,
            entries,
            changing: Arc::default(),
        })))
    }

    pub fn admission(&self) -> Admission {
        self.0.admission
    }

    pub fn find(&self, station: &StationId) -> Option<Entry> {
        let entries = self.0.entries.read();
        let entries = entries.unwrap_or_else(PoisonError::into_inner);
        entries.get(station).cloned()
    }

    /// What the station's boot is answered with.
    pub fn boot_policy(&self, station: &StationId) -> BootStatus {
        self.find(station)
            .map_or(BootStatus::Accepted, |entry| entry.registration.boot_policy)
    }

    /// Those after `after` that are wanted, in the ids' order.
    pub fn list(
        &self,
        after: Option<&StationId>,
        wanted: impl Fn(&StationId) -> bool,
        limit: usize,
    ) -> Vec<Arc<Registration>> {
        let entries = self.0.entries.read();
        let entries = entries.unwrap_or_else(PoisonError::into_inner);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        entries
            .range::<StationId, _>((from, Bound::Unbounded))
            .filter(|(id, _)| wanted(id))
            .take(limit)
            .map(|(_, entry)| Arc::clone(&entry.registration))
            .collect()
    }

    /// All that is wrong with a draft.
    pub fn faults(&self, station: &StationId, draft: RegistrationDraft) -> Vec<Fault> {
        let current = self.find(station);
        let current = current.as_ref().map(|entry| &*entry.registration);
        let applied = draft.apply(station, current, Salt::default(), self.0.clock.now());
        applied.err().unwrap_or_default()
    }

    /// Registers a station that is not registered yet.
    pub async fn create(
        &self,
        station: &StationId,
        draft: RegistrationDraft,
    ) -> Result<Arc<Registration>, RegistryError> {
        let turn = self.turn().await;
        if self.find(station).is_some() {
            return Err(RegistryError::AlreadyRegistered(station.clone()));
        }
        self.apply(station, draft, turn).await
    }

    /// Changes what the draft mentions.
    pub async fn update(
        &self,
        station: &StationId,
        draft: RegistrationDraft,
    ) -> Result<Arc<Registration>, RegistryError> {
        let turn = self.turn().await;
        if self.find(station).is_none() {
            return Err(RegistryError::NotRegistered(station.clone()));
        }
        self.apply(station, draft, turn).await
    }

    /// Creates or changes; tells whether it was created.
    pub async fn put(
        &self,
        station: &StationId,
        draft: RegistrationDraft,
    ) -> Result<(Arc<Registration>, bool), RegistryError> {
        let turn = self.turn().await;
        let is_new = self.find(station).is_none();
        let registration = self.apply(station, draft, turn).await?;
        Ok((registration, is_new))
    }

    /// Where stations have to be registered, this ends the station's connection.
    pub async fn remove(&self, station: &StationId) -> Result<(), RegistryError> {
        let turn = self.turn().await;
        if self.find(station).is_none() {
            return Err(RegistryError::NotRegistered(station.clone()));
        }
        let gone = station.clone();
        let then = move |entries: &mut BTreeMap<StationId, Entry>| {
            if let Some(entry) = entries.remove(&gone) {
                entry.removed.cancel();
            }
        };
        let change = Change::RegistrationGone(station.clone());
        Ok(self.commit(change, turn, then).await?)
    }

    async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.0.changing).lock_owned().await
    }

    async fn apply(
        &self,
        station: &StationId,
        draft: RegistrationDraft,
        turn: OwnedMutexGuard<()>,
    ) -> Result<Arc<Registration>, RegistryError> {
        let mut salt = Salt::default();
        getrandom::fill(&mut salt)?;
        let current = self.find(station);
        let registration = draft
            .apply(
                station,
                current.as_ref().map(|entry| &*entry.registration),
                salt,
                self.0.clock.now(),
            )
            .map_err(RegistryError::Invalid)?;
        let registration = Arc::new(registration);
        let entry = Entry {
            registration: Arc::clone(&registration),
            removed: current.map_or_else(CancellationToken::new, |entry| entry.removed),
        };
        let change = Change::Registration((*registration).clone());
        let then = move |entries: &mut BTreeMap<StationId, Entry>| {
            entries.insert(entry.registration.station.clone(), entry);
        };
        self.commit(change, turn, then).await?;
        Ok(registration)
    }

    /// Writes the change, and then shows it. Not even a caller who goes away comes in between.
    async fn commit(
        &self,
        change: Change,
        turn: OwnedMutexGuard<()>,
        then: impl FnOnce(&mut BTreeMap<StationId, Entry>) + Send + 'static,
    ) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.0);
        blocking(move || {
            inner.store.commit(&[change])?;
            let mut entries = inner
                .entries
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            then(&mut entries);
            drop(entries);
            drop(turn);
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;
    use pipelet_domain::webhooks::Field;

    fn open(store: &Arc<dyn Store>) -> Registry {
        let clock = Clock::system();
        Registry::open(Arc::clone(store), Admission::Registered, clock).unwrap()
    }

    fn policy(name: &str) -> RegistrationDraft {
        RegistrationDraft {
            boot_policy: Field::Value(name.to_owned()),
            ..RegistrationDraft::default()
        }
    }

    #[tokio::test]
    async fn what_is_answered_is_stored() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let registry = open(&store);
        let station = StationId::new("CP1").unwrap();
        let unknown = registry.update(&station, policy("Pending")).await;
        assert!(matches!(unknown, Err(RegistryError::NotRegistered(_))));

        registry.create(&station, policy("Pending")).await.unwrap();
        let again = registry.create(&station, policy("Pending")).await;
        assert!(matches!(again, Err(RegistryError::AlreadyRegistered(_))));
        assert_eq!(open(&store).boot_policy(&station), BootStatus::Pending);
        let (_, is_new) = registry.put(&station, policy("Rejected")).await.unwrap();
        assert!(!is_new);
        assert_eq!(open(&store).boot_policy(&station), BootStatus::Rejected);

        let entry = registry.find(&station).unwrap();
        registry.remove(&station).await.unwrap();
        assert!(entry.removed.is_cancelled());
        assert!(open(&store).find(&station).is_none());
        assert_eq!(registry.boot_policy(&station), BootStatus::Accepted);
    }
}

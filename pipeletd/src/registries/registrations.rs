//! The stations that are registered.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use pipelet_domain::{
    events::StationId,
    projection::BootStatus,
    registration::{Admission, Registration, RegistrationDraft, Salt},
    webhooks::Fault,
};
use tokio_util::sync::CancellationToken;

use super::registry::{Found, Registered, Registry};
use crate::{
    store::{self, ConfigurationStore, EntryKey, StoreError},
    system::clock::Clock,
};

#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
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
pub struct Registrations {
    registry: Registry<Registration>,
    clock: Clock,
    admission: Admission,
}

impl Registered for Registration {
    type Key = StationId;
    /// Cancelled when the station is no longer registered.
    type Companion = CancellationToken;

    fn key(&self) -> StationId {
        self.station.clone()
    }

    fn entry_key(key: StationId) -> EntryKey {
        EntryKey::Registration(key)
    }

    fn into_entry(self) -> store::Entry {
        store::Entry::Registration(self)
    }

    fn of(entry: &store::Entry) -> Option<&Self> {
        match entry {
            store::Entry::Registration(registration) => Some(registration),
            store::Entry::Webhook(_) | store::Entry::ApiKey(_) | store::Entry::IdTag(_) => None,
        }
    }

    fn of_key(key: &EntryKey) -> Option<&StationId> {
        match key {
            EntryKey::Registration(key) => Some(key),
            EntryKey::Webhook(_) | EntryKey::ApiKey(_) | EntryKey::IdTag(_) => None,
        }
    }

    fn removed(removed: &CancellationToken) {
        removed.cancel();
    }
}

/// A registration for as long as it stands.
#[derive(Debug, Clone)]
pub struct Entry {
    pub registration: Arc<Registration>,
    /// Cancelled when the station is no longer registered.
    pub removed: CancellationToken,
}

impl From<Found<Registration>> for Entry {
    fn from(found: Found<Registration>) -> Self {
        Self {
            registration: found.value,
            removed: found.companion,
        }
    }
}

impl Registrations {
    pub async fn open(
        store: Arc<dyn ConfigurationStore>,
        admission: Admission,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            registry: Registry::open(store).await?,
            clock,
            admission,
        })
    }

    pub fn admission(&self) -> Admission {
        self.admission
    }

    pub fn find(&self, station: &StationId) -> Option<Entry> {
        self.registry.find(station).map(Entry::from)
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
        self.registry.list(after, wanted, limit)
    }

    /// All that is wrong with a draft.
    pub fn faults(&self, station: &StationId, draft: RegistrationDraft) -> Vec<Fault> {
        let current = self.find(station);
        let current = current.as_ref().map(|entry| &*entry.registration);
        let applied = draft.apply(station, current, Salt::default(), self.clock.now());
        applied.err().unwrap_or_default()
    }

    /// Registers a station that is not registered yet.
    pub async fn create(
        &self,
        station: &StationId,
        draft: RegistrationDraft,
    ) -> Result<Arc<Registration>, RegistrationError> {
        let only = |is_new| {
            let known = || RegistrationError::AlreadyRegistered(station.clone());
            if is_new { Ok(()) } else { Err(known()) }
        };
        self.apply(station, &draft, only).await
    }

    /// Changes what the draft mentions.
    pub async fn update(
        &self,
        station: &StationId,
        draft: RegistrationDraft,
    ) -> Result<Arc<Registration>, RegistrationError> {
        let only = |is_new| {
            let unknown = || RegistrationError::NotRegistered(station.clone());
            if is_new { Err(unknown()) } else { Ok(()) }
        };
        self.apply(station, &draft, only).await
    }

    /// Creates or changes; tells whether it was created.
    pub async fn put(
        &self,
        station: &StationId,
        draft: RegistrationDraft,
    ) -> Result<(Arc<Registration>, bool), RegistrationError> {
        let created = AtomicBool::new(false);
        let only = |is_new| {
            created.store(is_new, Ordering::Relaxed);
            Ok(())
        };
        let registration = self.apply(station, &draft, only).await?;
        Ok((registration, created.into_inner()))
    }

    /// Where stations have to be registered, this ends the station's connection.
    pub async fn remove(&self, station: &StationId) -> Result<(), RegistrationError> {
        let remove = |known: Option<&Registration>| match known {
            Some(_) => Ok(None),
            None => Err(RegistrationError::NotRegistered(station.clone())),
        };
        self.registry.change(station, remove).await.map(drop)
    }

    /// Applies a draft where `only` lets it, which is told whether the station is new.
    async fn apply(
        &self,
        station: &StationId,
        draft: &RegistrationDraft,
        only: impl Fn(bool) -> Result<(), RegistrationError>,
    ) -> Result<Arc<Registration>, RegistrationError> {
        let mut salt = Salt::default();
        getrandom::fill(&mut salt)?;
        let apply = |known: Option<&Registration>| {
            only(known.is_none())?;
            let now = self.clock.now();
            let applied = draft.clone().apply(station, known, salt, now);
            applied.map(Some).map_err(RegistrationError::Invalid)
        };
        let applied = self.registry.change(station, apply).await?;
        applied.ok_or_else(|| RegistrationError::NotRegistered(station.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;
    use pipelet_domain::webhooks::Field;

    async fn open(store: &Arc<dyn ConfigurationStore>) -> Registrations {
        let (store, clock) = (Arc::clone(store), Clock::system());
        let opened = Registrations::open(store, Admission::Registered, clock).await;
        opened.unwrap()
    }

    fn policy(name: &str) -> RegistrationDraft {
        RegistrationDraft {
            boot_policy: Field::Value(name.to_owned()),
            ..RegistrationDraft::default()
        }
    }

    #[tokio::test]
    async fn what_is_answered_is_stored() {
        let store: Arc<dyn ConfigurationStore> = Arc::new(MemoryStore::default());
        let registry = open(&store).await;
        let station = StationId::new("CP1").unwrap();
        let unknown = registry.update(&station, policy("Pending")).await;
        assert!(matches!(unknown, Err(RegistrationError::NotRegistered(_))));

        registry.create(&station, policy("Pending")).await.unwrap();
        let again = registry.create(&station, policy("Pending")).await;
        assert!(matches!(
            again,
            Err(RegistrationError::AlreadyRegistered(_))
        ));
        assert_eq!(
            open(&store).await.boot_policy(&station),
            BootStatus::Pending
        );
        let (_, is_new) = registry.put(&station, policy("Rejected")).await.unwrap();
        assert!(!is_new);
        assert_eq!(
            open(&store).await.boot_policy(&station),
            BootStatus::Rejected
        );

        let entry = registry.find(&station).unwrap();
        registry.remove(&station).await.unwrap();
        assert!(entry.removed.is_cancelled());
        assert!(open(&store).await.find(&station).is_none());
        assert_eq!(registry.boot_policy(&station), BootStatus::Accepted);
    }
}

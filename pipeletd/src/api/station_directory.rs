//! The stations as the API shows them: those that have connected, and those that are registered.

use std::{collections::BTreeMap, sync::Arc};

use pipelet_domain::{
    events::StationId,
    projection::{BootStatus, StationState},
    registration::{Registration, RegistrationDraft},
    shards::ShardId,
};

use super::error::ApiError;
use crate::{
    ocpp::{StationView, Stations},
    registries::Registrations,
};

/// Both sources together. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StationDirectory {
    stations: Stations,
    registry: Registrations,
    /// The one shard that it is of, of so many; none where it is of all.
    shard: Option<(ShardId, u16)>,
}

/// One station, known or expected.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) view: StationView,
    pub(super) registration: Option<Arc<Registration>>,
}

impl Listed {
    fn new(view: StationView, registration: Option<Arc<Registration>>) -> Self {
        let mut listed = Self { view, registration };
        let policy = listed.registration.as_ref().map(|entry| entry.boot_policy);
        match policy {
            // The journal tells that it booted; what came of it, the policy.
            Some(kept_out @ (BootStatus::Pending | BootStatus::Rejected)) => {
                let status = &mut listed.view.state.boot_status;
                *status = status.and(Some(kept_out));
            }
            Some(BootStatus::Accepted) | None => {}
        }
        listed
    }

    fn expected(registration: Arc<Registration>) -> Self {
        let view = StationView {
            state: StationState::new(registration.station.clone()),
            connected_since: None,
            protocol: None,
        };
        Self::new(view, Some(registration))
    }

    pub(super) const fn id(&self) -> &StationId {
        &self.view.state.id
    }
}

impl StationDirectory {
    pub const fn new(
        stations: Stations,
        registry: Registrations,
        shard: Option<(ShardId, u16)>,
    ) -> Self {
        Self {
            stations,
            registry,
            shard,
        }
    }

    fn is_ours(&self, station: &StationId) -> bool {
        self.shard
            .is_none_or(|(shard, count)| ShardId::of(station, count) == shard)
    }

    pub(super) const fn stations(&self) -> &Stations {
        &self.stations
    }

    /// Those after `after` in the ids' order, connected or not as asked for.
    pub(super) fn list(
        &self,
        after: Option<&StationId>,
        connected: Option<bool>,
        limit: usize,
    ) -> Vec<Listed> {
        let mut found: BTreeMap<StationId, Listed> = BTreeMap::new();
        if connected != Some(true) {
            let expected = |id: &StationId| self.is_ours(id) && !self.stations.knows(id);
            for registration in self.registry.list(after, expected, limit) {
                let id = registration.station.clone();
                found.insert(id, Listed::expected(registration));
            }
        }
        for view in self.stations.list(after, connected, limit) {
            let id = view.state.id.clone();
            let registration = self.registration(&id);
            found.insert(id, Listed::new(view, registration));
        }
        found.into_values().take(limit).collect()
    }

    pub(super) fn get(&self, id: &str) -> Result<Listed, ApiError> {
        let found = StationId::new(id).ok().and_then(|id| {
            let registration = self.registration(&id);
            match self.stations.get(&id) {
                Some(view) => Some(Listed::new(view, registration)),
                None => registration.map(Listed::expected),
            }
        });
        found.ok_or_else(|| ApiError::NotFound {
            code: "no_such_station",
            message: format!("no station {id:?} has connected or is registered"),
        })
    }

    pub(super) async fn register(
        &self,
        id: &str,
        draft: RegistrationDraft,
    ) -> Result<Listed, ApiError> {
        self.registry.create(&station(id)?, draft).await?;
        self.get(id)
    }

    pub(super) async fn change(
        &self,
        id: &str,
        draft: RegistrationDraft,
    ) -> Result<Listed, ApiError> {
        self.registry.update(&station(id)?, draft).await?;
        self.get(id)
    }

    /// Registers or changes; tells whether it was registered just now.
    pub(super) async fn put(
        &self,
        id: &str,
        draft: RegistrationDraft,
    ) -> Result<(Listed, bool), ApiError> {
        let (_, is_new) = self.registry.put(&station(id)?, draft).await?;
        Ok((self.get(id)?, is_new))
    }

    pub(super) async fn unregister(&self, id: &str) -> Result<(), ApiError> {
        let station = station(id)?;
        let (registry, stations) = (self.registry.clone(), self.stations.clone());
        // Not even a caller who goes away comes in between.
        let removing = tokio::spawn(async move {
            registry.remove(&station).await?;
            stations.unregistered(&station);
            Ok(())
        });
        removing
            .await
            .unwrap_or_else(|error| Err(ApiError::internal(error)))
    }

    fn registration(&self, id: &StationId) -> Option<Arc<Registration>> {
        self.registry.find(id).map(|entry| entry.registration)
    }
}

pub(super) fn station(id: &str) -> Result<StationId, ApiError> {
    StationId::new(id)
        .map_err(|error| ApiError::fault("/id", "invalid_station_id", error.to_string()))
}

//! The projections in the cold database.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use pipelet_domain::{
    events::{Seq, StationId},
    projection::{StationState, Transaction, TransactionFilter},
};

use super::{Inner, SledStore, database::Batch, room::Purpose, transactions};
use crate::store::{
    ProjectionStore, SavedStations, StoreError,
    codec::record_error,
    keys::{self, Kind, Meta},
    station_record,
};

#[async_trait]
impl ProjectionStore for SledStore {
    async fn stations(&self) -> Result<SavedStations, StoreError> {
        self.reading(Inner::stations).await
    }

    async fn save(
        &self,
        states: Vec<StationState>,
        transactions: Vec<Arc<Transaction>>,
        projected_to: Seq,
    ) -> Result<(), StoreError> {
        self.reading(move |store| store.save(&states, &transactions, projected_to))
            .await
    }

    async fn forget_stations(&self, stations: &[StationId]) -> Result<(), StoreError> {
        let stations = stations.to_vec();
        self.reading(move |store| store.forget_stations(&stations))
            .await
    }

    async fn transaction(&self, transaction_id: i64) -> Result<Option<Transaction>, StoreError> {
        self.reading(move |store| transactions::by_id(&store.cold, transaction_id))
            .await
    }

    async fn transactions(
        &self,
        filter: &TransactionFilter,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Transaction>, StoreError> {
        let filter = filter.clone();
        self.reading(move |store| transactions::list(&store.cold, &filter, before, limit))
            .await
    }

    async fn open_transactions(
        &self,
        after: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Transaction>, StoreError> {
        self.reading(move |store| transactions::open_after(&store.cold, after, limit))
            .await
    }

    async fn forget_transactions(
        &self,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        self.reading(move |store| store.forget_transactions(ended_before, limit))
            .await
    }
}

impl Inner {
    fn stations(&self) -> Result<SavedStations, StoreError> {
        let states = self.cold.kind(Kind::Station).map(|entry| {
            let (_, value) = entry?;
            station_record::decode(&value).map_err(|error| record_error("station", error))
        });
        let projected_to = self.meta_number(Meta::ProjectedTo)?.unwrap_or(0);
        Ok(SavedStations {
            states: states.collect::<Result<_, _>>()?,
            projected_to: Seq(projected_to),
        })
    }

    fn save(
        &self,
        states: &[StationState],
        transactions: &[Arc<Transaction>],
        projected_to: Seq,
    ) -> Result<(), StoreError> {
        let _alone = self.transactions.lock();
        let mut batch = Batch::default();
        transactions::put_all(&self.cold, &mut batch, transactions)?;
        for state in states {
            let value = station_record::encode(state);
            self.cold
                .put(&mut batch, &keys::station(&state.id), &value)?;
        }
        let key = keys::meta(Meta::ProjectedTo);
        self.cold
            .put(&mut batch, &key, &projected_to.0.to_be_bytes())?;
        // It follows from events that are there, and until it is saved none of them may go.
        self.commit_cold(batch, Purpose::Upkeep)
    }

    fn forget_stations(&self, stations: &[StationId]) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for station in stations {
            self.cold.remove(&mut batch, &keys::station(station))?;
        }
        self.commit_cold(batch, Purpose::Upkeep)
    }

    fn forget_transactions(
        &self,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let _alone = self.transactions.lock();
        let mut batch = Batch::default();
        let forgotten = transactions::forget(&self.cold, &mut batch, ended_before, limit)?;
        if forgotten > 0 {
            self.commit_cold(batch, Purpose::Upkeep)?;
        }
        Ok(forgotten)
    }
}

//! The projections in a table.

use std::sync::{Arc, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use pipelet_domain::{
    events::{Seq, StationId},
    projection::{StationState, Transaction, TransactionFilter},
};

use super::{Records, Table, reading, transactions};
use crate::store::{
    ProjectionStore, SavedStations, StoreError,
    codec::record_error,
    keys::{self, Kind, Meta},
    station_record,
};

#[async_trait]
impl<S: Records> ProjectionStore for S {
    async fn stations(&self) -> Result<SavedStations, StoreError> {
        reading(self, |store| stations(store.table())).await
    }

    async fn save(
        &self,
        states: Vec<StationState>,
        transactions: Vec<Arc<Transaction>>,
        projected_to: Seq,
    ) -> Result<(), StoreError> {
        reading(self, move |store| {
            save(store, &states, &transactions, projected_to)
        })
        .await
    }

    async fn forget_stations(&self, stations: &[StationId]) -> Result<(), StoreError> {
        let stations = stations.to_vec();
        reading(self, move |store| forget_stations(store, &stations)).await
    }

    async fn transaction(&self, transaction_id: i64) -> Result<Option<Transaction>, StoreError> {
        reading(self, move |store| {
            transactions::by_id(store.table(), transaction_id)
        })
        .await
    }

    async fn transactions(
        &self,
        filter: &TransactionFilter,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Transaction>, StoreError> {
        let filter = filter.clone();
        reading(self, move |store| {
            transactions::list(store.table(), &filter, before, limit)
        })
        .await
    }

    async fn open_transactions(
        &self,
        after: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Transaction>, StoreError> {
        reading(self, move |store| {
            transactions::open_after(store.table(), after, limit)
        })
        .await
    }

    async fn forget_transactions(
        &self,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        reading(self, move |store| {
            forget_transactions(store, ended_before, limit)
        })
        .await
    }
}

fn stations(table: &impl Table) -> Result<SavedStations, StoreError> {
    let states = table.kind(Kind::Station).map(|entry| {
        let (_, value) = entry?;
        station_record::decode(&value).map_err(|error| record_error("station", error))
    });
    let projected_to = table.meta_number(Meta::ProjectedTo)?.unwrap_or(0);
    Ok(SavedStations {
        states: states.collect::<Result<_, _>>()?,
        projected_to: Seq(projected_to),
    })
}

fn save<S: Records>(
    store: &S,
    states: &[StationState],
    transactions: &[Arc<Transaction>],
    projected_to: Seq,
) -> Result<(), StoreError> {
    let _alone = alone(store);
    let mut batch = Default::default();
    transactions::put_all(store.table(), &mut batch, transactions)?;
    for state in states {
        let value = station_record::encode(state);
        store
            .table()
            .put(&mut batch, &keys::station(&state.id), &value)?;
    }
    let key = keys::meta(Meta::ProjectedTo);
    store
        .table()
        .put(&mut batch, &key, &projected_to.0.to_be_bytes())?;
    // It follows from events that are there, and until it is saved none of them may go.
    store.commit(batch, false)
}

fn forget_stations<S: Records>(store: &S, stations: &[StationId]) -> Result<(), StoreError> {
    let mut batch = Default::default();
    for station in stations {
        store.table().remove(&mut batch, &keys::station(station))?;
    }
    store.commit(batch, false)
}

fn forget_transactions<S: Records>(
    store: &S,
    ended_before: Timestamp,
    limit: usize,
) -> Result<usize, StoreError> {
    let _alone = alone(store);
    let mut batch = Default::default();
    let forgotten = transactions::forget(store.table(), &mut batch, ended_before, limit)?;
    if forgotten > 0 {
        store.commit(batch, false)?;
    }
    Ok(forgotten)
}

fn alone(store: &impl Records) -> MutexGuard<'_, ()> {
    let alone = store.transactions().lock();
    alone.unwrap_or_else(PoisonError::into_inner)
}

//! Ledger and projections, made of records in an ordered map.
//!
//! An engine brings the map, a [`Table`], and how it is written, [`Records`]; what stands in it
//! under which key is the same for all.

pub(super) mod backup;
pub(super) mod ledger;
pub(super) mod packed_map;
mod projections;
pub(super) mod transactions;

use std::{fmt, sync::Mutex};

use bytes::Bytes;

use super::{
    StoreError, blocking,
    codec::record_error,
    keys::{self, Kind, Meta},
};

/// An ordered map of byte strings. Calls may block.
pub(super) trait Table: Send + Sync + 'static {
    type Key: AsRef<[u8]>;
    /// Writes that happen together or not at all.
    type Batch: Default + Send;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// The entries from `from` on whose keys begin so, in their order.
    fn range(
        &self,
        from: &[u8],
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Self::Key, Bytes), StoreError>> + use<'_, Self>;

    /// From the last key of a kind, or the last below this one, to the first.
    fn kind_backwards(
        &self,
        kind: Kind,
        below: Option<Vec<u8>>,
    ) -> impl Iterator<Item = Result<(Self::Key, Bytes), StoreError>> + use<'_, Self>;

    /// The entry of a kind with the greatest key below this one.
    fn last_below(
        &self,
        kind: Kind,
        below: &[u8],
    ) -> Result<Option<(Self::Key, Bytes)>, StoreError>;

    /// The keys from `from` on that begin so, in their order.
    fn keys_from(
        &self,
        from: &[u8],
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<Self::Key, StoreError>> + use<'_, Self>;

    /// Adds a value under a key that is new.
    fn put_new(batch: &mut Self::Batch, key: &[u8], value: &[u8]);

    /// Adds or replaces a value.
    fn put(&self, batch: &mut Self::Batch, key: &[u8], value: &[u8]) -> Result<(), StoreError>;

    /// Removes a value; one that isn't there is no error. Returns whether it was.
    fn remove(&self, batch: &mut Self::Batch, key: &[u8]) -> Result<bool, StoreError>;

    fn kind(
        &self,
        kind: Kind,
    ) -> impl Iterator<Item = Result<(Self::Key, Bytes), StoreError>> + use<'_, Self> {
        self.range(&keys::prefix(kind), &keys::prefix(kind))
    }

    /// The keys that begin so, in their order.
    fn keys(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<Self::Key, StoreError>> + use<'_, Self> {
        self.keys_from(prefix, prefix)
    }

    fn meta_number(&self, meta: Meta) -> Result<Option<u64>, StoreError> {
        let value = self.get(&keys::meta(meta))?;
        let number = value.map(|value| match value.as_ref().try_into() {
            Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
            Err(_) => Err(record_error("number", "it has not 8 bytes")),
        });
        number.transpose()
    }
}

/// A store that keeps its ledger and its projections in a table. Cheap to clone.
pub(super) trait Records: Clone + fmt::Debug + Send + Sync + 'static {
    type Table: Table;

    fn table(&self) -> &Self::Table;

    /// Writes the batch, and returns once it is durable. Blocks. `grows`: there is more to keep
    /// after it.
    fn commit(&self, batch: <Self::Table as Table>::Batch, grows: bool) -> Result<(), StoreError>;

    /// Whether records of so many bytes could be added now, as far as can be told.
    fn check_growth(&self, bytes: u64) -> Result<(), StoreError>;

    /// Held by whoever changes transactions: what is packed is read first.
    fn transactions(&self) -> &Mutex<()>;
}

/// Runs a call that blocks where blocking does no harm.
async fn reading<S: Records, T: Send + 'static>(
    store: &S,
    call: impl FnOnce(&S) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let store = store.clone();
    blocking(move || call(&store)).await
}

pub(super) fn number_of(key: impl AsRef<[u8]>) -> Result<u64, StoreError> {
    keys::last_number(key.as_ref()).ok_or_else(|| record_error("key", "it is cut short"))
}

//! Transactions in the cold database: the records, and the indexes that lists are read by.

use jiff::Timestamp;
use pipelet_domain::{
    events::Seq,
    projection::{Transaction, TransactionFilter},
};

use super::{
    super::{
        StoreError,
        codec::record_error,
        keys::{self, Kind},
        transaction_record::{decode_transaction, encode_transaction},
    },
    database::{Batch, Database},
};

/// They start in about the order in which they end: after so many that ended too lately, those
/// that started later are not looked at.
const YOUNG: usize = 100;

/// Adds or replaces a transaction and what leads to it.
pub(super) fn put(
    cold: &Database,
    batch: &mut Batch,
    transaction: &Transaction,
) -> Result<(), StoreError> {
    let key = keys::transaction(transaction.seq);
    let is_new = cold.remove(batch, &key)? == 0;
    Database::put_new(batch, &key, &encode_transaction(transaction));
    let open = keys::open_transaction(transaction.seq);
    if !transaction.is_open() {
        cold.remove(batch, &open)?;
    } else if is_new {
        Database::put_new(batch, &open, &[]);
    }
    if is_new {
        let by_id = keys::transaction_by_id(transaction.transaction_id);
        Database::put_new(batch, &by_id, &key);
        let by_station = keys::transaction_by_station(&transaction.station, transaction.seq);
        Database::put_new(batch, &by_station, &[]);
    }
    Ok(())
}

/// Takes the oldest that ended before this out, and what leads to them. Returns how many.
pub(super) fn forget(
    cold: &Database,
    batch: &mut Batch,
    ended_before: Timestamp,
    limit: usize,
) -> Result<usize, StoreError> {
    let mut forgotten = 0;
    let mut young = 0;
    // Their starts count down in keys.
    for entry in cold.kind_backwards(Kind::Transaction, None) {
        let (key, value) = entry?;
        let transaction = decode_transaction(&value)?;
        if transaction.ended_before(ended_before) {
            cold.remove(batch, &key)?;
            cold.remove(batch, &keys::transaction_by_id(transaction.transaction_id))?;
            let Transaction { station, seq, .. } = &transaction;
            cold.remove(batch, &keys::transaction_by_station(station, *seq))?;
            forgotten += 1;
        } else {
            young += usize::from(!transaction.is_open());
        }
        if forgotten >= limit || young >= YOUNG {
            break;
        }
    }
    Ok(forgotten)
}

/// The oldest that are open and started behind `after` in the journal.
pub(super) fn open_after(
    cold: &Database,
    after: Option<Seq>,
    limit: usize,
) -> Result<Vec<Transaction>, StoreError> {
    // In keys the positions count down.
    let open = cold.kind_backwards(Kind::OpenTransaction, after.map(keys::open_transaction));
    let seqs = open.map(|entry| {
        let seq = keys::last_inverted(&entry?.0);
        seq.ok_or_else(|| record_error("transaction", "its index is cut short"))
    });
    let found = seqs.filter_map(|seq| {
        let value = seq.and_then(|seq| cold.get(&keys::transaction(seq)));
        value
            .and_then(|value| value.map(|value| decode_transaction(&value)).transpose())
            .transpose()
    });
    found.take(limit).collect()
}

pub(super) fn by_id(cold: &Database, id: i64) -> Result<Option<Transaction>, StoreError> {
    let Some(key) = cold.get(&keys::transaction_by_id(id))? else {
        return Ok(None);
    };
    let value = cold.get(&key)?;
    value.map(|value| decode_transaction(&value)).transpose()
}

/// The latest first, by the narrowest index that the filter allows.
pub(super) fn list(
    cold: &Database,
    filter: &TransactionFilter,
    before: Option<Seq>,
    limit: usize,
) -> Result<Vec<Transaction>, StoreError> {
    // In keys the positions count down, so what comes before a start stands behind it.
    let begin = match before {
        Some(Seq(0)) => return Ok(Vec::new()),
        Some(before) => Seq(before.0 - 1),
        None => Seq(u64::MAX),
    };
    let matching = |transaction: &Result<Transaction, StoreError>| {
        transaction
            .as_ref()
            .map_or(true, |transaction| filter.matches(transaction))
    };
    let (from, prefix) = match (&filter.station, filter.open) {
        (_, Some(true)) => (
            keys::open_transaction(begin),
            keys::prefix(Kind::OpenTransaction).to_vec(),
        ),
        (Some(station), _) => (
            keys::transaction_by_station(station, begin),
            keys::transactions_of_station(station),
        ),
        (None, _) => {
            let all = cold.range(&keys::transaction(begin), &keys::prefix(Kind::Transaction));
            let all = all.map(|entry| decode_transaction(&entry?.1));
            return all.filter(matching).take(limit).collect();
        }
    };
    let indexed = cold.range(&from, &prefix).map(|entry| {
        let (key, _) = entry?;
        let seq = keys::last_inverted(&key);
        let seq = seq.ok_or_else(|| record_error("transaction", "its index is cut short"))?;
        let value = cold.get(&keys::transaction(seq))?;
        let value = value.ok_or_else(|| record_error("transaction", "its record is missing"))?;
        decode_transaction(&value)
    });
    indexed.filter(matching).take(limit).collect()
}

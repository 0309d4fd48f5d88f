//! Transactions in a table.
//!
//! An open one is a record of its own, since it changes often. When it ends it moves into a packed
//! map, for there may be millions of them. Packed maps are also what leads to both: by id, by
//! station, and by the end.

use std::{collections::BTreeMap, iter, sync::Arc};

use jiff::Timestamp;
use pipelet_domain::{
    events::Seq,
    projection::{Transaction, TransactionFilter},
};

use super::{
    Table,
    packed_map::{Changes, PackedMap},
};
use crate::store::{
    StoreError,
    codec::record_error,
    keys::{self, Kind},
    transaction_record::{decode_transaction, encode_transaction},
};

/// By start: the records, of half a kilobyte each. Compressed, a block is about 2 KB.
const ENDED: PackedMap = PackedMap::new(Kind::EndedTransaction, 8 * 1024);
/// The start of each, open or ended. Ids come in no order, so that each change is of another block:
/// longer ones would take less memory, and write more.
const BY_ID: PackedMap = PackedMap::new(Kind::TransactionById, 1024);
/// By station, then start, of open and ended ones; without values, as the next.
const BY_STATION: PackedMap = PackedMap::new(Kind::TransactionByStation, 1024);
/// By end, then start.
const BY_END: PackedMap = PackedMap::new(Kind::TransactionByEnd, 1024);

/// How many open ones are read at once where ended ones come between them.
const STRETCH: usize = 256;

/// What becomes of the packed maps.
#[derive(Default)]
struct Packed {
    ended: Changes,
    by_id: Changes,
    by_station: Changes,
    by_end: Changes,
}

impl Packed {
    fn write<T: Table>(self, table: &T, batch: &mut T::Batch) -> Result<(), StoreError> {
        ENDED.write(table, batch, self.ended)?;
        BY_ID.write(table, batch, self.by_id)?;
        BY_STATION.write(table, batch, self.by_station)?;
        BY_END.write(table, batch, self.by_end)
    }
}

/// Adds or replaces transactions and what leads to them.
pub(in crate::store) fn put_all<T: Table>(
    table: &T,
    batch: &mut T::Batch,
    transactions: &[Arc<Transaction>],
) -> Result<(), StoreError> {
    // Of one that is there twice the last state counts.
    let latest = transactions.iter().map(|latest| (latest.seq, latest));
    let latest: BTreeMap<Seq, &Arc<Transaction>> = latest.collect();
    let mut packed = Packed::default();
    for transaction in latest.into_values() {
        put(table, batch, &mut packed, transaction)?;
    }
    packed.write(table, batch)
}

fn put<T: Table>(
    table: &T,
    batch: &mut T::Batch,
    packed: &mut Packed,
    transaction: &Transaction,
) -> Result<(), StoreError> {
    let Transaction { seq, station, .. } = transaction;
    let start = keys::start(*seq);
    let open = keys::open_transaction(*seq);
    let was_open = table.remove(batch, &open)?;
    let had_ended = if was_open { None } else { ended(table, *seq)? };
    if !was_open && had_ended.is_none() {
        let by_id = keys::transaction_by_id(transaction.transaction_id);
        packed.by_id.insert(by_id, Some(start.to_vec()));
        let by_station = keys::transaction_by_station(station, *seq);
        packed.by_station.insert(by_station, Some(Vec::new()));
    }
    if let Some(at) = had_ended.and_then(|ended| ended.ended_at()) {
        packed.ended.insert(start.to_vec(), None);
        packed
            .by_end
            .insert(keys::transaction_by_end(at, *seq), None);
    }
    let record = encode_transaction(transaction);
    if let Some(at) = transaction.ended_at() {
        packed.ended.insert(start.to_vec(), Some(record));
        let by_end = keys::transaction_by_end(at, *seq);
        packed.by_end.insert(by_end, Some(Vec::new()));
    } else {
        T::put_new(batch, &open, &record);
    }
    Ok(())
}

/// Takes those that ended before this out, the first that ended first, and what leads to them.
/// Returns how many.
pub(in crate::store) fn forget<T: Table>(
    table: &T,
    batch: &mut T::Batch,
    ended_before: Timestamp,
    limit: usize,
) -> Result<usize, StoreError> {
    let mut packed = Packed::default();
    let mut forgotten = 0;
    for entry in BY_END.forwards(table).take(limit) {
        let (by_end, _) = entry?;
        let seq = start_in(&by_end)?;
        let transaction = ended(table, seq)?;
        let transaction =
            transaction.ok_or_else(|| record_error("transaction", "its record is missing"))?;
        if !transaction.ended_before(ended_before) {
            break;
        }
        packed.by_end.insert(by_end.to_vec(), None);
        packed.ended.insert(keys::start(seq).to_vec(), None);
        let by_id = keys::transaction_by_id(transaction.transaction_id);
        packed.by_id.insert(by_id, None);
        let by_station = keys::transaction_by_station(&transaction.station, seq);
        packed.by_station.insert(by_station, None);
        forgotten += 1;
    }
    packed.write(table, batch)?;
    Ok(forgotten)
}

/// The oldest that are open and started behind `after` in the journal.
pub(in crate::store) fn open_after<T: Table>(
    table: &T,
    after: Option<Seq>,
    limit: usize,
) -> Result<Vec<Transaction>, StoreError> {
    let prefix = keys::prefix(Kind::OpenTransaction);
    let from = after.map_or_else(
        || prefix.to_vec(),
        |after| keys::successor(keys::open_transaction(after)),
    );
    let open = table.range(&from, &prefix);
    let open = open.map(|entry| decode_transaction(&entry?.1));
    open.take(limit).collect()
}

pub(in crate::store) fn by_id<T: Table>(
    table: &T,
    id: i64,
) -> Result<Option<Transaction>, StoreError> {
    let start = BY_ID.get(table, &keys::transaction_by_id(id))?;
    start.map_or(Ok(None), |start| find(table, start_in(&start)?))
}

/// The latest first, by the narrowest map that the filter allows.
pub(in crate::store) fn list<T: Table>(
    table: &T,
    filter: &TransactionFilter,
    before: Option<Seq>,
    limit: usize,
) -> Result<Vec<Transaction>, StoreError> {
    match (&filter.station, filter.open) {
        (Some(station), is_open) => {
            let before = before.unwrap_or(Seq(u64::MAX));
            let below = keys::transaction_by_station(station, before);
            let of_station = BY_STATION.backwards(table, Some(&below));
            let prefix = keys::transactions_of_station(station);
            let of_station = of_station.take_while(|entry| {
                let key = entry.as_ref().map(|(key, _)| key);
                key.map_or(true, |key| key.starts_with(&prefix))
            });
            let found = of_station.filter_map(|entry| {
                let seq = entry.and_then(|(key, _)| start_in(&key));
                let found = seq.and_then(|seq| match is_open {
                    Some(true) => open(table, seq),
                    Some(false) | None => find(table, seq),
                });
                found.transpose()
            });
            matching(found, filter, limit)
        }
        (None, Some(true)) => matching(open_before(table, before), filter, limit),
        (None, Some(false)) => matching(ended_below(table, before), filter, limit),
        (None, None) => matching(all_before(table, before), filter, limit),
    }
}

fn matching(
    found: impl Iterator<Item = Result<Transaction, StoreError>>,
    filter: &TransactionFilter,
    limit: usize,
) -> Result<Vec<Transaction>, StoreError> {
    let matching = found.filter(|transaction| {
        let transaction = transaction.as_ref();
        transaction.map_or(true, |transaction| filter.matches(transaction))
    });
    matching.take(limit).collect()
}

/// Looked for among the open ones first: it may end meanwhile, and none opens again.
fn find<T: Table>(table: &T, seq: Seq) -> Result<Option<Transaction>, StoreError> {
    open(table, seq)?.map_or_else(|| ended(table, seq), |open| Ok(Some(open)))
}

fn open<T: Table>(table: &T, seq: Seq) -> Result<Option<Transaction>, StoreError> {
    let record = table.get(&keys::open_transaction(seq))?;
    record.map(|record| decode_transaction(&record)).transpose()
}

fn ended<T: Table>(table: &T, seq: Seq) -> Result<Option<Transaction>, StoreError> {
    let record = ENDED.get(table, &keys::start(seq))?;
    record.map(|record| decode_transaction(&record)).transpose()
}

fn open_before<T: Table>(
    table: &T,
    before: Option<Seq>,
) -> impl Iterator<Item = Result<Transaction, StoreError>> + use<'_, T> {
    let open = table.kind_backwards(Kind::OpenTransaction, before.map(keys::open_transaction));
    open.map(|entry| decode_transaction(&entry?.1))
}

fn ended_below<T: Table>(
    table: &T,
    before: Option<Seq>,
) -> impl Iterator<Item = Result<Transaction, StoreError>> + use<'_, T> {
    let before = before.map(keys::start);
    let ended = ENDED.backwards(table, before.as_ref().map(|before| &before[..]));
    ended.map(|entry| decode_transaction(&entry?.1))
}

/// Open and ended ones. The open ones of a stretch are read before the others of it, so that one
/// that ends meanwhile is found.
fn all_before<T: Table>(
    table: &T,
    before: Option<Seq>,
) -> impl Iterator<Item = Result<Transaction, StoreError>> + use<'_, T> {
    let mut next = Some(before);
    let stretches = iter::from_fn(move || {
        let before = next.take()?;
        let open = open_before(table, before).take(STRETCH);
        let (open, error) = match open.collect::<Result<Vec<_>, _>>() {
            Ok(open) => (open, None),
            Err(error) => (Vec::new(), Some(Err(error))),
        };
        let last = open.last().filter(|_| open.len() == STRETCH);
        let last = last.map(|last| last.seq);
        next = last.map(Some);
        let ended = ended_below(table, before).take_while(move |ended| {
            let ended = ended.as_ref();
            ended.map_or(true, |ended| last.is_none_or(|last| ended.seq >= last))
        });
        Some(error.into_iter().chain(merged(open, ended)))
    });
    stretches.flatten()
}

/// The latest first, as both are. One that is in both has ended.
fn merged(
    open: Vec<Transaction>,
    ended: impl Iterator<Item = Result<Transaction, StoreError>>,
) -> impl Iterator<Item = Result<Transaction, StoreError>> {
    let mut open = open.into_iter().peekable();
    let mut ended = ended.peekable();
    iter::from_fn(move || {
        let next = match ended.peek() {
            Some(Ok(next)) => Some(next.seq),
            Some(Err(_)) => return ended.next(),
            None => None,
        };
        if let Some(open) = open.next_if(|open| next.is_none_or(|next| open.seq > next)) {
            return Some(Ok(open));
        }
        open.next_if(|open| next == Some(open.seq));
        ended.next()
    })
}

/// The start that a key ends with.
fn start_in(key: &[u8]) -> Result<Seq, StoreError> {
    let start = keys::last_number(key).map(Seq);
    start.ok_or_else(|| record_error("transaction", "its index is cut short"))
}

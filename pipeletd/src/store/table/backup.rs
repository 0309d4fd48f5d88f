//! A table in a backup: one record for each thing, whatever an engine makes of it.

use std::{mem, sync::Arc};

use bytes::Bytes;
use pipelet_domain::{deliveries::FailedId, projection::Transaction};

use super::{Table, number_of, packed_map, transactions};
use crate::store::{
    BackupError, RestoreError, StoreError,
    backup::{Record, Writer},
    keys::{self, Kind},
    records,
    transaction_record::decode_transaction,
};

/// A transaction's record, whether it has ended or not: its start stands behind this.
const TRANSACTION: &[u8] = &[Kind::EndedTransaction as u8];
/// What is made of other records.
const DERIVED: [Kind; 4] = [
    Kind::FailedByWebhook,
    Kind::TransactionById,
    Kind::TransactionByStation,
    Kind::TransactionByEnd,
];
/// Transactions that are restored together.
const TRANSACTIONS_AT_ONCE: usize = 250;
/// In bytes; records that are restored together.
const RESTORED_AT_ONCE: usize = 64 * 1024;

/// Writes the records that an entry of a table stands for.
pub(in crate::store) fn write(
    writer: &mut Writer<'_>,
    key: &[u8],
    value: &Bytes,
) -> Result<(), BackupError> {
    match Kind::of(key) {
        Some(Kind::OpenTransaction) => writer.record(&[TRANSACTION, &key[1..]].concat(), value),
        Some(Kind::EndedTransaction) => {
            let packed = packed_map::entries(value)?;
            packed.into_iter().try_for_each(|(start, record)| {
                writer.record(&[TRANSACTION, &start].concat(), &record)
            })
        }
        Some(kind) if !DERIVED.contains(&kind) => writer.record(key, value),
        Some(_) | None => Ok(()),
    }
}

/// A table that is made of a backup's records.
pub(in crate::store) struct Filling<T: Table> {
    batch: T::Batch,
    transactions: Vec<Arc<Transaction>>,
    /// In bytes, of what was added since it was taken last.
    bytes: usize,
}

impl<T: Table> Filling<T> {
    pub(in crate::store) fn new() -> Self {
        Self {
            batch: T::Batch::default(),
            transactions: Vec::new(),
            bytes: 0,
        }
    }

    pub(in crate::store) fn add(&mut self, record: &Record) -> Result<(), RestoreError> {
        let Record { key, value } = record;
        self.bytes += key.len() + value.len();
        match record.kind()? {
            Kind::EndedTransaction => {
                let transaction = decode_transaction(value)?;
                self.transactions.push(Arc::new(transaction));
            }
            Kind::Failed => {
                let id = FailedId(number_of(key)?);
                T::put_new(&mut self.batch, key, value);
                let failed = records::decode_failed(id, &Bytes::copy_from_slice(value))?;
                let index = keys::failed_by_webhook(failed.webhook, id);
                T::put_new(&mut self.batch, &index, &[]);
            }
            _ => T::put_new(&mut self.batch, key, value),
        }
        Ok(())
    }

    /// Whether there is so much of it that it is to be taken.
    pub(in crate::store) const fn is_full(&self) -> bool {
        self.transactions.len() >= TRANSACTIONS_AT_ONCE || self.bytes >= RESTORED_AT_ONCE
    }

    /// What was added, to be written to the table before there is more.
    pub(in crate::store) fn take(&mut self, table: &T) -> Result<T::Batch, StoreError> {
        let mut batch = mem::take(&mut self.batch);
        transactions::put_all(table, &mut batch, &self.transactions)?;
        self.transactions.clear();
        self.bytes = 0;
        Ok(batch)
    }
}

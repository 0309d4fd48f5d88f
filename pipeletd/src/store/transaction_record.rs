//! A transaction as a stored record: a version byte, then JSON.
//!
//! The record's fields have their own names here, so that the projection can change without
//! changing what is on disk. A reader skips fields that it does not know.

use jiff::Timestamp;
use pipelet_domain::{
    events::{AuthorizationStatus, Seq, StationId},
    projection::{MeterReading, Transaction, TransactionStop},
};
use serde::{Deserialize, Serialize};

use super::{
    StoreError,
    codec::record_error,
    records::{decode, encode},
};

const WHAT: &str = "transaction";

#[derive(Serialize, Deserialize)]
struct TransactionRecord {
    seq: u64,
    id: i64,
    station: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connector: Option<u32>,
    id_tag: String,
    /// The status's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authorization: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    meter_start: Option<i64>,
    /// Times are milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_ms: Option<i64>,
    start_received_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reading: Option<ReadingRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stop: Option<StopRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    abandoned_ms: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct ReadingRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sampled_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    received_ms: Option<i64>,
    /// JSON, as the text that came.
    values: String,
}

#[derive(Serialize, Deserialize)]
struct StopRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    meter_stop: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stopped_ms: Option<i64>,
    received_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id_tag: Option<String>,
}

pub(super) fn encode_transaction(transaction: &Transaction) -> Vec<u8> {
    let reading = transaction.last_meter_values.as_ref();
    let stop = transaction.stop.as_ref();
    encode(&TransactionRecord {
        seq: transaction.seq.0,
        id: transaction.transaction_id,
        station: transaction.station.as_str().to_owned(),
        connector: transaction.connector_id,
        id_tag: transaction.id_tag.clone(),
        authorization: transaction.authorization.map(AuthorizationStatus::code),
        meter_start: transaction.meter_start,
        started_ms: transaction.started_at.map(Timestamp::as_millisecond),
        start_received_ms: transaction.start_received_at.as_millisecond(),
        reading: reading.map(|reading| ReadingRecord {
            sampled_ms: reading.sampled_at.map(Timestamp::as_millisecond),
            received_ms: reading.received_at.map(Timestamp::as_millisecond),
            values: reading.sampled_values.clone(),
        }),
        stop: stop.map(|stop| StopRecord {
            meter_stop: stop.meter_stop,
            stopped_ms: stop.stopped_at.map(Timestamp::as_millisecond),
            received_ms: stop.received_at.as_millisecond(),
            reason: stop.reason.clone(),
            id_tag: stop.id_tag.clone(),
        }),
        notes: transaction.notes.clone(),
        abandoned_ms: transaction.abandoned_at.map(Timestamp::as_millisecond),
    })
}

pub(super) fn decode_transaction(bytes: &[u8]) -> Result<Transaction, StoreError> {
    let record: TransactionRecord = decode(WHAT, bytes)?;
    let station = StationId::new(&record.station).map_err(|error| record_error(WHAT, error))?;
    let authorization = record.authorization.map(|code| {
        AuthorizationStatus::from_code(code).ok_or_else(|| record_error(WHAT, "unknown status"))
    });
    let reading = record.reading.map(|reading| {
        Ok(MeterReading {
            sampled_at: reading.sampled_ms.map(time).transpose()?,
            received_at: reading.received_ms.map(time).transpose()?,
            sampled_values: reading.values,
        })
    });
    let reading = reading.transpose()?;
    let stop = record.stop.map(|stop| {
        Ok(TransactionStop {
            meter_stop: stop.meter_stop,
            stopped_at: stop.stopped_ms.map(time).transpose()?,
            received_at: time(stop.received_ms)?,
            reason: stop.reason,
            id_tag: stop.id_tag,
        })
    });
    Ok(Transaction {
        seq: Seq(record.seq),
        transaction_id: record.id,
        station,
        connector_id: record.connector,
        id_tag: record.id_tag,
        authorization: authorization.transpose()?,
        meter_start: record.meter_start,
        started_at: record.started_ms.map(time).transpose()?,
        start_received_at: time(record.start_received_ms)?,
        last_meter_values: reading,
        stop: stop.transpose()?,
        notes: record.notes,
        abandoned_at: record.abandoned_ms.map(time).transpose()?,
    })
}

fn time(millis: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(millis).map_err(|error| record_error(WHAT, error))
}

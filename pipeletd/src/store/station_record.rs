//! A station's state as a stored record: a version byte, then JSON.
//!
//! The record's fields have their own names here, so that the state can change without changing
//! what is on disk. A reader skips fields that it does not know.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pipelet_domain::{
    events::{EventType, Seq, StationId},
    projection::{
        BootStatus, ConnectorState, Digest, LastCall, OpenTransaction, StartKey,
        StartedTransaction, StationState,
    },
};
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;

#[derive(Debug, thiserror::Error)]
pub enum StationRecordError {
    #[error("the station's record is empty")]
    Empty,
    #[error("the station's record has version {0}, which a newer pipeletd wrote")]
    NewerVersion(u8),
    #[error("the station's record is not readable")]
    Malformed(#[source] serde_json::Error),
    #[error("the station's record has a bad {0}")]
    BadField(&'static str),
}

pub fn encode(state: &StationState) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, &StationRecord::from(state))
        .expect("the record is plain data, and a vector takes all that is written");
    bytes
}

pub fn decode(bytes: &[u8]) -> Result<StationState, StationRecordError> {
    let (version, json) = bytes.split_first().ok_or(StationRecordError::Empty)?;
    if *version != VERSION {
        return Err(StationRecordError::NewerVersion(*version));
    }
    let record: StationRecord =
        serde_json::from_slice(json).map_err(StationRecordError::Malformed)?;
    record.try_into()
}

#[derive(Serialize, Deserialize)]
struct StationRecord {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vendor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    serial_number: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    firmware_version: Option<String>,
    /// Times are milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_boot_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot_status: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_seen_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connected_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    connectors: BTreeMap<u32, ConnectorRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    open: Vec<TransactionRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    starts: Vec<StartRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_call: Option<CallRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    applied_through: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct ConnectorRecord {
    status: String,
    error_code: String,
    updated_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct TransactionRecord {
    id: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connector: Option<u32>,
    id_tag: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    meter_start: Option<i64>,
    timestamp: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_ms: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct StartRecord {
    /// Digests are 32 hexadecimal digits.
    key: String,
    transaction: i64,
}

#[derive(Serialize, Deserialize)]
struct CallRecord {
    message_id: String,
    /// The event type's code.
    kind: u8,
    digest: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transaction: Option<i64>,
}

impl From<&StationState> for StationRecord {
    fn from(state: &StationState) -> Self {
        Self {
            id: state.id.as_str().to_owned(),
            vendor: state.vendor.clone(),
            model: state.model.clone(),
            serial_number: state.serial_number.clone(),
            firmware_version: state.firmware_version.clone(),
            last_boot_ms: state.last_boot_at.map(Timestamp::as_millisecond),
            boot_status: state.boot_status.map(|status| status.name().to_owned()),
            last_seen_ms: state.last_seen_at.map(Timestamp::as_millisecond),
            connected_ms: state.connected_at.map(Timestamp::as_millisecond),
            connectors: state.connectors.iter().map(connector_record).collect(),
            open: state.open_transactions.iter().map(Into::into).collect(),
            starts: state.recent_starts.iter().map(Into::into).collect(),
            last_call: state.last_call.as_ref().map(Into::into),
            applied_through: state.applied_through.map(|seq| seq.0),
        }
    }
}

fn connector_record((id, connector): (&u32, &ConnectorState)) -> (u32, ConnectorRecord) {
    let record = ConnectorRecord {
        status: connector.status.clone(),
        error_code: connector.error_code.clone(),
        updated_ms: connector.updated_at.as_millisecond(),
    };
    (*id, record)
}

impl From<&OpenTransaction> for TransactionRecord {
    fn from(transaction: &OpenTransaction) -> Self {
        Self {
            id: transaction.transaction_id,
            connector: transaction.connector_id,
            id_tag: transaction.id_tag.clone(),
            meter_start: transaction.meter_start,
            timestamp: transaction.timestamp.clone(),
            started_ms: transaction.started_at.map(Timestamp::as_millisecond),
        }
    }
}

impl From<&StartedTransaction> for StartRecord {
    fn from(start: &StartedTransaction) -> Self {
        Self {
            key: hex(start.key.0),
            transaction: start.transaction_id,
        }
    }
}

impl From<&LastCall> for CallRecord {
    fn from(call: &LastCall) -> Self {
        Self {
            message_id: call.message_id.clone(),
            kind: call.kind.code(),
            digest: hex(call.digest),
            transaction: call.transaction_id,
        }
    }
}

impl TryFrom<StationRecord> for StationState {
    type Error = StationRecordError;

    fn try_from(record: StationRecord) -> Result<Self, StationRecordError> {
        let id = StationId::new(&record.id).map_err(|_| StationRecordError::BadField("id"))?;
        let mut connectors = BTreeMap::new();
        for (id, connector) in record.connectors {
            connectors.insert(id, connector.try_into()?);
        }
        Ok(Self {
            id,
            vendor: record.vendor,
            model: record.model,
            serial_number: record.serial_number,
            firmware_version: record.firmware_version,
            last_boot_at: record.last_boot_ms.map(timestamp).transpose()?,
            boot_status: record.boot_status.as_deref().map(boot_status).transpose()?,
            last_seen_at: record.last_seen_ms.map(timestamp).transpose()?,
            connected_at: record.connected_ms.map(timestamp).transpose()?,
            connectors,
            open_transactions: all(record.open)?,
            recent_starts: all(record.starts)?.into(),
            last_call: record.last_call.map(TryInto::try_into).transpose()?,
            applied_through: record.applied_through.map(Seq),
        })
    }
}

impl TryFrom<ConnectorRecord> for ConnectorState {
    type Error = StationRecordError;

    fn try_from(record: ConnectorRecord) -> Result<Self, StationRecordError> {
        Ok(Self {
            status: record.status,
            error_code: record.error_code,
            updated_at: timestamp(record.updated_ms)?,
        })
    }
}

impl TryFrom<TransactionRecord> for OpenTransaction {
    type Error = StationRecordError;

    fn try_from(record: TransactionRecord) -> Result<Self, StationRecordError> {
        Ok(Self {
            transaction_id: record.id,
            connector_id: record.connector,
            id_tag: record.id_tag,
            meter_start: record.meter_start,
            timestamp: record.timestamp,
            started_at: record.started_ms.map(timestamp).transpose()?,
        })
    }
}

impl TryFrom<StartRecord> for StartedTransaction {
    type Error = StationRecordError;

    fn try_from(record: StartRecord) -> Result<Self, StationRecordError> {
        Ok(Self {
            key: StartKey(digest(&record.key)?),
            transaction_id: record.transaction,
        })
    }
}

impl TryFrom<CallRecord> for LastCall {
    type Error = StationRecordError;

    fn try_from(record: CallRecord) -> Result<Self, StationRecordError> {
        Ok(Self {
            message_id: record.message_id,
            kind: EventType::from_code(record.kind).ok_or(StationRecordError::BadField("kind"))?,
            digest: digest(&record.digest)?,
            transaction_id: record.transaction,
        })
    }
}

fn all<R, T>(records: Vec<R>) -> Result<Vec<T>, StationRecordError>
where
    T: TryFrom<R, Error = StationRecordError>,
{
    records.into_iter().map(TryInto::try_into).collect()
}

fn timestamp(ms: i64) -> Result<Timestamp, StationRecordError> {
    Timestamp::from_millisecond(ms).map_err(|_| StationRecordError::BadField("time"))
}

fn boot_status(name: &str) -> Result<BootStatus, StationRecordError> {
    BootStatus::from_name(name).ok_or(StationRecordError::BadField("boot status"))
}

fn hex(digest: Digest) -> String {
    format!("{:032x}", u128::from_be_bytes(digest.to_bytes()))
}

fn digest(hex: &str) -> Result<Digest, StationRecordError> {
    u128::from_str_radix(hex, 16)
        .map(|number| Digest::from_bytes(number.to_be_bytes()))
        .map_err(|_| StationRecordError::BadField("digest"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipelet_domain::events::{Event, EventId, Payload};

    fn full() -> StationState {
        let time: Timestamp = "2026-04-14T12:34:56.789Z".parse().unwrap();
        let mut state = StationState::new(StationId::new("a b|c").unwrap());
        let payloads = [
            (EventType::StationConnected, "{}"),
            (
                EventType::BootNotification,
                r#"{"chargePointVendor":"V","chargePointModel":"M","firmwareVersion":"1"}"#,
            ),
            (
                EventType::StatusNotification,
                r#"{"connectorId":0,"status":"Available","errorCode":"NoError"}"#,
            ),
            (
                EventType::StartTransaction,
                r#"{"connectorId":1,"idTag":"\u0001ä","meterStart":-7,"timestamp":"2026-04-14T12:34:56.123456","transactionId":42}"#,
            ),
        ];
        for (seq, (kind, payload)) in (7..).zip(payloads) {
            let payload = Payload::parse(payload.as_bytes()).unwrap();
            let id = EventId::new(time, [0; 10]);
            let event = Event::new(id, kind, state.id.clone(), time, Some("m".into()), payload);
            state.apply(Seq(seq), &event);
        }
        state
    }

    #[test]
    fn a_record_leads_back() {
        for state in [full(), StationState::new(StationId::new("new").unwrap())] {
            assert_eq!(decode(&encode(&state)).unwrap(), state);
        }
        assert_eq!(full().open_transactions.len(), 1);
        assert!(full().last_call.is_some());
    }

    #[test]
    fn unknown_fields_are_skipped() {
        let state = decode(b"\x01{\"id\":\"CP1\",\"future\":[1]}").unwrap();
        assert_eq!(state, StationState::new(StationId::new("CP1").unwrap()));
    }

    #[test]
    fn bad_records_say_why() {
        let check = |bytes: &[u8], message: &str| {
            assert_eq!(decode(bytes).unwrap_err().to_string(), message);
        };
        check(b"", "the station's record is empty");
        check(
            b"\x02{}",
            "the station's record has version 2, which a newer pipeletd wrote",
        );
        check(b"\x01{", "the station's record is not readable");
        check(b"\x01{\"id\":\"\"}", "the station's record has a bad id");
    }
}

//! A transaction, from its `StartTransaction` to its `StopTransaction`, folded from the journal.
//!
//! The fold never fails: what a station left out or wrote oddly is missing here, and nothing
//! more. Whatever a station sends, one transaction takes a bounded number of bytes.

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::{Fields, clipped, parse_station_time, unsigned};
use crate::events::{AuthorizationStatus, Event, IdTagKey, Seq, StationId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Where its start stands in the journal: transactions are ordered by it.
    pub seq: Seq,
    pub transaction_id: i64,
    pub station: StationId,
    pub connector_id: u32,
    /// As the station wrote it.
    pub id_tag: String,
    /// What the station was told about the tag.
    pub authorization: Option<AuthorizationStatus>,
    /// In Wh.
    pub meter_start: Option<i64>,
    /// The station's time where it can be read, or when we took the request in.
    pub started_at: Timestamp,
    pub start_received_at: Timestamp,
    pub last_meter_values: Option<MeterReading>,
    /// `None` while it is open.
    pub stop: Option<TransactionStop>,
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionStop {
    /// In Wh.
    pub meter_stop: Option<i64>,
    /// The station's time where it can be read, or when we took the request in.
    pub stopped_at: Timestamp,
    pub received_at: Timestamp,
    pub reason: String,
    /// Who ended it, where the station says.
    pub id_tag: Option<String>,
}

/// What a `StopTransaction` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopRequest {
    pub transaction_id: i64,
    pub stop: TransactionStop,
    /// The last of its own transaction data.
    pub reading: Option<MeterReading>,
}

/// The last meter values that were sent of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterReading {
    /// The station's time, where it can be read.
    pub sampled_at: Option<Timestamp>,
    /// OCPP's list `sampledValue` as the station wrote it: a JSON array.
    pub sampled_values: String,
}

/// Which transactions are meant. What is set must all hold; the default means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionFilter {
    pub station: Option<StationId>,
    pub id_tag: Option<IdTagKey>,
    pub open: Option<bool>,
    /// By the time of the start: from, included.
    pub since: Option<Timestamp>,
    /// By the time of the start: until, excluded.
    pub until: Option<Timestamp>,
}

impl Transaction {
    /// Begins with a `StartTransaction`, if it has the id that its transaction was given.
    pub fn started(seq: Seq, event: &Event) -> Option<Self> {
        let fields = Fields::parse(event.payload.as_bytes());
        Some(Self {
            seq,
            transaction_id: fields.integer("transactionId")?,
            station: event.station.clone(),
            connector_id: unsigned(&fields, "connectorId").unwrap_or(0),
            id_tag: clipped(&fields.text("idTag").unwrap_or_default()),
            authorization: event.authorization,
            meter_start: fields.integer("meterStart"),
            started_at: station_time(&fields, event),
            start_received_at: event.time,
            last_meter_values: None,
            stop: None,
        })
    }

    /// The same transaction with what a `StopTransaction` said. The first stop counts.
    #[must_use]
    pub fn stopped(&self, request: StopRequest) -> Self {
        let mut stopped = self.clone();
        if stopped.stop.is_none() {
            stopped.last_meter_values = request.reading.or(stopped.last_meter_values);
            stopped.stop = Some(request.stop);
        }
        stopped
    }

    pub const fn is_open(&self) -> bool {
        self.stop.is_none()
    }

    /// By when its stop came in.
    pub fn stopped_before(&self, time: Timestamp) -> bool {
        self.stop
            .as_ref()
            .is_some_and(|stop| stop.received_at < time)
    }

    /// A word that never changes.
    pub const fn status(&self) -> &'static str {
        if self.is_open() { "open" } else { "stopped" }
    }

    /// What was charged, in Wh, once both meter values are known. Below zero where a meter was
    /// set back: that is for people to see.
    pub fn energy_wh(&self) -> Option<i64> {
        let stop = self.stop.as_ref()?;
        stop.meter_stop?.checked_sub(self.meter_start?)
    }
}

impl StopRequest {
    /// Some chargers send 0 or −1 for a transaction whose id they never learned: that is none
    /// that we know.
    pub fn of(event: &Event) -> Option<Self> {
        let fields = Fields::parse(event.payload.as_bytes());
        let transaction_id = fields.integer("transactionId").filter(|id| *id > 0)?;
        let text = |name| fields.text(name).map(|text| clipped(&text));
        let stop = TransactionStop {
            meter_stop: fields.integer("meterStop"),
            stopped_at: station_time(&fields, event),
            received_at: event.time,
            // It may be left out only where it is this one (OCPP 1.6, section 6.49).
            reason: text("reason").unwrap_or_else(|| "Local".to_owned()),
            id_tag: text("idTag"),
        };
        let reading = fields.raw("transactionData").and_then(MeterReading::last);
        Some(Self {
            transaction_id,
            stop,
            reading,
        })
    }
}

impl MeterReading {
    /// In bytes; a longer list of values is not kept.
    const MAX_LEN: usize = 4096;

    /// The transaction that a `MeterValues` belongs to, and the last of its readings.
    pub fn of(event: &Event) -> Option<(i64, Self)> {
        let fields = Fields::parse(event.payload.as_bytes());
        let id = fields.integer("transactionId")?;
        Some((id, Self::last(fields.raw("meterValue")?)?))
    }

    /// The last entry of a list of OCPP's `MeterValue`.
    fn last(list: &str) -> Option<Self> {
        let list: Vec<&RawValue> = serde_json::from_str(list).ok()?;
        let fields = Fields::parse(list.last()?.get().as_bytes());
        let values = fields.raw("sampledValue")?;
        let is_list = values.starts_with('[');
        (is_list && values.len() <= Self::MAX_LEN).then(|| Self {
            sampled_at: fields
                .text("timestamp")
                .and_then(|t| parse_station_time(&t)),
            sampled_values: values.to_owned(),
        })
    }
}

impl TransactionFilter {
    pub fn matches(&self, transaction: &Transaction) -> bool {
        self.station
            .as_ref()
            .is_none_or(|station| *station == transaction.station)
            && self
                .id_tag
                .as_ref()
                .is_none_or(|tag| *tag == IdTagKey::of(&transaction.id_tag))
            && self.open.is_none_or(|open| open == transaction.is_open())
            && self
                .since
                .is_none_or(|since| since <= transaction.started_at)
            && self
                .until
                .is_none_or(|until| transaction.started_at < until)
    }
}

fn station_time(fields: &Fields<'_>, event: &Event) -> Timestamp {
    let written = fields.text("timestamp");
    written
        .and_then(|text| parse_station_time(&text))
        .unwrap_or(event.time)
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;

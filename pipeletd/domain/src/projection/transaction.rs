//! A transaction, from its `StartTransaction` to its `StopTransaction`, folded from the journal.
//!
//! The fold never fails: what a station left out or wrote so that nobody can read it is missing
//! here, never another value, and a note says what was written. Whatever a station sends, one
//! transaction takes a bounded number of bytes.

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
    pub connector_id: Option<u32>,
    /// As the station wrote it.
    pub id_tag: String,
    /// What the station was told about the tag.
    pub authorization: Option<AuthorizationStatus>,
    /// In Wh.
    pub meter_start: Option<i64>,
    /// The station's time.
    pub started_at: Option<Timestamp>,
    pub start_received_at: Timestamp,
    pub last_meter_values: Option<MeterReading>,
    /// `None` while it is open.
    pub stop: Option<TransactionStop>,
    /// What can't be what the station says, for people.
    pub notes: Vec<String>,
    /// When it was given up, because nothing was heard of it for long. A stop that comes after all
    /// counts instead.
    pub abandoned_at: Option<Timestamp>,
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionStop {
    /// In Wh.
    pub meter_stop: Option<i64>,
    /// The station's time.
    pub stopped_at: Option<Timestamp>,
    pub received_at: Timestamp,
    pub reason: Option<String>,
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
    /// As in [`Transaction`].
    pub notes: Vec<String>,
}

/// The last meter values that were sent of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterReading {
    /// The station's time, where it can be read.
    pub sampled_at: Option<Timestamp>,
    /// When we took it in. Not known of what was stored before this was.
    pub received_at: Option<Timestamp>,
    /// OCPP's list `sampledValue` as the station wrote it: a JSON array.
    pub sampled_values: String,
}

/// Which transactions are meant. What is set must all hold; the default means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionFilter {
    pub station: Option<StationId>,
    pub id_tag: Option<IdTagKey>,
    pub open: Option<bool>,
    pub abandoned: Option<bool>,
    /// By the time of the start, or when it came where that is missing: from, included.
    pub since: Option<Timestamp>,
    /// By the time of the start: until, excluded.
    pub until: Option<Timestamp>,
}

impl Transaction {
    /// Begins with a `StartTransaction`, if it has the id that its transaction was given.
    pub fn started(seq: Seq, event: &Event) -> Option<Self> {
        let mut message = Message::of(event);
        Some(Self {
            seq,
            transaction_id: message.fields.integer("transactionId")?,
            station: event.station.clone(),
            connector_id: message.connector(),
            id_tag: message.text("idTag").unwrap_or_default(),
            authorization: event.authorization,
            meter_start: message.meter("meterStart"),
            started_at: message.time(),
            start_received_at: event.time,
            last_meter_values: None,
            stop: None,
            notes: message.notes,
            abandoned_at: None,
        })
    }

    /// The same transaction with what a `StopTransaction` said. The first stop counts.
    #[must_use]
    pub fn stopped(&self, request: StopRequest) -> Self {
        let mut stopped = self.clone();
        if stopped.stop.is_none() {
            stopped.last_meter_values = request.reading.or(stopped.last_meter_values);
            stopped.notes.extend(request.notes);
            if let (Some(start), Some(stop)) = (stopped.meter_start, request.stop.meter_stop)
                && stop < start
            {
                let note = format!("meterStop {stop} is below meterStart {start}");
                stopped.notes.push(note);
            }
            stopped.stop = Some(request.stop);
            stopped.abandoned_at = None;
        }
        stopped
    }

    /// The same transaction, given up.
    #[must_use]
    pub fn abandoned(&self, at: Timestamp) -> Self {
        let abandoned_at = self.stop.is_none().then_some(at);
        Self {
            abandoned_at,
            ..self.clone()
        }
    }

    pub const fn is_open(&self) -> bool {
        self.stop.is_none() && self.abandoned_at.is_none()
    }

    /// Whether it is open, and nothing was heard of it since then.
    pub fn is_silent_since(&self, time: Timestamp) -> bool {
        let reading = self.last_meter_values.as_ref();
        let heard = reading.and_then(|reading| reading.received_at);
        self.is_open()
            && heard
                .unwrap_or(self.start_received_at)
                .max(self.start_received_at)
                < time
    }

    /// When its stop came in, or it was given up.
    pub fn ended_at(&self) -> Option<Timestamp> {
        let stopped = self.stop.as_ref().map(|stop| stop.received_at);
        stopped.or(self.abandoned_at)
    }

    /// Whether it ended before then.
    pub fn ended_before(&self, time: Timestamp) -> bool {
        self.ended_at().is_some_and(|ended| ended < time)
    }

    /// A word that never changes.
    pub const fn status(&self) -> &'static str {
        match (&self.stop, self.abandoned_at) {
            (Some(_), _) => "stopped",
            (None, Some(_)) => "abandoned",
            (None, None) => "open",
        }
    }

    /// What was charged, in Wh, once both meter values are known. Where a meter was set back, they
    /// don't say it.
    pub fn energy_wh(&self) -> Option<i64> {
        let stop = self.stop.as_ref()?;
        let energy = stop.meter_stop?.checked_sub(self.meter_start?);
        energy.filter(|energy| *energy >= 0)
    }
}

impl StopRequest {
    /// Some chargers send 0 or −1 for a transaction whose id they never learned: that is none
    /// that we know.
    pub fn of(event: &Event) -> Option<Self> {
        let mut message = Message::of(event);
        let transaction_id = message.fields.integer("transactionId");
        let transaction_id = transaction_id.filter(|id| *id > 0)?;
        let stop = TransactionStop {
            meter_stop: message.meter("meterStop"),
            stopped_at: message.time(),
            received_at: event.time,
            reason: if message.fields.has("reason") {
                message.text("reason")
            } else {
                // It may be left out only where it is this one (OCPP 1.6, section 6.49).
                Some("Local".to_owned())
            },
            id_tag: message.text("idTag"),
        };
        let data = message.fields.raw("transactionData");
        Some(Self {
            transaction_id,
            stop,
            reading: data.and_then(|list| MeterReading::last(list, event.time)),
            notes: message.notes,
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
        Some((id, Self::last(fields.raw("meterValue")?, event.time)?))
    }

    /// The last entry of a list of OCPP's `MeterValue`.
    fn last(list: &str, received_at: Timestamp) -> Option<Self> {
        let list: Vec<&RawValue> = serde_json::from_str(list).ok()?;
        let fields = Fields::parse(list.last()?.get().as_bytes());
        let values = fields.raw("sampledValue")?;
        let is_list = values.starts_with('[');
        (is_list && values.len() <= Self::MAX_LEN).then(|| Self {
            sampled_at: fields
                .text("timestamp")
                .and_then(|t| parse_station_time(&t)),
            received_at: Some(received_at),
            sampled_values: values.to_owned(),
        })
    }
}

impl TransactionFilter {
    pub fn matches(&self, transaction: &Transaction) -> bool {
        let began = transaction.started_at;
        let began = began.unwrap_or(transaction.start_received_at);
        self.station
            .as_ref()
            .is_none_or(|station| *station == transaction.station)
            && self
                .id_tag
                .as_ref()
                .is_none_or(|tag| *tag == IdTagKey::of(&transaction.id_tag))
            && self.open.is_none_or(|open| open == transaction.is_open())
            && self
                .abandoned
                .is_none_or(|abandoned| abandoned == (transaction.status() == "abandoned"))
            && self.since.is_none_or(|since| since <= began)
            && self.until.is_none_or(|until| began < until)
    }
}

/// A station's message while it is read, and what of it can't be.
struct Message<'a> {
    event: &'a Event,
    fields: Fields<'a>,
    notes: Vec<String>,
}

impl<'a> Message<'a> {
    fn of(event: &'a Event) -> Self {
        Self {
            event,
            fields: Fields::parse(event.payload.as_bytes()),
            notes: Vec::new(),
        }
    }

    fn connector(&mut self) -> Option<u32> {
        let id = unsigned(&self.fields, "connectorId");
        self.noted("connectorId", id, "no connector")
    }

    fn meter(&mut self, name: &str) -> Option<i64> {
        let value = self.fields.integer(name);
        self.noted(name, value, "no whole number")
    }

    fn time(&mut self) -> Option<Timestamp> {
        let time = self.fields.text("timestamp");
        let time = time.and_then(|text| parse_station_time(&text));
        self.noted("timestamp", time, "no time")
    }

    fn text(&mut self, name: &str) -> Option<String> {
        let text = self.fields.text(name).map(|text| clipped(&text));
        self.noted(name, text, "no text")
    }

    /// Notes what was written where it has no value.
    fn noted<T>(&mut self, name: &str, value: Option<T>, is: &str) -> Option<T> {
        if value.is_none()
            && let Some(written) = self.fields.raw(name)
        {
            let written = &written[..written.floor_char_boundary(64)];
            let kind = self.event.kind;
            self.notes.push(format!("{kind}.{name}: {written} is {is}"));
        }
        value
    }
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;

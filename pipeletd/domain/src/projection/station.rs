//! A station's state, and how an event changes it.
//!
//! Everything in it is bounded, whatever a station sends: texts are clipped, and lists drop their
//! oldest entry.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;

use super::{Digest, Fields, LastCall, StartKey, StartedTransaction, parse_station_time};
use crate::events::{Event, EventType, Seq, StationId};

/// The answer to a `BootNotification` (OCPP 1.6, section 7.33).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootStatus {
    Accepted,
    Pending,
    Rejected,
}

impl BootStatus {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Pending => "Pending",
            Self::Rejected => "Rejected",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Accepted, Self::Pending, Self::Rejected]
            .into_iter()
            .find(|status| status.name() == name)
    }
}

/// What the last `StatusNotification` of a connector said. Connector 0 is the station itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorState {
    pub status: String,
    pub error_code: String,
    /// When we took the notification in: a station's own clock may be anywhere.
    pub updated_at: Timestamp,
}

/// A transaction whose `StopTransaction` has not come. What the station left out, or wrote so that
/// nobody can read it, is missing or empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTransaction {
    pub transaction_id: i64,
    pub connector_id: Option<u32>,
    pub id_tag: String,
    pub meter_start: Option<i64>,
    /// As the station wrote it.
    pub timestamp: String,
    pub started_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StationState {
    pub id: StationId,
    pub vendor: Option<String>,
    pub model: Option<String>,
    pub serial_number: Option<String>,
    pub firmware_version: Option<String>,
    pub last_boot_at: Option<Timestamp>,
    /// What the last `BootNotification` was answered with; a reconnect does not boot again.
    pub boot_status: Option<BootStatus>,
    pub last_seen_at: Option<Timestamp>,
    /// When a connection was told of whose end was not yet.
    pub connected_at: Option<Timestamp>,
    pub connectors: BTreeMap<u32, ConnectorState>,
    /// The oldest first.
    pub open_transactions: Vec<OpenTransaction>,
    /// The oldest first.
    pub recent_starts: VecDeque<StartedTransaction>,
    pub last_call: Option<LastCall>,
    /// The last event that is in here.
    pub applied_through: Option<Seq>,
}

impl StationState {
    const MAX_CONNECTORS: usize = 256;
    const MAX_OPEN_TRANSACTIONS: usize = 64;
    const MAX_RECENT_STARTS: usize = 8;

    pub const fn new(id: StationId) -> Self {
        Self {
            id,
            vendor: None,
            model: None,
            serial_number: None,
            firmware_version: None,
            last_boot_at: None,
            boot_status: None,
            last_seen_at: None,
            connected_at: None,
            connectors: BTreeMap::new(),
            open_transactions: Vec::new(),
            recent_starts: VecDeque::new(),
            last_call: None,
            applied_through: None,
        }
    }

    /// Takes in one event of this station. Events that are in it already change nothing.
    ///
    /// Tells whether the state has changed enough to be saved soon: that a station was seen once
    /// more is worth a save once a minute only.
    pub fn apply(&mut self, seq: Seq, event: &Event) -> bool {
        if self.applied_through.is_some_and(|through| seq <= through) {
            return false;
        }
        self.applied_through = Some(seq);
        if event.is_from_csms() {
            // That we asked shows nothing of the station.
            return false;
        }
        // Nor does that it is gone, which may be told long after.
        let mut seen_anew = false;
        if event.kind != EventType::StationDisconnected {
            seen_anew = self.last_seen_at.map(minute) != Some(minute(event.time));
            self.last_seen_at = self.last_seen_at.max(Some(event.time));
        }

        self.note_call(event);
        self.note_content(event) || seen_anew
    }

    /// Tells whether it is worth a save.
    fn note_content(&mut self, event: &Event) -> bool {
        // Read only where it is needed: meter values can be long.
        let fields = || Fields::parse(event.payload.as_bytes());
        match event.kind {
            EventType::BootNotification => self.boot(event.time, &fields()),
            EventType::StatusNotification => self.connector_status(event.time, &fields()),
            EventType::StartTransaction => self.start(&fields()),
            EventType::StopTransaction => self.stop(&fields()),
            EventType::StationConnected => self.connected_at = Some(event.time),
            EventType::StationDisconnected => self.connected_at = None,
            EventType::Heartbeat
            | EventType::ChangeAvailability
            | EventType::ChangeConfiguration
            | EventType::ClearCache
            | EventType::GetConfiguration
            | EventType::RemoteStartTransaction
            | EventType::RemoteStopTransaction
            | EventType::Reset
            | EventType::UnlockConnector
            | EventType::GetDiagnostics
            | EventType::UpdateFirmware
            | EventType::TriggerMessage
            | EventType::ReserveNow
            | EventType::SendLocalList
            | EventType::CancelReservation
            | EventType::ClearChargingProfile
            | EventType::GetCompositeSchedule
            | EventType::GetLocalListVersion
            | EventType::SetChargingProfile
            | EventType::CertificateSigned
            | EventType::DeleteCertificate
            | EventType::ExtendedTriggerMessage
            | EventType::GetInstalledCertificateIds
            | EventType::GetLog
            | EventType::InstallCertificate
            | EventType::SignedUpdateFirmware => return false,
            // Of these only the last call is kept.
            EventType::Authorize
            | EventType::MeterValues
            | EventType::DataTransfer
            | EventType::DiagnosticsStatusNotification
            | EventType::FirmwareStatusNotification
            | EventType::SecurityEventNotification
            | EventType::LogStatusNotification
            | EventType::SignedFirmwareStatusNotification
            | EventType::SignCertificate => {}
        }
        true
    }

    fn note_call(&mut self, event: &Event) {
        let Some(message_id) = event.message_id.as_deref() else {
            return;
        };
        let transaction_id = (event.kind == EventType::StartTransaction)
            .then(|| Fields::parse(event.payload.as_bytes()).integer("transactionId"))
            .flatten();
        self.last_call = Some(LastCall {
            message_id: message_id.to_owned(),
            kind: event.kind,
            digest: Digest::of(event.payload.as_bytes()),
            transaction_id,
        });
    }

    fn boot(&mut self, time: Timestamp, fields: &Fields<'_>) {
        let text = |name| fields.text(name).map(|text| clipped(&text));
        self.vendor = text("chargePointVendor");
        self.model = text("chargePointModel");
        self.serial_number = text("chargePointSerialNumber").or(text("chargeBoxSerialNumber"));
        self.firmware_version = text("firmwareVersion");
        self.last_boot_at = Some(time);
        self.boot_status = Some(BootStatus::Accepted);
    }

    fn connector_status(&mut self, time: Timestamp, fields: &Fields<'_>) {
        let Some(id) = unsigned(fields, "connectorId") else {
            return;
        };
        if self.connectors.len() >= Self::MAX_CONNECTORS && !self.connectors.contains_key(&id) {
            return;
        }
        let text = |name| clipped(&fields.text(name).unwrap_or_default());
        self.connectors.insert(
            id,
            ConnectorState {
                status: text("status"),
                error_code: text("errorCode"),
                updated_at: time,
            },
        );
    }

    fn start(&mut self, fields: &Fields<'_>) {
        let Some(transaction_id) = fields.integer("transactionId") else {
            return;
        };
        if let Some(key) = StartKey::of(fields) {
            if self.recent_starts.len() >= Self::MAX_RECENT_STARTS {
                self.recent_starts.pop_front();
            }
            self.recent_starts.push_back(StartedTransaction {
                key,
                transaction_id,
            });
        }
        if self.open_transactions.len() >= Self::MAX_OPEN_TRANSACTIONS {
            self.open_transactions.remove(0);
        }
        let timestamp = fields.text("timestamp").unwrap_or_default();
        self.open_transactions.push(OpenTransaction {
            transaction_id,
            connector_id: unsigned(fields, "connectorId"),
            id_tag: clipped(&fields.text("idTag").unwrap_or_default()),
            meter_start: fields.integer("meterStart"),
            started_at: parse_station_time(&timestamp),
            timestamp: clipped(&timestamp),
        });
    }

    fn stop(&mut self, fields: &Fields<'_>) {
        if let Some(id) = fields.integer("transactionId") {
            self.ended(id);
            self.recent_starts
                .retain(|start| start.transaction_id != id);
        }
    }

    /// Returns whether the transaction was open.
    pub fn ended(&mut self, transaction_id: i64) -> bool {
        let before = self.open_transactions.len();
        self.open_transactions
            .retain(|transaction| transaction.transaction_id != transaction_id);
        self.open_transactions.len() < before
    }
}

fn minute(time: Timestamp) -> i64 {
    time.as_second().div_euclid(60)
}

pub(super) fn unsigned(fields: &Fields<'_>, name: &str) -> Option<u32> {
    fields.integer(name).and_then(|n| n.try_into().ok())
}

/// At most 255 bytes: more than any of OCPP's short texts may have.
pub(super) fn clipped(text: &str) -> String {
    text[..text.floor_char_boundary(255)].to_owned()
}

#[cfg(test)]
#[path = "station_tests.rs"]
mod tests;

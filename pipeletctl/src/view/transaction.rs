//! Transactions.

use pipelet_proto::v1;
use serde::Serialize;

use super::{or_dash, payload::Payload, time::Time};
use crate::{
    output::{Describe, Row},
    table::{Details, printable},
};

#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the fields are the keys of REST")]
pub(crate) struct Transaction {
    transaction_id: i64,
    station_id: String,
    connector_id: Option<u32>,
    id_tag: String,
    id_tag_status: Option<String>,
    status: String,
    meter_start: Option<i64>,
    meter_stop: Option<i64>,
    energy_wh: Option<i64>,
    started_at: Option<Time>,
    start_received_at: Option<Time>,
    stopped_at: Option<Time>,
    stop_received_at: Option<Time>,
    stop_reason: Option<String>,
    stop_id_tag: Option<String>,
    last_meter_values: Option<MeterValues>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct MeterValues {
    timestamp: Option<Time>,
    sampled_value: Payload,
}

impl From<v1::LastMeterValues> for MeterValues {
    fn from(wire: v1::LastMeterValues) -> Self {
        Self {
            timestamp: Time::from_wire(wire.timestamp),
            sampled_value: Payload::from_wire(wire.sampled_value),
        }
    }
}

impl From<v1::Transaction> for Transaction {
    fn from(wire: v1::Transaction) -> Self {
        Self {
            transaction_id: wire.transaction_id,
            station_id: wire.station_id,
            connector_id: wire.connector_id,
            id_tag: wire.id_tag,
            id_tag_status: wire.id_tag_status,
            status: wire.status,
            meter_start: wire.meter_start,
            meter_stop: wire.meter_stop,
            energy_wh: wire.energy_wh,
            started_at: Time::from_wire(wire.started_at),
            start_received_at: Time::from_wire(wire.start_received_at),
            stopped_at: Time::from_wire(wire.stopped_at),
            stop_received_at: Time::from_wire(wire.stop_received_at),
            stop_reason: wire.stop_reason,
            stop_id_tag: wire.stop_id_tag,
            last_meter_values: wire.last_meter_values.map(MeterValues::from),
            notes: wire.notes,
        }
    }
}

impl Row for Transaction {
    const HEADERS: &'static [&'static str] = &[
        "ID",
        "STATION",
        "CONNECTOR",
        "ID TAG",
        "STATUS",
        "STARTED",
        "STOPPED",
        "ENERGY",
        "REASON",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.transaction_id.to_string(),
            self.station_id.clone(),
            or_dash(self.connector_id),
            self.id_tag.clone(),
            self.status.clone(),
            or_dash(self.started_at),
            or_dash(self.stopped_at),
            or_dash(self.energy_wh.map(watt_hours)),
            or_dash(self.stop_reason.as_ref()),
        ]
    }
}

impl Describe for Transaction {
    fn describe(&self) -> Details {
        let values = self.last_meter_values.as_ref();
        Details::default()
            .line("id", self.transaction_id.to_string())
            .line("station", &self.station_id)
            .line("connector", or_dash(self.connector_id))
            .line("id tag", &self.id_tag)
            .line("id tag status", or_dash(self.id_tag_status.as_ref()))
            .line("status", &self.status)
            .line("meter start", or_dash(self.meter_start.map(watt_hours)))
            .line("meter stop", or_dash(self.meter_stop.map(watt_hours)))
            .line("energy", or_dash(self.energy_wh.map(watt_hours)))
            .line("started", or_dash(self.started_at))
            .line("start received", or_dash(self.start_received_at))
            .line("stopped", or_dash(self.stopped_at))
            .line("stop received", or_dash(self.stop_received_at))
            .line("stop reason", or_dash(self.stop_reason.as_ref()))
            .line("stopped by", or_dash(self.stop_id_tag.as_ref()))
            .section("notes", self.notes())
            .section(
                "last meter values",
                values.map_or_else(String::new, |values| values.sampled_value.indented()),
            )
    }
}

impl Transaction {
    /// A line each; they have the station's own words in them.
    fn notes(&self) -> String {
        let notes: Vec<String> = self.notes.iter().map(|note| printable(note)).collect();
        notes.join("\n")
    }
}

fn watt_hours(energy: i64) -> String {
    format!("{energy} Wh")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_transaction_has_the_keys_of_rest() {
        let transaction = Transaction::from(v1::Transaction {
            transaction_id: 42,
            station_id: "S".into(),
            connector_id: Some(1),
            id_tag: "T".into(),
            id_tag_status: Some("Accepted".into()),
            status: "stopped".into(),
            meter_start: Some(5),
            meter_stop: Some(9),
            energy_wh: Some(4),
            stop_reason: Some("Local".into()),
            last_meter_values: Some(v1::LastMeterValues {
                timestamp: None,
                sampled_value: r#"[{"value":"1.50"}]"#.into(),
            }),
            ..v1::Transaction::default()
        });
        assert_eq!(
            serde_json::to_value(&transaction).unwrap(),
            json!({
                "transaction_id": 42,
                "station_id": "S",
                "connector_id": 1,
                "id_tag": "T",
                "id_tag_status": "Accepted",
                "status": "stopped",
                "meter_start": 5,
                "meter_stop": 9,
                "energy_wh": 4,
                "started_at": null,
                "start_received_at": null,
                "stopped_at": null,
                "stop_received_at": null,
                "stop_reason": "Local",
                "stop_id_tag": null,
                "last_meter_values": {"timestamp": null, "sampled_value": [{"value": "1.50"}]},
                "notes": [],
            })
        );
        let noted = Transaction {
            notes: vec!["a: \u{9b}2J".to_owned(), "b".to_owned()],
            ..transaction
        };
        assert!(noted.describe().draw().contains("\n  a: \\u{9b}2J\n  b"));
        let cells = noted.cells();
        assert_eq!(
            cells,
            ["42", "S", "1", "T", "stopped", "-", "-", "4 Wh", "Local"]
        );
    }
}

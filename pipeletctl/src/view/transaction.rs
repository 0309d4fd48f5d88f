//! Transactions.

use pipelet_proto::v1::Transaction;

use super::{payload::indented, time::shown};
use crate::{
    output::{Describe, Row},
    table::{Details, printable},
    words::or_dash,
};

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
    const OPTIONAL: &'static [&'static str] = &["REASON", "CONNECTOR", "STOPPED", "ENERGY"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.transaction_id.to_string(),
            self.station_id.clone(),
            or_dash(self.connector_id),
            self.id_tag.clone(),
            self.status.clone(),
            shown(self.started_at),
            shown(self.stopped_at),
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
            .line("started", shown(self.started_at))
            .line("start received", shown(self.start_received_at))
            .line("stopped", shown(self.stopped_at))
            .line("stop received", shown(self.stop_received_at))
            .line("stop reason", or_dash(self.stop_reason.as_ref()))
            .line("stopped by", or_dash(self.stop_id_tag.as_ref()))
            .section("notes", notes(self))
            .section(
                "last meter values",
                values.map_or_else(String::new, |values| indented(&values.sampled_value)),
            )
    }
}

/// A line each; they have the station's own words in them.
fn notes(transaction: &Transaction) -> String {
    let notes = transaction.notes.iter().map(|note| printable(note));
    notes.collect::<Vec<_>>().join("\n")
}

fn watt_hours(energy: i64) -> String {
    format!("{energy} Wh")
}

#[cfg(test)]
mod tests {
    use pipelet_proto::v1::LastMeterValues;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_transaction_has_the_keys_of_rest() {
        let transaction = Transaction {
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
            last_meter_values: Some(LastMeterValues {
                timestamp: None,
                sampled_value: r#"[{"value":"1.50"}]"#.into(),
            }),
            ..Transaction::default()
        };
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

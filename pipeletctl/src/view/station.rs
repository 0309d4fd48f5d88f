//! Stations, their connectors and open transactions.

use pipelet_proto::v1::{Connector, OpenTransaction, Station};

use super::time::shown;
use crate::{
    output::{Describe, Row},
    table::{self, Details},
    words::{or_dash, yes_no},
};

/// How the boot of a registered station is answered.
fn boot_policy(station: &Station) -> String {
    or_dash(
        station
            .registration
            .as_ref()
            .map(|entry| &entry.boot_policy),
    )
}

fn profile(station: &Station) -> String {
    let entry = station.registration.as_ref();
    or_dash(entry.and_then(|entry| entry.security_profile))
}

impl Row for Station {
    const HEADERS: &'static [&'static str] = &[
        "ID",
        "CONNECTED",
        "BOOT POLICY",
        "PROFILE",
        "VENDOR",
        "MODEL",
        "LAST SEEN",
        "CONNECTORS",
        "OPEN TRANSACTIONS",
    ];
    const OPTIONAL: &'static [&'static str] = &[
        "PROFILE",
        "BOOT POLICY",
        "VENDOR",
        "OPEN TRANSACTIONS",
        "MODEL",
    ];

    fn cells(&self) -> Vec<String> {
        let connectors = self
            .connectors
            .iter()
            .map(|connector| format!("{}:{}", connector.connector_id, connector.status))
            .collect::<Vec<_>>()
            .join(" ");
        vec![
            self.id.clone(),
            yes_no(self.connected).to_owned(),
            boot_policy(self),
            profile(self),
            or_dash(self.vendor.as_ref()),
            or_dash(self.model.as_ref()),
            shown(self.last_seen_at),
            or_dash(Some(connectors).filter(|text| !text.is_empty())),
            self.open_transactions.len().to_string(),
        ]
    }
}

impl Describe for Station {
    fn describe(&self) -> Details {
        Details::default()
            .line("id", &self.id)
            .line("connected", yes_no(self.connected))
            .line("connected since", shown(self.connected_since))
            .line("protocol", or_dash(self.protocol.as_ref()))
            .line("last seen", shown(self.last_seen_at))
            .line("vendor", or_dash(self.vendor.as_ref()))
            .line("model", or_dash(self.model.as_ref()))
            .line("serial number", or_dash(self.serial_number.as_ref()))
            .line("firmware", or_dash(self.firmware_version.as_ref()))
            .line("last boot", shown(self.last_boot_at))
            .line("boot status", or_dash(self.boot_status.as_ref()))
            .line("registered", yes_no(self.registration.is_some()))
            .line("boot policy", boot_policy(self))
            .line("security profile", profile(self))
            .line(
                "password",
                or_dash(
                    self.registration
                        .as_ref()
                        .map(|entry| yes_no(entry.has_password)),
                ),
            )
            .section("connectors", connectors(&self.connectors))
            .section("open transactions", transactions(&self.open_transactions))
    }
}

fn connectors(connectors: &[Connector]) -> String {
    let rows: Vec<Vec<String>> = connectors
        .iter()
        .map(|connector| {
            vec![
                connector.connector_id.to_string(),
                connector.status.clone(),
                connector.error_code.clone(),
                shown(connector.updated_at),
            ]
        })
        .collect();
    section(&["ID", "STATUS", "ERROR CODE", "UPDATED"], &rows)
}

fn transactions(transactions: &[OpenTransaction]) -> String {
    let rows: Vec<Vec<String>> = transactions
        .iter()
        .map(|transaction| {
            vec![
                transaction.transaction_id.to_string(),
                or_dash(transaction.connector_id),
                transaction.id_tag.clone(),
                or_dash(transaction.meter_start.map(|start| format!("{start} Wh"))),
                shown(transaction.started_at),
            ]
        })
        .collect();
    section(
        &["ID", "CONNECTOR", "ID TAG", "METER START", "STARTED"],
        &rows,
    )
}

fn section(headers: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        String::new()
    } else {
        table::section(headers, rows, &[])
    }
}

#[cfg(test)]
mod tests {
    use pipelet_proto::v1::Registration;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_station_has_the_keys_of_rest() {
        let station = Station {
            id: "S".into(),
            connected: true,
            vendor: Some("ACME".into()),
            registration: Some(Registration {
                security_profile: Some(2),
                has_password: true,
                boot_policy: "Pending".into(),
                ..Registration::default()
            }),
            connectors: vec![Connector {
                connector_id: 1,
                status: "Charging".into(),
                error_code: "NoError".into(),
                updated_at: None,
            }],
            open_transactions: vec![OpenTransaction {
                transaction_id: 42,
                connector_id: Some(1),
                id_tag: "T".into(),
                meter_start: Some(5),
                started_at: None,
            }],
            ..Station::default()
        };
        assert_eq!(
            serde_json::to_value(&station).unwrap(),
            json!({
                "id": "S",
                "connected": true,
                "connected_since": null,
                "protocol": null,
                "last_seen_at": null,
                "vendor": "ACME",
                "model": null,
                "serial_number": null,
                "firmware_version": null,
                "last_boot_at": null,
                "boot_status": null,
                "registration": {
                    "security_profile": 2,
                    "has_password": true,
                    "boot_policy": "Pending",
                    "created_at": null,
                    "updated_at": null,
                },
                "connectors": [{
                    "connector_id": 1,
                    "status": "Charging",
                    "error_code": "NoError",
                    "updated_at": null,
                }],
                "open_transactions": [{
                    "transaction_id": 42,
                    "connector_id": 1,
                    "id_tag": "T",
                    "meter_start": 5,
                    "started_at": null,
                }],
            })
        );
        assert_eq!(
            station.cells(),
            [
                "S",
                "yes",
                "Pending",
                "2",
                "ACME",
                "-",
                "-",
                "1:Charging",
                "1"
            ]
        );
    }
}

//! Stations, their connectors and open transactions.

use pipelet_proto::v1;
use serde::Serialize;

use super::{or_dash, time::Time, yes_no};
use crate::{
    output::{Describe, Row},
    table::{self, Details},
};

#[derive(Debug, Serialize)]
pub(crate) struct Station {
    id: String,
    connected: bool,
    connected_since: Option<Time>,
    protocol: Option<String>,
    last_seen_at: Option<Time>,
    vendor: Option<String>,
    model: Option<String>,
    serial_number: Option<String>,
    firmware_version: Option<String>,
    last_boot_at: Option<Time>,
    boot_status: Option<String>,
    registration: Option<Registration>,
    connectors: Vec<Connector>,
    open_transactions: Vec<OpenTransaction>,
}

#[derive(Debug, Serialize)]
struct Registration {
    security_profile: Option<u32>,
    has_password: bool,
    boot_policy: String,
    created_at: Option<Time>,
    updated_at: Option<Time>,
}

#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the fields are the keys of REST")]
struct Connector {
    connector_id: u32,
    status: String,
    error_code: String,
    updated_at: Option<Time>,
}

#[derive(Debug, Serialize)]
struct OpenTransaction {
    transaction_id: i64,
    connector_id: Option<u32>,
    id_tag: String,
    meter_start: Option<i64>,
    started_at: Option<Time>,
}

impl From<v1::Station> for Station {
    fn from(wire: v1::Station) -> Self {
        Self {
            id: wire.id,
            connected: wire.connected,
            connected_since: Time::from_wire(wire.connected_since),
            protocol: wire.protocol,
            last_seen_at: Time::from_wire(wire.last_seen_at),
            vendor: wire.vendor,
            model: wire.model,
            serial_number: wire.serial_number,
            firmware_version: wire.firmware_version,
            last_boot_at: Time::from_wire(wire.last_boot_at),
            boot_status: wire.boot_status,
            registration: wire.registration.map(Registration::from),
            connectors: wire.connectors.into_iter().map(Connector::from).collect(),
            open_transactions: wire
                .open_transactions
                .into_iter()
                .map(OpenTransaction::from)
                .collect(),
        }
    }
}

impl From<v1::Registration> for Registration {
    fn from(wire: v1::Registration) -> Self {
        Self {
            security_profile: wire.security_profile,
            has_password: wire.has_password,
            boot_policy: wire.boot_policy,
            created_at: Time::from_wire(wire.created_at),
            updated_at: Time::from_wire(wire.updated_at),
        }
    }
}

impl Station {
    /// How the boot of a registered station is answered.
    fn boot_policy(&self) -> String {
        or_dash(self.registration.as_ref().map(|entry| &entry.boot_policy))
    }

    fn profile(&self) -> String {
        let entry = self.registration.as_ref();
        or_dash(entry.and_then(|entry| entry.security_profile))
    }
}

impl From<v1::Connector> for Connector {
    fn from(wire: v1::Connector) -> Self {
        Self {
            connector_id: wire.connector_id,
            status: wire.status,
            error_code: wire.error_code,
            updated_at: Time::from_wire(wire.updated_at),
        }
    }
}

impl From<v1::OpenTransaction> for OpenTransaction {
    fn from(wire: v1::OpenTransaction) -> Self {
        Self {
            transaction_id: wire.transaction_id,
            connector_id: wire.connector_id,
            id_tag: wire.id_tag,
            meter_start: wire.meter_start,
            started_at: Time::from_wire(wire.started_at),
        }
    }
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
            self.boot_policy(),
            self.profile(),
            or_dash(self.vendor.as_ref()),
            or_dash(self.model.as_ref()),
            or_dash(self.last_seen_at),
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
            .line("connected since", or_dash(self.connected_since))
            .line("protocol", or_dash(self.protocol.as_ref()))
            .line("last seen", or_dash(self.last_seen_at))
            .line("vendor", or_dash(self.vendor.as_ref()))
            .line("model", or_dash(self.model.as_ref()))
            .line("serial number", or_dash(self.serial_number.as_ref()))
            .line("firmware", or_dash(self.firmware_version.as_ref()))
            .line("last boot", or_dash(self.last_boot_at))
            .line("boot status", or_dash(self.boot_status.as_ref()))
            .line("registered", yes_no(self.registration.is_some()))
            .line("boot policy", self.boot_policy())
            .line("security profile", self.profile())
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
                or_dash(connector.updated_at),
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
                or_dash(transaction.started_at),
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
        table::columns(headers, rows)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_station_has_the_keys_of_rest() {
        let station = Station::from(v1::Station {
            id: "S".into(),
            connected: true,
            vendor: Some("ACME".into()),
            registration: Some(v1::Registration {
                security_profile: Some(2),
                has_password: true,
                boot_policy: "Pending".into(),
                ..v1::Registration::default()
            }),
            connectors: vec![v1::Connector {
                connector_id: 1,
                status: "Charging".into(),
                error_code: "NoError".into(),
                updated_at: None,
            }],
            open_transactions: vec![v1::OpenTransaction {
                transaction_id: 42,
                connector_id: Some(1),
                id_tag: "T".into(),
                meter_start: Some(5),
                started_at: None,
            }],
            ..v1::Station::default()
        });
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

//! A realistic payload of each event type, for tests of a receiver.

use jiff::Timestamp;

use super::EventType;

/// The payload as JSON text, its times being `now`.
pub fn sample_payload(kind: EventType, now: Timestamp) -> String {
    // Nothing in the templates but the placeholder looks like it.
    template(kind).replace("@now", &format!("{now:.0}"))
}

const fn template(kind: EventType) -> &'static str {
    match kind {
        EventType::Authorize => r#"{"idTag":"RFID_12345678"}"#,
        EventType::BootNotification => {
            r#"{"chargePointVendor":"Pipelet","chargePointModel":"Synthetic","chargePointSerialNumber":"TEST-0001","firmwareVersion":"1.0.0"}"#
        }
        EventType::Heartbeat | EventType::ClearCache | EventType::GetLocalListVersion => "{}",
        EventType::StartTransaction => {
            r#"{"connectorId":1,"idTag":"RFID_12345678","meterStart":12345,"timestamp":"@now","transactionId":42}"#
        }
        EventType::StopTransaction => {
            r#"{"idTag":"RFID_12345678","meterStop":23456,"reason":"Local","timestamp":"@now","transactionId":42}"#
        }
        EventType::StatusNotification => {
            r#"{"connectorId":1,"errorCode":"NoError","status":"Available","timestamp":"@now"}"#
        }
        EventType::MeterValues => {
            r#"{"connectorId":1,"transactionId":42,"meterValue":[{"timestamp":"@now","sampledValue":[{"value":"12845","context":"Sample.Periodic","measurand":"Energy.Active.Import.Register","unit":"Wh"},{"value":"7.4","measurand":"Power.Active.Import","unit":"kW"}]}]}"#
        }
        EventType::DataTransfer => {
            r#"{"vendorId":"com.example","messageId":"test","data":"synthetic"}"#
        }
        EventType::ChangeAvailability => r#"{"connectorId":1,"type":"Operative"}"#,
        EventType::ChangeConfiguration => r#"{"key":"HeartbeatInterval","value":"300"}"#,
        EventType::GetConfiguration => r#"{"key":["HeartbeatInterval"]}"#,
        EventType::RemoteStartTransaction => r#"{"connectorId":1,"idTag":"RFID_12345678"}"#,
        EventType::RemoteStopTransaction => r#"{"transactionId":42}"#,
        EventType::Reset => r#"{"type":"Soft"}"#,
        EventType::UnlockConnector => r#"{"connectorId":1}"#,
        EventType::GetDiagnostics => r#"{"location":"ftp://files.example.com/diagnostics"}"#,
        EventType::UpdateFirmware => {
            r#"{"location":"https://files.example.com/firmware.bin","retrieveDate":"@now"}"#
        }
        EventType::TriggerMessage => r#"{"requestedMessage":"StatusNotification","connectorId":1}"#,
        EventType::ReserveNow => {
            r#"{"connectorId":1,"expiryDate":"@now","idTag":"RFID_12345678","reservationId":7}"#
        }
        EventType::SendLocalList => {
            r#"{"listVersion":1,"localAuthorizationList":[{"idTag":"RFID_12345678","idTagInfo":{"status":"Accepted"}}],"updateType":"Full"}"#
        }
        EventType::DiagnosticsStatusNotification => r#"{"status":"Uploaded"}"#,
        EventType::FirmwareStatusNotification => r#"{"status":"Installed"}"#,
        EventType::CancelReservation => r#"{"reservationId":7}"#,
        EventType::ClearChargingProfile => r#"{"id":3}"#,
        EventType::GetCompositeSchedule => r#"{"connectorId":1,"duration":3600}"#,
        EventType::SetChargingProfile => {
            r#"{"connectorId":1,"csChargingProfiles":{"chargingProfileId":3,"stackLevel":0,"chargingProfilePurpose":"TxDefaultProfile","chargingProfileKind":"Absolute","chargingSchedule":{"chargingRateUnit":"A","chargingSchedulePeriod":[{"startPeriod":0,"limit":16.0}]}}}"#
        }
        EventType::SecurityEventNotification => {
            r#"{"type":"StartupOfTheDevice","timestamp":"@now"}"#
        }
        EventType::LogStatusNotification => r#"{"status":"Uploaded","requestId":9}"#,
        EventType::SignedFirmwareStatusNotification => r#"{"status":"Installed","requestId":9}"#,
        EventType::SignCertificate => {
            r#"{"csr":"-----BEGIN CERTIFICATE REQUEST-----\nsynthetic\n-----END CERTIFICATE REQUEST-----"}"#
        }
        EventType::CertificateSigned => {
            r#"{"certificateChain":"-----BEGIN CERTIFICATE-----\nsynthetic\n-----END CERTIFICATE-----"}"#
        }
        EventType::DeleteCertificate => {
            r#"{"certificateHashData":{"hashAlgorithm":"SHA256","issuerNameHash":"00","issuerKeyHash":"00","serialNumber":"01"}}"#
        }
        EventType::ExtendedTriggerMessage => r#"{"requestedMessage":"Heartbeat"}"#,
        EventType::GetInstalledCertificateIds => {
            r#"{"certificateType":"CentralSystemRootCertificate"}"#
        }
        EventType::GetLog => {
            r#"{"logType":"DiagnosticsLog","requestId":9,"log":{"remoteLocation":"https://files.example.com/logs"}}"#
        }
        EventType::InstallCertificate => {
            r#"{"certificateType":"CentralSystemRootCertificate","certificate":"-----BEGIN CERTIFICATE-----\nsynthetic\n-----END CERTIFICATE-----"}"#
        }
        EventType::SignedUpdateFirmware => {
            r#"{"requestId":9,"firmware":{"location":"https://files.example.com/firmware.bin","retrieveDateTime":"@now","signingCertificate":"synthetic","signature":"synthetic"}}"#
        }
        EventType::StationConnected => {
            r#"{"remoteAddress":"192.0.2.7:50123","subprotocol":"ocpp1.6","securityProfile":0}"#
        }
        EventType::StationDisconnected => r#"{"reason":"closed by the station","duration":3600}"#,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Payload;

    #[test]
    fn every_sample_is_an_object() {
        for kind in EventType::ALL {
            let sample = sample_payload(*kind, Timestamp::UNIX_EPOCH);
            assert!(
                Payload::parse(sample.as_bytes()).is_ok(),
                "{kind}: {sample}"
            );
            assert!(!sample.contains('@'), "{kind}: {sample}");
        }
    }
}

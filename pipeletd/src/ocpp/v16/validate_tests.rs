use pipelet_domain::events::Direction;

use super::*;

#[track_caller]
fn check(action: EventType, payload: &str, expected: &[(&str, ErrorCode)]) {
    let payload = Payload::parse(payload.as_bytes()).unwrap();
    let found = validate(action, &payload);
    let found: Vec<_> = found
        .iter()
        .map(|fault| (fault.pointer.as_str(), fault.code))
        .collect();
    assert_eq!(found, expected, "{action}");
}

/// A request with everything that the standard allows in it, for each action.
pub(crate) const COMPLETE: &[(EventType, &str)] = &[
    (EventType::Authorize, r#"{"idTag":"12345678901234567890"}"#),
    (
        EventType::BootNotification,
        r#"{"chargePointVendor":"V","chargePointModel":"M","chargePointSerialNumber":"1","chargeBoxSerialNumber":"2","firmwareVersion":"3","iccid":"4","imsi":"5","meterType":"6","meterSerialNumber":"7"}"#,
    ),
    (EventType::CancelReservation, r#"{"reservationId":1}"#),
    (
        EventType::CertificateSigned,
        r#"{"certificateChain":"PEM"}"#,
    ),
    (
        EventType::ChangeAvailability,
        r#"{"connectorId":0,"type":"Operative"}"#,
    ),
    (
        EventType::ChangeConfiguration,
        r#"{"key":"HeartbeatInterval","value":"60"}"#,
    ),
    (EventType::ClearCache, "{}"),
    (
        EventType::ClearChargingProfile,
        r#"{"id":1,"connectorId":1,"chargingProfilePurpose":"TxProfile","stackLevel":0}"#,
    ),
    (
        EventType::DataTransfer,
        r#"{"vendorId":"V","messageId":"M","data":"{\"any\":\"text\"}"}"#,
    ),
    (
        EventType::DeleteCertificate,
        r#"{"certificateHashData":{"hashAlgorithm":"SHA256","issuerNameHash":"a","issuerKeyHash":"b","serialNumber":"c"}}"#,
    ),
    (
        EventType::DiagnosticsStatusNotification,
        r#"{"status":"Uploading"}"#,
    ),
    (
        EventType::ExtendedTriggerMessage,
        r#"{"requestedMessage":"SignChargePointCertificate","connectorId":1}"#,
    ),
    (
        EventType::FirmwareStatusNotification,
        r#"{"status":"Installed"}"#,
    ),
    (
        EventType::GetCompositeSchedule,
        r#"{"connectorId":1,"duration":60,"chargingRateUnit":"A"}"#,
    ),
    (EventType::GetConfiguration, r#"{"key":["a","b"]}"#),
    (
        EventType::GetDiagnostics,
        r#"{"location":"ftp://h/p","retries":1,"retryInterval":2,"startTime":"2026-04-14T12:34:56Z","stopTime":"2026-04-14T12:34:56+02:00"}"#,
    ),
    (
        EventType::GetInstalledCertificateIds,
        r#"{"certificateType":"ManufacturerRootCertificate"}"#,
    ),
    (EventType::GetLocalListVersion, "{}"),
    (
        EventType::GetLog,
        r#"{"logType":"SecurityLog","requestId":1,"retries":1,"retryInterval":1,"log":{"remoteLocation":"ftp://h","oldestTimestamp":"2026-04-14T12:34:56Z","latestTimestamp":"2026-04-14T12:34:56Z"}}"#,
    ),
    (EventType::Heartbeat, "{}"),
    (
        EventType::InstallCertificate,
        r#"{"certificateType":"CentralSystemRootCertificate","certificate":"PEM"}"#,
    ),
    (
        EventType::LogStatusNotification,
        r#"{"status":"Uploaded","requestId":1}"#,
    ),
    (
        EventType::MeterValues,
        r#"{"connectorId":1,"transactionId":2,"meterValue":[{"timestamp":"2026-04-14T12:34:56.123Z","sampledValue":[{"value":"1","context":"Sample.Periodic","format":"Raw","measurand":"Energy.Active.Import.Register","phase":"L1-N","location":"Outlet","unit":"kWh"}]}]}"#,
    ),
    (
        EventType::RemoteStartTransaction,
        r#"{"connectorId":1,"idTag":"A","chargingProfile":{"chargingProfileId":1,"transactionId":2,"stackLevel":0,"chargingProfilePurpose":"TxProfile","chargingProfileKind":"Recurring","recurrencyKind":"Daily","validFrom":"2026-04-14T12:34:56Z","validTo":"2026-04-15T12:34:56Z","chargingSchedule":{"duration":60,"startSchedule":"2026-04-14T12:34:56Z","chargingRateUnit":"A","chargingSchedulePeriod":[{"startPeriod":0,"limit":16.3,"numberPhases":3}],"minChargingRate":6.0}}}"#,
    ),
    (EventType::RemoteStopTransaction, r#"{"transactionId":1}"#),
    (
        EventType::ReserveNow,
        r#"{"connectorId":1,"expiryDate":"2026-04-14T12:34:56Z","idTag":"A","parentIdTag":"B","reservationId":1}"#,
    ),
    (EventType::Reset, r#"{"type":"Soft"}"#),
    (
        EventType::SecurityEventNotification,
        r#"{"type":"FirmwareUpdated","timestamp":"2026-04-14T12:34:56Z","techInfo":"x"}"#,
    ),
    (
        EventType::SendLocalList,
        r#"{"listVersion":1,"updateType":"Full","localAuthorizationList":[{"idTag":"A","idTagInfo":{"status":"Accepted","expiryDate":"2026-04-14T12:34:56Z","parentIdTag":"P"}},{"idTag":"B"}]}"#,
    ),
    (
        EventType::SetChargingProfile,
        r#"{"connectorId":1,"csChargingProfiles":{"chargingProfileId":1,"stackLevel":0,"chargingProfilePurpose":"TxDefaultProfile","chargingProfileKind":"Absolute","chargingSchedule":{"chargingRateUnit":"W","chargingSchedulePeriod":[{"startPeriod":0,"limit":11000}]}}}"#,
    ),
    (EventType::SignCertificate, r#"{"csr":"PEM"}"#),
    (
        EventType::SignedFirmwareStatusNotification,
        r#"{"status":"SignatureVerified","requestId":1}"#,
    ),
    (
        EventType::SignedUpdateFirmware,
        r#"{"retries":1,"retryInterval":1,"requestId":1,"firmware":{"location":"https://h","retrieveDateTime":"2026-04-14T12:34:56Z","installDateTime":"2026-04-14T12:34:56Z","signingCertificate":"PEM","signature":"s"}}"#,
    ),
    (
        EventType::StartTransaction,
        r#"{"connectorId":1,"idTag":"A","meterStart":0,"reservationId":1,"timestamp":"2026-04-14T12:34:56Z"}"#,
    ),
    (
        EventType::StatusNotification,
        r#"{"connectorId":1,"errorCode":"NoError","info":"i","status":"SuspendedEV","timestamp":"2026-04-14T12:34:56Z","vendorId":"V","vendorErrorCode":"0"}"#,
    ),
    (
        EventType::StopTransaction,
        r#"{"idTag":"A","meterStop":1,"timestamp":"2026-04-14T12:34:56Z","transactionId":1,"reason":"EVDisconnected","transactionData":[{"timestamp":"2026-04-14T12:34:56Z","sampledValue":[{"value":"1"}]}]}"#,
    ),
    (
        EventType::TriggerMessage,
        r#"{"requestedMessage":"MeterValues","connectorId":1}"#,
    ),
    (EventType::UnlockConnector, r#"{"connectorId":1}"#),
    (
        EventType::UpdateFirmware,
        r#"{"location":"ftp://h/p","retries":1,"retrieveDate":"2026-04-14T12:34:56Z","retryInterval":1}"#,
    ),
];

#[test]
fn a_complete_request_of_each_action_passes() {
    for (action, payload) in COMPLETE {
        check(*action, payload, &[]);
    }
    let actions = EventType::ALL
        .iter()
        .filter(|kind| kind.direction() != Direction::Connection);
    for action in actions {
        assert!(
            COMPLETE.iter().any(|(covered, _)| covered == action),
            "{action} is not covered"
        );
    }
}

/// Every field of a complete request, when it is left out, is missed exactly if it is required;
/// and every one has a kind that a boolean is not.
#[test]
fn every_field_is_held_to_its_table() {
    for (action, payload) in COMPLETE {
        let whole: Map<String, Value> = serde_json::from_str(payload).unwrap();
        let fields = tables::request(*action).unwrap();
        for field in fields {
            let pointer = format!("/{}", field.name);
            let mut without = whole.clone();
            let present = without.remove(field.name).is_some();
            assert!(
                present || !field.required,
                "{action}: {pointer} is not tried"
            );
            let missing = [(pointer.as_str(), ErrorCode::OccurrenceConstraintViolation)];
            check(
                *action,
                &Value::Object(without).to_string(),
                if field.required { &missing } else { &[] },
            );

            let mut odd = whole.clone();
            odd.insert(field.name.to_owned(), Value::Bool(true));
            let wrong = [(pointer.as_str(), ErrorCode::TypeConstraintViolation)];
            check(*action, &Value::Object(odd).to_string(), &wrong);
        }
    }
}

#[test]
fn what_can_not_be_read_is_told_with_its_reason() {
    for (payload, reason) in [
        (r#"{"idTag":"\udc00"}"#, "surrogate"),
        (r#"{"idTag":1e400}"#, "out of range"),
    ] {
        let payload = Payload::parse(payload.as_bytes()).unwrap();
        let [fault] = validate(EventType::Authorize, &payload).try_into().unwrap();
        assert!(fault.message.contains(reason), "{}", fault.message);
    }
}

#[test]
fn all_faults_are_told() {
    use ErrorCode::{
        FormationViolation as Formation, OccurrenceConstraintViolation as Occurrence,
        PropertyConstraintViolation as Property, TypeConstraintViolation as Type,
    };
    check(
        EventType::StartTransaction,
        r#"{"connectorId":"1","idTag":"123456789012345678901","timestamp":"today","a/b~c":1}"#,
        &[
            ("/connectorId", Type),
            ("/idTag", Property),
            ("/meterStart", Occurrence),
            ("/timestamp", Property),
            ("/a~1b~0c", Formation),
        ],
    );
    check(
        EventType::MeterValues,
        r#"{"connectorId":1.5,"meterValue":[{"timestamp":"2026-04-14T12:34:56Z","sampledValue":[]},{"timestamp":"2026-04-14T12:34:56Z","sampledValue":[{"value":1,"unit":"Hz"}]},7]}"#,
        &[
            ("/connectorId", Type),
            ("/meterValue/0/sampledValue", Occurrence),
            ("/meterValue/1/sampledValue/0/value", Type),
            ("/meterValue/1/sampledValue/0/unit", Property),
            ("/meterValue/2", Type),
        ],
    );
    check(
        EventType::StatusNotification,
        r#"{"connectorId":1,"errorCode":"Error","status":"available"}"#,
        &[("/errorCode", Property), ("/status", Property)],
    );
    check(
        EventType::SetChargingProfile,
        r#"{"connectorId":1,"csChargingProfiles":{"chargingProfileId":1,"stackLevel":0,"chargingProfilePurpose":"TxProfile","chargingProfileKind":"Absolute","chargingSchedule":{"chargingRateUnit":"A","chargingSchedulePeriod":[{"startPeriod":0,"limit":16.25}]}}}"#,
        &[(
            "/csChargingProfiles/chargingSchedule/chargingSchedulePeriod/0/limit",
            Property,
        )],
    );
    check(
        EventType::GetDiagnostics,
        r#"{"location":"not a uri"}"#,
        &[("/location", Property)],
    );
    check(EventType::StationConnected, r#"{"any":1}"#, &[]);
}

#[test]
fn the_list_of_faults_is_bounded() {
    let many: Map<String, Value> = (0..1000).map(|n| (n.to_string(), Value::Null)).collect();
    let payload = Payload::parse(Value::Object(many).to_string().as_bytes()).unwrap();
    assert_eq!(validate(EventType::Heartbeat, &payload).len(), 64);
}

proptest::proptest! {
    /// Whatever a broken charger makes of a valid frame, nothing panics.
    #[test]
    fn mutated_frames_never_panic(
        which in 0..COMPLETE.len(),
        edits in proptest::collection::vec((proptest::num::usize::ANY, proptest::char::any(), 0..3u8), 0..8),
    ) {
        let (action, payload) = COMPLETE[which];
        let mut frame: Vec<char> = format!(r#"[2,"id","{action}",{payload}]"#).chars().collect();
        for (at, with, edit) in edits {
            let at = at % frame.len().max(1);
            match edit {
                0 => frame.insert(at, with),
                1 if at < frame.len() => { frame.remove(at); }
                _ if at < frame.len() => frame[at] = with,
                _ => {}
            }
        }
        let text: String = frame.into_iter().collect();
        if let Ok(crate::ocpp::wire::Frame::Call(call)) = crate::ocpp::wire::parse(&text) {
            for kind in EventType::ALL {
                validate(*kind, &call.payload);
            }
        }
    }
}

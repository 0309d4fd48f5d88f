//! What a station's CALL is answered with, and what of it becomes an event.
//!
//! Pure: all that the decision depends on comes as values, and its outcome is a value. Unless
//! strictness is asked for, no content of a payload prevents an answer: a CALLERROR would make
//! the station drop the message, and billing data with it.

use std::{fmt::Write as _, time::Duration};

use jiff::Timestamp;
use pipelet_domain::{
    events::{AuthorizationStatus, Direction, EventType, Payload},
    id_tags::IdTagInfo,
    projection::BootStatus,
};

use super::{v16, wire::ErrorCode};

/// A CALL that gets a CALLERROR.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub code: ErrorCode,
    pub description: String,
}

/// Which of the station's messages this is.
pub(super) fn recognise(action: &str) -> Result<EventType, Refusal> {
    let refusal = |code, why| Refusal {
        code,
        description: format!("{:?} {why}", &action[..action.floor_char_boundary(64)]),
    };
    let kind: EventType = action
        .parse()
        .map_err(|_| refusal(ErrorCode::NotImplemented, "is not a known action"))?;
    match kind.direction() {
        Direction::StationToCsms | Direction::Both => Ok(kind),
        Direction::CsmsToStation => Err(refusal(
            ErrorCode::NotSupported,
            "is sent by the central system only",
        )),
        Direction::Connection => Err(refusal(ErrorCode::NotImplemented, "is not a known action")),
    }
}

/// A station that its operator keeps out may boot, and nothing else (OCPP 1.6, section 4.2).
///
/// The policy holds from the next message on, and so does its end: a station that is accepted at
/// last need not boot again to be heard.
pub(super) fn refuse_unaccepted(kind: EventType, policy: BootStatus) -> Result<(), Refusal> {
    let why = match policy {
        BootStatus::Accepted => return Ok(()),
        BootStatus::Pending => "the station is not accepted yet",
        BootStatus::Rejected => "the station is rejected",
    };
    if kind == EventType::BootNotification {
        return Ok(());
    }
    Err(Refusal {
        code: ErrorCode::SecurityError,
        description: why.to_owned(),
    })
}

/// What strictness holds against a CALL: a station that has not booted, or the payload's first
/// fault.
pub(super) fn refuse_strictly(
    kind: EventType,
    boot_status: Option<BootStatus>,
    violations: &[v16::Violation],
) -> Result<(), Refusal> {
    if kind != EventType::BootNotification && boot_status != Some(BootStatus::Accepted) {
        return Err(Refusal {
            code: ErrorCode::SecurityError,
            description: "send a BootNotification first".to_owned(),
        });
    }
    let Some(first) = violations.first() else {
        return Ok(());
    };
    let mut description = String::new();
    for violation in violations {
        let separator = if description.is_empty() { "" } else { "; " };
        let _ = write!(
            description,
            "{separator}{} {}",
            violation.pointer, violation.message
        );
    }
    Err(Refusal {
        code: first.code,
        description,
    })
}

/// The answer to a `BootNotification`. Until a station is accepted, the interval tells when to
/// boot again.
pub(super) fn boot_answer(status: BootStatus, now: Timestamp, interval: Duration) -> String {
    format!(
        r#"{{"currentTime":"{now:.3}","interval":{},"status":"{}"}}"#,
        interval.as_secs(),
        status.name(),
    )
}

/// The CALLRESULT's payload. `transaction_id` is what a `StartTransaction` is answered with, and
/// `tag` the verdict on the id tag, where the message asks about one.
pub(super) fn answer(
    kind: EventType,
    now: Timestamp,
    heartbeat_interval: Duration,
    transaction_id: Option<i64>,
    tag: Option<&IdTagInfo>,
) -> String {
    match kind {
        EventType::Authorize => format!(r#"{{"idTagInfo":{}}}"#, id_tag_info(tag)),
        EventType::BootNotification => {
            boot_answer(BootStatus::Accepted, now, heartbeat_interval)
        }
        EventType::DataTransfer => r#"{"status":"Accepted"}"#.to_owned(),
        EventType::Heartbeat => format!(r#"{{"currentTime":"{now:.3}"}}"#),
        EventType::SignCertificate => r#"{"status":"Rejected"}"#.to_owned(),
        EventType::StartTransaction => format!(
            r#"{{"idTagInfo":{},"transactionId":{}}}"#,
            id_tag_info(tag),
            transaction_id.unwrap_or(0),
        ),
        EventType::StopTransaction if tag.is_some() => {
            format!(r#"{{"idTagInfo":{}}}"#, id_tag_info(tag))
        }
        EventType::StopTransaction
        | EventType::MeterValues
        | EventType::StatusNotification
        | EventType::DiagnosticsStatusNotification
        | EventType::FirmwareStatusNotification
        | EventType::SecurityEventNotification
        | EventType::LogStatusNotification
        | EventType::SignedFirmwareStatusNotification
        // `recognise` lets nothing of what follows come here.
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
        | EventType::SignedUpdateFirmware
        | EventType::StationConnected
        | EventType::StationDisconnected => "{}".to_owned(),
    }
}

/// OCPP 1.6, section 7.27. Where nobody asked there is nothing against the tag.
fn id_tag_info(tag: Option<&IdTagInfo>) -> String {
    let status = tag.map_or(AuthorizationStatus::Accepted, |tag| tag.status);
    let mut info = serde_json::json!({ "status": status.name() });
    if let Some(expiry) = tag.and_then(|tag| tag.expiry_date) {
        info["expiryDate"] = format!("{expiry:.3}").into();
    }
    if let Some(parent) = tag.and_then(|tag| tag.parent_id_tag.as_ref()) {
        info["parentIdTag"] = parent.as_str().into();
    }
    info.to_string()
}

/// The event's payload: what the station sent, and the id that its transaction got.
pub(super) fn event_payload(payload: Payload, transaction_id: Option<i64>) -> Payload {
    match transaction_id {
        Some(id) => payload.with_number("transactionId", id),
        None => payload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipelet_domain::id_tags::IdTag;

    #[test]
    fn actions_are_recognised() {
        let check = |action: &str, expected: Result<EventType, ErrorCode>| {
            assert_eq!(recognise(action).map_err(|r| r.code), expected, "{action}");
        };
        check("Heartbeat", Ok(EventType::Heartbeat));
        check("DataTransfer", Ok(EventType::DataTransfer));
        check("SignCertificate", Ok(EventType::SignCertificate));
        check("heartbeat", Err(ErrorCode::NotImplemented));
        check("TransactionEvent", Err(ErrorCode::NotImplemented));
        check("StationConnected", Err(ErrorCode::NotImplemented));
        check("Reset", Err(ErrorCode::NotSupported));
    }

    #[test]
    fn every_message_of_a_station_is_answered() {
        let now: Timestamp = "2026-04-14T12:34:56Z".parse().unwrap();
        let check_tag = |kind, tag: Option<&IdTagInfo>, expected: &str| {
            let answer = answer(kind, now, Duration::from_mins(5), Some(42), tag);
            assert_eq!(answer, expected, "{kind}");
        };
        let check = |kind, expected| check_tag(kind, None, expected);
        let known = IdTagInfo::of(AuthorizationStatus::Accepted);
        let accepted = r#"{"idTagInfo":{"status":"Accepted"}}"#;
        let started = r#"{"idTagInfo":{"status":"Accepted"},"transactionId":42}"#;
        check(
            EventType::BootNotification,
            r#"{"currentTime":"2026-04-14T12:34:56.000Z","interval":300,"status":"Accepted"}"#,
        );
        check(
            EventType::Heartbeat,
            r#"{"currentTime":"2026-04-14T12:34:56.000Z"}"#,
        );
        check_tag(EventType::Authorize, Some(&known), accepted);
        check_tag(EventType::StartTransaction, Some(&known), started);
        check(EventType::StopTransaction, "{}");
        check_tag(EventType::StopTransaction, Some(&known), accepted);
        check(EventType::MeterValues, "{}");
        check(EventType::StatusNotification, "{}");
        check(EventType::DataTransfer, r#"{"status":"Accepted"}"#);
        check(EventType::SignCertificate, r#"{"status":"Rejected"}"#);
        check(EventType::SecurityEventNotification, "{}");
        let rejected = IdTagInfo {
            status: AuthorizationStatus::Expired,
            expiry_date: Some(now),
            parent_id_tag: IdTag::new("P\"").ok(),
        };
        check_tag(
            EventType::StartTransaction,
            Some(&rejected),
            r#"{"idTagInfo":{"expiryDate":"2026-04-14T12:34:56.000Z","parentIdTag":"P\"","status":"Expired"},"transactionId":42}"#,
        );
    }

    #[test]
    fn a_station_that_is_kept_out_may_only_boot() {
        let check = |kind, policy, expected: Result<(), ErrorCode>| {
            let refused = refuse_unaccepted(kind, policy);
            assert_eq!(refused.map_err(|refusal| refusal.code), expected);
        };
        for policy in [BootStatus::Pending, BootStatus::Rejected] {
            check(EventType::BootNotification, policy, Ok(()));
            let refused = Err(ErrorCode::SecurityError);
            check(EventType::StopTransaction, policy, refused);
            check(EventType::Heartbeat, policy, refused);
        }
        check(EventType::Heartbeat, BootStatus::Accepted, Ok(()));
    }

    #[test]
    fn strictness_wants_a_boot_and_a_valid_payload() {
        let check = |kind, boot_status, payload: &str, expected: Result<(), ErrorCode>| {
            let payload = Payload::parse(payload.as_bytes()).unwrap();
            let refused = refuse_strictly(kind, boot_status, &v16::validate(kind, &payload));
            assert_eq!(refused.map_err(|refusal| refusal.code), expected);
        };
        let accepted = Some(BootStatus::Accepted);
        check(EventType::Heartbeat, accepted, "{}", Ok(()));
        check(
            EventType::Heartbeat,
            None,
            "{}",
            Err(ErrorCode::SecurityError),
        );
        check(
            EventType::Heartbeat,
            Some(BootStatus::Pending),
            "{}",
            Err(ErrorCode::SecurityError),
        );
        check(
            EventType::BootNotification,
            None,
            r#"{"chargePointVendor":"V","chargePointModel":"M"}"#,
            Ok(()),
        );
        check(
            EventType::Authorize,
            accepted,
            "{}",
            Err(ErrorCode::OccurrenceConstraintViolation),
        );
    }

    #[test]
    fn only_a_transactions_id_is_added_to_an_event() {
        let payload = Payload::parse(b"{ \"idTag\" : \"A\" }").unwrap();
        assert_eq!(event_payload(payload.clone(), None), payload);
        assert_eq!(
            event_payload(payload, Some(42)).as_bytes(),
            b"{ \"idTag\" : \"A\" ,\"transactionId\":42}"
        );
    }
}

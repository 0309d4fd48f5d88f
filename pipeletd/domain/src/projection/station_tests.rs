use super::*;
use crate::{
    events::{EventId, Payload},
    projection::{Arrival, Repeat},
};

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn event_at(at: &str, kind: EventType, message_id: &str, payload: &str) -> Event {
    Event::new(
        EventId::new(time(at), [0; 10]),
        kind,
        StationId::new("CP1").unwrap(),
        time(at),
        Some(message_id.into()),
        Payload::parse(payload.as_bytes()).unwrap(),
    )
}

fn event(kind: EventType, message_id: &str, payload: &str) -> Event {
    event_at("2026-04-14T12:00:00Z", kind, message_id, payload)
}

fn station(events: &[Event]) -> StationState {
    let mut state = StationState::new(StationId::new("CP1").unwrap());
    for (seq, event) in (0..).zip(events) {
        state.apply(Seq(seq), event);
    }
    state
}

const START: &str =
    r#"{"connectorId":1,"idTag":"A","meterStart":7,"timestamp":"2026-04-14T11:59:00+02:00"}"#;

fn start_event(message_id: &str, transaction_id: i64) -> Event {
    let mut event = event(EventType::StartTransaction, message_id, START);
    event.payload = event.payload.with_number("transactionId", transaction_id);
    event
}

#[test]
fn a_charging_session_is_folded() {
    let mut state = station(&[
        event(
            EventType::BootNotification,
            "1",
            r#"{"chargePointVendor":"V","chargePointModel":"M","chargeBoxSerialNumber":"S"}"#,
        ),
        event(
            EventType::StatusNotification,
            "2",
            r#"{"connectorId":1,"status":"Charging","errorCode":"NoError"}"#,
        ),
        start_event("3", 42),
    ]);
    assert_eq!(state.vendor.as_deref(), Some("V"));
    assert_eq!(state.serial_number.as_deref(), Some("S"));
    assert_eq!(state.boot_status, Some(BootStatus::Accepted));
    assert_eq!(state.connectors[&1].status, "Charging");
    assert_eq!(
        state.open_transactions,
        [OpenTransaction {
            transaction_id: 42,
            connector_id: Some(1),
            id_tag: "A".to_owned(),
            meter_start: Some(7),
            timestamp: "2026-04-14T11:59:00+02:00".to_owned(),
            started_at: Some(time("2026-04-14T09:59:00Z")),
        }]
    );

    let stop = event(EventType::StopTransaction, "4", r#"{"transactionId":42}"#);
    assert!(state.apply(Seq(3), &stop));
    assert_eq!(state.open_transactions, []);
}

#[test]
fn an_event_counts_once() {
    let mut state = station(&[start_event("1", 42)]);
    let before = state.clone();
    assert!(!state.apply(Seq(0), &start_event("1", 43)));
    assert_eq!(state, before);
}

#[test]
fn heartbeats_are_worth_a_save_once_a_minute() {
    let mut state = station(&[]);
    let mut seq = Seq(0);
    let mut check = |at: &str, worth| {
        let heartbeat = event_at(at, EventType::Heartbeat, at, "{}");
        assert_eq!(state.apply(seq, &heartbeat), worth, "{at}");
        seq = seq.next();
    };
    check("2026-04-14T12:00:00Z", true);
    check("2026-04-14T12:00:30Z", false);
    check("2026-04-14T12:01:00Z", true);
}

#[test]
fn odd_payloads_change_what_they_can() {
    for kind in EventType::ALL {
        for payload in [
            "{}",
            r#"{"connectorId":"x","transactionId":[],"idTag":{}}"#,
            r#"{"connectorId":-1,"status":null,"timestamp":5}"#,
        ] {
            let state = station(&[event(*kind, "1", payload)]);
            assert_eq!(state.applied_through, Some(Seq(0)));
        }
    }
    let state = station(&[event(
        EventType::StartTransaction,
        "1",
        r#"{"transactionId":5}"#,
    )]);
    let open = &state.open_transactions[0];
    assert_eq!(open.transaction_id, 5);
    assert_eq!((open.connector_id, open.meter_start), (None, None));
    assert_eq!(open.started_at, None);
}

#[test]
fn lists_are_bounded() {
    let starts: Vec<Event> = (0..200)
        .map(|n| {
            let payload = START.replace("\"meterStart\":7", &format!("\"meterStart\":{n}"));
            let mut event = event(EventType::StartTransaction, "x", &payload);
            event.payload = event.payload.with_number("transactionId", n);
            event
        })
        .collect();
    let state = station(&starts);
    assert_eq!(state.open_transactions.len(), 64);
    assert_eq!(state.open_transactions[63].transaction_id, 199);
    assert_eq!(state.recent_starts.len(), 8);

    let long = format!(r#"{{"chargePointVendor":"{}"}}"#, "ä".repeat(300));
    let state = station(&[event(EventType::BootNotification, "1", &long)]);
    assert_eq!(state.vendor.unwrap().len(), 254);
}

#[test]
fn repeats_are_recognised() {
    let check = |events: &[Event], id: &str, kind, payload: &str, expected| {
        let payload = Payload::parse(payload.as_bytes()).unwrap();
        let found = station(events).repeat_of(id, kind, &payload, Arrival::First { follows: true });
        assert_eq!(found, expected, "{id} {kind}");
    };
    let repeat = |transaction_id| Some(Repeat { transaction_id });
    let meter = EventType::MeterValues;
    let start = EventType::StartTransaction;
    let stop = || event(EventType::StopTransaction, "2", r#"{"transactionId":42}"#);

    let last = [event(meter, "1", r#"{"a":1}"#)];
    check(&last, "1", meter, r#"{"a":1}"#, repeat(None));
    check(&last, "2", meter, r#"{"a":1}"#, None);
    check(&last, "1", meter, r#"{"a":2}"#, None);
    check(&last, "1", EventType::Authorize, r#"{"a":1}"#, None);
    // A charger that has started anew says the very same.
    for kind in [EventType::BootNotification, EventType::Heartbeat] {
        check(&[event(kind, "1", "{}")], "1", kind, "{}", None);
    }

    // Only the very last CALL counts ...
    let two = [event(meter, "1", "{}"), event(meter, "2", "{}")];
    check(&two, "1", meter, "{}", None);

    // ... but a transaction stays known under any message id, until its stop.
    let started = [start_event("1", 42)];
    check(&started, "1", start, START, repeat(Some(42)));
    check(&started, "9", start, START, repeat(Some(42)));
    check(&[start_event("1", 42), stop()], "9", start, START, None);
    // A retry comes after no other CALL, whether that became an event or not.
    let start_payload = Payload::parse(START.as_bytes()).unwrap();
    let status = Payload::empty();
    let notified = station(&[event(EventType::StatusNotification, "1", "{}")]);
    let found = notified.repeat_of(
        "1",
        EventType::StatusNotification,
        &status,
        Arrival::First { follows: false },
    );
    assert_eq!(found, None);
    let found = station(&started).repeat_of(
        "1",
        start,
        &start_payload,
        Arrival::First { follows: false },
    );
    assert_eq!(found, repeat(Some(42)), "it is the same transaction");
    // What another node sends again is the same, even where a station's would not be.
    let beating = station(&[event(EventType::Heartbeat, "1", "{}")]);
    let found = |arrival| beating.repeat_of("1", EventType::Heartbeat, &status, arrival);
    assert_eq!(found(Arrival::First { follows: true }), None);
    assert_eq!(found(Arrival::Again), repeat(None));
    check(&started, "9", start, &START.replace("\"A\"", "\"B\""), None);
    // Without a timestamp nothing says that it is the same one.
    let undated = r#"{"connectorId":1,"idTag":"A","meterStart":7}"#;
    let mut event = event(start, "1", undated);
    event.payload = event.payload.with_number("transactionId", 5);
    check(&[event.clone()], "2", start, undated, None);
    check(&[event], "1", start, undated, repeat(Some(5)));
}

#[test]
fn what_we_asked_is_no_call_of_the_stations() {
    let theirs = event(EventType::DataTransfer, "1", r#"{"vendorId":"V"}"#);
    let mut state = station(&[theirs]);
    let before = state.clone();
    let later = "2026-04-14T13:00:00Z";
    for kind in [EventType::DataTransfer, EventType::Reset] {
        let mut ours = event_at(later, kind, "", r#"{"vendorId":"V"}"#);
        ours.message_id = Some(ours.id.to_string().into());
        assert!(ours.is_from_csms());
        assert!(!state.apply(Seq(1), &ours));
        state.applied_through = before.applied_through;
        assert_eq!(state, before, "{kind}");
    }
}

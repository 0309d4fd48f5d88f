use super::*;
use crate::events::{EventId, EventType, Payload};

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn event(kind: EventType, payload: &str) -> Event {
    let now = time("2026-04-14T12:00:00Z");
    Event::new(
        EventId::new(now, [0; 10]),
        kind,
        StationId::new("CP1").unwrap(),
        now,
        None,
        Payload::parse(payload.as_bytes()).unwrap(),
    )
}

fn started(payload: &str) -> Option<Transaction> {
    Transaction::started(Seq(7), &event(EventType::StartTransaction, payload))
}

fn stop(payload: &str) -> Option<StopRequest> {
    StopRequest::of(&event(EventType::StopTransaction, payload))
}

fn reading(payload: &str) -> Option<(i64, MeterReading)> {
    MeterReading::of(&event(EventType::MeterValues, payload))
}

const START: &str = r#"{"connectorId":2,"idTag":"Rfid_1","meterStart":1000,
    "timestamp":"2026-04-14T11:00:00+02:00","transactionId":42}"#;

#[test]
fn a_transaction_from_start_to_stop() {
    let transaction = started(START).unwrap();
    assert_eq!(transaction.started_at, Some(time("2026-04-14T09:00:00Z")));
    assert_eq!(transaction.start_received_at, time("2026-04-14T12:00:00Z"));
    assert_eq!(transaction.connector_id, Some(2));
    assert_eq!(transaction.seq, Seq(7));
    assert!(transaction.is_open());
    assert_eq!(transaction.energy_wh(), None);

    let end = r#"{"transactionId":42,"meterStop":3500,"timestamp":"2026-04-14T11:00:00Z",
        "reason":"EVDisconnected","idTag":"RFID_1"}"#;
    let end = stop(end).unwrap();
    assert_eq!(end.transaction_id, 42);
    let stopped = transaction.stopped(end);
    assert_eq!(stopped.energy_wh(), Some(2500));
    assert!(stopped.notes.is_empty());
    let second = stop(r#"{"transactionId":42,"meterStop":9}"#).unwrap();
    assert_eq!(stopped.stopped(second), stopped, "the first stop counts");
    let end = stopped.stop.unwrap();
    assert_eq!(end.reason.as_deref(), Some("EVDisconnected"));
    assert_eq!(end.id_tag.as_deref(), Some("RFID_1"));
    assert_eq!(end.stopped_at, Some(time("2026-04-14T11:00:00Z")));
}

#[test]
fn what_a_station_left_out_is_missing() {
    assert_eq!(started(r#"{"idTag":"A"}"#), None);
    let bare = started(r#"{"transactionId":1}"#).unwrap();
    assert_eq!((bare.started_at, bare.connector_id), (None, None));
    assert_eq!(bare.meter_start, None);
    assert!(bare.notes.is_empty(), "nothing was written");
    let end = stop(r#"{"transactionId":1,"meterStop":5}"#).unwrap();
    assert_eq!(end.stop.reason.as_deref(), Some("Local"));
    assert_eq!(bare.stopped(end).energy_wh(), None);
    for payload in [
        "{}",
        r#"{"transactionId":0}"#,
        r#"{"transactionId":-1}"#,
        r#"{"transactionId":"x"}"#,
    ] {
        assert_eq!(stop(payload), None, "{payload}");
    }
}

#[test]
fn energy_is_what_the_meter_says() {
    let check = |start: i64, end: i64, energy| {
        let begun = format!(r#"{{"transactionId":1,"meterStart":{start}}}"#);
        let ended = format!(r#"{{"transactionId":1,"meterStop":{end}}}"#);
        let ended = stop(&ended).unwrap();
        assert_eq!(started(&begun).unwrap().stopped(ended).energy_wh(), energy);
    };
    check(0, 0, Some(0));
    check(100, 50, None);
    check(i64::MIN, i64::MAX, None);
}

#[test]
fn what_can_not_be_read_is_noted_and_no_other_value() {
    let long = "9".repeat(200);
    let odd = format!(
        r#"{{"transactionId":1,"connectorId":-1,"idTag":{{}},"meterStart":{long},"timestamp":"99"}}"#
    );
    let odd = started(&odd).unwrap();
    assert_eq!((odd.connector_id, odd.meter_start), (None, None));
    assert_eq!((odd.started_at, odd.id_tag.as_str()), (None, ""));
    let expected = [
        "StartTransaction.connectorId: -1 is no connector".to_owned(),
        "StartTransaction.idTag: {} is no text".to_owned(),
        format!(
            "StartTransaction.meterStart: {} is no whole number",
            &long[..64]
        ),
        "StartTransaction.timestamp: \"99\" is no time".to_owned(),
    ];
    assert_eq!(odd.notes, expected);

    let end = r#"{"transactionId":1,"meterStop":1.5,"reason":[],"idTag":true}"#;
    let stopped = odd.stopped(stop(end).unwrap());
    let end = stopped.stop.unwrap();
    assert_eq!((end.meter_stop, end.stopped_at), (None, None));
    assert_eq!((end.reason, end.id_tag), (None, None));
    let expected = [
        "StopTransaction.meterStop: 1.5 is no whole number",
        "StopTransaction.reason: [] is no text",
        "StopTransaction.idTag: true is no text",
    ];
    assert_eq!(stopped.notes[4..], expected);
}

#[test]
fn the_last_reading_is_kept_as_it_came() {
    let check = |values: &str, expected: Option<&str>| {
        let payload = format!(r#"{{"transactionId":42,"meterValue":{values}}}"#);
        let found = reading(&payload).map(|(_, reading)| reading.sampled_values);
        assert_eq!(found.as_deref(), expected, "{values}");
    };
    let value = r#"[{"value": "1.50","unit":"Wh"}]"#;
    check(
        &format!(r#"[{{"sampledValue":[]}},{{"timestamp":"x","sampledValue":{value}}}]"#),
        Some(value),
    );
    check("[]", None);
    check("{}", None);
    check(r#"[{"sampledValue":"5"}]"#, None);
    check("[5]", None);
    let long = format!(r#"[{{"sampledValue":["{}"]}}]"#, "x".repeat(4096));
    check(&long, None);
    assert_eq!(reading(r#"{"meterValue":[{"sampledValue":[]}]}"#), None);

    let dated = r#"{"transactionId":1,"meterValue":[{"timestamp":"2026-04-14T10:00:00","sampledValue":[]}]}"#;
    let (_, dated) = reading(dated).unwrap();
    assert_eq!(dated.sampled_at, Some(time("2026-04-14T10:00:00Z")));
}

#[test]
fn transaction_data_brings_the_last_reading_too() {
    let end =
        r#"{"transactionId":42,"transactionData":[{"sampledValue":[1]},{"sampledValue":[2]}]}"#;
    let end = stop(end).unwrap();
    let stopped = started(START).unwrap().stopped(end);
    assert_eq!(stopped.last_meter_values.unwrap().sampled_values, "[2]");
}

#[test]
fn filters() {
    let open = started(START).unwrap();
    let closed = open.stopped(stop(r#"{"transactionId":42}"#).unwrap());
    let check = |filter: TransactionFilter, expected: [bool; 2]| {
        let found = [filter.matches(&open), filter.matches(&closed)];
        assert_eq!(found, expected, "{filter:?}");
    };
    let any = TransactionFilter::default;
    let station = |id| StationId::new(id).ok();
    check(any(), [true, true]);
    check(
        TransactionFilter {
            station: station("CP1"),
            ..any()
        },
        [true, true],
    );
    check(
        TransactionFilter {
            station: station("CP2"),
            ..any()
        },
        [false, false],
    );
    let tag = |tag| Some(IdTagKey::of(tag));
    check(
        TransactionFilter {
            id_tag: tag("RFID_1"),
            ..any()
        },
        [true, true],
    );
    check(
        TransactionFilter {
            id_tag: tag("RFID_2"),
            ..any()
        },
        [false, false],
    );
    check(
        TransactionFilter {
            open: Some(true),
            ..any()
        },
        [true, false],
    );
    check(
        TransactionFilter {
            open: Some(false),
            ..any()
        },
        [false, true],
    );
    let at = |text| Some(time(text));
    check(
        TransactionFilter {
            since: at("2026-04-14T09:00:00Z"),
            ..any()
        },
        [true, true],
    );
    check(
        TransactionFilter {
            until: at("2026-04-14T09:00:00Z"),
            ..any()
        },
        [false, false],
    );
}

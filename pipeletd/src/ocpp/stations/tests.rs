use super::*;
use crate::events::{EventId, EventType, Payload};

fn id(id: &str) -> StationId {
    StationId::new(id).unwrap()
}

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn event(station: &str, kind: EventType, seconds: i64) -> Event {
    Event::new(
        EventId::new(time(seconds), [0; 10]),
        kind,
        id(station),
        time(seconds),
        None,
        Payload::empty(),
    )
}

fn ids(views: &[StationView]) -> Vec<&str> {
    views.iter().map(|view| view.state.id.as_str()).collect()
}

#[test]
fn the_newest_connection_has_the_seat() {
    let stations = Stations::default();
    let old = stations.seat(&id("A"), time(1), None, 10).unwrap();
    assert!(!old.is_replaced());
    let new = stations.seat(&id("A"), time(2), None, 10).unwrap();
    assert!(old.is_replaced());
    assert!(!new.is_replaced());

    // Its end takes nothing away from its successor.
    old.leave();
    drop(old);
    let view = stations.get(&id("A")).unwrap();
    assert_eq!(view.connected_since, Some(time(2)));
    assert_eq!(stations.counts().connected, 1);

    new.leave();
    drop(new);
    assert_eq!(stations.get(&id("A")).unwrap().connected_since, None);
    let counts = StationCounts {
        connected: 0,
        known: 1,
    };
    assert_eq!(stations.counts(), counts);
}

#[test]
fn the_end_of_each_that_was_told_of_is_told_once() {
    let stations = Stations::default();
    let seat = || stations.seat(&id("A"), time(1), None, 10).unwrap();

    // Its own end comes first, or its successor's beginning.
    let old = seat();
    assert!(old.open().is_none());
    assert!(old.leave().is_some());
    assert!(old.leave().is_none());
    let new = seat();
    assert!(new.open().is_none());
    let newest = seat();
    assert!(newest.open().is_some());
    assert!(new.leave().is_none());
    assert!(newest.leave().is_some());

    // A newcomer that never opened leaves nothing to tell, and takes nothing.
    let old = seat();
    assert!(old.open().is_none());
    let new = seat();
    assert!(new.leave().is_none());
    drop(new);
    assert!(old.leave().is_some());
}

#[test]
fn never_fewer_than_none_are_connected() {
    let stations = Stations::default();
    let come_and_go = || {
        for _ in 0..300_000 {
            drop(stations.seat(&id("A"), time(1), None, 10));
            assert!(stations.counts().connected <= 1);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(come_and_go);
        }
    });
    assert_eq!(stations.counts().connected, 0);
}

#[test]
fn lists_are_in_order_and_filtered() {
    let stations = Stations::new(["C", "A", "D", "B"].map(|name| StationState::new(id(name))));
    let _seat = stations.seat(&id("C"), time(1), None, 10).unwrap();
    assert_eq!(ids(&stations.list(None, None, 10)), ["A", "B", "C", "D"]);
    assert_eq!(ids(&stations.list(Some(&id("A")), None, 2)), ["B", "C"]);
    assert_eq!(ids(&stations.list(None, Some(true), 10)), ["C"]);
    assert_eq!(ids(&stations.list(None, Some(false), 2)), ["A", "B"]);
}

#[test]
fn known_stations_are_bounded() {
    let stations = Stations::new([StationState::new(id("A"))]);
    assert!(stations.seat(&id("A"), time(1), None, 1).is_ok());
    assert!(stations.seat(&id("B"), time(1), None, 1).is_err());
}

#[test]
fn changes_are_saved_once() {
    let stations = Stations::default();
    stations.apply(Seq(0), &event("A", EventType::BootNotification, 0));
    stations.apply(Seq(1), &event("A", EventType::MeterValues, 1));
    let unsaved = stations.take_unsaved();
    assert_eq!(unsaved.len(), 1);
    assert_eq!(unsaved[0].snapshot().applied_through, Some(Seq(1)));
    assert!(stations.take_unsaved().is_empty());

    // Being seen again is kept for the end ...
    stations.apply(Seq(2), &event("A", EventType::Heartbeat, 2));
    assert!(stations.take_unsaved().is_empty());
    assert_eq!(stations.take_all_unsaved().len(), 1);

    // ... and what could not be saved comes again, once.
    stations.put_back_unsaved(unsaved.clone());
    stations.put_back_unsaved(unsaved);
    assert_eq!(stations.take_unsaved().len(), 1);
}

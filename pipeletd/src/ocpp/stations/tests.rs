use pipelet_domain::events::{EventId, EventType, Payload};

use super::*;

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
fn the_newest_connection_has_the_lease() {
    let stations = ShardStations::default();
    let old = stations
        .acquire_lease(&id("A"), time(1), None, 10, &|_| false, At::ThisNode)
        .unwrap();
    assert!(!old.is_replaced());
    let new = stations
        .acquire_lease(&id("A"), time(2), None, 10, &|_| false, At::ThisNode)
        .unwrap();
    assert!(old.is_replaced());
    assert!(!new.is_replaced());

    // Its end takes nothing away from its successor.
    old.release();
    drop(old);
    let view = stations.get(&id("A")).unwrap();
    assert_eq!(view.connected_since, Some(time(2)));
    assert_eq!(stations.counts().connected, 1);

    new.release();
    drop(new);
    assert_eq!(stations.get(&id("A")).unwrap().connected_since, None);
    let counts = StationCounts {
        connected: 0,
        known: 1,
    };
    assert_eq!(stations.counts(), counts);
}

#[test]
fn the_end_of_each_that_was_announced_is_announced_once() {
    let stations = ShardStations::default();
    let lease = || {
        stations
            .acquire_lease(&id("A"), time(1), None, 10, &|_| false, At::ThisNode)
            .unwrap()
    };

    // Its own end comes first, or its successor's beginning.
    let old = lease();
    assert!(old.announce().is_none());
    assert!(old.release().is_some());
    assert!(old.release().is_none());
    let new = lease();
    assert!(new.announce().is_none());
    let newest = lease();
    assert!(newest.announce().is_some());
    assert!(new.release().is_none());
    assert!(newest.release().is_some());

    // A newcomer that was never announced leaves nothing to announce, and takes nothing.
    let old = lease();
    assert!(old.announce().is_none());
    let new = lease();
    assert!(new.release().is_none());
    drop(new);
    assert!(old.release().is_some());
}

#[test]
fn never_fewer_than_none_are_connected() {
    let stations = ShardStations::default();
    let come_and_go = || {
        for _ in 0..300_000 {
            drop(stations.acquire_lease(&id("A"), time(1), None, 10, &|_| false, At::ThisNode));
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
    let stations = ShardStations::one_of(
        1,
        ["C", "A", "D", "B"].map(|name| StationState::new(id(name))),
    );
    let _lease = stations
        .acquire_lease(&id("C"), time(1), None, 10, &|_| false, At::ThisNode)
        .unwrap();
    assert_eq!(ids(&stations.list(None, None, 10)), ["A", "B", "C", "D"]);
    assert_eq!(ids(&stations.list(Some(&id("A")), None, 2)), ["B", "C"]);
    assert_eq!(ids(&stations.list(None, Some(true), 10)), ["C"]);
    assert_eq!(ids(&stations.list(None, Some(false), 2)), ["A", "B"]);
}

#[test]
fn a_full_table_forgets_who_is_gone_longest_and_never_booted() {
    let stations = ShardStations::default();
    let lease = |name: &str, at| {
        let registered = |station: &StationId| station.as_str().starts_with("REGISTERED");
        stations.acquire_lease(&id(name), time(at), None, 6, &registered, At::ThisNode)
    };
    let known = || {
        let list = stations.list(None, None, 99);
        ids(&list).join(" ")
    };
    stations.apply(Seq(0), &event("BOOTED1", EventType::BootNotification, 1));
    stations.apply(Seq(1), &event("BOOTED2", EventType::BootNotification, 2));
    stations.apply(Seq(2), &event("REGISTERED", EventType::StationConnected, 3));
    stations.apply(Seq(3), &event("STRANGER1", EventType::StationConnected, 4));
    stations.apply(Seq(4), &event("STRANGER2", EventType::StationConnected, 5));
    stations.rank_all(&|_| false);
    let honest = lease("HONEST1", 6).unwrap();
    assert_eq!(stations.counts().known, 6);
    drop(lease("STRANGER1", 7).unwrap());

    let more = lease("HONEST2", 8).unwrap();
    assert_eq!(
        known(),
        "BOOTED1 BOOTED2 HONEST1 HONEST2 REGISTERED STRANGER1"
    );
    // A connection counts for as long as anything has to do with it.
    let handle = lease("STRANGER1", 9).unwrap().handle().clone();
    let third = lease("HONEST3", 10).unwrap();
    assert_eq!(
        known(),
        "BOOTED2 HONEST1 HONEST2 HONEST3 REGISTERED STRANGER1"
    );
    drop(handle);
    let fourth = lease("HONEST4", 11).unwrap();
    let fifth = lease("HONEST5", 12).unwrap();
    assert_eq!(
        known(),
        "HONEST1 HONEST2 HONEST3 HONEST4 HONEST5 REGISTERED"
    );
    assert!(lease("HONEST6", 13).is_err());
    assert!(lease("HONEST1", 13).is_ok());
    assert_eq!(stations.forgotten(), 4);

    // One that is registered no longer makes room, too.
    let none = |_: &StationId| false;
    assert!(
        stations
            .acquire_lease(&id("A"), time(14), None, 6, &none, At::ThisNode)
            .is_err()
    );
    stations.unregistered(&id("REGISTERED"));
    assert!(
        stations
            .acquire_lease(&id("A"), time(14), None, 6, &none, At::ThisNode)
            .is_ok()
    );
    drop((honest, more, third, fourth, fifth));
}

#[test]
fn a_table_that_is_far_too_full_gets_smaller_with_each_newcomer() {
    let states = (0..100).map(|number| StationState::new(id(&format!("S{number}"))));
    let stations = ShardStations::one_of(1, states);
    stations.rank_all(&|_| false);
    let mut leases = Vec::new();
    while stations.counts().known > 10 {
        let before = stations.counts().known;
        let newcomer = format!("NEW{before}");
        leases.push(stations.acquire_lease(
            &id(&newcomer),
            time(1),
            None,
            10,
            &|_| false,
            At::ThisNode,
        ));
        assert!(leases.iter().all(Result::is_ok));
        assert!(stations.counts().known < before);
    }
    assert_eq!(leases.len(), 6);
}

#[test]
fn what_is_forgotten_is_never_saved_and_what_comes_back_is() {
    let stations = ShardStations::default();
    stations.apply(Seq(0), &event("A", EventType::BootNotification, 0));
    stations.rank_all(&|_| false);
    let taken = stations.take_unsaved();
    let lease = stations.acquire_lease(&id("B"), time(1), None, 1, &|_| false, At::ThisNode);
    assert_eq!(stations.take_removals(), [id("A")]);
    assert!(taken[0].upgrade().is_none());
    stations.put_back_unsaved(taken);
    assert!(stations.take_unsaved().is_empty());

    drop(lease);
    let _lease = stations.acquire_lease(&id("A"), time(2), None, 1, &|_| false, At::ThisNode);
    stations.apply(Seq(1), &event("A", EventType::StationConnected, 2));
    let unsaved = stations.take_unsaved();
    assert_eq!(unsaved[0].upgrade().unwrap().snapshot().id, id("A"));
    assert_eq!(stations.take_removals(), [id("B")]);
}

/// Whoever has a lease is in the table, however fast stations are forgotten around it.
#[test]
fn nobody_who_connects_is_forgotten() {
    let stations = ShardStations::default();
    let come_and_go = |name: String| {
        for _ in 0..20_000 {
            if let Ok(_lease) =
                stations.acquire_lease(&id(&name), time(1), None, 2, &|_| false, At::ThisNode)
            {
                assert!(stations.get(&id(&name)).unwrap().connected_since.is_some());
            }
        }
    };
    std::thread::scope(|scope| {
        for number in 0..4 {
            scope.spawn(move || come_and_go(format!("S{number}")));
        }
    });
    assert!(stations.counts().known <= 2);
    assert_eq!(stations.counts().connected, 0);
}

#[test]
fn changes_are_saved_once() {
    let stations = ShardStations::default();
    stations.apply(Seq(0), &event("A", EventType::BootNotification, 0));
    stations.apply(Seq(1), &event("A", EventType::MeterValues, 1));
    let unsaved = stations.take_unsaved();
    assert_eq!(unsaved.len(), 1);
    let saved = unsaved[0].upgrade().unwrap().snapshot();
    assert_eq!(saved.applied_through, Some(Seq(1)));
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

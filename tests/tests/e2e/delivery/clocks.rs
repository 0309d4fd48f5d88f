//! Wall clocks that are set while retries wait, and a daemon that is suspended meanwhile.

use std::time::{Duration, Instant};

use pipelet_tests::{Answer, Faults, Receiver, Request};
use serde_json::{Value, json};

use crate::scene::{Scene, daemon};

const HOUR: Duration = Duration::from_hours(1);
const WAIT: Duration = Duration::from_secs(3);
/// A wait is in whole milliseconds.
const ROUNDING: Duration = Duration::from_millis(5);
const STATIONS: usize = 5;

#[derive(Debug, Clone, Copy)]
enum Set {
    Forward,
    Back,
}

impl Set {
    fn apply(self, faults: &Faults) {
        match self {
            Self::Forward => faults.advance_clock(HOUR),
            Self::Back => faults.set_clock_back(HOUR),
        }
    }
}

/// A receiver that fails once for each of some stations, and the clock is set while their retries
/// wait. Returns when they arrived, first attempts and retries.
async fn retries_while(set: Set, restart: bool) -> (Vec<Request>, Vec<Request>) {
    let (faults, builder) = Faults::of(daemon().flag("--retry-schedule", "3s"));
    let mut scene = Scene::with(builder, &["StartTransaction", "Heartbeat"]).await;
    scene
        .receiver
        .answer_next(vec![Answer::Status(500); STATIONS]);
    for number in 0..STATIONS {
        let mut station = scene.station(&format!("S{number}")).await;
        station.start_transaction(0).await;
    }
    let waiting = json!({"retrying": STATIONS});
    scene.api.await_stats(scene.webhook, waiting).await;
    set.apply(&faults);
    if restart {
        scene.crash().await;
    }
    // Something to do, after which the time of the next retry is looked at again.
    scene.station("S").await.ok("Heartbeat", "{}").await;
    let arrived = scene.receiver.await_requests(2 * STATIONS + 1).await;
    let settled = json!({"received": STATIONS + 1, "delivered": STATIONS + 1});
    scene.api.await_stats(scene.webhook, settled).await;
    assert_eq!(scene.receiver.count(), 2 * STATIONS + 1);
    let starts = arrived.into_iter().filter(|request| {
        let kind = request.header("pipelet-event");
        kind == Some("StartTransaction")
    });
    starts.partition(|request| request.attempt() == "1")
}

/// Between an event's first attempt and its retry.
fn gaps(first: &[Request], again: &[Request]) -> Vec<Duration> {
    let gap = |again: &Request| {
        let first = first.iter().find(|first| first.id() == again.id());
        again.arrived - first.expect("a first attempt").arrived
    };
    again.iter().map(gap).collect()
}

#[tokio::test]
async fn a_clock_that_is_set_forward_hurries_no_retry() {
    let (first, again) = retries_while(Set::Forward, false).await;
    for gap in gaps(&first, &again) {
        assert!(gap + ROUNDING >= WAIT, "{gap:?}");
    }
}

/// That they come at all is that none waits for an hour.
#[tokio::test]
async fn a_clock_that_is_set_back_holds_no_retry_up() {
    let (first, again) = retries_while(Set::Back, false).await;
    for gap in gaps(&first, &again) {
        assert!(gap + ROUNDING >= WAIT, "{gap:?}");
    }
}

#[tokio::test]
async fn nor_does_one_that_is_set_back_before_a_start() {
    let (first, again) = retries_while(Set::Back, true).await;
    for gap in gaps(&first, &again) {
        assert!(gap + ROUNDING >= WAIT, "{gap:?}");
    }
}

/// As after a standstill of an hour: what is due is attempted, in its order and without haste.
#[tokio::test]
async fn a_clock_that_is_set_forward_before_a_start_loses_no_retry() {
    retries_while(Set::Forward, true).await;
}

#[tokio::test]
async fn an_event_bears_the_time_that_the_clock_shows() {
    let (faults, builder) = Faults::of(daemon());
    let scene = Scene::with(builder, &["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    let mut times = Vec::new();
    for set in [None, Some(Set::Forward), Some(Set::Back)] {
        if let Some(set) = set {
            set.apply(&faults);
        }
        let answer = station.ok("Heartbeat", "{}").await;
        times.push(time(&answer["currentTime"]));
    }
    let told = scene.receiver.await_requests(3).await;
    for (told, answered) in told.iter().zip(&times) {
        let told = time(&told.json()["timestamp"]);
        let apart = told.duration_since(*answered).abs();
        assert!(apart.as_secs() < 30, "{told} and {answered}");
    }
    let hours = |later: usize| times[later].duration_since(times[later - 1]).as_secs_f64() / 3600.0;
    assert!((hours(1) - 1.0).abs() < 0.01, "{times:?}");
    assert!((hours(2) + 2.0).abs() < 0.01, "{times:?}");
}

fn time(text: &Value) -> jiff::Timestamp {
    let text = text.as_str().expect("a time");
    text.parse().expect("an RFC 3339 time")
}

/// Longer than every time limit of this daemon: attempts, pings, the wait for a retry. What it
/// finds afterwards is neither lost nor held against anybody.
#[tokio::test]
async fn a_suspended_daemon_goes_on_where_it_was() {
    let builder = daemon()
        .flag("--retry-schedule", "2s")
        .flag("--delivery-timeout", "3s")
        .flag("--ping-interval", "2s")
        .flag("--heartbeat-interval", "1s");
    let scene = Scene::with(builder, &["StartTransaction", "Heartbeat"]).await;
    let gone = Receiver::start().await;
    scene
        .api
        .subscribe(&gone.url(), &["StationDisconnected"])
        .await;
    scene
        .receiver
        .answer_next(vec![Answer::Status(500), Answer::Hang]);
    let mut quiet = scene.station("QUIET").await;
    let mut busy = scene.station("BUSY").await;
    busy.start_transaction(1).await;
    scene.receiver.await_requests(1).await;
    scene.station("OTHER").await.start_transaction(2).await;
    scene.receiver.await_requests(2).await;
    gone.await_requests(1).await;

    scene.daemon.signal("STOP").await;
    busy.send(r#"[2,"1","Heartbeat",{}]"#).await;
    let suspended = Duration::from_secs(4);
    // Time itself has to pass here. The quiet one goes on listening, as chargers do.
    let nothing = tokio::time::timeout(suspended, quiet.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    let resumed = Instant::now();
    scene.daemon.signal("CONT").await;

    busy.next().await;
    let settled = json!({"received": 3, "delivered": 3});
    // Both go on listening, and so answer pings.
    tokio::select! {
        _ = scene.api.await_stats(scene.webhook, settled) => {}
        told = quiet.next() => panic!("nothing was asked: {told:?}"),
        told = busy.next() => panic!("nothing was asked: {told:?}"),
    }
    let arrived = scene.receiver.requests();
    let after = arrived.iter().filter(|one| one.arrived > resumed).count();
    assert!(after >= 1, "the heartbeat came afterwards");
    assert_eq!(arrived.len(), 5, "each retry comes once");
    quiet.ok("Heartbeat", "{}").await;
    assert_eq!(gone.count(), 1, "nobody was taken for silent");
}

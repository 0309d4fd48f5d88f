//! A network that is cut without anybody being told, for longer than every time limit, and heals:
//! what was owed is delivered, dead connections are noticed, and nobody has to help.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use pipelet_tests::{
    Authority, Faults, Frame, Http2, Network, Scripted, Station, Step, Stream, Tls,
    deadline::eventually, network, skip,
};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::scene::daemon;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// The network, where this is the test within its namespaces.
async fn network_of(test: &str) -> Option<Network> {
    match network::is_within(&format!("delivery::cut::{test}")).await {
        Ok(true) => Some(Network::new().await),
        Ok(false) => None,
        Err(why) => {
            skip("network namespaces", why);
            None
        }
    }
}

/// A receiver that keeps its connections.
async fn receiver(at: Ipv4Addr, tls: Tls) -> Scripted {
    let exchanges = vec![[Step::Read, Step::write(OK)]; 1000];
    Scripted::start_at(SocketAddr::from((at, 0)), tls, vec![exchanges.concat()]).await
}

/// The events that a receiver has seen, each once.
fn events(receiver: &Scripted) -> BTreeSet<String> {
    let requests = receiver.requests();
    let id = |request: &pipelet_tests::RawRequest| request.header("webhook-id").map(str::to_owned);
    requests.iter().filter_map(id).collect()
}

#[tokio::test]
async fn between_the_daemon_and_its_receivers() {
    let test = "between_the_daemon_and_its_receivers";
    let Some(network) = network_of(test).await else {
        return;
    };
    let authority = Authority::new();
    let file = NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), authority.pem()).expect("a writable file");
    let builder = daemon()
        .flag("--ca-file", file.path().to_str().expect("UTF-8"))
        .flag("--delivery-timeout", "1s")
        .flag("--retry-schedule", "300ms")
        .flag("--max-attempts", "100");
    let daemon = network.daemon(builder).start().await;
    let api = daemon.api();
    let server = authority.server_of(&["10.1.0.1"]).server_config(&[]);
    let beside = receiver(Network::BESIDE, Tls::None).await;
    let beyond = [
        receiver(Network::BEYOND, Tls::None).await,
        receiver(Network::BEYOND, Tls::Server(server)).await,
    ];
    let neighbour = api.subscribe(&beside.url(), &["Heartbeat"]).await;
    let mut webhooks = Vec::new();
    for receiver in &beyond {
        webhooks.push(api.subscribe(&receiver.url(), &["Heartbeat"]).await);
    }
    let mut stations = Vec::new();
    for number in 0..5 {
        let ocpp = Network::beside(daemon.ocpp());
        stations.push(Station::connect(ocpp, &format!("S{number}")).await);
    }
    stations[0].ok("Heartbeat", "{}").await;
    for webhook in &webhooks {
        api.await_stats(*webhook, json!({"delivered": 1})).await;
    }

    network.cut().await;
    let called = Instant::now();
    for station in &mut stations {
        station.ok("Heartbeat", "{}").await;
    }
    // The neighbour has them before a time limit could have passed.
    beside.await_requests(6).await;
    assert!(called.elapsed() < Duration::from_secs(1));
    for webhook in &webhooks {
        // Kept connections and new ones alike: each event has run out of time at least twice.
        let attempts = || async {
            let page = api.get(&format!("/webhooks/{webhook}/deliveries")).await;
            let deliveries = page.expect(200)["data"].as_array().expect("data").clone();
            let pending = deliveries.iter().filter(|d| d["status"] == "pending");
            let attempts = pending.map(|d| d["attempts"].as_array().map_or(0, Vec::len));
            attempts.collect::<Vec<_>>()
        };
        eventually("every event to fail twice", attempts, |attempts| {
            attempts.len() == 5 && attempts.iter().all(|made| *made >= 2)
        })
        .await;
        api.await_stats(*webhook, json!({"received": 6, "delivered": 1}))
            .await;
    }

    network.heal().await;
    for webhook in &webhooks {
        let all = json!({"received": 6, "delivered": 6, "pending": 0, "dead": 0});
        api.await_stats(*webhook, all).await;
    }
    for receiver in &beyond {
        assert_eq!(events(receiver), events(&beside));
    }
    api.await_stats(neighbour, json!({"received": 6, "delivered": 6}))
        .await;
}

/// A receiver that moves while its old place is cut off: there is a connection to that place which
/// nobody has closed, and which will never bring an answer.
#[tokio::test]
async fn under_a_receiver_that_moves_elsewhere() {
    const NAME: &str = "moves.example";
    let Some(network) = network_of("under_a_receiver_that_moves_elsewhere").await else {
        return;
    };
    let authority = Authority::new();
    let file = NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), authority.pem()).expect("a writable file");
    let builder = daemon()
        .flag("--ca-file", file.path().to_str().expect("UTF-8"))
        .flag("--delivery-timeout", "2s")
        .flag("--retry-schedule", "100ms")
        .flag("--max-attempts", "100");
    let (faults, builder) = Faults::of(builder);
    let daemon = network.daemon(builder).start().await;
    let api = daemon.api();
    let at = |address: Ipv4Addr, port: u16| SocketAddr::from((address, port));

    let identity = authority.server_of(&[NAME]);
    let mut webhooks = Vec::new();
    let mut old = Vec::new();
    let mut new = Vec::new();
    for tls in [Tls::None, Tls::Server(identity.server_config(&[]))] {
        let receiver = receiver(Network::BEYOND, tls.clone()).await;
        let moved = at(Network::BESIDE, receiver.address().port());
        new.push(Scripted::start_at(moved, tls, vec![vec![Step::Read, Step::write(OK)]]).await);
        let url = receiver.url_of(NAME);
        webhooks.push(api.subscribe(&url, &["Heartbeat"]).await);
        old.push(receiver);
    }
    let tls = identity.server_config(&["h2"]);
    let answer = [Stream::Answer(200)];
    let old_http2 = Http2::start_at(at(Network::BEYOND, 0), tls.clone(), &answer).await;
    let port = old_http2.address().port();
    let new_http2 = Http2::start_at(at(Network::BESIDE, port), tls, &answer).await;
    let url = format!("https://{NAME}:{port}/");
    webhooks.push(api.subscribe(&url, &["Heartbeat"]).await);

    faults.resolve(NAME, &["10.1.0.1"]);
    let mut station = Station::connect(Network::beside(daemon.ocpp()), "S1").await;
    station.ok("Heartbeat", "{}").await;
    for webhook in &webhooks {
        api.await_stats(*webhook, json!({"delivered": 1})).await;
    }
    network.cut().await;
    faults.resolve(NAME, &["10.9.0.1"]);
    station.ok("Heartbeat", "{}").await;
    for webhook in &webhooks {
        api.await_stats(*webhook, json!({"received": 2, "delivered": 2}))
            .await;
        let page = api.get(&format!("/webhooks/{webhook}/deliveries")).await;
        let deliveries = page.expect(200)["data"].as_array().expect("data").clone();
        let attempts = deliveries.iter().map(|d| d["attempts"].as_array());
        let most = attempts.map(|attempts| attempts.map_or(0, Vec::len)).max();
        assert!(most <= Some(2), "{deliveries:#?}");
    }
    assert_eq!((old_http2.seen().len(), new_http2.seen().len()), (1, 1));
}

/// The connections of a station, as the receiver heard of them.
fn heard_of(receiver: &Scripted, station: &str) -> Vec<Value> {
    let requests = receiver.requests();
    let bodies = requests.iter().map(|request| {
        let (_, body) = request.text.split_once("\r\n\r\n").expect("a head");
        serde_json::from_str::<Value>(body).expect("JSON")
    });
    let of_station = bodies.filter(|body| body["station_id"] == station);
    let mut heard: Vec<_> = of_station.collect();
    heard.sort_by_key(|body| body["timestamp"].as_str().map(str::to_owned));
    let told = |body: &Value| json!([body["event"], body["payload"]["reason"]]);
    heard.iter().map(told).collect()
}

#[tokio::test]
async fn between_the_daemon_and_its_stations() {
    const PING: Duration = Duration::from_secs(1);
    /// Three heartbeats, or three pings where they have been answered.
    const SILENCE: Duration = Duration::from_secs(3);
    let test = "between_the_daemon_and_its_stations";
    let Some(network) = network_of(test).await else {
        return;
    };
    let builder = daemon()
        .flag("--ping-interval", "1s")
        .flag("--heartbeat-interval", "1s");
    let daemon = network.daemon(builder).start().await;
    let api = daemon.api();
    let beside = receiver(Network::BESIDE, Tls::None).await;
    let kinds = ["StationConnected", "StationDisconnected", "Heartbeat"];
    api.subscribe(&beside.url(), &kinds).await;
    let connected = |id: &'static str| {
        let api = api.clone();
        async move { api.get(&format!("/stations/{id}")).await.expect(200)["connected"] == true }
    };
    let through = Network::through(daemon.ocpp());
    let mut witness = Station::connect(Network::beside(daemon.ocpp()), "WITNESS").await;
    // They answer pings for as long as they get any.
    let witness = tokio::spawn(async move { witness.next().await });
    let mut lost = Station::connect(through, "LOST").await;
    let mut moved = Station::connect(through, "MOVED").await;
    let mut patient = Station::connect(through, "PATIENT").await;
    for station in [&mut lost, &mut moved, &mut patient] {
        station.ok("Heartbeat", "{}").await;
    }

    network.cut().await;
    let cut = Instant::now();
    // Said into a dead connection: nobody answers, so the station has to keep it.
    lost.send(r#"[2,"kept","Heartbeat",{}]"#).await;
    let lost = tokio::spawn(async move { lost.next().await });
    // One that has another way comes back while its old socket still looks alive.
    let mut back = Station::connect(Network::beside(daemon.ocpp()), "MOVED").await;
    back.ok("Heartbeat", "{}").await;
    assert!(cut.elapsed() < SILENCE, "too late to show anything");
    assert!(connected("LOST").await, "nobody can know of the cut yet");
    let back = tokio::spawn(async move {
        let ended = back.next().await;
        panic!("the newer connection ended: {ended:?}");
    });
    eventually("the lost one to be noticed", || connected("LOST"), |is| !is).await;
    let noticed = cut.elapsed();
    assert!(noticed > SILENCE / 2, "{noticed:?}");
    // With the next ping after the limit; the rest is a slow machine's.
    assert!(noticed < SILENCE + PING + SILENCE, "{noticed:?}");

    network.heal().await;
    // It hears of the end late, or gets a reset for what it had said.
    let ended = lost.await.expect("the lost station");
    assert!(matches!(ended, Frame::Closed(_)), "{ended:?}");
    let mut lost = Station::connect(through, "LOST").await;
    let answer = lost.call_as("kept", "Heartbeat", "{}").await.result();
    assert!(answer["currentTime"].is_string(), "{answer}");
    assert!(connected("LOST").await && connected("MOVED").await);
    assert!(!witness.is_finished() && !back.is_finished());

    // A cut that is over before anybody noticed costs nothing but time.
    let mut patient = Station::connect(through, "PATIENT").await;
    network.cut().await;
    let (answer, ()) = tokio::join!(patient.call("Heartbeat", "{}"), async {
        let requests = beside.requests().len();
        let mut other = Station::connect(Network::beside(daemon.ocpp()), "OTHER").await;
        other.ok("Heartbeat", "{}").await;
        beside.await_requests(requests + 2).await;
        network.heal().await;
    });
    answer.result();

    let told = |event: &str| json!([event, null]);
    let gone = |reason: &str| json!(["StationDisconnected", reason]);
    let (came, beat) = (told("StationConnected"), told("Heartbeat"));
    let expected = [&came, &beat, &gone("silent"), &came, &beat].map(Value::clone);
    let heard = || async { heard_of(&beside, "LOST") };
    eventually("all of the lost one", heard, |heard| **heard == expected).await;
    let expected = [&came, &beat, &gone("replaced"), &came, &beat].map(Value::clone);
    let heard = || async { heard_of(&beside, "MOVED") };
    eventually("all of the moved one", heard, |heard| **heard == expected).await;
    witness.abort();
    back.abort();
}

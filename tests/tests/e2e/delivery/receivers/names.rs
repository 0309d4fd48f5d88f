//! Receivers by name: names that fail, hang, change, and have more addresses than work.

use std::{net::SocketAddr, time::Instant};

use pipelet_tests::{
    Answer, Authority, Blackhole, Faults, Receiver, Scripted, Station, Step, Tls, deadline::within,
};
use serde_json::json;

use super::{Api, Builder, LIMIT, NO_CONNECTION, Value, quick};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Accepts one request for each connection.
fn once() -> Vec<Step> {
    vec![Step::Read, Step::write(OK)]
}

async fn error(api: &Api, webhook: u64) -> Value {
    let failed = api.await_failed(&format!("?webhook_id={webhook}"), 1).await;
    failed[0]["attempts"][0]["error"].clone()
}

#[tokio::test]
async fn of_ten_addresses_the_one_that_works_is_found() {
    let authority = Authority::new();
    let (_file, builder) = quick(&authority, LIMIT);
    let (faults, builder) = Faults::of(builder);
    let daemon = builder.start().await;
    let api = daemon.api();
    let server = authority.server_of(&["many.example"]).server_config(&[]);
    let mut webhooks = Vec::new();
    let mut blackholes = Vec::new();
    let mut receivers = Vec::new();
    for (tls, silent) in [
        (Tls::None, 0),
        (Tls::None, 9),
        (Tls::Server(server.clone()), 0),
        (Tls::Server(server), 9),
    ] {
        let works: SocketAddr = ([127, 0, 0, 11], 0).into();
        let receiver = Scripted::start_at(works, tls, vec![once()]).await;
        let port = receiver.address().port();
        for number in 0..silent {
            let address = ([127, 0, 0, 2 + number], port).into();
            blackholes.push(Blackhole::at(address).await);
        }
        // Of the others, nobody listens there.
        webhooks.push(
            api.subscribe(&receiver.url_of("many.example"), &["Heartbeat"])
                .await,
        );
        receivers.push(receiver);
    }
    let addresses: Vec<_> = (2..12).map(|last| format!("127.0.0.{last}")).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    faults.resolve("many.example", &addresses);
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    station.ok("Heartbeat", "{}").await;
    for webhook in webhooks {
        api.await_stats(webhook, json!({"delivered": 1})).await;
        let page = api.get(&format!("/webhooks/{webhook}/deliveries")).await;
        let attempts = page.expect(200)["data"][0]["attempts"].clone();
        assert_eq!(attempts.as_array().map(Vec::len), Some(1), "{attempts}");
    }
}

#[tokio::test]
async fn an_address_that_neither_accepts_nor_refuses() {
    let (_file, builder) = quick(&Authority::new(), LIMIT);
    let daemon = builder.start().await;
    let api = daemon.api();
    let taken = Receiver::start().await;
    let port = taken.url().rsplit(':').next().expect("a port").to_owned();
    let port = port.split('/').next().expect("a port");
    let _blackhole = Blackhole::at(format!("127.0.0.2:{port}").parse().expect("an address")).await;
    let mut webhooks = Vec::new();
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://127.0.0.2:{port}/");
        webhooks.push(api.subscribe(&url, &["Heartbeat"]).await);
    }
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    station.ok("Heartbeat", "{}").await;
    for webhook in webhooks {
        assert_eq!(error(&api, webhook).await, NO_CONNECTION);
    }
}

/// What a name led to is used again for a while, until it leads nowhere.
#[tokio::test]
async fn a_name_is_looked_up_anew_when_it_failed_or_its_receiver_is_gone() {
    let (_file, builder) = quick(&Authority::new(), LIMIT);
    let (faults, builder) = Faults::of(builder);
    let daemon = builder.flag("--retry-schedule", "1h").start().await;
    let api = daemon.api();
    faults.resolve("receiver.example", &["fail"]);
    let receiver = Scripted::always(Tls::None, once()).await;
    let port = receiver.address().port();
    let url = receiver.url_of("receiver.example");
    let webhook = api.subscribe(&url, &["Heartbeat"]).await;
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    station.ok("Heartbeat", "{}").await;
    api.await_stats(webhook, json!({"retrying": 1})).await;

    faults.resolve("receiver.example", &["127.0.0.1"]);
    station.ok("Heartbeat", "{}").await;
    receiver.await_requests(1).await;
    let elsewhere = ([127, 0, 0, 2], port).into();
    let elsewhere = Scripted::start_at(elsewhere, Tls::None, vec![once()]).await;
    // The resolver has nothing to do with that, or knows nothing any more.
    for to in ["127.0.0.2", "fail"] {
        faults.resolve("receiver.example", &[to]);
        station.ok("Heartbeat", "{}").await;
    }
    receiver.await_requests(3).await;
    api.await_stats(webhook, json!({"delivered": 3})).await;

    faults.resolve("receiver.example", &["127.0.0.2"]);
    drop(receiver);
    station.ok("Heartbeat", "{}").await;
    api.await_stats(webhook, json!({"retrying": 2})).await;
    station.ok("Heartbeat", "{}").await;
    elsewhere.await_requests(1).await;
    api.await_stats(webhook, json!({"delivered": 4, "retrying": 2}))
        .await;
}

/// A name that came to lead here after the webhook was made: the address that would be connected
/// to is what counts, at each attempt anew.
#[tokio::test]
async fn a_name_that_turns_private_is_refused() {
    let (_file, builder) = quick(&Authority::new(), LIMIT);
    let (faults, builder) = Faults::of(builder.without("--allow-private-targets"));
    let daemon = builder.start().await;
    let api = daemon.api();
    let names = [
        ("loopback.example", "127.0.0.1"),
        ("mapped.example", "::ffff:127.0.0.1"),
        ("metadata.example", "169.254.169.254"),
    ];
    let mut cases = Vec::new();
    for (name, private) in names {
        faults.resolve(name, &["1.1.1.1"]);
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{name}:9/");
            let webhook = api.subscribe(&url, &["Heartbeat"]).await;
            cases.push((webhook, format!("where {name} leads to is a "), private));
        }
        faults.resolve(name, &[private]);
    }
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    station.ok("Heartbeat", "{}").await;
    for (webhook, expected, private) in cases {
        let error = error(&api, webhook).await;
        let text = error.as_str().expect("an error");
        assert!(text.starts_with(&expected), "{text}");
        assert!(text.contains("--allow-private-targets"), "{text}");
        assert!(!text.contains(private), "{text}");
    }
}

/// Lookups can't be called back. So many of them that there would be no thread left for anything.
#[tokio::test]
async fn names_that_hang_are_no_neighbours_matter() {
    let (_file, builder) = quick(&Authority::new(), LIMIT);
    let builder: Builder = builder
        .flag("--delivery-timeout", "200ms")
        .flag("--max-attempts", "10")
        .flag("--webhook-concurrency", "64");
    let (faults, builder) = Faults::of(builder);
    let mut daemon = builder.start().await;
    let api = daemon.api();
    let mut hanging = Vec::new();
    for number in 0..3 {
        let name = format!("hangs-{number}.example");
        faults.resolve(&name, &["hang"]);
        let url = format!("http://{name}:9/");
        hanging.push(api.subscribe(&url, &["Heartbeat"]).await);
    }
    let mut stations = Vec::new();
    for number in 0..30 {
        stations.push(Station::connect(daemon.ocpp(), &format!("S{number}")).await);
    }
    for station in &mut stations {
        station.ok("Heartbeat", "{}").await;
    }
    for webhook in hanging {
        let books = json!({"received": 30, "dead": 30, "pending": 0});
        api.await_stats(webhook, books).await;
        let failed = api
            .get(&format!("/failed-deliveries?webhook_id={webhook}&limit=1"))
            .await
            .expect(200);
        let error = &failed["data"][0]["attempts"][0]["error"];
        assert_eq!(error, "the host name can't be resolved");
    }
    // One whose name has to be looked up now.
    faults.resolve("healthy.example", &["127.0.0.1"]);
    let healthy = Receiver::start().await;
    healthy.answer(Answer::Status(200));
    let url = healthy.url().replace("127.0.0.1", "healthy.example");
    let webhook = api.subscribe(&url, &["Heartbeat"]).await;
    let called = Instant::now();
    stations[0].ok("Heartbeat", "{}").await;
    healthy.await_requests(1).await;
    assert!(called.elapsed() < LIMIT, "{:?}", called.elapsed());
    api.await_stats(webhook, json!({"delivered": 1})).await;

    // Nor do they keep the daemon from ending.
    let status = within("the end", daemon.terminate()).await;
    assert!(status.success(), "{status}");
}

/// Where the next lookup would succeed, one that hangs costs an attempt and not the delivery.
#[tokio::test]
async fn a_name_that_hangs_no_longer() {
    let (_file, builder) = quick(&Authority::new(), LIMIT);
    let (faults, builder) = Faults::of(builder);
    let daemon = builder.start().await;
    let api = daemon.api();
    faults.resolve("receiver.example", &["hang"]);
    let receiver = Scripted::always(Tls::None, once()).await;
    let url = receiver.url_of("receiver.example");
    let webhook = api.subscribe(&url, &["Heartbeat"]).await;
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    station.ok("Heartbeat", "{}").await;
    let (dead, none) = (json!({"dead": 1}), json!({"dead": 0}));
    api.await_stats(webhook, dead).await;
    faults.resolve("receiver.example", &["127.0.0.1"]);
    let replay = json!({"all": true});
    api.post("/failed-deliveries/replay", &replay)
        .await
        .expect(202);
    receiver.await_requests(1).await;
    api.await_stats(webhook, none).await;
}

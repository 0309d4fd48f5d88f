//! Several nodes on NATS: from outside they are one, whichever is asked.

use std::{
    cell::Cell,
    collections::BTreeSet,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use pipelet_tests::{
    Api, Authority, Called, Daemon, Nats, Network, Receiver, Scrape, Station,
    deadline::{eventually, within},
    nats, network, skip,
};
use serde_json::{Value, json};

use crate::scene::{ctl, daemon};

/// Nodes of one cluster.
struct Cluster {
    _nats: Nats,
    nodes: Vec<Daemon>,
    receiver: Receiver,
    webhook: u64,
}

impl Cluster {
    /// So many, and a webhook; none where this machine can't have NATS.
    async fn start(count: usize, events: &[&str]) -> Option<Self> {
        let nats = Nats::start().await?;
        let first = daemon()
            .flag("--store", &nats.url())
            .flag("--shards", "4")
            .flag("--node", "n0");
        let mut nodes = vec![first.start().await];
        for number in 1..count {
            nodes.push(nodes[0].beside(&format!("n{number}")).start().await);
        }
        let receiver = Receiver::start().await;
        // Whichever is asked.
        let api = nodes[count - 1].api();
        let webhook = api.subscribe(&receiver.url(), events).await;
        Some(Self {
            _nats: nats,
            nodes,
            receiver,
            webhook,
        })
    }

    async fn station(&self, node: usize, id: &str) -> Station {
        Station::connect(self.nodes[node].ocpp(), id).await
    }
}

fn text<'a>(body: &'a Value, key: &str) -> &'a str {
    body[key].as_str().expect("a text")
}

#[tokio::test]
async fn a_station_may_be_at_any_node() {
    let Some(cluster) = Cluster::start(3, &["StatusNotification"]).await else {
        return;
    };
    let mut stations = Vec::new();
    for node in 0..3 {
        stations.push(cluster.station(node, &format!("S{node}")).await);
    }
    let status = |status: &str| json!({"connectorId": 1, "errorCode": "NoError", "status": status});
    for station in &mut stations {
        station.ok("StatusNotification", status("Available")).await;
    }
    cluster.receiver.await_requests(3).await;

    // Every node knows them all, and has commands for them.
    for node in &cluster.nodes {
        let known = node.api().get("/stations?connected=true").await.expect(200);
        let ids: Vec<_> = known["data"].as_array().expect("data").iter().collect();
        let ids: Vec<_> = ids.iter().map(|it| text(it, "id")).collect();
        assert_eq!(ids, ["S0", "S1", "S2"]);
        for (number, station) in stations.iter_mut().enumerate() {
            let path = format!("/stations/S{number}/commands/ClearCache");
            let (api, empty) = (node.api(), json!({}));
            let asking = api.post(&path, &empty);
            let answering = async {
                let asked = station.asked().await;
                assert_eq!(asked.action, "ClearCache");
                station.answer(&asked, json!({"status": "Accepted"})).await;
            };
            let (answer, ()) = tokio::join!(asking, answering);
            let answer = answer.expect(200);
            assert_eq!(answer["payload"]["status"], "Accepted", "{answer}");
        }
    }

    // The newest connection of a station is the one, wherever it is.
    let mut again = cluster.station(0, "S2").await;
    again.ok("StatusNotification", status("Charging")).await;
    assert_eq!(stations[2].closed().await, Some(1000));
    let mut third = cluster.station(1, "S2").await;
    third.ok("StatusNotification", status("Finishing")).await;
    assert_eq!(again.closed().await, Some(1000));
    cluster.receiver.await_requests(5).await;
    let books = json!({"received": 5, "delivered": 5});
    let api = cluster.nodes[1].api();
    api.await_stats(cluster.webhook, books).await;

    // One that talks as an operator disconnects it leaves nothing behind.
    let mut talking = stations.swap_remove(1);
    for id in 0..50 {
        talking
            .send(format!("[2,\"{id}\",\"Heartbeat\",{{}}]"))
            .await;
    }
    api.post_empty("/stations/S1/disconnect").await.expect(202);
    assert_eq!(talking.closed().await, Some(1000));
    let look = async || api.get("/stations/S1").await.expect(200);
    eventually("S1 to be gone", look, |seen| seen["connected"] == false).await;
    let seen = connections(&cluster.nodes[1], "S1").await;
    assert_eq!(seen, ["StationConnected", "StationDisconnected"]);
}

/// What the journal has of a station's connections.
async fn connections(node: &Daemon, station: &str) -> Vec<String> {
    let path =
        format!("/events?station_id={station}&event=StationConnected,StationDisconnected&limit=50");
    let found = node.api().get(&path).await.expect(200);
    let found = found["data"].as_array().expect("data").iter().rev();
    found.map(|event| text(event, "event").to_owned()).collect()
}

#[tokio::test]
async fn a_station_keeps_its_connection_when_the_owner_dies() {
    let Some(mut cluster) = Cluster::start(2, &["MeterValues", "StartTransaction"]).await else {
        return;
    };
    let mut station = cluster.station(1, "S1").await;
    let start = json!({
        "connectorId": 1, "idTag": "T", "meterStart": 0, "timestamp": "2026-04-14T12:34:56Z",
    });
    let started = station.call_as("start", "StartTransaction", &start).await;
    let started = started.result();

    cluster.nodes[0].kill9().await;
    let began = Instant::now();
    // What was answered by the one is answered the same by the other.
    let again = station.call_as("start", "StartTransaction", &start).await;
    assert_eq!(again, Called::Result(started.clone()));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    let values = json!({"connectorId": 1, "meterValue": [
        {"timestamp": "2026-04-14T12:34:56Z", "sampledValue": [{"value": "1"}]},
    ]});
    station.ok("MeterValues", values).await;
    cluster.receiver.await_requests(2).await;

    let left = &cluster.nodes[1];
    let (api, empty) = (left.api(), json!({}));
    let asking = api.post("/stations/S1/commands/ClearCache", &empty);
    let answering = async {
        let asked = station.asked().await;
        station.answer(&asked, json!({"status": "Accepted"})).await;
    };
    let (answer, ()) = tokio::join!(asking, answering);
    assert_eq!(answer.expect(200)["payload"]["status"], "Accepted");
    let books = json!({"received": 2, "delivered": 2});
    left.api().await_stats(cluster.webhook, books).await;
    assert_eq!(connections(left, "S1").await, ["StationConnected"]);

    // An operator who asks what is wrong is told of the node, once it has been silent for long enough.
    let is_told = |findings: &Value| {
        let findings = findings.as_array().expect("findings");
        let has = |code| findings.iter().any(|finding| finding["code"] == code);
        has("node_silent") && has("cluster_one_node")
    };
    let doctor = async || ctl(left).json("doctor").await;
    eventually("the node to be told of", doctor, is_told).await;
}

#[tokio::test]
async fn a_node_that_is_to_end_hands_its_shards_over() {
    let Some(mut cluster) = Cluster::start(2, &["Heartbeat"]).await else {
        return;
    };
    let mut station = cluster.station(1, "S1").await;
    station.ok("Heartbeat", "{}").await;
    let (mut first, left) = (cluster.nodes.remove(0), cluster.nodes.remove(0));
    let (mut calls, mut longest) = (1, Duration::ZERO);
    let has_ended = Cell::new(false);
    let ending = async {
        let ended = first.terminate().await;
        assert!(ended.success(), "{ended}");
        has_ended.set(true);
    };
    let calling = async {
        let mut further = 20;
        while further > 0 {
            let began = Instant::now();
            station.ok("Heartbeat", "{}").await;
            longest = longest.max(began.elapsed());
            calls += 1;
            further -= i32::from(has_ended.get());
        }
    };
    tokio::join!(ending, calling);
    cluster.receiver.await_requests(calls).await;
    // Nothing was sent twice.
    let books = json!({"received": calls, "delivered": calls});
    left.api().await_stats(cluster.webhook, books).await;
    assert_eq!(cluster.receiver.requests().len(), calls);
    assert_eq!(connections(&left, "S1").await, ["StationConnected"]);
    assert!(longest < Duration::from_secs(5), "{longest:?}");
}

/// Of all shards, by name.
fn owners<'a>(status: &'a Value) -> Vec<&'a str> {
    let shards = status["shard_owners"].as_array().expect("shards");
    let owner = |it: &'a Value| it["owner"].as_str().unwrap_or("nobody");
    let mut owners: Vec<_> = shards.iter().map(owner).collect();
    owners.sort_unstable();
    owners
}

#[tokio::test]
async fn a_drained_node_goes_on_as_a_gateway() {
    let Some(cluster) = Cluster::start(2, &["Heartbeat"]).await else {
        return;
    };
    let (first, second) = (&cluster.nodes[0], &cluster.nodes[1]);
    let mut stations = vec![
        cluster.station(0, "S0").await,
        cluster.station(1, "S1").await,
    ];
    let ctl = ctl(second);
    let status = ctl.json("cluster status").await;
    // Each has its part.
    assert_eq!(status["shards"], 4);
    assert_eq!(owners(&status), ["n0", "n0", "n1", "n1"]);
    // Changes that come meanwhile hold nothing up.
    let api = first.api();
    let changes = async {
        let unwanted = json!({"name": "unwanted", "url": cluster.receiver.url(), "events": ["*"], "enabled": false});
        loop {
            let answer = api.post("/webhooks", &unwanted).await;
            assert!(matches!(answer.status, 201 | 503), "{answer:?}");
        }
    };
    let drained = tokio::select! {
        drained = ctl.json("cluster drain n0") => drained,
        () = changes => panic!("it goes on without end"),
    };
    let seen = (&drained["name"], &drained["state"], &drained["shards"]);
    assert_eq!(seen, (&json!("n0"), &json!("drained"), &json!(0)));
    for station in &mut stations {
        station.ok("Heartbeat", "{}").await;
    }
    cluster.receiver.await_requests(2).await;
    for node in [first, second] {
        let seen = node.api().get("/cluster").await.expect(200);
        assert_eq!(owners(&seen), ["n1"; 4], "{seen}");
        let stations: Vec<_> = seen["nodes"].as_array().expect("nodes").iter().collect();
        let stations: Vec<_> = stations.iter().map(|node| &node["stations"]).collect();
        assert_eq!(stations, [1, 1]);
        let servers = seen["nats_servers"].as_array().expect("servers");
        // Two streams of all, and two of each shard.
        assert_eq!((servers.len(), &servers[0]["leads"]), (1, &json!(10)));
        // Each node tells its own.
        node.api().get("/readyz").await.expect(200);
        let scraped = Scrape::of(node.api().get("/metrics").await.text);
        let owns = if node.node() == "n1" { 4.0 } else { 0.0 };
        assert_eq!(scraped.get("pipelet_cluster_shards_owned"), Some(owns));
        assert_eq!(scraped.get("pipelet_station_connections"), Some(1.0));
        assert_eq!(connections(node, "S0").await, ["StationConnected"]);
        assert_eq!(connections(node, "S1").await, ["StationConnected"]);
    }

    // There is nobody who could go on, until one may again.
    ctl.json("cluster drain n1").await;
    let status = ctl.line("cluster status").await;
    assert_eq!(status.code, 1, "{status:?}");
    ctl.json("cluster drain n0 --undo").await;
    for station in &mut stations {
        station.ok("Heartbeat", "{}").await;
    }
    let ended = ctl.line("cluster drain n2").await;
    assert_eq!(ended.code, 3, "{ended:?}");
}

const STATIONS: usize = 8;

/// What is under way meanwhile goes on: stations' messages, their order, a stream, a change.
#[tokio::test]
async fn a_node_that_comes_gets_its_part() {
    let Some(mut cluster) = Cluster::start(1, &["Heartbeat"]).await else {
        return;
    };
    let mut stations = Vec::new();
    for number in 0..STATIONS {
        stations.push(cluster.station(0, &format!("S{number}")).await);
    }
    let api = cluster.nodes[0].api();
    let path = "/events/stream?event=Heartbeat";
    let mut stream = api.stream(path, None).await.expect("a stream");
    let other = cluster.nodes[0].beside("n1");
    let has_come = Cell::new(None);
    let coming = async { has_come.set(Some(other.start().await)) };
    let mut calls = 0;
    let calling = async {
        let mut further = 10;
        while further > 0 {
            for station in &mut stations {
                station.ok("Heartbeat", "{}").await;
                calls += 1;
            }
            let come = has_come.take();
            further -= i32::from(come.is_some());
            has_come.set(come);
        }
    };
    tokio::join!(coming, calling);
    cluster.nodes.extend(has_come.take());
    let look = async || api.get("/cluster").await.expect(200);
    let is_even = |seen: &Value| owners(seen) == ["n0", "n0", "n1", "n1"];
    eventually("both to have a part", look, is_even).await;
    for station in &mut stations {
        station.ok("Heartbeat", "{}").await;
        calls += 1;
    }
    cluster.receiver.await_requests(calls).await;
    let mut streamed = BTreeSet::new();
    for _ in 0..calls {
        let sent = within("an event", stream.next()).await.expect("an event");
        assert!(streamed.insert(sent.json()["id"].to_string()), "twice");
    }
    // Whichever is asked; nothing was sent twice.
    let books = json!({"received": calls, "delivered": calls});
    for node in &cluster.nodes {
        node.api().await_stats(cluster.webhook, books.clone()).await;
        let stations = node.api().get("/stations?connected=true").await.expect(200);
        assert_eq!(stations["data"].as_array().expect("data").len(), STATIONS);
    }
    assert_eq!(cluster.receiver.requests().len(), calls);

    // A change holds in every shard when it is answered.
    let webhook = format!("/webhooks/{}", cluster.webhook);
    let disabled = json!({"enabled": false});
    let late = cluster.nodes[1].api();
    let changed = late.put(&webhook, &disabled).await.expect(200);
    assert_eq!(changed.get("absent_shards"), None, "{changed}");
    for station in &mut stations {
        station.ok("Heartbeat", "{}").await;
    }
    let audit = api.get("/audit").await.expect(200);
    let audited = &audit["webhooks"][0];
    assert_eq!(audited["stats"]["received"], calls, "{audit}");
    assert_eq!(audited.get("unbalanced_shards"), None, "{audit}");
}

#[tokio::test]
async fn a_daemon_alone_is_no_cluster() {
    let alone = daemon().start().await;
    let ended = ctl(&alone).line("cluster status").await;
    assert_eq!(ended.code, 5, "{ended:?}");
}

/// A node that is cut off from NATS, but not from its stations and callers, answers for nobody: as an
/// owner it lets the shards go, and as a gateway it can't reach them.
#[tokio::test]
async fn a_node_that_is_cut_off_answers_for_nobody() {
    // What the network has to bring, before there is none.
    if nats::binary().await.is_none() {
        return;
    }
    let test = "cluster::a_node_that_is_cut_off_answers_for_nobody";
    match network::is_within(test).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(why) => return skip("network namespaces", why),
    }
    let network = Network::new().await;
    let nats = Nats::start_at(Network::BEYOND).await.expect("a server");
    let node = |name| {
        let builder = daemon().flag("--store", &nats.url());
        builder.flag("--shards", "4").flag("--node", name)
    };
    let cut_off = network.daemon(node("n1")).start().await;
    let key_file = cut_off.data_dir().join("secrets.key");
    let key_file = key_file.to_str().expect("UTF-8");
    let other = node("n0")
        .flag("--secrets-key-file", key_file)
        .start()
        .await;
    let api = Api::new(other.http(), Some(cut_off.key()));
    let at = |node: &Daemon| Network::beside(node.ocpp());
    let mut here = Station::connect(other.ocpp(), "S0").await;
    let mut there = Station::connect(at(&cut_off), "S1").await;
    here.ok("Heartbeat", "{}").await;
    there.ok("Heartbeat", "{}").await;

    network.cut().await;
    // The other one owns all shards now.
    here.ok("Heartbeat", "{}").await;
    assert_eq!(
        there.call("Heartbeat", "{}").await.error_code(),
        "InternalError"
    );
    let its_own = cut_off.api();
    let refused = its_own.get("/events").await.expect(503);
    assert_eq!(refused["code"], "unavailable", "{refused}");
    let ready = its_own.get("/readyz").await;
    assert_eq!(ready.status, 503);
    let why = "this node can't renew its lease of a shard";
    assert!(ready.text.contains(why), "{}", ready.text);
    // What alarms are made of is still there.
    let scraped = Scrape::of(its_own.get("/metrics").await.text);
    assert_eq!(scraped.get("pipelet_cluster_has_owner"), Some(0.0));
    assert!(scraped.has("pipelet_store_outage"));
    let seen = its_own.get("/cluster").await.expect(200);
    assert!(seen["nats_error"].is_string(), "{seen}");
    network.heal().await;
    // Its connection was never closed, wherever the shard is by now.
    let answered =
        async { while !matches!(there.call("Heartbeat", "{}").await, Called::Result(_)) {} };
    within("the node to be back", answered).await;

    // Nothing that was refused is there, and nothing that was answered is missing.
    let beats = api
        .get("/events?event=Heartbeat&limit=50")
        .await
        .expect(200);
    assert_eq!(beats["data"].as_array().expect("data").len(), 4, "{beats}");
}

/// With no more permissions than the documents say, and over TLS.
#[tokio::test]
async fn servers_may_ask_who_comes() {
    let authority = Authority::new();
    let identity = authority.server_of(&["127.0.0.1"]);
    let files = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).expect("a writable file");
        path.to_str().expect("UTF-8").to_owned()
    };
    let certificate = file("cert.pem", &identity.certificate_pem);
    let key = file("key.pem", &identity.key_pem);
    let authorities = file("ca.pem", &authority.pem());
    let further = format!(
        r#"
        tls {{ cert_file: "{certificate}", key_file: "{key}" }}
        accounts {{ P {{ jetstream: enabled, users: [{{
            user: pipeletd, password: secret,
            permissions: {{
                publish: ["$JS.API.>", "pipelet.>", "_INBOX.>"],
                subscribe: ["pipelet.>", "_INBOX.>"],
            }}
        }}] }} }}
        "#
    );
    let Some(nats) = Nats::start_with(Ipv4Addr::LOCALHOST, &further).await else {
        return;
    };
    let node = |password: &str| {
        let store = format!("tls://pipeletd:{password}@{}", nats.address());
        let builder = daemon().flag("--store", &store).flag("--shards", "2");
        builder
            .flag("--nats-ca-file", &authorities)
            .flag("--node", "n0")
    };
    let refused = node("wrong").run_to_end().await;
    assert!(
        refused.stderr.contains("doesn't let this node in"),
        "{refused:?}"
    );
    assert!(!refused.stderr.contains("wrong"), "{refused:?}");
    let first = node("secret").start().await;
    let second = first.beside("n1").start().await;
    let mut station = Station::connect(second.ocpp(), "S1").await;
    station.ok("Heartbeat", "{}").await;
    let found = second.api().get("/stations/S1").await.expect(200);
    assert_eq!(found["connected"], true);
    assert!(!first.log().contains("NATS forbids"), "{}", first.log());
}

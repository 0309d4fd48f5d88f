//! The history of transactions: what was charged stays known, whatever happens to the daemon.

use pipelet_tests::{Api, Station, deadline::eventually};
use serde_json::{Value, json};

use crate::scene::Scene;

async fn start(station: &mut Station, connector: u32, tag: &str, meter: u32) -> i64 {
    let payload = json!({
        "connectorId": connector, "idTag": tag, "meterStart": meter,
        "timestamp": format!("2026-04-14T12:00:{:02}Z", meter % 60),
    });
    let answer = station.ok("StartTransaction", payload).await;
    answer["transactionId"].as_i64().expect("transactionId")
}

async fn stop(station: &mut Station, id: i64, meter: u32) -> Value {
    let payload = json!({
        "transactionId": id, "meterStop": meter, "timestamp": "2026-04-14T13:00:00Z",
        "reason": "EVDisconnected", "idTag": "RFID_2",
    });
    station.ok("StopTransaction", payload).await
}

async fn ids(api: &Api, query: &str) -> Vec<i64> {
    let list = api.get(&format!("/transactions{query}")).await.expect(200);
    let data = list["data"].as_array().expect("data").iter();
    data.map(|one| one["transaction_id"].as_i64().expect("an id"))
        .collect()
}

#[tokio::test]
async fn a_transaction_is_known_from_start_to_stop() {
    let scene = Scene::new(&["StartTransaction"]).await;
    let mut station = scene.station("S1").await;
    let id = start(&mut station, 2, "Rfid_1", 1000).await;
    let path = format!("/transactions/{id}");
    let open = scene.api.get(&path).await.expect(200);
    assert_eq!(open["status"], "open");
    assert_eq!(open["meter_start"], 1000);
    assert_eq!(open["id_tag_status"], "Accepted");
    assert_eq!(open["started_at"], "2026-04-14T12:00:40.000Z");
    assert_eq!(open["energy_wh"], Value::Null);

    let meter = format!(
        r#"{{"connectorId":2,"transactionId":{id},"meterValue":[
            {{"timestamp":"2026-04-14T12:30:00Z","sampledValue":[{{"value":"2.50"}}]}}]}}"#
    );
    station.ok("MeterValues", meter).await;
    stop(&mut station, id, 3500).await;
    let closed = scene.api.get(&path).await.expect(200);
    for (key, value) in [
        ("transaction_id", json!(id)),
        ("station_id", json!("S1")),
        ("connector_id", json!(2)),
        ("id_tag", json!("Rfid_1")),
        ("status", json!("stopped")),
        ("meter_stop", json!(3500)),
        ("energy_wh", json!(2500)),
        ("stopped_at", json!("2026-04-14T13:00:00.000Z")),
        ("stop_reason", json!("EVDisconnected")),
        ("stop_id_tag", json!("RFID_2")),
        (
            "last_meter_values",
            json!({"timestamp": "2026-04-14T12:30:00.000Z", "sampled_value": [{"value": "2.50"}]}),
        ),
    ] {
        assert_eq!(closed[key], value, "{key}");
    }
    assert!(closed["stop_received_at"].is_string(), "{closed}");
    let line = format!("transactions show {id}");
    assert_eq!(scene.ctl().json(&line).await, closed);
    let table = scene.ctl().line(&line).await.ok();
    assert!(table.contains("2500 Wh"), "{table}");
    scene.api.get("/transactions/1").await.expect(404);
    scene.api.get("/transactions/one").await.expect(404);
    assert_eq!(scene.ctl().line("transactions show 1").await.code, 3);
}

/// A value that nobody can read is none, and a note says what it was; it never becomes another one.
#[tokio::test]
async fn what_can_not_be_read_is_null_and_noted() {
    let scene = Scene::new(&["StartTransaction"]).await;
    let mut station = scene.station("S1").await;
    let null = Value::Null;
    let cases = [
        (
            r#"{"connectorId":-1,"idTag":"A","meterStart":12.7,"timestamp":"2026-02-30T12:00:00Z"}"#,
            json!([null, null, null]),
            json!([
                "StartTransaction.connectorId: -1 is no connector",
                "StartTransaction.meterStart: 12.7 is no whole number",
                "StartTransaction.timestamp: \"2026-02-30T12:00:00Z\" is no time"
            ]),
        ),
        (
            r#"{"connectorId":18446744073709551616,"idTag":"B","meterStart":1e3,"timestamp":"2020-04-14T12:00:00Z"}"#,
            json!([null, 1000, "2020-04-14T12:00:00.000Z"]),
            json!(["StartTransaction.connectorId: 18446744073709551616 is no connector"]),
        ),
        (
            r#"{"connectorId":"2","idTag":"C","meterStart":12.50e1,"timestamp":5}"#,
            json!([2, 125, null]),
            json!(["StartTransaction.timestamp: 5 is no time"]),
        ),
        (
            r#"{"connectorId":{},"idTag":"D","meterStart":1e30}"#,
            json!([null, null, null]),
            json!([
                "StartTransaction.connectorId: {} is no connector",
                "StartTransaction.meterStart: 1e30 is no whole number"
            ]),
        ),
    ];
    let mut begun = Vec::new();
    for (payload, values, notes) in cases {
        let id = station.ok("StartTransaction", payload).await["transactionId"].clone();
        let one = scene
            .api
            .get(&format!("/transactions/{id}"))
            .await
            .expect(200);
        let keys = ["connector_id", "meter_start", "started_at"];
        assert_eq!(json!(keys.map(|key| &one[key])), values, "{payload}");
        assert_eq!(one["notes"], notes, "{payload}");
        assert!(one["start_received_at"].is_string());
        let known = scene.api.get("/stations/S1").await.expect(200);
        let open = known["open_transactions"].as_array().expect("a list");
        let open = open.last().expect("an open transaction");
        assert_eq!(json!(keys.map(|key| &open[key])), values, "{payload}");
        assert_eq!(
            scene.ctl().json(&format!("transactions show {id}")).await,
            one
        );
        begun.push(id);
    }
    assert_eq!(
        scene.ctl().json("stations show S1").await,
        scene.api.get("/stations/S1").await.expect(200)
    );
    // One without a time of its own is found by the time that it came.
    let path = format!("/transactions/{}", begun[0]);
    let came = scene.api.get(&path).await.expect(200)["start_received_at"].clone();
    let query = format!("?since={}", came.as_str().expect("a time"));
    assert_eq!(ids(&scene.api, &query).await.len(), 3);

    // A meter that ran backwards says nothing of what was charged.
    let stop = format!(
        r#"{{"transactionId":{},"meterStop":999,"timestamp":"later","reason":["x"]}}"#,
        begun[1]
    );
    station.ok("StopTransaction", stop).await;
    let path = format!("/transactions/{}", begun[1]);
    let stopped = scene.api.get(&path).await.expect(200);
    for (key, value) in [
        ("meter_stop", json!(999)),
        ("energy_wh", null.clone()),
        ("stopped_at", null.clone()),
        ("stop_reason", null),
        (
            "notes",
            json!([
                "StartTransaction.connectorId: 18446744073709551616 is no connector",
                "StopTransaction.timestamp: \"later\" is no time",
                "StopTransaction.reason: [\"x\"] is no text",
                "meterStop 999 is below meterStart 1000"
            ]),
        ),
    ] {
        assert_eq!(stopped[key], value, "{key}");
    }
    let line = format!("transactions show {}", begun[1]);
    assert_eq!(scene.ctl().json(&line).await, stopped);
    let table = scene.ctl().line(&line).await.ok();
    assert!(table.contains("999 is below meterStart 1000"), "{table}");
}

#[tokio::test]
async fn transactions_are_listed_latest_first_by_filter_and_in_pages() {
    let scene = Scene::new(&["StartTransaction"]).await;
    let mut first = scene.station("S1").await;
    let mut second = scene.station("S10").await;
    let a = start(&mut first, 1, "Tag_A", 0).await;
    let b = start(&mut second, 1, "Tag_B", 10).await;
    let c = start(&mut first, 2, "TAG_a", 20).await;
    stop(&mut first, a, 100).await;
    let api = &scene.api;
    assert_eq!(ids(api, "").await, [c, b, a]);
    assert_eq!(ids(api, "?station_id=S1").await, [c, a]);
    assert_eq!(ids(api, "?station_id=S1&status=open").await, [c]);
    assert_eq!(ids(api, "?status=stopped").await, [a]);
    assert_eq!(ids(api, "?id_tag=tag_a").await, [c, a]);
    let window = "?since=2026-04-14T12:00:10Z&until=2026-04-14T12:00:20Z";
    assert_eq!(ids(api, window).await, [b]);

    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = api.get(&format!("/transactions?limit=1{cursor}")).await;
        let page = page.expect(200);
        all.push(page["data"][0]["transaction_id"].as_i64().expect("an id"));
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(all, [c, b, a]);
    let listed = scene
        .ctl()
        .json("transactions list --id-tag tag_a --open")
        .await;
    assert_eq!(listed[0]["transaction_id"], c);
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    let problem = api.get("/transactions?status=done").await.expect(422);
    assert_eq!(problem["errors"][0]["pointer"], "?status");
}

#[tokio::test]
async fn transactions_outlive_a_kill() {
    let mut scene = Scene::new(&["StartTransaction"]).await;
    let mut station = scene.station("S1").await;
    let a = start(&mut station, 1, "A", 100).await;
    let b = start(&mut station, 2, "B", 200).await;
    stop(&mut station, a, 150).await;
    scene.crash().await;
    assert_eq!(ids(&scene.api, "").await, [b, a]);
    assert_eq!(ids(&scene.api, "?status=open").await, [b]);
    let known = scene
        .api
        .get(&format!("/transactions/{a}"))
        .await
        .expect(200);
    assert_eq!(
        (&known["energy_wh"], &known["id_tag_status"]),
        (&json!(50), &json!("Accepted"))
    );

    // The charger ends it on a new connection, and the daemon dies again.
    let mut station = scene.station("S1").await;
    stop(&mut station, b, 900).await;
    scene.crash().await;
    let known = scene
        .api
        .get(&format!("/transactions/{b}"))
        .await
        .expect(200);
    assert_eq!(
        (&known["energy_wh"], &known["status"]),
        (&json!(700), &json!("stopped"))
    );
    assert_eq!(scene.daemon.terminate().await.code(), Some(0));
    scene.start_again().await;
    assert_eq!(ids(&scene.api, "?status=stopped").await, [b, a]);
}

#[tokio::test]
async fn a_stop_of_nothing_is_answered_an_event_and_no_transaction() {
    let scene = Scene::new(&["StopTransaction"]).await;
    let mut station = scene.station("S1").await;
    for id in [-1, 0, 4711, i64::MAX] {
        let stop =
            json!({"transactionId": id, "meterStop": 5, "timestamp": "2026-04-14T13:00:00Z"});
        assert_eq!(station.ok("StopTransaction", stop).await, json!({}));
    }
    scene.receiver.await_requests(4).await;
    assert_eq!(ids(&scene.api, "").await, [0_i64; 0]);
}

#[tokio::test]
async fn a_stop_that_comes_after_many_starts_still_ends_its_own() {
    let scene = Scene::new(&["StopTransaction"]).await;
    let mut station = scene.station("S1").await;
    let oldest = start(&mut station, 1, "A", 1).await;
    for meter in 2..70 {
        start(&mut station, 1, "A", meter).await;
    }
    stop(&mut station, oldest, 9).await;
    let path = format!("/transactions/{oldest}");
    let state = || async { scene.api.get(&path).await.expect(200) };
    eventually("the oldest to be stopped", state, |known| {
        known["status"] == "stopped"
    })
    .await;
}

/// Whether they are in memory or, being many of one station, in the store only.
#[tokio::test]
async fn what_nothing_is_heard_of_ends_as_abandoned_until_its_stop_comes() {
    let mut scene = Scene::new(&["StopTransaction"]).await;
    let mut station = scene.station("S1").await;
    let mut open = Vec::new();
    for meter in 0..70 {
        open.push(start(&mut station, 1, "A", meter).await);
    }
    let stopped = start(&mut station, 2, "A", 99).await;
    stop(&mut station, stopped, 100).await;
    let listed = async |scene: &Scene, query: &str| {
        let mut ids = ids(&scene.api, &format!("{query}&limit=100")).await;
        ids.reverse();
        ids
    };
    scene.crash().await;
    assert_eq!(listed(&scene, "?status=open").await, open);
    assert!(scene.daemon.terminate().await.success());

    scene.daemon.set_flag("--transaction-abandon-after", "1ms");
    scene.start_again().await;
    eventually(
        "all to be abandoned",
        || listed(&scene, "?status=abandoned"),
        |ids| *ids == open,
    )
    .await;
    assert_eq!(listed(&scene, "?status=open").await, [0_i64; 0]);
    assert_eq!(listed(&scene, "?status=stopped").await, [stopped]);
    let by_cli = async |filter: &str| {
        let line = format!("transactions list --limit 100 {filter}");
        let listed = scene.ctl().json(&line).await;
        listed.as_array().expect("a list").len()
    };
    assert_eq!(by_cli("--abandoned").await, 70);
    assert_eq!(by_cli("--stopped").await, 1);
    assert_eq!(by_cli("--open").await, 0);
    let known = || async { scene.api.get("/stations/S1").await.expect(200) };
    let none = |known: &Value| known["open_transactions"] == json!([]);
    eventually("none to be open at the station", known, none).await;

    // What it survives is a kill, and a longer patience afterwards.
    assert!(scene.daemon.terminate().await.success());
    scene.daemon.set_flag("--transaction-abandon-after", "30d");
    scene.start_again().await;
    scene.crash().await;
    assert_eq!(listed(&scene, "?status=abandoned").await, open);
    let mut station = scene.station("S1").await;
    for late in [open[0], open[69]] {
        stop(&mut station, late, 200).await;
        let path = format!("/transactions/{late}");
        let state = || async { scene.api.get(&path).await.expect(200) };
        eventually("a late stop", state, |known| known["status"] == "stopped").await;
    }
    assert_eq!(listed(&scene, "?status=abandoned").await, open[1..69]);

    assert!(scene.daemon.terminate().await.success());
    scene.daemon.set_flag("--transaction-retention", "0s");
    scene.start_again().await;
    let any = || listed(&scene, "?id_tag=A");
    eventually("all to be forgotten", any, Vec::is_empty).await;
}

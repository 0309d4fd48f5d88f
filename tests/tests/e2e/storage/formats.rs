//! What a store has in it is there after a kill, and goes out; one of another format is refused.

use pipelet_tests::{
    Answer, Api, Builder, Ctl, Daemon, Dial, Receiver, Station, deadline::eventually,
};
use serde_json::{Value, json};

use crate::{scene::daemon, traces::holds};

const KEY: &str = "hcpms_live_a-key-of-the-store";
const PASSWORD: &str = "a password of the station";
const SECRETS: [&str; 2] = ["a secret of the dead", "a secret of those that wait"];
/// Longer than a record of the store may be in one piece.
const LONG: usize = 9_000;

fn filling() -> Builder {
    daemon().variable("PIPELETD_BOOTSTRAP_KEY", KEY)
}

fn api(daemon: &Daemon) -> Api {
    Api::new(daemon.http(), Some(KEY.to_owned()))
}

async fn station(daemon: &Daemon) -> Station {
    let dial = Dial::new(daemon.ocpp(), "S1").basic("S1", PASSWORD);
    dial.connect().await.expect("a handshake")
}

fn ctl(daemon: &Daemon) -> Ctl {
    daemon.ctl_with_key(env!("CARGO_BIN_EXE_e2e-pipeletctl"), KEY)
}

/// One webhook has a dead letter; the other one two retries and three events not yet attempted.
async fn fill(builder: Builder) -> Daemon {
    let builder = builder.flag("--max-attempts", "1");
    let mut daemon = builder.flag("--delivery-timeout", "1h").start().await;
    let nobody = Receiver::refused_url().await;
    for (name, event, secret) in [
        ("Dead", "StatusNotification", SECRETS[0]),
        ("Waiting", "MeterValues", SECRETS[1]),
    ] {
        let webhook = json!({
            "name": name, "url": nobody, "events": [event],
            "secret_header": format!("X-{name}"), "secret_value": secret,
        });
        api(&daemon).post("/webhooks", &webhook).await.expect(201);
    }
    let registered = json!({"password": PASSWORD, "security_profile": 1});
    let answer = api(&daemon).put("/stations/S1", &registered).await;
    answer.expect(201);
    for tag in ["RFID_1", "RFID_2"] {
        let tag = json!({"id_tag": tag, "status": "Blocked"});
        api(&daemon).post("/id-tags", &tag).await.expect(201);
    }
    ctl(&daemon).line("keys create --name second").await.ok();

    let mut connected = station(&daemon).await;
    connected.boot().await;
    let status = json!({"connectorId": 1, "errorCode": "NoError", "status": "Available"});
    connected.ok("StatusNotification", status).await;
    api(&daemon).await_failed("", 1).await;
    let stopped = connected.start_transaction(1000).await;
    let stop = json!({
        "transactionId": stopped, "meterStop": 2000, "timestamp": "2026-04-14T13:00:00Z",
    });
    connected.ok("StopTransaction", stop).await;
    connected.start_transaction(2000).await;
    connected.close().await;
    daemon.terminate().await;

    daemon.set_flag("--max-attempts", "7");
    daemon.set_flag("--retry-schedule", "2s");
    daemon.start_again().await;
    let mut connected = station(&daemon).await;
    for number in 0..2 {
        connected.ok("MeterValues", meter_values(number, 10)).await;
    }
    let waiting = || async { api(&daemon).get("/webhooks/2/deliveries").await.expect(200) };
    let both = |list: &Value| list["data"].as_array().is_some_and(|data| data.len() == 2);
    eventually("two retries", waiting, both).await;

    let hanging = Receiver::start().await;
    hanging.answer(Answer::Hang);
    let change = json!({"url": hanging.url()});
    api(&daemon).put("/webhooks/2", &change).await.expect(200);
    for number in 2..5 {
        connected
            .ok("MeterValues", meter_values(number, LONG))
            .await;
    }
    hanging.await_requests(1).await;
    let disabled = json!({"enabled": false});
    api(&daemon).put("/webhooks/2", &disabled).await.expect(200);
    let owed = json!({"received": 5, "pending": 5});
    api(&daemon).await_stats(2, owed).await;
    daemon.kill9().await;
    daemon
}

fn meter_values(number: usize, padding: usize) -> Value {
    json!({
        "connectorId": number, "meterValue": [{
            "timestamp": "2026-04-14T12:30:00Z",
            "sampledValue": [{"value": "1".repeat(padding)}],
        }],
    })
}

async fn check(mut daemon: Daemon) {
    let api = api(&daemon);
    let receiver = Receiver::start().await;
    let list = api.get("/webhooks").await;
    let names: Vec<_> = list.json()["data"].as_array().expect("data").clone();
    let names = names.iter().map(|webhook| &webhook["secret_header"]);
    assert_eq!(names.collect::<Vec<_>>(), ["X-Dead", "X-Waiting"]);
    api.await_stats(2, json!({"received": 5, "pending": 5}))
        .await;
    let failed = api.await_failed("", 1).await;

    // Without its secret, which only the store knows.
    let change = json!({"url": receiver.url(), "enabled": true});
    api.put("/webhooks/2", &change).await.expect(200);
    let requests = receiver.await_requests(5).await;
    let mut connectors = Vec::new();
    for request in &requests {
        assert_eq!(request.header("X-Waiting"), Some(SECRETS[1]));
        let payload = request.json()["payload"].clone();
        let number = usize::try_from(payload["connectorId"].as_u64().expect("a number"));
        let number = number.expect("a small one");
        let padding = if number < 2 { 10 } else { LONG };
        assert_eq!(payload, meter_values(number, padding));
        assert_eq!(request.attempt() == "1", number >= 2);
        connectors.push(number);
    }
    connectors.sort_unstable();
    assert_eq!(connectors, [0, 1, 2, 3, 4]);
    api.await_stats(2, json!({"delivered": 5})).await;

    api.put("/webhooks/1", &change).await.expect(200);
    let id = &failed[0]["id"];
    let replay = format!("/failed-deliveries/{id}/replay");
    assert!(api.post_empty(&replay).await.status < 300);
    let replayed = &receiver.await_requests(6).await[5];
    assert_eq!(replayed.header("X-Dead"), Some(SECRETS[0]));
    assert_eq!(replayed.json()["event"], "StatusNotification");

    let tags = api.get("/id-tags").await.expect(200);
    assert_eq!(tags["data"][1]["status"], "Blocked", "{tags}");
    let keys = ctl(&daemon).json("keys list").await;
    assert_eq!(keys.as_array().map(Vec::len), Some(2), "{keys}");
    let dial = Dial::new(daemon.ocpp(), "S1");
    assert_eq!(dial.basic("S1", "a wrong password").refused().await, 401);
    let mut station = station(&daemon).await;
    let known = api.get("/transactions").await.expect(200);
    let known: Vec<_> = known["data"].as_array().expect("data").clone();
    let status = known.iter().map(|known| &known["status"]);
    assert_eq!(status.collect::<Vec<_>>(), ["open", "stopped"]);
    let new = station.start_transaction(3000).await;
    assert!(known.iter().all(|known| known["transaction_id"] != new));

    daemon.kill9().await;
    for secret in SECRETS.into_iter().chain([PASSWORD, KEY]) {
        let found = holds(daemon.data_dir(), secret.as_bytes());
        assert!(found.is_empty(), "{secret:?} is in {found:?}");
    }
}

#[tokio::test]
async fn a_store_of_this_format_keeps_everything() {
    let mut daemon = fill(filling()).await;
    daemon.start_again().await;
    check(daemon).await;
}

//! Every action of the catalogue in its direction, with stations that other people wrote.
//!
//! PyPI's `ocpp` and npm's `ocpp-rpc` in strict mode hold our answers, and what we ask, against
//! the official schemas. What went either way must have become an event at a receiver.

use std::{collections::BTreeSet, path::PathBuf};

use pipelet_tests::deadline::{eventually, within};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    node,
    ocpp::commands::ACTIONS,
    python,
    scene::{Scene, daemon},
};

/// What a session tells, in its order.
const TOLD: &[&str] = &[
    "BootNotification",
    "Heartbeat",
    "Authorize",
    "StatusNotification",
    "StartTransaction",
    "StatusNotification",
    "MeterValues",
    "MeterValues",
    "MeterValues",
    "StopTransaction",
    "DataTransfer",
    "DiagnosticsStatusNotification",
    "FirmwareStatusNotification",
    "SecurityEventNotification",
    "LogStatusNotification",
    "SignedFirmwareStatusNotification",
    "SignCertificate",
];

/// Where a library's scripts are, and what runs them. Each takes the URL to connect to.
struct Library {
    program: PathBuf,
    scripts: PathBuf,
    extension: &'static str,
}

impl Library {
    async fn python() -> Option<Self> {
        Some(Self {
            program: python::venv("station", python::PEERS)
                .await?
                .join("bin/python"),
            scripts: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python").into(),
            extension: "py",
        })
    }

    async fn node() -> Option<Self> {
        Some(Self {
            program: "node".into(),
            scripts: node::scripts().await?,
            extension: "js",
        })
    }

    fn run(&self, script: &str, scene: &Scene) -> Command {
        let script = self.scripts.join(script).with_extension(self.extension);
        let mut command = Command::new(&self.program);
        command
            .arg(script)
            .arg(format!("ws://{}/ocpp/CLIENT_1", scene.daemon.ocpp()))
            .kill_on_drop(true);
        command
    }
}

/// The script ends well only if it could agree with every answer.
async fn runs_a_whole_session(library: &Library) {
    let scene = Scene::new(TOLD).await;
    let secret = json!({"secret_header": "X-Webhook-Secret", "secret_value": "my-secret"});
    scene
        .api
        .put(&format!("/webhooks/{}", scene.webhook), &secret)
        .await
        .expect(200);
    let session = library.run("station", &scene).output();
    let output = within("the session", session).await.expect("the library");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let transaction: i64 = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .expect("the transaction's id");

    let requests = scene.receiver.await_requests(TOLD.len()).await;
    let told: Vec<_> = requests
        .iter()
        .map(|request| request.json()["event"].clone())
        .collect();
    assert_eq!(told, TOLD);
    for request in &requests {
        assert_eq!(request.header("x-webhook-secret"), Some("my-secret"));
        assert_eq!(request.json()["station_id"], "CLIENT_1");
    }
    for number in [4, 6, 7, 8, 9] {
        let body = requests[number].json();
        assert_eq!(body["payload"]["transactionId"], transaction, "{body}");
    }
}

/// The library answers with a CALLERROR what is no valid request to it.
async fn takes_every_command(library: &Library) {
    let actions: Vec<&str> = ACTIONS.iter().map(|(action, _)| *action).collect();
    let scene = Scene::new(&actions).await;
    let _station = library.run("answering", &scene).spawn().expect("a process");
    let state = || async { scene.api.get("/stations/CLIENT_1").await };
    eventually("the station", state, |known| known.status == 200).await;
    for (number, (action, body)) in ACTIONS.iter().enumerate() {
        let path = format!("/stations/CLIENT_1/commands/{action}");
        let body: Value = serde_json::from_str(body).expect("JSON");
        let answer = scene.api.post(&path, &body).await.expect(200);
        assert_eq!(answer["status"], "answered", "{action}: {answer}");
        assert!(answer["payload"].is_object(), "{action}: {answer}");
        let event = scene.receiver.await_requests(number + 1).await[number].json();
        assert_eq!(
            (&event["event"], &event["payload"]),
            (&json!(action), &body)
        );
    }
}

#[tokio::test]
async fn a_python_charge_point_runs_a_whole_session() {
    if let Some(python) = Library::python().await {
        runs_a_whole_session(&python).await;
    }
}

#[tokio::test]
async fn a_python_charge_point_takes_every_command() {
    if let Some(python) = Library::python().await {
        takes_every_command(&python).await;
    }
}

#[tokio::test]
async fn a_node_station_runs_a_whole_session() {
    if let Some(node) = Library::node().await {
        runs_a_whole_session(&node).await;
    }
}

#[tokio::test]
async fn a_node_station_takes_every_command() {
    if let Some(node) = Library::node().await {
        takes_every_command(&node).await;
    }
}

/// What the tables here leave out would be in no test with either library.
#[tokio::test]
async fn no_action_of_the_catalogue_is_left_out() {
    let daemon = daemon().start().await;
    let catalogue = daemon.api().get("/event-types").await.expect(200)["data"].clone();
    let of = |directions: [&str; 2]| -> BTreeSet<String> {
        let kinds = catalogue.as_array().expect("data").iter();
        kinds
            .filter(|kind| directions.iter().any(|way| kind["direction"] == *way))
            .map(|kind| kind["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    let told: BTreeSet<String> = TOLD.iter().map(|&action| action.to_owned()).collect();
    assert_eq!(told, of(["station_to_csms", "both"]));
    let asked: BTreeSet<String> = ACTIONS
        .iter()
        .map(|(action, _)| (*action).to_owned())
        .collect();
    assert_eq!(asked, of(["csms_to_station", "both"]));
    assert_eq!(told.union(&asked).count(), 28 + 11);
}

//! npm's `ocpp-rpc` in strict mode as a station: a second library, by other people, that judges
//! every answer of ours and everything that we ask.

use pipelet_tests::deadline::within;
use tokio::process::Command;

use crate::{node, scene::Scene};

/// What the session tells, in its order.
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

#[tokio::test]
async fn a_node_station_runs_a_whole_session() {
    let Some(scripts) = node::scripts().await else {
        return;
    };
    let scene = Scene::new(TOLD).await;
    let session = Command::new("node")
        .arg(scripts.join("station.js"))
        .arg(format!("ws://{}/ocpp", scene.daemon.ocpp()))
        .arg("NODE 1")
        .kill_on_drop(true)
        .output();
    let output = within("the session", session).await.expect("node");
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
        assert_eq!(request.json()["station_id"], "NODE 1");
    }
    for number in [4, 6, 7, 8, 9] {
        let body = requests[number].json();
        assert_eq!(body["payload"]["transactionId"], transaction, "{body}");
    }
}

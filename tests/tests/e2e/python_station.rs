//! A whole charging session of the PyPI `ocpp` charge point, whose schema validation judges
//! every answer of ours.

use pipelet_tests::deadline::within;
use serde_json::json;
use tokio::process::Command;

use crate::{python, scene::Scene};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/station.py");

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
];

#[tokio::test]
async fn a_python_charge_point_runs_a_whole_session() {
    let Some(venv) = python::venv("station").await else {
        return;
    };
    let scene = Scene::new(TOLD).await;
    let secret = json!({"secret_header": "X-Webhook-Secret", "secret_value": "my-secret"});
    scene
        .api
        .put(&format!("/webhooks/{}", scene.webhook), &secret)
        .await
        .expect(200);

    let url = format!("ws://{}/ocpp/PYTHON_1", scene.daemon.ocpp());
    let session = Command::new(venv.join("bin/python"))
        .arg(SCRIPT)
        .arg(url)
        .kill_on_drop(true)
        .output();
    let output = within("the session", session).await.expect("python");
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
        assert_eq!(request.json()["station_id"], "PYTHON_1");
    }
    for number in [4, 6, 7, 8, 9] {
        let body = requests[number].json();
        assert_eq!(body["payload"]["transactionId"], transaction, "{body}");
    }
}

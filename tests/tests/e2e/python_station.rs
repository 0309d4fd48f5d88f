//! A whole charging session of the PyPI `ocpp` charge point, whose schema validation judges
//! every answer of ours.

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use pipelet_tests::deadline::within;
use serde_json::json;
use tokio::process::Command;

use crate::scene::Scene;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/station.py");
const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/requirements.txt");

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
    let python = match python_with_ocpp().await {
        Ok(python) => python,
        // Not print macros: those are captured, and this must be seen when the test passes.
        Err(reason) if env::var_os("CI").is_none() => {
            let _ = writeln!(
                io::stderr(),
                "\n*** SKIPPED: the Python OCPP station: {reason}\n"
            );
            return;
        }
        Err(reason) => panic!("in CI nothing is skipped: {reason}"),
    };
    let scene = Scene::new(TOLD).await;
    let secret = json!({"secret_header": "X-Webhook-Secret", "secret_value": "my-secret"});
    scene
        .api
        .put(&format!("/webhooks/{}", scene.webhook), &secret)
        .await
        .expect(200);

    let url = format!("ws://{}/ocpp/PYTHON_1", scene.daemon.ocpp());
    let session = Command::new(python)
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

/// The interpreter of a virtual environment under `target/` that has what the station needs,
/// or why there is none.
///
/// It is made once for each version of the requirements. The lock is held meanwhile, because
/// two test processes may run at once.
async fn python_with_ocpp() -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let lock = File::create(target.join("python-ocpp.lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;

    let venv = target.join("python-ocpp");
    let python = venv.join("bin/python");
    let installed = venv.join("installed.txt");
    let wanted = fs::read_to_string(REQUIREMENTS).map_err(|error| error.to_string())?;
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&venv))
    .await?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
        REQUIREMENTS,
    ];
    run(Command::new(&python).args(pip)).await?;
    fs::write(&installed, wanted).map_err(|error| error.to_string())?;
    Ok(python)
}

async fn run(command: &mut Command) -> Result<(), String> {
    let what = format!("{:?}", command.as_std());
    let output = command.kill_on_drop(true).output().await;
    let output = output.map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{what}: {}",
        String::from_utf8_lossy(&output.stderr)
    ))
}

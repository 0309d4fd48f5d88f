//! Every command against the PyPI `ocpp` charge point, whose schema validation judges what we
//! send, and whose answers are those of the standard.

use pipelet_tests::deadline::eventually;
use tokio::process::Command;

use crate::{commands::ACTIONS, python, scene::Scene};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/answering.py");

#[tokio::test]
async fn a_python_charge_point_takes_every_command() {
    let Some(venv) = python::venv("station").await else {
        return;
    };
    let actions: Vec<&str> = ACTIONS.iter().map(|(action, _)| *action).collect();
    let scene = Scene::new(&actions).await;
    let station = Command::new(venv.join("bin/python"))
        .arg(SCRIPT)
        .arg(format!("ws://{}/ocpp/PYTHON_1", scene.daemon.ocpp()))
        .kill_on_drop(true)
        .spawn()
        .expect("python");
    let state = || async { scene.api.get("/stations/PYTHON_1").await };
    eventually("the charge point", state, |known| known.status == 200).await;
    for (action, body) in ACTIONS {
        let path = format!("/stations/PYTHON_1/commands/{action}");
        let body = serde_json::from_str(body).expect("JSON");
        let answer = scene.api.post(&path, &body).await.expect(200);
        assert_eq!(answer["status"], "answered", "{action}: {answer}");
    }
    let requests = scene.receiver.await_requests(ACTIONS.len()).await;
    let told: Vec<_> = requests
        .iter()
        .map(|request| request.json()["event"].clone())
        .collect();
    assert_eq!(told, actions);
    drop(station);
}

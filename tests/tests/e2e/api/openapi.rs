//! The API's description, held to what the daemon does.
//!
//! Routes and roles are compared where the daemon makes its router; here it is what only shows from
//! outside: methods, answers, and requests that schemathesis makes up after the description.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Method;
use pipelet_tests::{Api, Frame, Receiver, Station};
use serde_json::{Value, json};
use tokio::{
    process::Command,
    time::{interval, timeout},
};

use crate::{
    python,
    scene::{Scene, daemon},
};

/// Sends thousands of requests.
const TRIAL: Duration = Duration::from_mins(5);

async fn document(api: &Api) -> Value {
    let reply = api.with_key(None).get("/openapi.json").await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    reply.expect(200)
}

/// Every path under `/api/v1` with something in the place of its parameters, and its operations.
fn paths(document: &Value) -> Vec<(String, Vec<(Method, &Value)>)> {
    let paths = document["paths"].as_object().expect("paths").iter();
    paths
        .map(|(path, methods)| {
            let filled = path.replace("{id}", "9").replace("{tag}", "T");
            let filled = filled.replace("{action}", "Reset");
            let methods = methods.as_object().expect("methods").iter();
            let methods = methods.map(|(method, operation)| (named(method), operation));
            (filled.replacen("/api/v1", "", 1), methods.collect())
        })
        .collect()
}

fn named(method: &str) -> Method {
    method.to_uppercase().parse().expect("a method")
}

#[tokio::test]
async fn the_methods_and_roles_that_are_described_are_those_that_there_are() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let document = document(&scene.api).await;
    assert_eq!(document["openapi"], "3.1.0");
    let ctl = scene.ctl();
    let made = ctl.json("keys create --name theirs --role read-only").await;
    let key = made["key"].as_str().expect("the key").to_owned();
    let reader = scene.api.with_key(Some(&key));
    let (body, mut ids) = (Some("application/json"), BTreeSet::new());
    for (path, operations) in paths(&document) {
        let refused = scene
            .api
            .send(Method::PATCH, &path, None, String::new())
            .await;
        assert_eq!(refused.status, 405, "{path}: {}", refused.text);
        let allowed = refused.header("allow").expect("what is allowed");
        let allowed: BTreeSet<_> = allowed.split(',').filter(|name| *name != "HEAD").collect();
        let described: BTreeSet<_> = operations
            .iter()
            .map(|(method, _)| method.as_str())
            .collect();
        assert_eq!(allowed, described, "{path}");
        for (method, operation) in &operations {
            let id = operation["operationId"].as_str().expect("a name");
            assert!(ids.insert(id), "{id} is there twice");
            if id == "streamEvents" {
                continue;
            }
            let reply = reader
                .send(method.clone(), &path, body, "{}".to_owned())
                .await;
            let needs_more = operation["x-required-role"] != "read-only";
            assert_eq!(
                reply.status == 403,
                needs_more,
                "{method} {path}: {}",
                reply.text
            );
            let status = reply.status.to_string();
            assert!(
                operation["responses"][&status].is_object(),
                "{id}: {status}"
            );
        }
    }
}

/// Accepts whatever it is asked, and dials again where it is sent away.
pub(crate) async fn accept_all(ocpp: SocketAddr, asked: Arc<AtomicUsize>) {
    let mut pace = interval(Duration::from_secs(10));
    loop {
        let mut station = Station::connect(ocpp, "WALLBOX_001").await;
        // What it is asked may come before the answer.
        let boot = r#"[2,"b","BootNotification",{"chargePointVendor":"A","chargePointModel":"W"}]"#;
        station.send(boot).await;
        loop {
            tokio::select! {
                frame = station.next() => match frame {
                    Frame::Json(frame) if frame[0] == 2 => {
                        asked.fetch_add(1, Ordering::Relaxed);
                        let answer = json!([3, frame[1], {"status": "Accepted"}]);
                        if !station.send_while_open(answer.to_string()).await {
                            break;
                        }
                    }
                    Frame::Json(_) => {}
                    Frame::Closed(_) => break,
                },
                // What is never silent is never taken for lost.
                _ = pace.tick() => {
                    station.send_while_open(r#"[2,"h","Heartbeat",{}]"#).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_made_up_after_the_description_is_answered_as_described() {
    let Some(venv) = python::venv("openapi", python::SCHEMATHESIS).await else {
        return;
    };
    let daemon = daemon().flag("--api-rate", "100000/s").start().await;
    let receiver = Receiver::start().await;
    daemon.api().subscribe(&receiver.url(), &["*"]).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let station = tokio::spawn(accept_all(daemon.ocpp(), Arc::clone(&asked)));

    let mut trial = Command::new(venv.join("bin/st"));
    trial
        .arg("--config-file")
        .arg(python::script("openapi.toml"))
        .arg("run")
        .arg(format!("http://{}/api/v1/openapi.json", daemon.http()))
        .args([
            "--phases",
            "examples,coverage,fuzzing",
            "--continue-on-failure",
        ])
        .args(["--no-color", "-H"])
        .arg(format!("X-API-Key: {}", daemon.key()))
        .env("SCHEMATHESIS_HOOKS", python::script("openapi.py"))
        // It keeps examples where it runs.
        .current_dir(&venv)
        .kill_on_drop(true);
    let output = timeout(TRIAL, trial.output()).await.expect("an end");
    let output = output.expect("schemathesis");
    station.abort();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("Tested: 50"), "{told}");
    assert!(asked.load(Ordering::Relaxed) > 50, "{told}");
}

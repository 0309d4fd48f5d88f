//! Signatures: held against the published libraries of others, within the example receivers.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use pipelet_tests::{Api, Receiver, Request, deadline::within, skip};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::{
    node, python,
    scene::{Scene, ctl, daemon},
};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/receivers");
const SIGNING_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SECRET: &str = "my-secret-value-here";

/// An example receiver that runs.
struct Running {
    _process: Child,
    url: String,
    printed: Lines<BufReader<ChildStdout>>,
}

impl Running {
    async fn start(mut command: Command) -> Self {
        let mut process = command
            .env("WEBHOOK_SECRET", SECRET)
            .env("SIGNING_SECRET", SIGNING_SECRET)
            .env("PORT", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the receiver");
        let stderr = process.stderr.take().expect("stderr is piped");
        let first = BufReader::new(stderr).lines().next_line().await;
        let first = first.expect("a readable pipe").expect("its port");
        let port = first
            .strip_prefix("listening on port ")
            .expect(&first)
            .to_owned();
        let stdout = process.stdout.take().expect("stdout is piped");
        Self {
            _process: process,
            url: format!("http://127.0.0.1:{port}/"),
            printed: BufReader::new(stdout).lines(),
        }
    }

    async fn prints(&mut self, expected: &str) {
        let line = within(expected, self.printed.next_line()).await;
        assert_eq!(line.expect("a readable pipe").as_deref(), Some(expected));
    }

    /// What it answers to a delivery that somebody else sends, maybe changed.
    async fn answer(&self, request: &Request, header: (&str, &str), body: &[u8]) -> u16 {
        let mut post = reqwest::Client::new().post(&self.url).body(body.to_vec());
        for name in [
            "content-type",
            "x-webhook-secret",
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
        ] {
            let value = match header {
                (changed, value) if changed == name => value,
                _ => request.header(name).expect(name),
            };
            post = post.header(name, value);
        }
        let answer = within("an answer", post.send()).await;
        answer.expect("an answer").status().as_u16()
    }
}

fn example(path: &str) -> PathBuf {
    Path::new(EXAMPLES).join(path)
}

async fn signed(api: &Api, url: &str) -> u64 {
    let webhook = json!({
        "name": "Signed", "url": url, "events": ["Heartbeat"],
        "secret_header": "X-Webhook-Secret", "secret_value": SECRET,
        "signing_secret": SIGNING_SECRET,
    });
    let created = api.post("/webhooks", &webhook).await.expect(201);
    assert_eq!(created["has_signing_secret"], true);
    assert!(created.get("signing_secret").is_none(), "{created}");
    created["id"].as_u64().expect("an id")
}

/// It takes what is ours once, and nothing else.
async fn holds(command: Command) {
    let mut running = Running::start(command).await;
    let receiver = Receiver::start().await;
    let daemon = daemon().start().await;
    let api = daemon.api();
    let webhook = signed(&api, &running.url).await;
    signed(&api, &receiver.url()).await;
    let mut station = pipelet_tests::Station::connect(daemon.ocpp(), "S1").await;
    station.ok("Heartbeat", "{}").await;
    running.prints("Heartbeat S1").await;

    // The other webhook's delivery is the same event: for this receiver, a duplicate.
    let seen = receiver.await_requests(1).await.remove(0);
    let body = seen.body.clone();
    assert_eq!(running.answer(&seen, ("", ""), &body).await, 204);
    let mut changed = body.to_vec();
    *changed.last_mut().expect("a body") = b' ';
    assert_eq!(running.answer(&seen, ("", ""), &changed).await, 401);
    let forged = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for header in [
        ("x-webhook-secret", "another"),
        ("webhook-signature", forged),
        ("webhook-id", "evt_00000000000000000000000000000000"),
        // Older than receivers take: somebody plays it again.
        ("webhook-timestamp", "1600000000"),
    ] {
        assert_eq!(
            running.answer(&seen, header, &body).await,
            401,
            "{header:?}"
        );
    }
    // Of all that, it handled nothing.
    station.ok("Heartbeat", "{}").await;
    running.prints("Heartbeat S1").await;
    api.await_stats(webhook, json!({"received": 2, "delivered": 2}))
        .await;
    let test = api.post_empty(&format!("/webhooks/{webhook}/test")).await;
    assert_eq!(test.expect(200)["ok"], true);
    running.prints("Heartbeat TEST_STATION").await;

    // With the new secret beside the old one, it goes on; without the old one, it doesn't.
    let rotate = format!("/webhooks/{webhook}/rotate-secret");
    api.post_empty(&rotate).await.expect(200);
    station.ok("Heartbeat", "{}").await;
    running.prints("Heartbeat S1").await;
    let replace = json!({"generate_signing_secret": true});
    api.put(&format!("/webhooks/{webhook}"), &replace)
        .await
        .expect(200);
    let test = api.post_empty(&format!("/webhooks/{webhook}/test")).await;
    assert_eq!(test.expect(200)["status_code"], 401);
}

#[tokio::test]
async fn the_receiver_in_python() {
    let requirements = example("python-flask/requirements.txt");
    let Some(venv) = python::venv("flask", &requirements).await else {
        return;
    };
    let mut python = Command::new(venv.join("bin/python"));
    python.arg(example("python-flask/app.py"));
    holds(python).await;
}

#[tokio::test]
async fn the_receiver_in_node() {
    let sources = example("node-express");
    let Some(project) = node::project("express", &sources, &["server.js"]).await else {
        return;
    };
    let mut node = Command::new("node");
    node.arg(project.join("server.js"));
    holds(node).await;
}

#[tokio::test]
async fn the_receiver_in_rust() {
    holds(Command::new(env!("CARGO_BIN_EXE_e2e-receiver"))).await;
}

#[tokio::test]
async fn the_receiver_in_go() {
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-receiver");
    let build = Command::new("go")
        .args(["build", "-o"])
        .arg(&binary)
        .arg(".")
        .current_dir(example("go"))
        .env("GOFLAGS", "-mod=mod")
        .output();
    match build.await {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => return skip("Go", error),
    }
    holds(Command::new(binary)).await;
}

#[tokio::test]
async fn secrets_are_shown_once_and_kept_over_restarts() {
    let mut scene = Scene::new(&["Heartbeat"]).await;
    let path = format!("/webhooks/{}", scene.webhook);
    let plain = scene.api.get(&path).await.expect(200);
    assert_eq!(plain["has_signing_secret"], false);
    let made = json!({"generate_signing_secret": true});
    let answer = scene.api.put(&path, &made).await.expect(200);
    let first = answer["signing_secret"]
        .as_str()
        .expect("a secret")
        .to_owned();
    assert!(first.starts_with("whsec_") && first.len() == 50, "{first}");
    let answer = scene.api.post_empty(&format!("{path}/rotate-secret")).await;
    let answer = answer.expect(200);
    let second = answer["signing_secret"]
        .as_str()
        .expect("a secret")
        .to_owned();
    assert_eq!(
        answer["retiring_signing_secrets"].as_array().map(Vec::len),
        Some(1)
    );

    // An attempt is signed with both, the newest first, also by the next process.
    let verified = async |scene: &Scene, count: usize| {
        let mut station = scene.station("S1").await;
        station.ok("Heartbeat", "{}").await;
        let request = scene.receiver.await_requests(count).await.remove(count - 1);
        let signatures = request.header("webhook-signature").expect("signatures");
        let each: Vec<_> = signatures.split(' ').collect();
        assert_eq!(each.len(), 2, "{signatures}");
        for (secret, signature) in [(&second, each[0]), (&first, each[1])] {
            let mut headers = http::HeaderMap::new();
            for name in ["webhook-id", "webhook-timestamp"] {
                let value = request.header(name).expect(name);
                headers.insert(name, value.parse().expect("a header"));
            }
            headers.insert("webhook-signature", signature.parse().expect("a header"));
            let webhook = standardwebhooks::Webhook::new(secret).expect("a secret");
            let verified = webhook.verify(&request.body, &headers);
            verified.expect("a signature of ours");
        }
    };
    verified(&scene, 1).await;
    scene.crash().await;
    verified(&scene, 2).await;

    // Nobody is shown them again, and nothing on the disk or in the log has them.
    let shown =
        scene.api.get(&path).await.text + &scene.ctl().line("webhooks list -o json").await.ok();
    let log = scene.daemon.log();
    scene.daemon.kill9().await;
    for secret in [&first, &second] {
        assert!(!shown.contains(secret.as_str()) && !log.contains(secret.as_str()));
        let found = crate::traces::holds(scene.daemon.data_dir(), secret.as_bytes());
        assert!(found.is_empty(), "{found:?}");
    }
}

#[tokio::test]
async fn what_is_no_signing_secret_is_refused() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let path = format!("/webhooks/{}", scene.webhook);
    let refused = async |body: serde_json::Value| {
        let problem = scene.api.put(&path, &body).await.expect(422);
        problem["errors"][0]["code"]
            .as_str()
            .expect("a code")
            .to_owned()
    };
    let short = json!({"signing_secret": "whsec_c2hvcnQ="});
    assert_eq!(refused(short.clone()).await, "invalid_signing_secret");
    let both = json!({"signing_secret": null, "generate_signing_secret": true});
    assert_eq!(refused(both).await, "contradictory");
    let rotate = format!("{path}/rotate-secret");
    scene.api.post(&rotate, &short).await.expect(422);
    scene
        .api
        .post_empty("/webhooks/99/rotate-secret")
        .await
        .expect(404);

    // The tool does the same.
    let ctl = ctl(&scene.daemon);
    let id = scene.webhook;
    let made = ctl.json(&format!("webhooks update {id} --sign")).await;
    assert!(made["signing_secret"].is_string(), "{made}");
    let rotated = ctl.json(&format!("webhooks rotate-secret {id}")).await;
    assert_ne!(rotated["signing_secret"], made["signing_secret"]);
    let cleared = ctl
        .json(&format!("webhooks update {id} --clear-signing-secret"))
        .await;
    assert_eq!(cleared["has_signing_secret"], false, "{cleared}");
}

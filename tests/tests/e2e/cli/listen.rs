//! `pipeletctl listen`: what a local application gets of a daemon's events.

use pipelet_tests::{Receiver, Request};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::scene::{Scene, ctl};

/// What depends on where and when it was sent.
const VARYING: [&str; 4] = [
    "host",
    "webhook-timestamp",
    "webhook-signature",
    "traceparent",
];

/// What does not depend on where and when it was sent.
fn told(request: &Request) -> (String, Vec<(String, String)>) {
    let headers = request.headers.iter();
    let mut headers: Vec<_> = headers
        .map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()))
        .filter(|(name, _)| !VARYING.contains(&name.as_str()))
        .collect();
    headers.sort();
    (request.text().to_owned(), headers)
}

#[tokio::test]
async fn an_application_gets_what_a_webhook_gets() {
    let scene = Scene::new(&["MeterValues"]).await;
    let path = format!("/webhooks/{}", scene.webhook);
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let signed = json!({"signing_secret": secret});
    scene.api.put(&path, &signed).await.expect(200);
    let app = Receiver::start().await;
    let mut station = scene.station("S\"1").await;
    // Neither the order of the keys nor the spaces are what a serializer would make.
    let payload = r#"{ "meterValue" : [ ],"connectorId":1 }"#;
    station.ok("MeterValues", payload).await;
    let posted = scene.receiver.await_requests(1).await.remove(0);
    let url = app.url();
    let line = format!("listen --forward-to {url} --event MeterValues --since 1h --limit 1");
    let line = format!("{line} --signing-secret {secret}");
    scene.ctl().line(&line).await.ok();
    let forwarded = app.requests().remove(0);
    assert!(forwarded.text().contains(payload), "{forwarded:?}");
    assert_eq!(told(&forwarded), told(&posted));
    let webhook = standardwebhooks::Webhook::new(secret).expect("a secret");
    let verified = webhook.verify(&forwarded.body, &forwarded.headers);
    verified.expect("a signature");

    let line = format!("{line} --secret-header X-Secret --secret-value s3cret");
    scene.ctl().line(&line).await.ok();
    assert_eq!(app.requests()[1].header("x-secret"), Some("s3cret"));
}

fn number(request: &Request) -> i64 {
    let number = &request.json()["payload"]["connectorId"];
    number.as_i64().expect("a number")
}

async fn meter(scene: &Scene, numbers: std::ops::Range<i64>) {
    let mut station = scene.station("S1").await;
    for number in numbers {
        let values = json!({"connectorId": number, "meterValue": []});
        station.ok("MeterValues", &values).await;
    }
}

#[tokio::test]
async fn a_daemon_that_was_killed_is_taken_up_where_it_was() {
    let mut scene = Scene::new(&["MeterValues"]).await;
    let app = Receiver::start().await;
    let address = scene.daemon.grpc().to_string();
    scene.daemon.set_flag("--grpc-listen", &address);
    let ctl = ctl(&scene.daemon);
    let line = format!(
        "listen --forward-to {} --event MeterValues --since 1h --limit 6",
        app.url()
    );
    let listening = ctl.line(&line);
    let story = async {
        meter(&scene, 0..3).await;
        app.await_requests(3).await;
        scene.crash().await;
        meter(&scene, 3..6).await;
    };
    let (output, ()) = tokio::join!(listening, story);
    assert!(output.stderr.contains("the daemon is back"), "{output:?}");
    output.ok();
    let numbers: Vec<_> = app.requests().iter().map(number).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
}

/// Answers one request on a connection of its own; without an answer it hangs up at once.
async fn serve(listener: &TcpListener, answer: Option<&str>) -> String {
    let (mut connection, _) = listener.accept().await.expect("a connection");
    let mut heard = Vec::new();
    if let Some(answer) = answer {
        while !heard.ends_with(b"}}") {
            let read = connection.read_buf(&mut heard).await.expect("a request");
            assert_ne!(read, 0, "it hung up");
        }
        let answer = format!("HTTP/1.1 {answer}\r\nconnection: close\r\n\r\n");
        let sent = connection.write_all(answer.as_bytes()).await;
        sent.expect("it listens");
    }
    String::from_utf8(heard).expect("UTF-8")
}

#[tokio::test]
async fn an_application_that_goes_away_loses_nothing() {
    let scene = Scene::new(&["MeterValues"]).await;
    let app = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = app.local_addr().expect("its address");
    meter(&scene, 0..2).await;
    let line = format!(
        "-o jsonl listen --forward-to http://{address} --event MeterValues --since 1h --limit 2"
    );
    let ctl = scene.ctl();
    let story = async {
        serve(&app, None).await;
        let again = serve(&app, Some("500 Oh")).await;
        let next = serve(&app, Some("200 OK")).await;
        assert!(again.contains(r#""connectorId":0"#), "{again}");
        assert!(next.contains(r#""connectorId":1"#), "{next}");
    };
    let (output, ()) = tokio::join!(ctl.line(&line), story);
    let output = output.ok();
    let told: Vec<_> = output
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).expect("a JSON line");
            (line["attempt"].clone(), line["status_code"].clone())
        })
        .collect();
    // Who did not answer is asked again; an answer is an answer.
    let expected = [(1, None), (2, Some(500)), (1, Some(200))];
    assert_eq!(told, expected.map(|(n, status)| (json!(n), json!(status))));
}

//! Memory is bounded by bytes, whatever stations send, receivers refuse and API callers ask for.

use futures_util::future::join_all;
use pipelet_tests::{Answer, Api, RawSocket, Receiver, Station, deadline::eventually};
use serde_json::{Value, json};

use crate::scene::{Scene, daemon};

/// What the daemon must do with, in bytes.
const LIMIT: u64 = 256 << 20;
const STATIONS: usize = 5;
const FRAMES_EACH: usize = 60;
const ALL: usize = STATIONS * FRAMES_EACH;
/// Of a payload, in bytes: a frame of almost the largest size that is taken.
const PAYLOAD: usize = 1_000_000;
const WEBHOOKS: usize = 3;
const STARTS: usize = 2;
const SLOW_READERS: usize = 40;

/// Of what a receiver refuses, nothing may be held but what there is room for: not while it comes,
/// not after a start, not for those who list it, and not until it is delivered after all.
#[tokio::test]
async fn a_backlog_of_large_events_fits_into_a_small_memory() {
    let receiver = Receiver::start().await;
    receiver.keep_of_bodies(64);
    receiver.answer(Answer::Status(413));
    let builder = daemon().flag("--retry-schedule", "1s");
    let builder = builder.flag("--max-attempts", "100000");
    let daemon = builder.start().await;
    let mut scene = Scene {
        api: daemon.api(),
        webhook: daemon.api().subscribe(&receiver.url(), &["*"]).await,
        daemon,
        receiver,
    };
    let mut webhooks = vec![scene.webhook];
    for _ in 1..WEBHOOKS {
        webhooks.push(
            scene
                .api
                .subscribe(&scene.receiver.url(), &["DataTransfer"])
                .await,
        );
    }
    talk(&scene).await;
    for webhook in &webhooks {
        await_all(&scene.api, *webhook, "pending").await;
    }
    assert_peak(&scene, "while they came");

    for _ in 0..STARTS {
        scene.crash().await;
        // Many are attempted again, more than once.
        let before = scene.receiver.count();
        for more in 1..=2 * ALL {
            scene.receiver.await_requests(before + more).await;
        }
        assert_peak(&scene, "after a start");
    }

    read_slowly(&scene).await;
    for webhook in &webhooks {
        page_through(
            &scene.api,
            &format!("/webhooks/{webhook}/deliveries?limit=500"),
        )
        .await;
    }
    assert_peak(&scene, "with slow readers");

    scene.receiver.answer(Answer::Status(204));
    for webhook in &webhooks {
        await_all(&scene.api, *webhook, "delivered").await;
    }
    assert_peak(&scene, "once they were delivered");
}

async fn talk(scene: &Scene) {
    let data = "x".repeat(PAYLOAD);
    let payload = json!({"vendorId": "Acme", "data": data}).to_string();
    let talking = (0..STATIONS).map(|number| {
        let payload = &payload;
        async move {
            let mut station = Station::connect(scene.daemon.ocpp(), &format!("S{number}")).await;
            for _ in 0..FRAMES_EACH {
                station.ok("DataTransfer", payload).await;
            }
        }
    });
    join_all(talking).await;
}

/// Waits until the books of the webhook have every event in this column. How long that takes is
/// the machine's matter: what is awaited is that there are more.
async fn await_all(api: &Api, webhook: u64, column: &str) {
    let mut count = 0;
    while count < ALL as u64 {
        let what = format!("webhook {webhook} to have more than {count} {column}");
        let of = |stats: &Value| stats[column].as_u64().expect("a count");
        count = of(&eventually(&what, || api.stats(webhook), |stats| of(stats) > count).await);
    }
}

/// Callers who ask for all that there is, and read nothing of it. Their key is not the others'.
async fn read_slowly(scene: &Scene) {
    let made = scene
        .ctl()
        .json("keys create --name slow --role read-only")
        .await;
    let key = made["key"].as_str().expect("a key");
    let paths = [
        "events?limit=500",
        "events/stream?since=2026-01-01T00:00:00Z",
    ];
    let mut readers = Vec::new();
    for path in paths.iter().cycle().take(SLOW_READERS) {
        let mut reader = RawSocket::connect(scene.daemon.http()).await;
        let request =
            format!("GET /api/v1/{path} HTTP/1.1\r\nHost: api\r\nX-API-Key: {key}\r\n\r\n");
        reader.write(request.as_bytes()).await;
        readers.push(reader);
    }
    page_through(&scene.api, "/events?limit=500").await;
}

/// Reads a whole list, and checks that it has every event.
async fn page_through(api: &Api, path: &str) {
    let mut cursor = String::new();
    let mut seen = 0;
    loop {
        let page = api.get(&format!("{path}{cursor}")).await.expect(200);
        let data = page["data"].as_array().expect("data");
        seen += data
            .iter()
            .filter(|item| item["event"] == "DataTransfer")
            .count();
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    assert!(seen >= ALL, "{seen} of {ALL} at {path}");
}

fn assert_peak(scene: &Scene, when: &str) {
    let peak = scene.daemon.peak_memory();
    assert!(peak < LIMIT, "{} MiB {when}", peak >> 20);
}

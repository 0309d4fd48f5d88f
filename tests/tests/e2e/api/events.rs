//! What happened on the stations, and what happens: lists, one event, tails and streams.

use std::process::Stdio;

use pipelet_tests::{EventStream, deadline::within};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::scene::{Scene, daemon};

#[tokio::test]
async fn events_can_be_watched() {
    let scene = Scene::new(&["StartTransaction"]).await;
    let ctl = scene.ctl();
    let tail = ctl.line("-o jsonl events tail --event MeterValues --station S1 --limit 3");
    let mut station = scene.station("S1").await;
    let mut other = scene.station("S2").await;
    // Nobody announces that the tail has begun, so the stations go on until it has its three.
    let talk = async {
        for number in 0.. {
            let meter = json!({"connectorId": number, "meterValue": []});
            station.ok("Heartbeat", "{}").await;
            station.ok("MeterValues", &meter).await;
            other.ok("MeterValues", &meter).await;
        }
    };
    let output = tokio::select! {
        output = tail => output.ok(),
        () = talk => unreachable!("it talks for ever"),
    };
    let events: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect();
    assert_eq!(events.len(), 3);
    for pair in events.windows(2) {
        let connector = |event: &Value| event["payload"]["connectorId"].as_i64().expect("a number");
        assert_eq!(
            connector(&pair[1]),
            connector(&pair[0]) + 1,
            "nothing is left out"
        );
    }
    for event in events {
        assert_eq!(
            (&event["event"], &event["station_id"]),
            (&json!("MeterValues"), &json!("S1"))
        );
        assert!(
            event["id"].is_string() && event["timestamp"].is_string(),
            "{event}"
        );
    }
}

/// Sends so many meter values, numbered by their connector.
async fn meter(scene: &Scene, station: &str, numbers: std::ops::Range<i64>) {
    let mut station = scene.station(station).await;
    for number in numbers {
        let values = json!({"connectorId": number, "meterValue": []});
        station.ok("MeterValues", &values).await;
    }
}

fn number(event: &Value) -> i64 {
    event["payload"]["connectorId"].as_i64().expect("a number")
}

#[tokio::test]
async fn the_journal_can_be_looked_through() {
    let scene = Scene::new(&["StartTransaction"]).await;
    meter(&scene, "S1", 0..5).await;
    meter(&scene, "T1", 5..8).await;
    let list = async |query: &str| scene.api.get(&format!("/events{query}")).await.expect(200);

    // The latest first, page by page.
    let mut cursor = String::new();
    let mut numbers = Vec::new();
    loop {
        let page = list(&format!("?event=MeterValues&limit=3{cursor}")).await;
        let events = page["data"].as_array().expect("data");
        assert!(events.len() <= 3, "{page}");
        numbers.extend(events.iter().map(number));
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(numbers, [7, 6, 5, 4, 3, 2, 1, 0]);

    let of = |page: Value| -> Vec<i64> {
        let events = page["data"].as_array().expect("data");
        events.iter().map(number).collect()
    };
    let theirs = of(list("?event=MeterValues,Reset&station_id=T*").await);
    assert_eq!(theirs, [7, 6, 5]);
    let first = list("?station_id=S1&event=StationConnected").await["data"][0].clone();
    let since = first["timestamp"].as_str().expect("a time");
    let later = list(&format!("?event=MeterValues&since={since}")).await;
    assert_eq!(of(later).len(), 8);
    let before = list(&format!("?until={since}")).await;
    assert_eq!(before, json!({"data": [], "next_cursor": null}));

    // One event, the same as in the list.
    let id = first["id"].as_str().expect("an id");
    let one = scene.api.get(&format!("/events/{id}")).await.expect(200);
    assert_eq!(one, first);
    for nobody in ["evt_00000000000000000000000000000000", "x", "42"] {
        let answer = scene.api.get(&format!("/events/{nobody}")).await;
        assert_eq!(answer.expect(404)["code"], "no_such_event");
    }

    // All that is wrong at once.
    let query = "?event=Nonsense&station_id=A*B&since=yesterday&colour=red&limit=0&cursor=x";
    let problem = scene.api.get(&format!("/events{query}")).await.expect(422);
    assert_eq!(problem["errors"].as_array().expect("faults").len(), 6);
}

#[tokio::test]
async fn the_command_line_lists_and_shows() {
    let scene = Scene::new(&["StartTransaction"]).await;
    meter(&scene, "S1", 0..60).await;
    meter(&scene, "T1", 60..63).await;
    let ctl = scene.ctl();
    let list = async |flags: &str| -> Vec<i64> {
        let events = ctl
            .json(&format!("events list --event MeterValues{flags}"))
            .await;
        events
            .as_array()
            .expect("a list")
            .iter()
            .map(number)
            .collect()
    };
    let down = |from: i64, to: i64| (to..=from).rev().collect::<Vec<_>>();
    assert_eq!(list(" --limit 100").await, down(62, 0), "over pages");
    assert_eq!(list("").await, down(62, 13), "no more than a screen or two");
    assert_eq!(list(" --station T* --since 1h --limit 2").await, [62, 61]);
    assert_eq!(list(" --until 1h").await, [0_i64; 0]);

    let one = &ctl.json("events list --event MeterValues --limit 1").await[0];
    let id = one["id"].as_str().expect("an id");
    assert_eq!(ctl.json(&format!("events show {id}")).await, *one);
    let screen = ctl.line(&format!("events show {id}")).await.ok();
    assert!(screen.contains("\n    \"connectorId\": 62"), "{screen}");
    let nobody = ctl.line("events show evt_x").await;
    assert_eq!(nobody.code, 3, "{nobody:?}");
    assert!(
        nobody.stderr.contains("pipeletctl events list"),
        "{nobody:?}"
    );
}

#[tokio::test]
async fn a_tail_goes_on_when_the_daemon_is_back() {
    let mut scene = Scene::new(&["StartTransaction"]).await;
    let grpc = scene.daemon.grpc().to_string();
    scene.daemon.set_flag("--grpc-listen", &grpc);
    meter(&scene, "S1", 0..1).await;
    let ctl = scene.ctl();
    let line = "-o jsonl events tail --event MeterValues --limit 5";
    let mut tail = Command::new(ctl.binary())
        .args(line.split(' '))
        .env_clear()
        .envs(ctl.variables())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("pipeletctl");
    let mut notes = BufReader::new(tail.stderr.take().expect("stderr is piped")).lines();
    let mut note = async || within("a note", notes.next_line()).await.expect("text");
    let mut events = BufReader::new(tail.stdout.take().expect("stdout is piped")).lines();
    let mut next = async || {
        let line = within("an event", events.next_line()).await.expect("text");
        number(&serde_json::from_str(&line.expect("a line")).expect("JSON"))
    };
    let begun = note().await.expect("a note");
    assert!(begun.starts_with("waiting"), "{begun}");

    // Before there was an event, and then behind one.
    for (before, after) in [(1, 2), (3, 4)] {
        scene.daemon.kill9().await;
        let lost = note().await.expect("a note");
        assert!(lost.starts_with("lost the daemon"), "{lost}");
        scene.start_again().await;
        meter(&scene, "S1", before..after + 1).await;
        let back = note().await.expect("a note");
        assert!(back.starts_with("the daemon is back"), "{back}");
        assert_eq!(next().await, before);
        assert_eq!(next().await, after);
    }
    meter(&scene, "S1", 5..6).await;
    assert_eq!(next().await, 5);
    assert!(
        within("its end", tail.wait())
            .await
            .expect("a status")
            .success()
    );
}

/// Reads the numbers of so many events; returns them with the last one's id.
async fn numbers(stream: &mut EventStream, count: usize) -> (Vec<i64>, String) {
    let (mut numbers, mut last) = (Vec::new(), String::new());
    for _ in 0..count {
        let sent = stream.next().await.expect("an event");
        assert_eq!(sent.event, "MeterValues");
        numbers.push(number(&sent.json()));
        last = sent.id;
    }
    (numbers, last)
}

#[tokio::test]
async fn a_stream_goes_on_where_it_was() {
    let mut scene = Scene::new(&["StartTransaction"]).await;
    let path = "/events/stream?event=MeterValues&station_id=S*";
    let mut stream = scene.api.stream(path, None).await.expect("a stream");
    meter(&scene, "S1", 0..3).await;
    meter(&scene, "T1", 90..92).await;
    meter(&scene, "S2", 3..5).await;
    let (seen, last) = numbers(&mut stream, 5).await;
    assert_eq!(seen, [0, 1, 2, 3, 4]);

    // Also over what happened meanwhile and a crash, with nothing left out or told twice.
    drop(stream);
    meter(&scene, "S1", 5..7).await;
    scene.crash().await;
    meter(&scene, "S1", 7..8).await;
    let mut stream = scene.api.stream(path, Some(&last)).await.expect("a stream");
    assert_eq!(numbers(&mut stream, 3).await.0, [5, 6, 7]);

    // From a time on.
    let first = scene.api.get("/events?limit=500").await.expect(200);
    let first = first["data"].as_array().and_then(|events| events.last());
    let since = first.expect("an event")["timestamp"].as_str();
    let path = format!("{path}&since={}", since.expect("a time"));
    let mut past = scene.api.stream(&path, None).await.expect("a stream");
    assert_eq!(numbers(&mut past, 8).await.0, [0, 1, 2, 3, 4, 5, 6, 7]);

    // It ends with the daemon.
    scene.daemon.kill9().await;
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_stream_is_not_for_everybody() {
    let scene = Scene::new(&["StartTransaction"]).await;
    let stranger = scene.api.with_key(None);
    let refused = async |api: &pipelet_tests::Api, path, last| {
        let refused = api.stream(path, last).await;
        refused.expect_err("no stream").status
    };
    assert_eq!(refused(&stranger, "/events/stream", None).await, 401);
    let wrong = "/events/stream?event=Nonsense";
    assert_eq!(refused(&scene.api, wrong, None).await, 422);
    assert_eq!(refused(&scene.api, "/events/stream", Some("x")).await, 422);

    // There is room for so many; who leaves makes room.
    let mut open = Vec::new();
    let full = loop {
        match scene.api.stream("/events/stream", None).await {
            Ok(stream) => open.push(stream),
            Err(refused) => break refused,
        }
        assert!(open.len() < 1_000, "there is no end of streams");
    };
    assert_eq!(full.expect(429)["code"], "too_many_tails");
    drop(open);
    pipelet_tests::deadline::eventually(
        "room for a stream",
        async || scene.api.stream("/events/stream", None).await.is_ok(),
        |opened| *opened,
    )
    .await;
}

#[tokio::test]
async fn a_payload_of_many_lines_is_streamed_whole() {
    let scene = Scene::new(&["StartTransaction"]).await;
    let mut stream = scene
        .api
        .stream("/events/stream?event=MeterValues", None)
        .await;
    let stream = stream.as_mut().expect("a stream");
    let mut station = scene.station("S1").await;
    let lines = "{\n  \"connectorId\": 7,\r\n  \"meterValue\": []\n}";
    station.ok("MeterValues", lines).await;
    let sent = stream.next().await.expect("an event");
    assert_eq!(number(&sent.json()), 7);
}

/// Of the characters that a terminal obeys or hides, what stations and callers wrote has them all
/// over; what is shown has none, in any format, nor is any event too strange for a list.
#[tokio::test]
async fn what_others_wrote_moves_no_cursor_and_ends_no_list() {
    const HIDDEN: [char; 5] = ['\u{9b}', '\u{202e}', '\u{200b}', '\u{7f}', '\u{e0041}'];
    let builder = daemon().flag("--log-level", "debug");
    let scene = Scene::with(builder, &["DataTransfer"]).await;
    let evil: String = HIDDEN.iter().collect();
    let name = json!({"name": format!("a\u{202e}b\u{200b}c")});
    scene.api.put("/webhooks/1", &name).await.expect(200);
    let mut station = scene.station("S1").await;
    let boot = json!({"chargePointVendor": format!("v{evil}"), "chargePointModel": "m"});
    station.ok("BootNotification", &boot).await;
    station.call(&format!("Foo{evil}"), "{}").await;
    let data = |data: &str| format!(r#"{{"vendorId":"V","data":{data}}}"#);
    for strange in [r#""\ud800""#, "\"x\"", "1e400", "[[[[[[[[[[]]]]]]]]]]"] {
        station.call("DataTransfer", data(strange)).await;
    }
    station
        .ok("DataTransfer", data(&format!("\"31m{evil}\"")))
        .await;
    station.ok("Heartbeat", "{}").await;
    scene.receiver.await_requests(1).await;

    let ctl = scene.ctl();
    let events = scene.api.get("/events?limit=500").await;
    let events = events.text.matches("\"id\":\"evt_").count();
    assert_eq!(events, 8);
    let commands = [
        "events list",
        "stations list",
        "stations show S1",
        "webhooks list",
        "webhooks show 1",
        "deliveries list",
        "dlq list",
    ];
    for format in ["table", "json", "jsonl", "yaml"] {
        for command in commands {
            let shown = ctl.line(&format!("-o {format} {command}")).await;
            assert_eq!(shown.code, 0, "-o {format} {command}: {shown:?}");
            for hidden in HIDDEN {
                let found = shown.stdout.contains(hidden) || shown.stderr.contains(hidden);
                assert!(!found, "-o {format} {command}: {shown:?}");
            }
        }
    }
    let lines = ctl.line("-o jsonl events list").await.ok();
    assert_eq!(lines.lines().count(), events);
    let items = ctl.line("-o yaml events list").await.ok();
    let items = items.lines().filter(|line| line.starts_with("- "));
    assert_eq!(items.count(), events);
    // What is escaped has its value still.
    let shown = ctl.json("stations show S1").await;
    assert_eq!(shown["vendor"], format!("v{evil}"), "{shown}");

    let metrics = scene.api.get("/metrics").await.text;
    assert!(metrics.contains("a\\\\u{202e}b\\\\u{200b}c"), "{metrics}");
    for (what, text) in [("/metrics", &metrics), ("the log", &scene.daemon.log())] {
        for hidden in HIDDEN {
            assert!(!text.contains(hidden), "{what}: {text}");
        }
    }
}

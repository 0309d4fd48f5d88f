//! The daemon in several shards: from outside it is one.

use std::{collections::BTreeSet, env, process::Stdio};

use pipelet_tests::{Answer, Nats};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::scene::{AT_A_GATEWAY, IN_SHARDS, ON_NATS, Scene, sharded};

/// Suites that hold however many shards there are, but for what left out below.
const MAIN_CASES: &[&str] = &[
    "api::events::",
    "api::rest_parity::",
    "contract::lifecycle::",
    "contract::payload::",
    "contract::subscriptions::",
    "delivery::audit::",
    "delivery::deliveries::",
    "delivery::retries::",
    "delivery::trigger::",
    "ocpp::commands::",
    "ocpp::day::",
    "ocpp::id_tags::",
    "ocpp::stations::",
    "ocpp::transactions::",
];
/// What knows that there is one shard: the number of a dead letter, and that one attempt finds out
/// whether a receiver is mended.
const OF_ONE_SHARD: &[&str] = &[
    "failed_ones_lead_to_the_dead_letters",
    "what_waits_goes_out_when_the_receiver_is_mended",
];
/// What starts the daemon again.
const RESTARTING: &[&str] = &[
    "a_stream_goes_on_where_it_was",
    "a_tail_goes_on_when_the_daemon_is_back",
    "the_filter_survives_a_crash_with_its_backlog",
    "a_triggered_event_goes_the_whole_way_and_is_marked",
    "one_webhook_can_be_meant_alone",
    "what_the_caller_was_told_survives_a_crash",
    "a_tag_charges_in_one_place_at_a_time",
    "tags_are_kept_and_changed",
    "transactions_outlive_a_kill",
    "what_nothing_is_heard_of_ends_as_abandoned_until_its_stop_comes",
];

/// What looks at the owner's own figures.
const OF_THE_OWNER: &[&str] = &["what_others_wrote_moves_no_cursor_and_ends_no_list"];

const STATIONS: usize = 12;

/// All that a list holds, page by page.
async fn all(scene: &Scene, path: &str) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = scene.api.get(&format!("{path}{cursor}")).await.expect(200);
        found.extend(page["data"].as_array().expect("data").clone());
        let Some(next) = page["next_cursor"].as_str() else {
            return found;
        };
        cursor = format!("&cursor={next}");
    }
}

fn texts(found: &[Value], key: &str) -> Vec<String> {
    let texts = found.iter().map(|found| found[key].to_string());
    texts.collect()
}

/// Of what is asked of all shards nothing is left out, and nothing is there twice.
#[tokio::test]
async fn lists_streams_and_books_are_of_all_shards() {
    let builder = sharded().flag("--max-attempts", "1");
    let scene = Scene::with(builder, &["StartTransaction"]).await;
    scene.receiver.answer(Answer::Status(500));
    let path = "/events/stream?event=StartTransaction";
    let mut stream = scene.api.stream(path, None).await.expect("a stream");
    let mut stations = Vec::new();
    for number in 0..STATIONS {
        stations.push(scene.station(&format!("S{number:02}")).await);
    }
    for round in 0..3 {
        for station in &mut stations {
            let start = json!({
                "connectorId": 1, "idTag": "T", "meterStart": round,
                "timestamp": "2026-04-14T12:34:56Z",
            });
            station.ok("StartTransaction", start).await;
        }
    }
    let count = 3 * STATIONS;

    let events = all(&scene, "/events?event=StartTransaction&limit=5").await;
    let ids: BTreeSet<_> = texts(&events, "id").into_iter().collect();
    assert_eq!((events.len(), ids.len()), (count, count));
    let times = texts(&events, "timestamp");
    assert!(times.is_sorted_by(|one, next| one >= next), "{times:?}");
    for id in &ids {
        let id = id.trim_matches('"');
        scene.api.get(&format!("/events/{id}")).await.expect(200);
    }

    // A stream that is broken off goes on in each of them.
    let mut seen = BTreeSet::new();
    let mut last = String::new();
    for _ in 0..count / 2 {
        let sent = stream.next().await.expect("an event");
        assert!(seen.insert(sent.json()["id"].to_string()), "twice");
        last = sent.id;
    }
    let mut stream = scene.api.stream(path, Some(&last)).await.expect("a stream");
    while seen.len() < count {
        let sent = stream.next().await.expect("an event");
        assert!(seen.insert(sent.json()["id"].to_string()), "twice");
    }
    assert_eq!(seen, ids);

    let transactions = all(&scene, "/transactions?limit=5").await;
    let started: BTreeSet<_> = texts(&transactions, "transaction_id").into_iter().collect();
    assert_eq!((transactions.len(), started.len()), (count, count));
    let known = all(&scene, "/stations?limit=5").await;
    let known = texts(&known, "id");
    assert_eq!(known.len(), STATIONS);
    assert!(known.is_sorted());

    scene.api.await_failed("?limit=500", count).await;
    let dead = all(&scene, "/failed-deliveries?limit=5").await;
    let dead: BTreeSet<_> = dead.iter().filter_map(|dead| dead["id"].as_u64()).collect();
    assert_eq!(dead.len(), count);
    scene.receiver.answer(Answer::Status(200));
    let again = *dead.first().expect("one");
    let replay = format!("/failed-deliveries/{again}/replay");
    scene.api.post_empty(&replay).await.expect(202);
    let purge = format!("/failed-deliveries/{}", dead.last().expect("one"));
    scene.api.delete(&purge).await.expect(204);
    let books = json!({"received": count, "delivered": 1, "dead": count - 1});
    scene.api.await_stats(scene.webhook, books).await;

    // The journals are gone through one after the other.
    let late = pipelet_tests::Receiver::start().await;
    let id = scene.api.subscribe(&late.url(), &["Heartbeat"]).await;
    let path = format!("/webhooks/{id}/backfill");
    let (mut left, mut matched) = (json!(null), 0);
    while left != "" {
        let part = json!({"limit": 4, "left": left, "events": ["StartTransaction"]});
        let part = scene.api.post(&path, &part).await.expect(200);
        matched += part["matched"].as_u64().expect("a number");
        left = part["left"].clone();
    }
    assert_eq!(matched, count as u64);
    late.await_requests(count).await;
    let audit = scene.api.get("/audit").await.expect(200);
    for books in audit["webhooks"].as_array().expect("webhooks") {
        assert_eq!(books["booked"], books["kept"], "{audit}");
    }
    let owing = format!("/webhooks/{}", scene.webhook);
    scene.api.delete(&owing).await.expect(204);
    scene.api.get(&owing).await.expect(404);
}

/// The same suites, on other daemons.
async fn the_main_cases_hold(variables: &[(&str, &str)], left_out: &[&[&str]]) {
    let mut suites = Command::new(env::current_exe().expect("this program"));
    suites.envs(variables.iter().copied()).args(MAIN_CASES);
    for name in left_out.iter().copied().flatten() {
        suites.args(["--skip", name]);
    }
    let ran = suites.stdin(Stdio::null()).kill_on_drop(true).output();
    let ran = ran.await.expect("the suites");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}");
}

#[tokio::test]
async fn the_main_cases_hold_in_shards() {
    the_main_cases_hold(&[(IN_SHARDS, "1")], &[OF_ONE_SHARD, RESTARTING]).await;
}

#[tokio::test]
async fn the_main_cases_hold_on_nats() {
    if let Some(nats) = Nats::start().await {
        the_main_cases_hold(&[(ON_NATS, &nats.url())], &[OF_ONE_SHARD]).await;
    }
}

#[tokio::test]
async fn the_main_cases_hold_at_one_of_three_nodes() {
    if let Some(nats) = Nats::start().await {
        let variables = [(ON_NATS, &*nats.url()), (AT_A_GATEWAY, "1")];
        the_main_cases_hold(&variables, &[OF_ONE_SHARD, RESTARTING, OF_THE_OWNER]).await;
    }
}

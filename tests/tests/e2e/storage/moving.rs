//! A store moves into a cluster and back, by a backup.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use pipelet_tests::{Answer, Api, Builder, Daemon, Ended, Nats, Receiver, Station};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scene::{ctl, daemon};

const EVENTS: &[&str] = &["StartTransaction", "StopTransaction", "DataTransfer"];

/// Backups, and the data directories of daemons.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A daemon that has the keys of this one, and nothing of it else.
    fn daemon(&self, name: &str, keys: &Path) -> Builder {
        let data_dir = self.file(name);
        fs::create_dir_all(&data_dir).expect("a directory");
        for key in ["secrets.key", "admin.key"] {
            fs::copy(keys.join(key), data_dir.join(key)).expect("a key file");
        }
        fast(daemon().in_data_dir(data_dir))
    }
}

/// Gives up soon.
fn fast(builder: Builder) -> Builder {
    let builder = builder.flag("--retry-schedule", "1s");
    builder.flag("--max-attempts", "2")
}

fn on(nats: &Nats, cluster: &str, builder: Builder) -> Builder {
    let builder = builder.flag("--store", &nats.url());
    builder.flag("--cluster", cluster).flag("--node", "a")
}

fn restored(file: &Path, builder: Builder) -> Builder {
    let file = file.to_str().expect("UTF-8");
    builder.switch("restore").switch(file)
}

async fn back_up(daemon: &Daemon, file: &Path) {
    let file = file.to_str().expect("UTF-8");
    ctl(daemon).run(&["backup", file]).await.ok();
}

/// What there is, but for what each start makes anew.
async fn seen(api: &Api) -> Value {
    let mut seen = json!({});
    for path in [
        "webhooks",
        "failed-deliveries",
        "stations",
        "transactions",
        "events?limit=500",
        "id-tags",
        "api-keys",
    ] {
        let mut page = api.get(&format!("/{path}")).await.expect(200);
        let things = page["data"].as_array_mut().expect("data");
        for thing in things {
            for key in ["health", "last_seen_at", "last_used_at"] {
                thing.as_object_mut().expect("an object").remove(key);
            }
        }
        seen[path] = page;
    }
    seen
}

fn assert_refused(ended: &Ended, why: &str) {
    assert_ne!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains(why), "{why:?} is not in {ended:?}");
}

#[tokio::test]
async fn a_store_moves_into_a_cluster_and_back() {
    let Some(nats) = Nats::start().await else {
        return;
    };
    let home = Home::new();
    let receiver = Receiver::start().await;
    let mut alone = fast(daemon()).start().await;
    let api = alone.api();
    let webhook = api.subscribe(&receiver.url(), EVENTS).await;
    let registered = json!({"security_profile": 1, "password": "0123456789abcdef"});
    api.put("/stations/S9", &registered).await.expect(201);
    let tag = json!({"id_tag": "T1", "status": "Blocked"});
    api.post("/id-tags", &tag).await.expect(201);

    // Dead letters, a transaction that has ended and one that is open, and events that are owed.
    receiver.answer(Answer::Status(500));
    let mut station = Station::connect(alone.ocpp(), "S0").await;
    let ended = station.start_transaction(0).await;
    let stop = json!({
        "transactionId": ended, "meterStop": 5, "timestamp": "2026-04-14T13:34:56Z",
    });
    station.ok("StopTransaction", stop).await;
    api.await_failed("", 2).await;
    receiver.answer(Answer::Held);
    station.start_transaction(7).await;
    let large = json!({"vendorId": "Acme", "data": "x".repeat(900_000)});
    station.ok("DataTransfer", large).await;
    station.close().await;
    let gone = "/events?event=StationDisconnected";
    let is_gone = |page: &Value| page["data"].as_array().is_some_and(|it| it.len() == 1);
    let look = async || api.get(gone).await.expect(200);
    pipelet_tests::deadline::eventually("the station to be gone", look, is_gone).await;
    let owed = json!({"received": 4, "dead": 2, "pending": 2});
    api.await_stats(webhook, owed.clone()).await;

    let (before, file) = (seen(&api).await, home.file("alone.backup"));
    back_up(&alone, &file).await;
    let keys = alone.data_dir().to_owned();
    alone.kill9().await;

    // Into a cluster, which has as many shards, whatever is the default.
    let there = || on(&nats, "moved", home.daemon("node", &keys));
    let restoring = restored(&file, there()).run_to_end().await;
    assert_eq!(restoring.code, Some(0), "{restoring:?}");
    let again = restored(&file, there()).run_to_end().await;
    assert_refused(&again, "there is a cluster moved already");
    let aside = restored(&file, there()).switch("--set-aside");
    assert_refused(&aside.run_to_end().await, "--store names a cluster");
    let mut node = there().start().await;
    node.api().await_stats(webhook, owed.clone()).await;
    assert_eq!(seen(&node.api()).await, before);
    let other = there().flag("--shards", "16").run_to_end();
    assert_refused(&other.await, "the cluster moved has 1 shards");

    // And back, where all that is owed arrives.
    let file = home.file("node.backup");
    back_up(&node, &file).await;
    node.kill9().await;
    let data_dir = || home.daemon("back", &keys);
    let restoring = restored(&file, data_dir()).run_to_end().await;
    assert_eq!(restoring.code, Some(0), "{restoring:?}");
    let back = data_dir().start().await;
    back.api().await_stats(webhook, owed).await;
    assert_eq!(seen(&back.api()).await, before);
    receiver.release();
    receiver.answer(Answer::Status(204));
    let settled = json!({"received": 4, "delivered": 2, "pending": 0, "dead": 2});
    back.api().await_stats(webhook, settled).await;
    ctl(&back).run(&["audit"]).await.ok();
}

#[tokio::test]
async fn a_cluster_is_restored_as_another_or_not_at_all() {
    let Some(nats) = Nats::start().await else {
        return;
    };
    let home = Home::new();
    let receiver = Receiver::start().await;
    let first = fast(on(&nats, "first", daemon())).flag("--shards", "4");
    let mut first = first.start().await;
    let api = first.api();
    let webhook = api.subscribe(&receiver.url(), EVENTS).await;
    receiver.answer(Answer::Status(500));
    let mut sent = 0;
    // What hardly gets shorter by being compressed: the file is longer than a pipe holds.
    let mut noise = 1_u64;
    for number in 0..12 {
        let id = format!("S{number}");
        let mut station = Station::connect(first.ocpp(), &id).await;
        for _ in 0..4 {
            let data: String = std::iter::repeat_with(|| {
                noise = noise
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                char::from(b'0' + u8::try_from(noise >> 58).expect("six bits"))
            })
            .filter(char::is_ascii_alphanumeric)
            .take(12_000)
            .collect();
            let payload = json!({"vendorId": "Acme", "data": data});
            station.ok("DataTransfer", payload).await;
            sent += 1;
        }
        station.start_transaction(number).await;
        sent += 1;
        station.close().await;
    }
    let dead = json!({"received": sent, "dead": sent});
    api.await_stats(webhook, dead.clone()).await;
    let gone = "/stations?connected=true";
    let is_empty = |page: &Value| page["data"].as_array().is_some_and(Vec::is_empty);
    let look = async || api.get(gone).await.expect(200);
    pipelet_tests::deadline::eventually("all stations to be gone", look, is_empty).await;
    let (before, file) = (seen(&api).await, home.file("first.backup"));
    back_up(&first, &file).await;
    let keys = first.data_dir().to_owned();
    first.kill9().await;

    let alone = home.daemon("alone", &keys);
    let refused = restored(&file, alone).run_to_end().await;
    assert_refused(&refused, "the backup has 4 shards");
    let there = || on(&nats, "second", home.daemon("node", &keys));
    let other = restored(&file, there().flag("--shards", "2"));
    assert_refused(&other.run_to_end().await, "the backup has 4 shards");

    // A part of it comes, and then nothing more: killed, it is no cluster yet.
    let whole = fs::read(&file).expect("a backup");
    let pipe = home.file("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo").success());
    let written = {
        let (pipe, part) = (pipe.clone(), whole[..whole.len() / 2].to_vec());
        tokio::task::spawn_blocking(move || {
            let mut pipe = fs::OpenOptions::new().write(true).open(pipe)?;
            pipe.write_all(&part)?;
            std::io::Result::Ok(pipe)
        })
    };
    let still_open = tokio::select! {
        written = written => written.expect("a writer").expect("a pipe"),
        ended = restored(&pipe, there()).run_to_end() => panic!("{ended:?}"),
    };
    let refused = there().run_to_end().await;
    assert_refused(
        &refused,
        "a restore into the cluster second was interrupted",
    );
    drop(still_open);

    // One that is damaged leaves nothing, not even of the one before.
    let cut = home.file("cut.backup");
    fs::write(&cut, &whole[..whole.len() - 1]).expect("a writable file");
    let damaged = restored(&cut, there()).run_to_end().await;
    assert_refused(&damaged, "damaged or cut short");
    let restoring = restored(&file, there()).run_to_end().await;
    assert_eq!(restoring.code, Some(0), "{restoring:?}");
    let second = there().start().await;
    second.api().await_stats(webhook, dead).await;
    assert_eq!(seen(&second.api()).await, before);
    ctl(&second).run(&["audit"]).await.ok();
}

//! A backup is taken while the daemon works, and a store that is made of it goes on from there.

use std::{collections::BTreeSet, fs, path::Path};

use pipelet_tests::{Answer, Daemon, Ended, Faults, Request, Station};
use serde_json::json;
use tempfile::TempDir;

use crate::scene::{Scene, daemon};

const EVENTS: &[&str] = &["StartTransaction"];

async fn restore(file: &Path, data_dir: &Path) -> Ended {
    daemon()
        .in_data_dir(data_dir.to_owned())
        .switch("restore")
        .switch(file.to_str().expect("UTF-8"))
        .run_to_end()
        .await
}

fn ids(requests: &[Request]) -> BTreeSet<i64> {
    let id = |request: &Request| request.json()["payload"]["transactionId"].as_i64();
    requests.iter().filter_map(id).collect()
}

fn places() -> (TempDir, std::path::PathBuf, std::path::PathBuf) {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (file, data) = (home.path().join("b.backup"), home.path().join("data"));
    (home, file, data)
}

#[tokio::test]
async fn a_restored_store_goes_on_where_the_backup_was_taken() {
    let builder = || {
        daemon()
            .flag("--retry-schedule", "1s")
            .flag("--max-attempts", "2")
    };
    let mut scene = Scene::with(builder(), EVENTS).await;
    let secret = json!({"secret_header": "X-Webhook-Secret", "secret_value": "kept"});
    let path = format!("/webhooks/{}", scene.webhook);
    scene.api.put(&path, &secret).await.expect(200);

    // One dead, and then, behind a receiver that holds everything, some that are owed.
    scene.receiver.answer(Answer::Status(500));
    let mut station = scene.station("S0").await;
    let mut answered = BTreeSet::from([station.start_transaction(0).await]);
    let dead = scene.api.await_failed("", 1).await;
    scene.receiver.answer(Answer::Held);
    for meter in 0..300 {
        answered.insert(station.start_transaction(meter).await);
    }
    let ocpp = scene.daemon.ocpp();
    let talking = tokio::spawn(async move {
        let mut station = Station::connect(ocpp, "S1").await;
        let start = r#"{"connectorId":1,"idTag":"T","meterStart":1,"timestamp":"now"}"#;
        for number in 0_u64.. {
            let id = number.to_string();
            let called = station.call_while_open(&id, "StartTransaction", start);
            if called.await.is_none() {
                break;
            }
        }
    });
    let (_home, file, data_dir) = places();
    let name = file.to_str().expect("UTF-8");
    scene.ctl().run(&["backup", name]).await.ok();
    let refused = scene.ctl().run(&["backup", name]).await;
    assert_eq!(refused.code, 5, "{refused:?}");
    scene.ctl().run(&["backup", name, "--force"]).await.ok();
    let key_file = scene.daemon.data_dir().join("secrets.key");
    let kept_key = fs::read(&key_file).expect("a key file");
    let key = scene.daemon.key();
    scene.daemon.kill9().await;
    talking.await.expect("a station");
    scene.receiver.release();
    scene.receiver.answer(Answer::Status(200));

    let ended = restore(&file, &data_dir).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    fs::write(data_dir.join("secrets.key"), kept_key).expect("a writable file");
    fs::set_permissions(
        data_dir.join("secrets.key"),
        fs::metadata(&key_file).expect("metadata").permissions(),
    )
    .expect("a file of ours");
    fs::write(data_dir.join("admin.key"), key).expect("a writable file");
    let mut restored: Daemon = builder().in_data_dir(data_dir.clone()).start().await;
    let api = restored.api();
    assert_eq!(api.await_failed("", 1).await, dead);
    let settled = json!({"pending": 0, "dead": 1});
    let stats = api.await_stats(scene.webhook, settled).await;
    let received = stats["received"].as_u64().expect("a number");
    assert!(received >= answered.len() as u64, "{stats}");
    let arrived = scene.receiver.requests();
    assert!(ids(&arrived).is_superset(&answered));
    api.post_empty(&format!("{path}/test")).await.expect(200);
    let test = scene.receiver.requests().pop().expect("the test's POST");
    assert_eq!(test.header("x-webhook-secret"), Some("kept"));

    restored.kill9().await;
    let again = restore(&file, &data_dir).await;
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("there is a store in"), "{again:?}");
}

#[tokio::test]
async fn what_is_no_whole_backup_is_refused() {
    let scene = Scene::new(EVENTS).await;
    scene.station("S1").await.start_transaction(1).await;
    let (_home, file, data_dir) = places();
    let name = file.to_str().expect("UTF-8");
    scene.ctl().run(&["backup", name]).await.ok();
    let whole = fs::read(&file).expect("a backup");
    let behind = [&whole[..], b"junk"].concat();
    for (bytes, why) in [
        (&behind[..], "something stands behind the backup's end"),
        (&whole[..whole.len() - 1], "damaged or cut short"),
        (&whole[..100], "damaged or cut short"),
        (b"something else", "no backup of pipeletd"),
        (b"", "no backup of pipeletd"),
    ] {
        fs::write(&file, bytes).expect("a writable file");
        let ended = restore(&file, &data_dir).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(why), "{ended:?}");
        for part in ["hot", "cold", "restored.new"] {
            assert!(!data_dir.join(part).exists(), "{part}");
        }
    }
    fs::write(&file, whole).expect("a writable file");
    assert_eq!(restore(&file, &data_dir).await.code, Some(0));
    // The key that the secrets were sealed with is somewhere else.
    let ended = daemon().in_data_dir(data_dir).run_to_end().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("is missing; put it back"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_damaged_store_is_set_aside_for_a_backup() {
    let (_home, file, data_dir) = places();
    let mut scene = Scene::with(daemon().in_data_dir(data_dir.clone()), EVENTS).await;
    let mut station = scene.station("S1").await;
    for meter in 0..50 {
        station.start_transaction(meter).await;
    }
    let name = file.to_str().expect("UTF-8");
    scene.ctl().run(&["backup", name]).await.ok();
    assert!(scene.daemon.terminate().await.success());

    let log = data_dir.join("hot").join("db");
    let mut bytes = fs::read(&log).expect("sled's log");
    let length = bytes.len();
    bytes[length / 3..length / 3 + 64].fill(0xa5);
    fs::write(&log, bytes).expect("a writable file");
    let damaged = || daemon().in_data_dir(data_dir.clone()).run_to_end();
    for _ in 0..2 {
        let ended = damaged().await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("is damaged: it ends"), "{ended:?}");
        assert!(ended.stderr.contains("--set-aside"), "{ended:?}");
    }
    let restored = daemon()
        .in_data_dir(data_dir.clone())
        .switch("restore")
        .switch(name)
        .switch("--set-aside");
    assert_eq!(restored.run_to_end().await.code, Some(0));
    for aside in ["hot.aside-1", "cold.aside-1"] {
        assert!(data_dir.join(aside).join("db").exists(), "{aside}");
    }
    scene.start_again().await;
    scene
        .api
        .await_stats(scene.webhook, json!({"received": 50, "delivered": 50}))
        .await;
}

/// Copies a directory with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.metadata().expect("metadata").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// Wherever a restore is killed, the next start has the store of before or the backup's, says which,
/// and a further restore works.
#[tokio::test]
async fn a_restore_that_is_killed_leaves_one_store_or_the_other() {
    let (home, file, data_dir) = places();
    let mut scene = Scene::with(daemon().in_data_dir(data_dir.clone()), EVENTS).await;
    let mut station = scene.station("S1").await;
    let settled = |count: u32| json!({"received": count, "delivered": count});
    for meter in 0..5 {
        station.start_transaction(meter).await;
    }
    scene.api.await_stats(scene.webhook, settled(5)).await;
    let name = file.to_str().expect("UTF-8");
    scene.ctl().run(&["backup", name]).await.ok();
    for meter in 5..8 {
        station.start_transaction(meter).await;
    }
    scene.api.await_stats(scene.webhook, settled(8)).await;
    assert!(scene.daemon.terminate().await.success());

    let restore = |data_dir: &Path| {
        daemon()
            .in_data_dir(data_dir.to_owned())
            .switch("restore")
            .switch(name)
            .switch("--set-aside")
    };
    let (mut undone, mut finished) = (0, 0);
    for rename in 1.. {
        let trial = home.path().join(format!("trial{rename}"));
        copy(&data_dir, &trial);
        let (faults, dies) = Faults::of(restore(&trial));
        faults.die_at_rename(rename);
        let ended = dies.run_to_end().await;
        let mut daemon = daemon().in_data_dir(trial.clone()).start().await;
        let stats = daemon.api().stats(scene.webhook).await;
        let log = daemon.log();
        // What is only dropped may be there still when the next one comes.
        daemon.kill9().await;
        for gone in ["restored.new", "restored-1"] {
            assert!(!trial.join(gone).exists(), "{gone} after {rename}");
        }
        match stats["received"].as_u64() {
            Some(8) => {
                undone += 1;
                assert!(log.contains("to restore the backup, run it again"), "{log}");
                assert!(!trial.join("hot.aside-1").exists(), "{rename}");
            }
            Some(5) => {
                assert!(trial.join("hot.aside-1/db").exists(), "{rename}");
                assert!(trial.join("cold.aside-1/db").exists(), "{rename}");
                if ended.code == Some(0) {
                    break;
                }
                finished += 1;
                assert!(log.contains("finished a restore"), "{log}");
            }
            _ => panic!("after {rename}: {stats}"),
        }
        assert_eq!(ended.code, None, "{ended:?}");
        let again = restore(&trial).run_to_end().await;
        assert_eq!(again.code, Some(0), "{again:?}");
    }
    // Before and at the one that decides; at the four after it.
    assert!(undone >= 1, "{undone}");
    assert_eq!(finished, 4);

    // Without a store of before, an empty one is not begun.
    let empty = home.path().join("empty");
    let (faults, dies) = Faults::of(restore(&empty));
    faults.die_at_rename(undone);
    assert_eq!(dies.run_to_end().await.code, None);
    let ended = daemon().in_data_dir(empty.clone()).run_to_end().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("was interrupted before it was whole"),
        "{ended:?}"
    );
    assert_eq!(restore(&empty).run_to_end().await.code, Some(0));
}

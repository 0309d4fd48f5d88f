//! The store's files are written anew, without what was removed: at a start, and by a command.

use std::{fs, path::Path};

use pipelet_tests::{
    Answer, Api, Daemon, Ended, Faults, Receiver, Scrape, SmallDisk, Station, deadline::eventually,
};
use serde_json::{Value, json};

use super::{backup::copy, disk::store_until_full};
use crate::scene::{Scene, daemon};

const EVENTS: &[&str] = &["DataTransfer"];
/// In bytes: a longer file is looked at by a start.
const LONG: u64 = 64 << 20;
const OWED: u32 = 6;

/// The payload of a `DataTransfer`, half a megabyte that doesn't compress.
fn half_a_megabyte() -> String {
    let mut random = fastrand::Rng::with_seed(19);
    let data = std::iter::repeat_with(|| random.alphanumeric()).take(500_000);
    json!({"vendorId": "V", "data": data.collect::<String>()}).to_string()
}

/// Leaves so many events behind that no webhook has had: what is alive stands at the file's end, which
/// keeps sled from making it shorter.
async fn owe(scene: &mut Scene, station: &mut Station, payload: &str, count: u32) {
    scene.receiver.answer(Answer::Held);
    for _ in 0..count {
        station.ok("DataTransfer", payload).await;
    }
    let owed = json!({"pending": count});
    scene.api.await_stats(scene.webhook, owed).await;
}

/// How long the file of the journal's database is, in bytes.
fn length(data_dir: &Path) -> u64 {
    let known = fs::metadata(data_dir.join("hot").join("db"));
    known.expect("a database").len()
}

/// Leaves nothing of a journal but so many events that are owed, and those of the connection: a start
/// does that at once.
async fn trim(scene: &mut Scene, owed: f64) {
    assert!(scene.daemon.terminate().await.success());
    scene.start_again().await;
    let kept = async || {
        let scrape = Scrape::of(scene.api.get("/metrics").await.text);
        let of = |name: &str| scrape.get(name).expect("a position");
        of("pipelet_journal_head_position") - of("pipelet_journal_oldest_position")
    };
    eventually("the journal to be trimmed", kept, |kept| {
        *kept <= owed + 2.0
    })
    .await;
}

/// Everything that the API shows and that no time changes.
async fn shown(api: &Api) -> Vec<Value> {
    let mut shown = Vec::new();
    for path in [
        "/webhooks",
        "/failed-deliveries",
        "/stations",
        "/id-tags",
        "/transactions",
    ] {
        shown.push(api.get(path).await.expect(200));
    }
    shown
}

async fn compact(daemon: &Daemon) -> Ended {
    daemon.run(&["compact"]).await
}

/// A start gives back what the events took that are gone, and keeps everything else.
#[tokio::test]
async fn what_many_events_leave_behind_goes_at_the_next_start() {
    let builder = daemon()
        .flag("--retention", "1ms")
        .flag("--max-attempts", "1")
        .flag("--delivery-timeout", "5m")
        .flag("--shutdown-grace", "1ms");
    let mut scene = Scene::with(builder, EVENTS).await;
    let secret = json!({"secret_header": "X-Secret", "secret_value": "kept"});
    let path = format!("/webhooks/{}", scene.webhook);
    scene.api.put(&path, &secret).await.expect(200);
    scene.ctl().line("stations add S1").await.ok();
    scene.ctl().line("id-tags add T1").await.ok();
    let failing = Receiver::start().await;
    failing.answer(Answer::Status(500));
    scene
        .api
        .subscribe(&failing.url(), &["StartTransaction"])
        .await;
    let mut station = scene.station("S1").await;
    station.start_transaction(1).await;
    scene.api.await_failed("", 1).await;

    let payload = half_a_megabyte();
    let mut sent = 0;
    while length(scene.daemon.data_dir()) < LONG + LONG / 4 {
        station.ok("DataTransfer", payload.as_str()).await;
        sent += 1;
    }
    let delivered = json!({"received": sent, "delivered": sent});
    scene.api.await_stats(scene.webhook, delivered).await;
    owe(&mut scene, &mut station, &payload, OWED).await;
    drop(station);
    trim(&mut scene, f64::from(OWED)).await;
    let before = shown(&scene.api).await;
    scene.daemon.kill9().await;
    let was = length(scene.daemon.data_dir());
    assert!(was >= LONG, "{was}");

    scene.start_again().await;
    let is = length(scene.daemon.data_dir());
    assert!(is < was / 4, "{was} bytes became {is}");
    assert_eq!(shown(&scene.api).await, before);
    scene.receiver.release();
    scene.receiver.answer(Answer::Status(200));
    let mut station = scene.station("S1").await;
    station.ok("DataTransfer", payload.as_str()).await;
    let all = sent + OWED + 1;
    let delivered = json!({"received": all, "delivered": all});
    scene.api.await_stats(scene.webhook, delivered).await;
    let test = format!("{path}/test");
    scene.api.post_empty(&test).await.expect(200);
    let test = scene.receiver.requests().pop().expect("the test's POST");
    assert_eq!(test.header("x-secret"), Some("kept"));
}

/// It is for a daemon that doesn't run. Wherever it is killed, everything is still there.
#[tokio::test]
async fn a_command_does_it_or_leaves_it_wherever_it_is_killed() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let data_dir = home.path().join("data");
    let builder = || {
        daemon()
            .flag("--retention", "1ms")
            .flag("--shutdown-grace", "1ms")
    };
    let mut scene = Scene::with(builder().in_data_dir(data_dir.clone()), EVENTS).await;
    let mut station = scene.station("S1").await;
    let payload = half_a_megabyte();
    for _ in 0..16 {
        station.ok("DataTransfer", payload.as_str()).await;
    }
    let delivered = json!({"received": 16, "delivered": 16});
    scene.api.await_stats(scene.webhook, delivered).await;
    owe(&mut scene, &mut station, &payload, OWED).await;
    trim(&mut scene, f64::from(OWED)).await;
    let refused = compact(&scene.daemon).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("another process uses"),
        "{refused:?}"
    );
    assert!(scene.daemon.terminate().await.success());
    scene.receiver.release();
    scene.receiver.answer(Answer::Status(200));
    let all = 16 + OWED;
    let delivered = json!({"received": all, "delivered": all});
    let was = length(&data_dir);
    let stopped = |data_dir: &Path| builder().in_data_dir(data_dir.to_owned());

    let (mut undone, mut finished) = (0, 0);
    for rename in 1.. {
        let trial = home.path().join(format!("trial{rename}"));
        copy(&data_dir, &trial);
        let (faults, dies) = Faults::of(stopped(&trial).switch("compact"));
        faults.die_at_rename(rename);
        let ended = dies.run_to_end().await;
        let is_half_way = trial.join("hot.old").exists();
        let mut daemon = stopped(&trial).start().await;
        daemon
            .api()
            .await_stats(scene.webhook, delivered.clone())
            .await;
        daemon.kill9().await;
        for gone in ["hot.new", "hot.old", "cold.new", "cold.old"] {
            assert!(!trial.join(gone).exists(), "{gone} after {rename}");
        }
        if length(&trial) < was / 2 {
            finished += 1;
        } else {
            assert!(!is_half_way, "{rename}");
            undone += 1;
        }
        if ended.code == Some(0) {
            let said: Vec<_> = ended.stdout.lines().collect();
            let [hot, cold] = said[..] else {
                panic!("{ended:?}");
            };
            assert!(
                hot.starts_with("hot: ") && hot.ends_with(" MiB now"),
                "{hot}"
            );
            assert!(
                cold.starts_with("cold: ") && cold.contains(" MiB before, "),
                "{cold}"
            );
            break;
        }
        assert_eq!(ended.code, None, "{ended:?}");
    }
    // At least at the two by which the journal's takes its place.
    assert!(
        undone >= 1 && finished >= 2,
        "{undone} undone, {finished} finished"
    );

    let nothing = daemon().in_data_dir(home.path().join("nothing"));
    let refused = nothing.switch("compact").run_to_end().await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("there is no store in"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn where_there_is_no_room_for_a_copy_everything_stays_as_it_was() {
    let disk = SmallDisk::new(64).await;
    let builder = daemon()
        .in_data_dir(disk.path().join("data"))
        .flag("--delivery-timeout", "5m");
    let mut scene = Scene::with(builder, EVENTS).await;
    scene.ctl().line("stations add S1").await.ok();
    scene.receiver.answer(Answer::Held);
    let mut random = fastrand::Rng::with_seed(29);
    let mut station = scene.station("S1").await;
    let taken = store_until_full(&mut station, &mut random).await;
    assert!(scene.daemon.terminate().await.success());

    let ended = compact(&scene.daemon).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let why = "error: the disk has no room for a copy of hot; make room, and run it again";
    assert!(ended.stderr.contains(why), "{ended:?}");
    let hot = ended.stdout.lines().next().expect("a line");
    let lengths = hot
        .strip_prefix("hot: ")
        .and_then(|hot| hot.strip_suffix(" now"));
    let (was, is) = lengths
        .and_then(|both| both.split_once(" before, "))
        .expect("lengths");
    assert_eq!(was, is);
    scene.receiver.release();
    scene.receiver.answer(Answer::Status(200));
    scene.start_again().await;
    let delivered = json!({"received": taken, "delivered": taken});
    scene.api.await_stats(scene.webhook, delivered).await;
}

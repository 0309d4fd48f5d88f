//! What a disk does to a daemon: nothing that was acknowledged is lost, nothing more is
//! acknowledged than can be kept, and it goes on by itself when the disk does.

use std::{collections::BTreeSet, time::Duration};

use pipelet_tests::{
    Answer, Called, DiskError, Faults, Receiver, Reply, Scrape, SmallDisk, Station,
    deadline::{eventually, within},
};
use serde_json::{Value, json};

use crate::scene::{Scene, daemon};

const EVENTS: &[&str] = &["StartTransaction"];

/// What one disk after another is put through.
struct Trial {
    scene: Scene,
    station: Station,
    meter: u32,
    /// The ids of those that were answered.
    answered: BTreeSet<i64>,
}

impl Trial {
    /// A delivery is waiting for its retry, another is dead.
    async fn begin(builder: pipelet_tests::Builder) -> Self {
        let builder = builder
            .flag("--retry-schedule", "1s")
            .flag("--max-attempts", "2");
        let scene = Scene::with(builder, EVENTS).await;
        let station = scene.station("S1").await;
        let mut trial = Self {
            scene,
            station,
            meter: 0,
            answered: BTreeSet::new(),
        };
        trial.scene.receiver.answer(Answer::Status(500));
        trial.started().await;
        trial.scene.api.await_failed("", 1).await;
        trial.started().await;
        trial.scene.receiver.await_requests(3).await;
        trial.scene.receiver.answer(Answer::Status(200));
        trial.started().await;
        trial
    }

    async fn start(&mut self) -> Called {
        self.meter += 1;
        let start = json!({
            "connectorId": 1, "idTag": "T", "meterStart": self.meter,
            "timestamp": "2026-04-14T12:34:56Z",
        });
        let id = format!("m{}", self.meter);
        self.station.call_as(&id, "StartTransaction", start).await
    }

    async fn started(&mut self) {
        let id = self.start().await.result()["transactionId"].as_i64();
        assert!(self.answered.insert(id.expect("an id")), "an id twice");
    }

    /// Events are refused, and so is what the API should write down; both say why.
    async fn is_refused(&mut self, why: &str) {
        for _ in 0..3 {
            assert_eq!(self.start().await.error_code(), "InternalError");
        }
        let api = self.scene.api.clone();
        let not_ready = eventually(
            "/readyz",
            || api.get("/readyz"),
            |reply| reply.status == 503,
        );
        let reasons = not_ready.await.json()["reasons"].to_string();
        assert!(reasons.contains(why), "{reasons}");
        let data_dir = self.scene.daemon.data_dir().display().to_string();
        assert!(!reasons.contains(&data_dir), "nobody's business: {reasons}");
        let webhook = json!({"name": "W", "url": self.scene.receiver.url(), "events": EVENTS});
        let refused = api.post("/webhooks", &webhook).await.expect(503);
        assert_eq!(refused["code"], "unavailable", "{refused}");
        // It answers at all.
        api.get("/healthz").await.expect(200);
    }

    async fn is_ready(&self) {
        let ready = || self.scene.api.get("/readyz");
        eventually("/readyz", ready, |reply| reply.status == 200).await;
    }

    /// It works again, by itself and from the same process; then also after a kill.
    async fn goes_on(mut self) {
        self.is_ready().await;
        let api = self.scene.api.clone();
        self.started().await;
        let webhook = json!({"name": "W", "url": self.scene.receiver.url(), "events": EVENTS});
        api.post("/webhooks", &webhook).await.expect(201);
        api.post_empty("/failed-deliveries/1/replay")
            .await
            .expect(202);
        self.balances().await;

        self.scene.crash().await;
        self.station = self.scene.station("S1").await;
        self.balances().await;
        self.started().await;
        self.balances().await;
    }

    /// Everything that was answered is delivered, and nothing else is.
    async fn balances(&self) {
        let count = self.answered.len();
        let books = json!({"received": count, "delivered": count, "pending": 0, "dead": 0});
        self.scene.api.await_stats(self.scene.webhook, books).await;
        let arrived = self.scene.receiver.requests();
        let id = |body: Value| body["payload"]["transactionId"].as_i64().expect("an id");
        let arrived: BTreeSet<_> = arrived.iter().map(|request| id(request.json())).collect();
        assert_eq!(arrived, self.answered);
    }
}

#[tokio::test]
async fn a_full_disk_is_sat_out() {
    let disk = SmallDisk::new(24).await;
    let builder = daemon().in_data_dir(disk.path().join("data"));
    let mut trial = Trial::begin(builder).await;
    for _ in 0..2 {
        disk.fill();
        trial.is_refused("full").await;
        disk.make_room();
        trial.is_ready().await;
    }
    trial.goes_on().await;
}

#[tokio::test]
async fn a_start_on_a_full_disk_is_not_ready() {
    let disk = SmallDisk::new(24).await;
    let builder = daemon().in_data_dir(disk.path().join("data"));
    let mut scene = Scene::with(builder, EVENTS).await;
    scene.ctl().line("stations add S1").await.ok();
    scene.station("S1").await.start_transaction(1).await;
    scene.daemon.kill9().await;
    disk.fill();
    scene.start_again().await;
    // Nothing was refused yet.
    let reasons = scene.api.get("/readyz").await.expect(503)["reasons"].to_string();
    assert!(reasons.contains("the disk is full"), "{reasons}");
    let mut registered = scene.station("S1").await;
    let mut stranger = scene.station("STRANGER").await;

    disk.make_room();
    let ready = || scene.api.get("/readyz");
    eventually("/readyz", ready, |reply| reply.status == 200).await;
    stranger.start_transaction(2).await;
    registered.start_transaction(3).await;
}

#[tokio::test]
async fn deliveries_go_on_while_the_disk_is_full() {
    let disk = SmallDisk::new(24).await;
    let builder = daemon().in_data_dir(disk.path().join("data"));
    let mut scene = Scene::with(builder, EVENTS).await;
    scene.receiver.answer(Answer::Held);
    let mut station = scene.station("S1").await;
    for meter in 0..20 {
        station.start_transaction(meter).await;
    }
    disk.fill();
    assert_eq!(
        station.call("Heartbeat", "{}").await.error_code(),
        "InternalError"
    );
    scene.receiver.release();
    let books = json!({"received": 20, "delivered": 20});
    scene.api.await_stats(scene.webhook, books.clone()).await;
    // What could not be written down is delivered again, and counted once.
    scene.daemon.kill9().await;
    disk.make_room();
    scene.start_again().await;
    scene.api.await_stats(scene.webhook, books).await;
}

#[tokio::test]
async fn a_daemon_on_a_full_disk_ends_when_it_is_told_to() {
    let disk = SmallDisk::new(24).await;
    let builder = daemon().in_data_dir(disk.path().join("data"));
    let mut trial = Trial::begin(builder).await;
    disk.fill();
    trial.is_refused("full").await;
    trial.scene.daemon.terminate().await;
    disk.make_room();
    trial.scene.start_again().await;
    trial.station = trial.scene.station("S1").await;
    trial.goes_on().await;
}

/// The disk fails twice, in a way that nothing could foresee.
async fn fails_twice(fail: impl Fn(&Faults, bool), why: &str) {
    let (faults, builder) = Faults::of(daemon());
    let mut trial = Trial::begin(builder).await;
    for _ in 0..2 {
        fail(&faults, true);
        trial.is_refused(why).await;
        fail(&faults, false);
        trial.is_ready().await;
        trial.started().await;
    }
    trial.goes_on().await;
}

#[tokio::test]
async fn a_disk_whose_writes_fail_is_sat_out() {
    for (error, why) in [
        (DiskError::Full, "No space left"),
        (DiskError::ReadOnly, "Read-only file system"),
        (DiskError::Broken, "Input/output error"),
    ] {
        fails_twice(|faults, on| faults.fail_writes(on.then_some(error)), why).await;
    }
}

#[tokio::test]
async fn a_disk_whose_syncs_fail_is_sat_out() {
    let fail = |faults: &Faults, on: bool| faults.fail_syncs(on.then_some(DiskError::Broken));
    fails_twice(fail, "Input/output error").await;
}

#[tokio::test]
async fn a_slow_disk_slows_and_breaks_nothing() {
    let (faults, builder) = Faults::of(daemon());
    let mut trial = Trial::begin(builder).await;
    faults.delay_syncs(Duration::from_secs(2));
    // Many wait for the same sync.
    let ocpp = trial.scene.daemon.ocpp();
    let stations = (0..50).map(|number| async move {
        let mut station = Station::connect(ocpp, &format!("SLOW{number}")).await;
        station.start_transaction(number).await
    });
    let answered = futures_util::future::join_all(stations).await;
    trial.answered.extend(answered);
    trial.scene.api.get("/readyz").await.expect(200);
    faults.delay_syncs(Duration::ZERO);
    trial.goes_on().await;
}

#[tokio::test]
async fn who_came_and_went_while_the_disk_was_full_is_told_afterwards() {
    let disk = SmallDisk::new(24).await;
    let builder = daemon().in_data_dir(disk.path().join("data"));
    let scene = Scene::with(builder, &["group:connection", "Heartbeat"]).await;
    let is_connected = async |id: &str, connected: bool| {
        let path = format!("/stations/{id}");
        let shown = || async { scene.api.get(&path).await.json()["connected"] == connected };
        eventually(&format!("{id} connected: {connected}"), shown, |is| *is).await;
    };
    let leaves = scene.station("LEAVES").await;
    scene.receiver.await_requests(1).await;

    disk.fill();
    drop(leaves);
    is_connected("LEAVES", false).await;
    for _ in 0..2 {
        let mut comes = scene.station("COMES").await;
        let refused = comes.call("Heartbeat", "{}").await;
        assert_eq!(refused.error_code(), "InternalError");
        drop(comes);
        is_connected("COMES", false).await;
    }
    let mut comes = scene.station("COMES").await;
    disk.make_room();
    // Whoever says something is told of before it; whoever says nothing is told of, too.
    let until_taken = async {
        while let Called::Error { code, .. } = comes.call("Heartbeat", "{}").await {
            assert_eq!(code, "InternalError");
        }
    };
    within("a heartbeat that is taken", until_taken).await;
    let books = json!({"received": 8, "delivered": 8});
    scene.api.await_stats(scene.webhook, books).await;
    let told = |station: &str| -> Vec<String> {
        let requests = scene.receiver.requests();
        let bodies = requests.iter().map(pipelet_tests::Request::json);
        let theirs = bodies.filter(|body| body["station_id"] == station);
        theirs
            .map(|body| body["event"].as_str().expect("a type").to_owned())
            .collect()
    };
    assert_eq!(told("LEAVES"), ["StationConnected", "StationDisconnected"]);
    let (on, off) = ("StationConnected", "StationDisconnected");
    assert_eq!(told("COMES"), [on, off, on, off, on, "Heartbeat"]);
}

/// An event of 40 kB that don't compress; whether it was taken.
async fn store_one(station: &mut Station, random: &mut fastrand::Rng) -> bool {
    let data = std::iter::repeat_with(|| random.alphanumeric()).take(40_000);
    let payload = json!({"vendorId": "V", "data": data.collect::<String>()});
    match station.call("DataTransfer", payload).await {
        Called::Result(_) => true,
        Called::Error { code, .. } => {
            assert_eq!(code, "InternalError");
            false
        }
    }
}

/// Stores events until none is taken any more, and returns how many were.
pub(crate) async fn store_until_full(station: &mut Station, random: &mut fastrand::Rng) -> u64 {
    let (mut taken, mut refused) = (0, 0);
    while refused < 20 {
        if store_one(station, random).await {
            (taken, refused) = (taken + 1, 0);
        } else {
            refused += 1;
        }
    }
    taken
}

/// Neither what is owed nor what is dead keeps the daemon from starting, however often it is killed,
/// and both can go, which makes room for events again.
#[tokio::test]
async fn a_disk_that_the_store_has_filled_is_started_from_as_often_as_need_be() {
    let disk = SmallDisk::new(64).await;
    let builder = daemon()
        .in_data_dir(disk.path().join("data"))
        // However long it takes to fill the disk.
        .flag("--delivery-timeout", "5m")
        .flag("--max-attempts", "1");
    let mut scene = Scene::with(builder, &["DataTransfer"]).await;
    scene.ctl().line("stations add S1").await.ok();
    scene.receiver.answer(Answer::Held);
    let failing = Receiver::start().await;
    failing.answer(Answer::Status(500));
    let fails = scene.api.subscribe(&failing.url(), &["DataTransfer"]).await;

    let mut random = fastrand::Rng::with_seed(5);
    let mut taken = 0;
    for _ in 0..6 {
        let mut station = scene.station("S1").await;
        taken += store_until_full(&mut station, &mut random).await;
        scene.crash().await;
    }
    assert!(taken > 100, "{taken}");
    scene.receiver.release();
    scene.receiver.answer(Answer::Status(200));
    let delivered = json!({"received": taken, "delivered": taken});
    scene
        .api
        .await_stats(scene.webhook, delivered.clone())
        .await;
    let mut station = scene.station("S1").await;
    taken += store_until_full(&mut station, &mut random).await;
    let reasons = scene.api.get("/readyz").await.expect(503)["reasons"].to_string();
    assert!(reasons.contains("the disk is full"), "{reasons}");

    failing.answer(Answer::Status(200));
    // What had failed before is dead only once that is on record.
    let purge = async || {
        scene.ctl().line("dlq purge --all --yes").await.ok();
        scene.api.stats(fails).await
    };
    let settled = |stats: &Value| stats["pending"] == 0 && stats["dead"] == stats["purged"];
    eventually("everything to be purged", purge, settled).await;
    scene.api.await_failed("", 0).await;
    scene.daemon.kill9().await;
    scene.daemon.set_flag("--retention", "1ms");
    scene.start_again().await;
    let mut station = scene.station("S1").await;
    // How soon there is room is the machine's matter: what is awaited is that there is more.
    for _ in 0..200 {
        let one = async { while !store_one(&mut station, &mut random).await {} };
        within("room for one more", one).await;
    }
    taken += 200;
    let delivered = json!({"received": taken, "delivered": taken});
    scene.api.await_stats(scene.webhook, delivered).await;
}

/// Who may connect without being registered may not take the disk from those who are.
#[tokio::test]
async fn strangers_leave_a_part_of_the_disk_to_registered_stations() {
    let disk = SmallDisk::new(64).await;
    let builder = daemon().in_data_dir(disk.path().join("data"));
    let scene = Scene::with(builder, &["DataTransfer"]).await;
    scene.receiver.answer(Answer::Held);
    scene.ctl().line("stations add KNOWN").await.ok();
    let mut random = fastrand::Rng::with_seed(7);
    let mut stranger = scene.station("STRANGER").await;
    assert!(store_until_full(&mut stranger, &mut random).await > 100);
    let mut known = scene.station("KNOWN").await;
    for _ in 0..10 {
        assert!(store_one(&mut known, &mut random).await);
        assert!(!store_one(&mut stranger, &mut random).await);
    }
    scene.ctl().line("stations add STRANGER").await.ok();
    assert!(store_one(&mut stranger, &mut random).await);
}

/// There is no room to note down that an attempt failed. So it counts for nothing, and is made again.
#[tokio::test]
async fn what_fails_on_a_full_disk_is_delivered_once_its_receiver_is_back() {
    let disk = SmallDisk::new(64).await;
    let builder = daemon()
        .in_data_dir(disk.path().join("data"))
        // However long it takes to fill the disk.
        .flag("--max-attempts", "100")
        .flag("--retry-schedule", "1s");
    let mut scene = Scene::with(builder, &["DataTransfer"]).await;
    scene.ctl().line("stations add S1").await.ok();
    scene.receiver.stop();
    let mut random = fastrand::Rng::with_seed(9);
    let mut station = scene.station("S1").await;
    let taken = store_until_full(&mut station, &mut random).await;
    scene.crash().await;
    let ready = || scene.api.get("/readyz");
    let why = "retries and dead letters can't be kept";
    eventually(why, ready, |reply| {
        reply.json()["reasons"].to_string().contains(why)
    })
    .await;
    scene.receiver.start_again().await;
    let delivered = json!({"received": taken, "delivered": taken});
    scene.api.await_stats(scene.webhook, delivered).await;
}

/// A dead letter that the disk has no room for is none: it is shown and counted nowhere, and what it
/// was of is attempted again.
#[tokio::test]
async fn nothing_is_called_dead_that_could_not_be_kept() {
    let disk = SmallDisk::new(64).await;
    let builder = daemon()
        .in_data_dir(disk.path().join("data"))
        .flag("--max-attempts", "1")
        .flag("--delivery-timeout", "5m");
    let scene = Scene::with(builder, &["DataTransfer"]).await;
    scene.ctl().line("stations add S1").await.ok();
    scene.receiver.answer_next([Answer::Held]);
    let mut random = fastrand::Rng::with_seed(11);
    let mut station = scene.station("S1").await;
    assert!(store_until_full(&mut station, &mut random).await > 100);
    scene.receiver.answer(Answer::Status(500));
    scene.receiver.release();
    let ready = || scene.api.get("/readyz");
    let why = "retries and dead letters can't be kept";
    let is_told = |reply: &Reply| reply.text.contains(why);
    eventually(why, ready, is_told).await;
    let posts = scene.receiver.count();
    // It is attempted again, and refused again.
    scene.receiver.await_requests(posts + 2).await;

    let deliveries = format!("/webhooks/{}/deliveries?limit=200", scene.webhook);
    let total = format!(
        "pipelet_webhook_dead_total{{webhook=\"{}\"}}",
        scene.webhook
    );
    // Where little room comes back, a few more are kept meanwhile.
    let dead = async || {
        let shown = scene.api.get(&deliveries).await.expect(200)["data"].clone();
        let shown = shown.as_array().expect("data").iter();
        let shown = shown
            .filter(|delivery| delivery["status"] == "dead")
            .count();
        let counted = Scrape::of(scene.api.get("/metrics").await.text).get(&total);
        let kept = scene.api.stats(scene.webhook).await["dead"].clone();
        (json!(shown), counted, kept)
    };
    let agree = |(shown, counted, kept): &(Value, Option<f64>, Value)| {
        shown == kept && *counted == kept.as_f64()
    };
    let (_, _, kept) = eventually("the same of all three", dead, agree).await;
    // More are not shown.
    assert!(
        (1..100).contains(&kept.as_u64().expect("a count")),
        "{kept}"
    );
}

/// Whoever wants a full disk to have room again may be told no by nothing.
#[tokio::test]
async fn what_makes_room_is_done_on_a_full_disk() {
    let disk = SmallDisk::new(64).await;
    let builder = daemon()
        .in_data_dir(disk.path().join("data"))
        .flag("--max-attempts", "1")
        .flag("--delivery-timeout", "5m");
    let mut scene = Scene::with(builder, &["DataTransfer"]).await;
    scene.ctl().line("stations add S1").await.ok();
    let other = scene
        .api
        .subscribe(&scene.receiver.url(), &["Heartbeat"])
        .await;
    scene.receiver.answer_next([Answer::Held]);
    let mut random = fastrand::Rng::with_seed(13);
    let mut station = scene.station("S1").await;
    assert!(store_until_full(&mut station, &mut random).await > 100);
    scene.receiver.answer(Answer::Status(500));
    scene.receiver.release();
    let ready = || scene.api.get("/readyz");
    let why = "retries and dead letters can't be kept";
    eventually(why, ready, |reply| reply.text.contains(why)).await;

    let path = format!("/webhooks/{other}");
    let disabled = scene.api.put(&path, &json!({"enabled": false})).await;
    assert_eq!(disabled.expect(200)["enabled"], false);
    let enabled = scene.api.put(&path, &json!({"enabled": true})).await;
    assert_eq!(enabled.expect(503)["code"], "unavailable");
    let reply = scene.api.delete("/failed-deliveries/1").await;
    reply.expect(204);
    let owing = format!("/webhooks/{}", scene.webhook);
    scene.api.delete(&owing).await.expect(204);

    scene.crash().await;
    scene.api.get(&owing).await.expect(404);
    scene.api.get("/failed-deliveries/1").await.expect(404);
    let kept = scene.api.get(&path).await.expect(200);
    assert_eq!(kept["enabled"], false);
}

/// Removing takes room, too, and a deletion removes as many events as the disk holds.
#[tokio::test]
async fn a_large_deletion_leaves_the_room_that_a_start_needs() {
    let disk = SmallDisk::new(96).await;
    let builder = daemon()
        .in_data_dir(disk.path().join("data"))
        .flag("--retry-schedule", "1h");
    let mut scene = Scene::with(builder, &["DataTransfer"]).await;
    scene.ctl().line("stations add S1").await.ok();
    scene.receiver.answer(Answer::Status(500));
    let mut random = fastrand::Rng::with_seed(17);
    let mut station = scene.station("S1").await;
    let taken = store_until_full(&mut station, &mut random).await;
    // Fewer would be cancelled at once.
    assert!(taken > 200, "{taken}");

    let owing = format!("/webhooks/{}", scene.webhook);
    scene.api.delete(&owing).await.expect(204);
    assert!(disk.free() >= 4 << 20, "{} KiB", disk.free() >> 10);
    scene.crash().await;
    scene.api.get(&owing).await.expect(404);
}

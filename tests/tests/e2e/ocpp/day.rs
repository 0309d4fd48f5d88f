//! A whole day of a station in fast motion: it boots, charges, is stopped and reset from afar,
//! comes back without a boot, and tells late of what it did while nobody heard it.

use pipelet_tests::{Request, Station};
use serde_json::{Value, json};

use crate::scene::Scene;

const TAG: &str = "RFID_12345678";

/// The day so far: what happened, in its order, and the station that lives it.
struct Day {
    scene: Scene,
    /// None while the line is gone.
    station: Option<Station>,
    /// The events that an integration must have seen by the evening.
    story: Vec<(&'static str, Value)>,
}

/// A moment of the day, as a station writes it.
fn at(time: &str) -> String {
    format!("2026-04-14T{time}:00Z")
}

impl Day {
    async fn begin() -> Self {
        let scene = Scene::new(&["*"]).await;
        let station = Some(scene.station("WALLBOX_001").await);
        let story = vec![("StationConnected", Value::Null)];
        Self {
            scene,
            station,
            story,
        }
    }

    /// The station says something, and is answered.
    async fn say(&mut self, action: &'static str, payload: Value) -> Value {
        let station = self.station.as_mut().expect("a line");
        let answer = station.ok(action, &payload).await;
        self.story.push((action, payload));
        answer
    }

    async fn status(&mut self, time: &str, status: &str) {
        let payload = json!({"connectorId": 1, "errorCode": "NoError", "status": status, "timestamp": at(time)});
        assert_eq!(self.say("StatusNotification", payload).await, json!({}));
    }

    /// Starts a transaction; its event has the id that it got.
    async fn start(&mut self, time: &str, meter: u32) -> i64 {
        let payload =
            json!({"connectorId": 1, "idTag": TAG, "meterStart": meter, "timestamp": at(time)});
        let answer = self.say("StartTransaction", payload).await;
        assert_eq!(answer["idTagInfo"]["status"], "Accepted");
        let id = answer["transactionId"].as_i64().expect("transactionId");
        let (_, told) = self.story.last_mut().expect("it was just told");
        told["transactionId"] = json!(id);
        id
    }

    async fn meter(&mut self, time: &str, transaction: i64, meter: u32) {
        let sample = json!({"value": meter.to_string(), "unit": "Wh"});
        let values = json!([{"timestamp": at(time), "sampledValue": [sample]}]);
        let payload = json!({"connectorId": 1, "transactionId": transaction, "meterValue": values});
        self.say("MeterValues", payload).await;
    }

    async fn stop(&mut self, time: &str, transaction: i64, meter: u32, reason: &str) {
        let payload = json!({
            "transactionId": transaction, "meterStop": meter, "timestamp": at(time), "reason": reason,
        });
        self.say("StopTransaction", payload).await;
    }

    /// Somebody asks something of the station through the API, and it agrees.
    async fn ask(&mut self, action: &'static str, payload: Value) {
        let path = format!("/stations/WALLBOX_001/commands/{action}");
        let answer = json!({"status": "Accepted"});
        let asking = self.scene.api.post(&path, &payload);
        let agreeing = async {
            let station = self.station.as_mut().expect("a line");
            let asked = station.asked().await;
            assert_eq!(asked.action, action);
            station.answer(&asked, &answer).await;
        };
        let (reply, ()) = tokio::join!(asking, agreeing);
        assert_eq!(
            reply.expect(200),
            json!({"status": "answered", "payload": answer})
        );
        self.story.push((action, payload));
    }

    /// The station goes as one does that restarts.
    async fn say_good_bye(&mut self) {
        self.station.take().expect("a line").close().await;
        self.story.push(("StationDisconnected", Value::Null));
    }

    /// The line breaks off; nobody hears the station until it is back.
    async fn lose_the_line(&mut self) {
        drop(self.station.take());
        self.story.push(("StationDisconnected", Value::Null));
        self.scene.receiver.await_requests(self.story.len()).await;
    }

    async fn come_back(&mut self) {
        self.station = Some(self.scene.station("WALLBOX_001").await);
        self.story.push(("StationConnected", Value::Null));
    }

    async fn open_transactions(&self) -> Value {
        let known = self
            .scene
            .api
            .get("/stations/WALLBOX_001")
            .await
            .expect(200);
        known["open_transactions"].clone()
    }
}

#[tokio::test]
async fn a_day_of_a_station_is_told_whole_and_in_order() {
    let mut day = Day::begin().await;

    // The morning: it starts, somebody charges, and is stopped from afar.
    let boot = json!({"chargePointVendor": "Acme", "chargePointModel": "Wallbox", "firmwareVersion": "1.2.3"});
    assert_eq!(
        day.say("BootNotification", boot).await["status"],
        "Accepted"
    );
    day.status("06:00", "Available").await;
    day.say("Heartbeat", json!({})).await;
    let authorized = day.say("Authorize", json!({"idTag": TAG})).await;
    assert_eq!(authorized["idTagInfo"]["status"], "Accepted");
    day.status("07:00", "Preparing").await;
    let morning = day.start("07:01", 1_000).await;
    day.status("07:01", "Charging").await;
    for (quarter, time) in (1..).zip(["07:15", "07:30", "07:45", "08:00"]) {
        day.meter(time, morning, 1_000 + quarter * 500).await;
    }
    assert_eq!(day.open_transactions().await[0]["transaction_id"], morning);
    day.ask("RemoteStopTransaction", json!({"transactionId": morning}))
        .await;
    day.stop("08:03", morning, 3_100, "Remote").await;
    day.status("08:03", "Finishing").await;
    day.status("08:05", "Available").await;

    // Noon: it is reset, and comes back without a boot.
    day.ask("Reset", json!({"type": "Soft"})).await;
    day.say_good_bye().await;
    day.come_back().await;
    day.status("12:00", "Available").await;

    // The afternoon: started from afar, and then the line breaks off, in the middle.
    day.ask(
        "RemoteStartTransaction",
        json!({"idTag": TAG, "connectorId": 1}),
    )
    .await;
    let afternoon = day.start("13:00", 3_100).await;
    day.meter("13:15", afternoon, 3_600).await;
    day.lose_the_line().await;

    // The evening: all that it could not tell comes late, with its own times, and in its order.
    day.come_back().await;
    day.meter("13:30", afternoon, 4_100).await;
    day.stop("13:40", afternoon, 4_400, "EVDisconnected").await;
    let mut meter = 4_400;
    for [start, middle, stop] in [["14:00", "14:15", "14:30"], ["16:00", "16:15", "16:30"]] {
        let offline = day.start(start, meter).await;
        assert!(![morning, afternoon].contains(&offline));
        day.meter(middle, offline, meter + 250).await;
        meter += 600;
        day.stop(stop, offline, meter, "Local").await;
    }
    day.status("18:00", "Available").await;
    day.say("Heartbeat", json!({})).await;

    assert_eq!(day.open_transactions().await, json!([]));
    check_events(&day).await;
    check_transactions(&day).await;
}

/// Every event has arrived, once and in its order, with what the station said in it, and the
/// books balance.
async fn check_events(day: &Day) {
    let told = day.scene.receiver.await_requests(day.story.len()).await;
    let bodies: Vec<Value> = told.iter().map(Request::json).collect();
    let kinds: Vec<&Value> = bodies.iter().map(|body| &body["event"]).collect();
    let story: Vec<&str> = day.story.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, story);
    for (body, (kind, payload)) in bodies.iter().zip(&day.story) {
        if !payload.is_null() {
            assert_eq!(&body["payload"], payload, "{kind}");
        }
    }
    let times: Vec<&str> = bodies
        .iter()
        .map(|body| body["timestamp"].as_str().expect("a time"))
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    let count = day.story.len();
    let stats = json!({"received": count, "delivered": count, "pending": 0, "dead": 0});
    day.scene.api.await_stats(day.scene.webhook, stats).await;
}

/// The history has the times of the station, however late they came, and all that was charged.
async fn check_transactions(day: &Day) {
    let listed = day
        .scene
        .api
        .get("/transactions?station_id=WALLBOX_001")
        .await;
    let listed = listed.expect(200)["data"].clone();
    let transactions = listed.as_array().expect("data");
    let exact = |time: &str| format!("2026-04-14T{time}:00.000Z");
    let charged: Vec<_> = transactions
        .iter()
        .map(|of| {
            json!([
                of["started_at"],
                of["stopped_at"],
                of["energy_wh"],
                of["stop_reason"]
            ])
        })
        .collect();
    let expected = [
        json!([exact("16:00"), exact("16:30"), 600, "Local"]),
        json!([exact("14:00"), exact("14:30"), 600, "Local"]),
        json!([exact("13:00"), exact("13:40"), 1_300, "EVDisconnected"]),
        json!([exact("07:01"), exact("08:03"), 2_100, "Remote"]),
    ];
    assert_eq!(charged, expected);
}

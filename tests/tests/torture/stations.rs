//! The stations: each says one thing after another, and after a lost answer the same once more.

use std::{sync::Arc, time::Duration, time::Instant};

use fastrand::Rng;
use pipelet_tests::{Frame, Station, oracle::Number};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::run::{Endpoints, InFlight, Run};

pub(crate) const START: &str = "StartTransaction";
pub(crate) const STOP: &str = "StopTransaction";
pub(crate) const METER: &str = "MeterValues";
pub(crate) const STATUS: &str = "StatusNotification";
pub(crate) const HEARTBEAT: &str = "Heartbeat";
pub(crate) const BOOT: &str = "BootNotification";
/// Both ways.
pub(crate) const DATA: &str = "DataTransfer";
pub(crate) const ALL: &[&str] = &[START, STOP, METER, STATUS, HEARTBEAT, BOOT, DATA];

/// In milliseconds; the longest that a station rests between two messages.
const REST_MS: u64 = 20;
/// One of so many messages has its answer lost by the station's hanging up.
const HANGS_UP: u32 = 60;
/// In bytes; of the longest messages.
const LONG_DATA: usize = 1_000_000;
/// How long a charger waits before it dials again.
const REDIAL: Duration = Duration::from_millis(10);

/// A message until it is answered; resent, it is the same to the byte.
struct Unanswered {
    number: Number,
    id: String,
    action: &'static str,
    payload: Value,
    _in_flight: InFlight,
}

struct Charger {
    run: Arc<Run>,
    name: String,
    random: Rng,
    sent: u32,
    /// The transaction that runs.
    transaction: Option<i64>,
    unanswered: Option<Unanswered>,
}

/// Talks until the run is over.
pub(crate) async fn live(run: Arc<Run>, name: String) {
    let random = run.choices(&name);
    let mut charger = Charger {
        run: Arc::clone(&run),
        name,
        random,
        sent: 0,
        transaction: None,
        unanswered: None,
    };
    while let Some(Endpoints { ocpp, .. }) = run.endpoints().await {
        let path = format!("/ocpp/{}", charger.name);
        if let Ok(mut socket) = Station::dial(ocpp, &path, Some("ocpp1.6")).await {
            charger.talk(&mut socket).await;
        }
        // Nothing tells a repeated one of these from a new one, so either may become an event.
        let gone = |call: &mut Unanswered| matches!(call.action, BOOT | HEARTBEAT);
        charger.unanswered.take_if(gone);
        sleep(REDIAL).await;
    }
}

impl Charger {
    /// Until the connection ends, by either side.
    async fn talk(&mut self, socket: &mut Station) {
        loop {
            if self.unanswered.is_none() {
                let rest = Duration::from_millis(self.random.u64(..REST_MS));
                // Where there are several daemons, the connection may outlive whatever happens.
                let goes_on = self.run.is_up() || self.run.has_outages;
                if !listen(socket, rest).await || !goes_on {
                    return;
                }
                self.unanswered = Some(self.next().await);
            }
            let call = self.unanswered.as_ref().expect("it was just made");
            let (id, action, payload) = (&call.id, call.action, &call.payload);
            let frame = format!(r#"[2,"{id}","{action}",{payload}]"#);
            if !socket.send_while_open(frame).await || self.random.u32(..HANGS_UP) == 0 {
                return;
            }
            let Some(answer) = await_answer(socket).await else {
                return;
            };
            if !self.hear(&answer) {
                return;
            }
        }
    }

    async fn next(&mut self) -> Unanswered {
        let in_flight = self.run.begin().await;
        let may_start = self.run.transactions;
        let action = match (self.transaction, self.random.u32(..100)) {
            (None, 0..30) if may_start => START,
            (Some(_), 0..15) => STOP,
            (_, 0..55) => METER,
            (_, 55..75) => STATUS,
            (_, 75..85) => HEARTBEAT,
            (_, 85..90) => BOOT,
            (_, _) => DATA,
        };
        let number = self.run.oracle().sends(action, Instant::now());
        self.sent += 1;
        Unanswered {
            number,
            id: format!("{}-{}", self.name, self.sent),
            action,
            payload: self.payload(action, number),
            _in_flight: in_flight,
        }
    }

    fn payload(&mut self, action: &str, number: Number) -> Value {
        let mark = format!("#{number}#");
        let time = "2026-04-14T12:34:56Z";
        match action {
            START => {
                json!({"connectorId": 1, "idTag": mark, "meterStart": number, "timestamp": time})
            }
            STOP => {
                let id = self.transaction.expect("one runs");
                json!({"transactionId": id, "idTag": mark, "meterStop": number, "timestamp": time})
            }
            METER => {
                // Now and then as much as goes into the store in pieces only.
                let samples = if self.random.u32(..40) == 0 { 400 } else { 1 };
                let sample = json!({"value": mark, "context": "Sample.Periodic", "unit": "Wh"});
                let samples = vec![sample; samples];
                let values = json!([{"timestamp": time, "sampledValue": samples}]);
                json!({"connectorId": 1, "meterValue": values})
            }
            STATUS => json!({
                "connectorId": 1, "errorCode": "NoError", "status": "Charging", "info": mark,
            }),
            // No part of the schema, and told nevertheless.
            HEARTBEAT => json!({"number": mark}),
            BOOT => json!({
                "chargePointVendor": "Acme", "chargePointModel": "Wallbox",
                "chargePointSerialNumber": mark,
            }),
            other => {
                assert_eq!(other, DATA);
                // Now and then nearly as much as a message may have. Not in a short soak, for which
                // it takes memory and store too long to be level.
                let long = self.run.transactions && self.random.u32(..40) == 0;
                let padding = if long { LONG_DATA } else { 0 };
                json!({"vendorId": "Acme", "data": mark, "padding": " ".repeat(padding)})
            }
        }
    }

    /// Takes note of an answer; whether the connection is any good.
    fn hear(&mut self, answer: &Value) -> bool {
        let call = self.unanswered.take().expect("something was asked");
        let is_result = answer[0] == 3 && answer[1] == call.id.as_str();
        let transaction = answer[2]["transactionId"].as_i64();
        if !is_result || (call.action == START && transaction.is_none()) {
            // A daemon that ends may say so.
            if self.run.is_up() {
                let what = format!("{answer} for {} {}", call.action, call.id);
                self.run.oracle().fault(what);
            }
            self.unanswered = Some(call);
            return false;
        }
        match call.action {
            START => self.transaction = transaction,
            STOP => self.transaction = None,
            _ => {}
        }
        let now = Instant::now();
        self.run.oracle().answered(call.number, transaction, now);
        true
    }
}

/// Answers what is asked meanwhile; whether the connection is still there.
async fn listen(socket: &mut Station, time: Duration) -> bool {
    let rest = sleep(time);
    tokio::pin!(rest);
    loop {
        let frame = tokio::select! {
            () = &mut rest => return true,
            frame = socket.next() => frame,
        };
        match frame {
            Frame::Closed(_) => return false,
            Frame::Json(frame) => {
                if !oblige(socket, &frame).await {
                    return false;
                }
            }
        }
    }
}

/// The next frame that is no CALL; none when the connection ends.
async fn await_answer(socket: &mut Station) -> Option<Value> {
    loop {
        match socket.next().await {
            Frame::Closed(_) => return None,
            Frame::Json(frame) if frame[0] == 2 => {
                if !oblige(socket, &frame).await {
                    return None;
                }
            }
            Frame::Json(frame) => return Some(frame),
        }
    }
}

/// Does what the central system asks.
async fn oblige(socket: &mut Station, call: &Value) -> bool {
    let answer = format!(r#"[3,{},{{"status":"Accepted"}}]"#, call[1]);
    socket.send_while_open(answer).await
}

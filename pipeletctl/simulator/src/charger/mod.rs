//! A charger's behaviour, as a state machine over the charger's own time.
//!
//! Pure: it takes what happened and when, and gives the frames that are to be sent; `due` is when
//! it wants to be woken. Invariants: what happens at a moment bears that moment's time, however late
//! the machine is woken for it; a connector's states follow each other as OCPP 1.6 has them (section
//! 4.9), and a transaction's messages come start, values, stop, whatever the connection does.

mod commands;
mod connector;
mod frame;
mod queue;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use fastrand::Rng;
use jiff::Timestamp;
use serde_json::{Value, json};

pub use self::{connector::ChargePointStatus, queue::Action};
use self::{
    connector::{Connector, Stage},
    frame::Frame,
    queue::{Message, MessageQueue},
};
use super::arrivals::{ArrivalPattern, later};

#[derive(Debug)]
pub(crate) struct Charger {
    serial: String,
    connectors: Vec<Connector>,
    arrivals: ArrivalPattern,
    rng: Rng,
    queue: MessageQueue,
    /// Answers to the central system's CALLs, which wait for nothing.
    replies: VecDeque<String>,
    online: bool,
    registration: Registration,
    heartbeat_every: Duration,
    next_heartbeat: Timestamp,
    sample_every: Duration,
    /// Connectors whose next session was started remotely, and needs no Authorize.
    remote_starts: Vec<u32>,
    sessions: u32,
    /// Accepted a Reset, and boots once its answer is out.
    reboots: bool,
    /// Starts no session any more.
    closing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registration {
    /// Sends nothing but its `BootNotification`: at that time, or as soon as it can.
    Booting(Option<Timestamp>),
    Accepted,
}

/// What an incoming frame was.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    /// The answer to the CALL in flight.
    CallResult(Action),
    /// The CALLERROR to it, with its code.
    CallError(Action, String),
    /// A CALL, whose answer waits to be sent.
    Call(String),
    /// An answer to a CALL that is not in flight, or no frame.
    Ignored,
}

/// A frame that is to be sent.
#[derive(Debug, PartialEq)]
pub(super) struct Outgoing {
    pub(super) text: String,
    /// None for an answer.
    pub(super) call: Option<Action>,
}

/// What is shown of a connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorView {
    pub status: ChargePointStatus,
    pub power_w: u64,
    /// By this session, and what its car wants.
    pub charged_wh: u64,
    pub requested_wh: u64,
    pub id_tag: Option<String>,
}

impl Charger {
    pub(super) fn new(
        id: &str,
        connectors: u32,
        arrivals: ArrivalPattern,
        mut rng: Rng,
        now: Timestamp,
    ) -> Self {
        let mut connector = |number| {
            let next_car = arrivals.next_car(&mut rng, now);
            Connector::new(number, rng.u64(10_000..900_000), now, next_car)
        };
        let connectors = (1..=connectors).map(&mut connector).collect();
        Self {
            // A message id has at most 36 characters, and differs from all others'.
            queue: MessageQueue::new(format!("{:012x}", rng.u64(..1 << 48))),
            serial: id.chars().take(25).collect(),
            connectors,
            arrivals,
            rng,
            replies: VecDeque::new(),
            online: false,
            registration: Registration::Booting(None),
            heartbeat_every: Duration::from_mins(5),
            next_heartbeat: Timestamp::MAX,
            sample_every: Duration::from_mins(1),
            remote_starts: Vec::new(),
            sessions: 0,
            reboots: false,
            closing: false,
        }
    }

    pub(super) fn connected(&mut self, now: Timestamp) {
        self.online = true;
        self.next_heartbeat = later_by(now, self.heartbeat_every);
        match self.registration {
            // It has been accepted before, so a new connection needs no boot.
            Registration::Accepted => self.queue_all_statuses(now),
            Registration::Booting(_) => self.queue_boot(),
        }
    }

    pub(super) fn disconnected(&mut self, now: Timestamp) {
        self.online = false;
        for connector in &mut self.connectors {
            if let Stage::Authorising { until, .. } = &mut connector.stage {
                // Its question got lost, and it need not be asked offline.
                *until = now.min(*until);
            }
        }
        self.replies.clear();
        self.queue.disconnected();
    }

    pub(super) fn handle_frame(&mut self, text: &str, now: Timestamp) -> Incoming {
        match frame::parse(text) {
            Some(Frame::Call {
                id,
                action,
                payload,
            }) => {
                self.handle_call(&id, &action, &payload, now);
                Incoming::Call(action)
            }
            Some(Frame::Result { id, payload }) => match self.queue.answered(&id, &payload) {
                Some(message) => {
                    self.handle_result(&message, &payload, now);
                    Incoming::CallResult(message.action)
                }
                None => Incoming::Ignored,
            },
            Some(Frame::Error { id, code }) => match self.queue.refused(&id, now) {
                Some(message) => {
                    self.handle_error(&message, now);
                    Incoming::CallError(message.action, code)
                }
                None => Incoming::Ignored,
            },
            None => Incoming::Ignored,
        }
    }

    /// The next frame to be sent, as long as there is one.
    pub(super) fn next_frame(&mut self, now: Timestamp) -> Option<Outgoing> {
        if !self.online {
            return None;
        }
        if let Some(text) = self.replies.pop_front() {
            return Some(Outgoing { text, call: None });
        }
        let accepted = self.registration == Registration::Accepted;
        let (action, text) = self.queue.next(now, accepted)?;
        let call = Some(action);
        Some(Outgoing { text, call })
    }

    /// Whether it reboots now: the connection ends, and a new one begins with a boot.
    pub(super) fn take_reboot(&mut self) -> bool {
        let now = self.reboots && self.replies.is_empty();
        if now {
            self.reboots = false;
            self.registration = Registration::Booting(None);
        }
        now
    }

    /// When something happens here by itself.
    pub(super) fn due(&self) -> Timestamp {
        let connectors = self.connectors.iter().map(Connector::due);
        let others = [
            self.heartbeat_due(),
            self.boot_due(),
            self.queue.retry_at().filter(|_| self.online),
        ];
        let all = connectors.chain(others.into_iter().flatten());
        all.min().unwrap_or(Timestamp::MAX)
    }

    /// Lets everything happen that is due until now.
    pub(super) fn tick(&mut self, now: Timestamp) {
        loop {
            let next = self
                .connectors
                .iter()
                .map(|connector| (connector.due(), connector.id))
                .min();
            match next {
                Some((at, id)) if at <= now => self.advance(id, at),
                Some(_) | None => break,
            }
        }
        self.queue.release(now);
        if self.heartbeat_due().is_some_and(|at| at <= now) {
            self.queue_heartbeat();
            self.next_heartbeat = later_by(now, self.heartbeat_every);
        }
        if self.boot_due().is_some_and(|at| at <= now) {
            self.registration = Registration::Booting(None);
            self.queue_boot();
        }
    }

    /// Ends every session; no new one begins.
    pub(super) fn close(&mut self, now: Timestamp) {
        self.closing = true;
        for id in self.ids() {
            self.stop(id, "Local", now);
            let Stage::Free { .. } = self.connector(id).stage else {
                self.unplug(id, now);
                continue;
            };
        }
    }

    /// Whether nothing is left to send, and no CALL waits for an answer.
    pub(super) fn has_sent_all(&self) -> bool {
        self.queue.is_empty() && self.replies.is_empty()
    }

    pub(super) fn view(&self) -> Vec<ConnectorView> {
        let view = |connector: &Connector| ConnectorView {
            status: connector.status,
            power_w: connector.power_w(),
            charged_wh: connector.charged_wh(),
            requested_wh: connector
                .session()
                .map_or(0, |session| session.car.requested_wh),
            id_tag: connector
                .session()
                .map(|session| session.car.id_tag.clone()),
        };
        self.connectors.iter().map(view).collect()
    }

    fn heartbeat_due(&self) -> Option<Timestamp> {
        let talks = self.online && self.registration == Registration::Accepted;
        talks.then_some(self.next_heartbeat)
    }

    fn boot_due(&self) -> Option<Timestamp> {
        match self.registration {
            Registration::Booting(at) => at.filter(|_| self.online),
            Registration::Accepted => None,
        }
    }

    fn handle_result(&mut self, message: &Message, payload: &Value, now: Timestamp) {
        let tag_is_good = payload["idTagInfo"]["status"] == "Accepted";
        match message.action {
            Action::BootNotification => self.handle_boot_result(payload, now),
            Action::Authorize => {
                let id = message.connector;
                if matches!(self.connector(id).stage, Stage::Authorising { .. }) {
                    if tag_is_good {
                        self.start(id, now);
                    } else {
                        self.unplug(id, now);
                    }
                }
            }
            Action::StartTransaction if !tag_is_good => {
                let id = message.connector;
                let session = self.connector(id).session();
                if session.map(|session| session.number) == message.session {
                    self.stop(id, "DeAuthorized", now);
                }
            }
            Action::StartTransaction
            | Action::StopTransaction
            | Action::MeterValues
            | Action::StatusNotification
            | Action::Heartbeat => {}
        }
    }

    fn handle_boot_result(&mut self, payload: &Value, now: Timestamp) {
        let interval = payload["interval"].as_u64().filter(|seconds| *seconds > 0);
        let interval = interval.map_or(self.heartbeat_every, Duration::from_secs);
        if payload["status"] == "Accepted" {
            self.heartbeat_every = interval;
            self.next_heartbeat = later_by(now, interval);
            self.registration = Registration::Accepted;
            self.queue_all_statuses(now);
        } else {
            self.registration = Registration::Booting(Some(later_by(now, interval)));
        }
    }

    fn handle_error(&mut self, message: &Message, now: Timestamp) {
        match message.action {
            Action::BootNotification => {
                let again = later_by(now, Duration::from_mins(1));
                self.registration = Registration::Booting(Some(again));
            }
            // The person is not kept waiting for a second try.
            Action::Authorize => self.unplug(message.connector, now),
            Action::StartTransaction
            | Action::StopTransaction
            | Action::MeterValues
            | Action::StatusNotification
            | Action::Heartbeat => {}
        }
    }

    /// What a connector's stage leads to.
    fn advance(&mut self, id: u32, at: Timestamp) {
        let talks = self.online && self.registration == Registration::Accepted;
        let (arrivals, closing, every) = (self.arrivals, self.closing, self.sample_every);
        let rng = &mut self.rng;
        let connector = find(&mut self.connectors, id);
        match &mut connector.stage {
            Stage::Free { next_car } if closing || !connector.operative => {
                *next_car = if closing {
                    Timestamp::MAX
                } else {
                    arrivals.next_car(rng, at)
                };
            }
            Stage::Free { .. } => {
                let car = arrivals.car(rng);
                let until = later(at, rng.u64(5_000..20_000));
                connector.stage = Stage::Plugged { car, until };
                self.set_status(id, ChargePointStatus::Preparing, at);
            }
            Stage::Plugged { car, .. } => {
                let car = car.clone();
                let id_tag = car.id_tag.clone();
                let until = Timestamp::MAX;
                connector.stage = Stage::Authorising { car, until };
                if talks {
                    self.queue_message(Action::Authorize, id, None, json!({"idTag": id_tag}));
                } else {
                    // Offline it takes everybody: OCPP's key LocalAuthorizeOffline.
                    self.start(id, at);
                }
            }
            Stage::Authorising { .. } => {
                if self.remote_starts.contains(&id) || !talks {
                    self.start(id, at);
                } else {
                    self.unplug(id, at);
                }
            }
            Stage::Charging { next_sample, .. } => {
                *next_sample = later_by(at, every);
                connector.run_meter(at);
                connector.set_power(rng);
                if connector.is_satisfied() {
                    let reason = if rng.bool() {
                        "Local"
                    } else {
                        "EVDisconnected"
                    };
                    self.stop(id, reason, at);
                } else {
                    self.queue_meter_values(id, "Sample.Periodic", at);
                }
            }
            Stage::Finishing { .. } => self.unplug(id, at),
        }
    }

    fn start(&mut self, id: u32, now: Timestamp) {
        self.remote_starts.retain(|started| *started != id);
        self.sessions += 1;
        let (number, every) = (self.sessions, self.sample_every);
        let connector = find(&mut self.connectors, id);
        let (Stage::Plugged { car, .. } | Stage::Authorising { car, .. }) = &connector.stage else {
            return;
        };
        let car = car.clone();
        let payload = json!({
            "connectorId": id,
            "idTag": car.id_tag,
            "meterStart": connector.meter_wh(),
            "timestamp": time(now),
        });
        connector.begin(number, car, now, later_by(now, every));
        connector.set_power(&mut self.rng);
        self.queue_message(Action::StartTransaction, id, Some(number), payload);
        self.set_status(id, ChargePointStatus::Charging, now);
    }

    /// Ends the connector's session, where there is one.
    fn stop(&mut self, id: u32, reason: &str, now: Timestamp) {
        let until = later(now, self.rng.u64(10_000..40_000));
        let connector = find(&mut self.connectors, id);
        connector.run_meter(now);
        let Some(session) = connector.session() else {
            return;
        };
        let number = session.number;
        let payload = json!({
            "idTag": session.car.id_tag,
            "meterStop": connector.meter_wh(),
            "reason": reason,
            "timestamp": time(now),
        });
        connector.stage = Stage::Finishing { until };
        connector.set_power(&mut self.rng);
        self.queue_message(Action::StopTransaction, id, Some(number), payload);
        self.set_status(id, ChargePointStatus::Finishing, now);
    }

    /// The car is gone.
    fn unplug(&mut self, id: u32, now: Timestamp) {
        self.remote_starts.retain(|started| *started != id);
        let next_car = if self.closing {
            Timestamp::MAX
        } else {
            self.arrivals.next_car(&mut self.rng, now)
        };
        let connector = find(&mut self.connectors, id);
        connector.stage = Stage::Free { next_car };
        let status = if connector.operative {
            ChargePointStatus::Available
        } else {
            ChargePointStatus::Unavailable
        };
        self.set_status(id, status, now);
    }

    fn set_status(&mut self, id: u32, status: ChargePointStatus, now: Timestamp) {
        let connector = find(&mut self.connectors, id);
        if connector.status != status {
            connector.status = status;
            self.queue_status(id, now);
        }
    }

    fn queue_boot(&mut self) {
        let payload = json!({
            "chargePointVendor": "Pipelet",
            "chargePointModel": "Simulated",
            "chargePointSerialNumber": self.serial,
            "firmwareVersion": env!("CARGO_PKG_VERSION"),
        });
        self.queue.push_first(Message {
            action: Action::BootNotification,
            payload,
            session: None,
            connector: 0,
        });
    }

    /// The states of the charger itself, which is connector 0, and of all its connectors.
    fn queue_all_statuses(&mut self, now: Timestamp) {
        for id in [0].into_iter().chain(self.ids()) {
            self.queue_status(id, now);
        }
    }

    fn queue_heartbeat(&mut self) {
        self.queue_message(Action::Heartbeat, 0, None, json!({}));
    }

    fn queue_status(&mut self, id: u32, now: Timestamp) {
        let of = self.connectors.iter().find(|connector| connector.id == id);
        let status = of.map_or(ChargePointStatus::Available, |connector| connector.status);
        let payload = json!({
            "connectorId": id,
            "errorCode": "NoError",
            "status": status.as_str(),
            "timestamp": time(now),
        });
        self.queue_message(Action::StatusNotification, id, None, payload);
    }

    fn queue_meter_values(&mut self, id: u32, context: &str, now: Timestamp) {
        let connector = find(&mut self.connectors, id);
        connector.run_meter(now);
        let sample = |value: u64, measurand: &str, unit: &str| {
            json!({
                "value": value.to_string(),
                "context": context,
                "measurand": measurand,
                "unit": unit,
            })
        };
        let values = [
            sample(connector.meter_wh(), "Energy.Active.Import.Register", "Wh"),
            sample(connector.power_w(), "Power.Active.Import", "W"),
        ];
        let payload = json!({
            "connectorId": id,
            "meterValue": [{"timestamp": time(now), "sampledValue": values}],
        });
        let session = connector.session().map(|session| session.number);
        self.queue_message(Action::MeterValues, id, session, payload);
    }

    fn queue_message(
        &mut self,
        action: Action,
        connector: u32,
        session: Option<u32>,
        payload: Value,
    ) {
        let message = Message {
            action,
            payload,
            session,
            connector,
        };
        if self.online || message.must_be_delivered() {
            self.queue.push(message);
        }
    }

    fn ids(&self) -> Vec<u32> {
        self.connectors
            .iter()
            .map(|connector| connector.id)
            .collect()
    }

    fn connector(&mut self, id: u32) -> &mut Connector {
        find(&mut self.connectors, id)
    }
}

/// The connector of this number, which is one of the charger's own.
fn find(connectors: &mut [Connector], id: u32) -> &mut Connector {
    let index = connectors.iter().position(|connector| connector.id == id);
    &mut connectors[index.unwrap_or(0)]
}

fn later_by(at: Timestamp, duration: Duration) -> Timestamp {
    at.checked_add(duration).unwrap_or(Timestamp::MAX)
}

fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

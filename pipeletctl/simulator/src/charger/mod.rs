//! A charger's behaviour, as a state machine over the charger's own time.
//!
//! Pure: it is told what happened and when, and says what it has to say; `due` tells when it wants
//! to be woken. Invariants: what happens at a moment bears that moment's time, however late the
//! machine is woken for it; a connector's states follow each other as OCPP 1.6 has them (section
//! 4.9), and a transaction's messages come start, values, stop, whatever the connection does.

mod commands;
mod connector;
mod frame;
mod outbox;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use fastrand::Rng;
use jiff::Timestamp;
use serde_json::{Value, json};

pub use self::{connector::Status, outbox::Action};
use self::{
    connector::{Connector, Stage},
    frame::Frame,
    outbox::{Message, Outbox},
};
use super::habits::{Habits, later};

#[derive(Debug)]
pub(crate) struct Charger {
    serial: String,
    connectors: Vec<Connector>,
    habits: Habits,
    rng: Rng,
    outbox: Outbox,
    /// Answers to the central system's CALLs, which wait for nothing.
    replies: VecDeque<String>,
    online: bool,
    registration: Registration,
    heartbeat_every: Duration,
    next_heartbeat: Timestamp,
    sample_every: Duration,
    /// Connectors where the next session was asked for from afar: nobody has to be asked again.
    remote_starts: Vec<u32>,
    sessions: u32,
    /// Accepted a Reset, and boots once its answer is out.
    reboots: bool,
    /// Charges nobody any more.
    closing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registration {
    /// Says nothing but its boot, then or as soon as it can.
    Boots(Option<Timestamp>),
    Accepted,
}

/// What became of a frame that was heard.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    /// The answer to what the charger said last.
    Answer(Action),
    /// The CALLERROR to it, with its code.
    Refusal(Action, String),
    /// A CALL, whose answer waits to be sent.
    Asked(String),
    /// An answer to nothing, or no frame.
    Nothing,
}

/// A frame that is to be sent.
#[derive(Debug, PartialEq)]
pub(super) struct Outgoing {
    pub(super) text: String,
    /// None for an answer.
    pub(super) call: Option<Action>,
}

/// What a passer-by sees of a connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorView {
    pub status: Status,
    pub power_w: u64,
    /// By this session, and what its car wants.
    pub charged_wh: u64,
    pub wanted_wh: u64,
    pub id_tag: Option<String>,
}

impl Charger {
    pub(super) fn new(
        id: &str,
        connectors: u32,
        habits: Habits,
        mut rng: Rng,
        now: Timestamp,
    ) -> Self {
        let mut connector = |number| {
            let next_car = habits.next_car(&mut rng, now);
            Connector::new(number, rng.u64(10_000..900_000), now, next_car)
        };
        let connectors = (1..=connectors).map(&mut connector).collect();
        Self {
            // A message id has at most 36 characters, and is told apart from all others'.
            outbox: Outbox::new(format!("{:012x}", rng.u64(..1 << 48))),
            serial: id.chars().take(25).collect(),
            connectors,
            habits,
            rng,
            replies: VecDeque::new(),
            online: false,
            registration: Registration::Boots(None),
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
            Registration::Accepted => self.say_state(now),
            Registration::Boots(_) => self.say_boot(),
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
        self.outbox.disconnected();
    }

    pub(super) fn heard(&mut self, text: &str, now: Timestamp) -> Heard {
        match frame::parse(text) {
            Some(Frame::Call {
                id,
                action,
                payload,
            }) => {
                self.asked(&id, &action, &payload, now);
                Heard::Asked(action)
            }
            Some(Frame::Result { id, payload }) => match self.outbox.answered(&id, &payload) {
                Some(message) => {
                    self.answered(&message, &payload, now);
                    Heard::Answer(message.action)
                }
                None => Heard::Nothing,
            },
            Some(Frame::Error { id, code }) => match self.outbox.refused(&id, now) {
                Some(message) => {
                    self.refused(&message, now);
                    Heard::Refusal(message.action, code)
                }
                None => Heard::Nothing,
            },
            None => Heard::Nothing,
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
        let (action, text) = self.outbox.next(now, accepted)?;
        let call = Some(action);
        Some(Outgoing { text, call })
    }

    /// Whether it reboots now: the connection ends, and a new one begins with a boot.
    pub(super) fn reboots(&mut self) -> bool {
        let now = self.reboots && self.replies.is_empty();
        if now {
            self.reboots = false;
            self.registration = Registration::Boots(None);
        }
        now
    }

    /// When something happens here by itself.
    pub(super) fn due(&self) -> Timestamp {
        let connectors = self.connectors.iter().map(Connector::due);
        let others = [
            self.heartbeat_due(),
            self.boot_due(),
            self.outbox.held_until().filter(|_| self.online),
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
                Some((at, id)) if at <= now => self.go_on(id, at),
                Some(_) | None => break,
            }
        }
        self.outbox.release(now);
        if self.heartbeat_due().is_some_and(|at| at <= now) {
            self.say_heartbeat();
            self.next_heartbeat = later_by(now, self.heartbeat_every);
        }
        if self.boot_due().is_some_and(|at| at <= now) {
            self.registration = Registration::Boots(None);
            self.say_boot();
        }
    }

    /// Ends every session; no new one begins.
    pub(super) fn close(&mut self, now: Timestamp) {
        self.closing = true;
        for id in self.ids() {
            self.stop(id, "Local", now);
            let Stage::Free { .. } = self.connector(id).stage else {
                self.leave(id, now);
                continue;
            };
        }
    }

    /// Whether nothing is left to say, and nothing waits for an answer.
    pub(super) fn has_said_all(&self) -> bool {
        self.outbox.is_empty() && self.replies.is_empty()
    }

    pub(super) fn view(&self) -> Vec<ConnectorView> {
        let view = |connector: &Connector| ConnectorView {
            status: connector.status,
            power_w: connector.power_w(),
            charged_wh: connector.charged_wh(),
            wanted_wh: connector
                .session()
                .map_or(0, |session| session.car.wanted_wh),
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
            Registration::Boots(at) => at.filter(|_| self.online),
            Registration::Accepted => None,
        }
    }

    fn answered(&mut self, message: &Message, payload: &Value, now: Timestamp) {
        let tag_is_good = payload["idTagInfo"]["status"] == "Accepted";
        match message.action {
            Action::BootNotification => self.booted(payload, now),
            Action::Authorize => {
                let id = message.connector;
                if matches!(self.connector(id).stage, Stage::Authorising { .. }) {
                    if tag_is_good {
                        self.start(id, now);
                    } else {
                        self.leave(id, now);
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

    fn booted(&mut self, payload: &Value, now: Timestamp) {
        let interval = payload["interval"].as_u64().filter(|seconds| *seconds > 0);
        let interval = interval.map_or(self.heartbeat_every, Duration::from_secs);
        if payload["status"] == "Accepted" {
            self.heartbeat_every = interval;
            self.next_heartbeat = later_by(now, interval);
            self.registration = Registration::Accepted;
            self.say_state(now);
        } else {
            self.registration = Registration::Boots(Some(later_by(now, interval)));
        }
    }

    fn refused(&mut self, message: &Message, now: Timestamp) {
        match message.action {
            Action::BootNotification => {
                let again = later_by(now, Duration::from_mins(1));
                self.registration = Registration::Boots(Some(again));
            }
            // The person is not kept waiting for a second try.
            Action::Authorize => self.leave(message.connector, now),
            Action::StartTransaction
            | Action::StopTransaction
            | Action::MeterValues
            | Action::StatusNotification
            | Action::Heartbeat => {}
        }
    }

    /// What a connector's stage leads to.
    fn go_on(&mut self, id: u32, at: Timestamp) {
        let talks = self.online && self.registration == Registration::Accepted;
        let (habits, closing, every) = (self.habits, self.closing, self.sample_every);
        let rng = &mut self.rng;
        let connector = find(&mut self.connectors, id);
        match &mut connector.stage {
            Stage::Free { next_car } if closing || !connector.operative => {
                *next_car = if closing {
                    Timestamp::MAX
                } else {
                    habits.next_car(rng, at)
                };
            }
            Stage::Free { .. } => {
                let car = habits.car(rng);
                let until = later(at, rng.u64(5_000..20_000));
                connector.stage = Stage::Plugged { car, until };
                self.set_status(id, Status::Preparing, at);
            }
            Stage::Plugged { car, .. } => {
                let car = car.clone();
                let id_tag = car.id_tag.clone();
                let until = Timestamp::MAX;
                connector.stage = Stage::Authorising { car, until };
                if talks {
                    self.say(Action::Authorize, id, None, json!({"idTag": id_tag}));
                } else {
                    // Offline it takes everybody: OCPP's key LocalAuthorizeOffline.
                    self.start(id, at);
                }
            }
            Stage::Authorising { .. } => {
                if self.remote_starts.contains(&id) || !talks {
                    self.start(id, at);
                } else {
                    self.leave(id, at);
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
                    self.say_meter(id, "Sample.Periodic", at);
                }
            }
            Stage::Finishing { .. } => self.leave(id, at),
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
        self.say(Action::StartTransaction, id, Some(number), payload);
        self.set_status(id, Status::Charging, now);
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
        self.say(Action::StopTransaction, id, Some(number), payload);
        self.set_status(id, Status::Finishing, now);
    }

    /// The car is gone.
    fn leave(&mut self, id: u32, now: Timestamp) {
        self.remote_starts.retain(|started| *started != id);
        let next_car = if self.closing {
            Timestamp::MAX
        } else {
            self.habits.next_car(&mut self.rng, now)
        };
        let connector = find(&mut self.connectors, id);
        connector.stage = Stage::Free { next_car };
        let status = if connector.operative {
            Status::Available
        } else {
            Status::Unavailable
        };
        self.set_status(id, status, now);
    }

    fn set_status(&mut self, id: u32, status: Status, now: Timestamp) {
        let connector = find(&mut self.connectors, id);
        if connector.status != status {
            connector.status = status;
            self.say_status(id, now);
        }
    }

    fn say_boot(&mut self) {
        let payload = json!({
            "chargePointVendor": "Pipelet",
            "chargePointModel": "Simulated",
            "chargePointSerialNumber": self.serial,
            "firmwareVersion": env!("CARGO_PKG_VERSION"),
        });
        self.outbox.push_first(Message {
            action: Action::BootNotification,
            payload,
            session: None,
            connector: 0,
        });
    }

    /// The states of the charger itself, which is connector 0, and of all its connectors.
    fn say_state(&mut self, now: Timestamp) {
        for id in [0].into_iter().chain(self.ids()) {
            self.say_status(id, now);
        }
    }

    fn say_heartbeat(&mut self) {
        self.say(Action::Heartbeat, 0, None, json!({}));
    }

    fn say_status(&mut self, id: u32, now: Timestamp) {
        let of = self.connectors.iter().find(|connector| connector.id == id);
        let status = of.map_or(Status::Available, |connector| connector.status);
        let payload = json!({
            "connectorId": id,
            "errorCode": "NoError",
            "status": status.as_str(),
            "timestamp": time(now),
        });
        self.say(Action::StatusNotification, id, None, payload);
    }

    fn say_meter(&mut self, id: u32, context: &str, now: Timestamp) {
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
        self.say(Action::MeterValues, id, session, payload);
    }

    fn say(&mut self, action: Action, connector: u32, session: Option<u32>, payload: Value) {
        let message = Message {
            action,
            payload,
            session,
            connector,
        };
        if self.online || message.is_kept() {
            self.outbox.push(message);
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

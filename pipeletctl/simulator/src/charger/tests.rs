//! A charger through days, outages and orders, without a socket.

use super::*;

fn morning() -> Timestamp {
    "2026-04-14T07:00:00Z".parse().unwrap()
}

fn day() -> ArrivalPattern {
    ArrivalPattern::Day { began: morning() }
}

/// A central system that accepts everything, and writes down what it is told.
struct Central {
    charger: Charger,
    now: Timestamp,
    received: Vec<(Action, Value)>,
    transactions: i64,
}

impl Central {
    fn new(arrivals: ArrivalPattern) -> Self {
        let now = morning();
        Self {
            charger: Charger::new("SIM-01", 2, arrivals, Rng::with_seed(3), now),
            now,
            received: Vec::new(),
            transactions: 40,
        }
    }

    /// A charger that is connected and accepted.
    fn booted(arrivals: ArrivalPattern) -> Self {
        let mut central = Self::new(arrivals);
        central.connect();
        central
    }

    fn connect(&mut self) {
        self.charger.connected(self.now);
        self.answer_all();
    }

    fn answer_all(&mut self) {
        while let Some(Outgoing { text, call }) = self.charger.next_frame(self.now) {
            let Some(action) = call else { continue };
            let frame: (u8, String, String, Value) = serde_json::from_str(&text).unwrap();
            let (_, id, name, payload) = frame;
            assert_eq!(name, action.as_str());
            let answer = match action {
                Action::BootNotification => json!({"status": "Accepted", "interval": 600}),
                Action::Authorize => json!({"idTagInfo": {"status": "Accepted"}}),
                Action::StartTransaction => {
                    self.transactions += 1;
                    json!({"transactionId": self.transactions, "idTagInfo": {"status": "Accepted"}})
                }
                _ => json!({}),
            };
            self.received.push((action, payload));
            let received = self
                .charger
                .handle_frame(&frame::result(&id, &answer), self.now);
            assert_eq!(received, Incoming::CallResult(action));
        }
    }

    fn run(&mut self, hours: u64) {
        let end = later(self.now, hours * 3_600_000);
        while self.charger.due() <= end {
            self.now = self.charger.due().max(self.now);
            self.charger.tick(self.now);
            self.answer_all();
        }
        self.now = end;
    }

    /// Runs until a connector charges, and returns its number.
    fn run_until_charging(&mut self) -> u32 {
        loop {
            let charges = |connector: &&Connector| connector.session().is_some();
            if let Some(connector) = self.charger.connectors.iter().find(charges) {
                return connector.id;
            }
            self.now = self.charger.due();
            self.charger.tick(self.now);
            self.answer_all();
        }
    }

    /// A CALL, and the payload or the code that it is answered with.
    fn ask(&mut self, action: &str, payload: &Value) -> Value {
        let call = frame::call("c1", action, payload);
        let received = self.charger.handle_frame(&call, self.now);
        assert_eq!(received, Incoming::Call(action.to_owned()));
        let Outgoing { text, call } = self.charger.next_frame(self.now).unwrap();
        assert_eq!(call, None, "the answer comes first");
        let frame: Vec<Value> = serde_json::from_str(&text).unwrap();
        frame[2].clone()
    }

    fn sent_by_action(&self, action: Action) -> Vec<&Value> {
        let sent_by_action = self
            .received
            .iter()
            .filter(|(sent_by_action, _)| *sent_by_action == action);
        sent_by_action.map(|(_, payload)| payload).collect()
    }

    fn statuses(&self, connector: u32) -> Vec<&str> {
        self.sent_by_action(Action::StatusNotification)
            .into_iter()
            .filter(|payload| payload["connectorId"] == connector)
            .map(|payload| payload["status"].as_str().unwrap())
            .collect()
    }
}

#[test]
fn it_boots_and_then_shows_its_state() {
    let central = Central::booted(day());
    let actions: Vec<_> = central.received.iter().map(|(action, _)| *action).collect();
    let status = Action::StatusNotification;
    assert_eq!(actions, [Action::BootNotification, status, status, status]);
}

#[test]
fn states_follow_each_other_and_energy_adds_up() {
    let mut central = Central::booted(ArrivalPattern::Busy);
    central.run(24);
    let cycle = ["Available", "Preparing", "Charging", "Finishing"];
    for connector in 1..=2 {
        let statuses = central.statuses(connector);
        assert!(statuses.len() > 20, "{statuses:?}");
        for (index, status) in statuses.iter().enumerate() {
            assert_eq!(*status, cycle[index % 4], "{statuses:?}");
        }
    }
    let stops = central.sent_by_action(Action::StopTransaction);
    for start in central.sent_by_action(Action::StartTransaction) {
        let tag = &start["idTag"];
        let Some(stop) = stops.iter().find(|stop| stop["idTag"] == *tag) else {
            continue;
        };
        let energy = |payload: &Value, key: &str| payload[key].as_u64().unwrap();
        let mut last = energy(start, "meterStart");
        let of_session = |payload: &&&Value| payload["transactionId"] == stop["transactionId"];
        let values = central.sent_by_action(Action::MeterValues);
        for values in values.iter().filter(of_session) {
            let value = values["meterValue"][0]["sampledValue"][0]["value"].as_str();
            let value = value.unwrap().parse().unwrap();
            assert!(value > last, "{value} after {last}");
            last = value;
        }
        assert!(energy(stop, "meterStop") >= last);
        let charged = energy(stop, "meterStop") - energy(start, "meterStart");
        assert!((2_000..12_500).contains(&charged), "{charged} Wh");
    }
    assert!(central.sent_by_action(Action::Heartbeat).len() >= 140);
}

#[test]
fn times_never_go_back() {
    let mut central = Central::booted(ArrivalPattern::Busy);
    central.charger.disconnected(central.now);
    // Woken once in a long while, it still tells when things happened.
    central.now = later(central.now, 6 * 3_600_000);
    central.charger.tick(central.now);
    central.connect();
    let times: Vec<Timestamp> = central
        .received
        .iter()
        .filter_map(|(_, payload)| payload["timestamp"].as_str())
        .map(|time| time.parse().unwrap())
        .collect();
    assert!(times.len() > 15, "{times:?}");
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn it_charges_while_offline_and_delivers_in_order_afterwards() {
    let mut central = Central::booted(ArrivalPattern::Busy);
    central.charger.disconnected(central.now);
    central.received.clear();
    central.run(5);
    assert!(central.received.is_empty());
    central.connect();
    assert!(central.sent_by_action(Action::BootNotification).is_empty());
    assert!(central.sent_by_action(Action::Authorize).is_empty());
    assert!(central.sent_by_action(Action::Heartbeat).is_empty());
    let starts = central.sent_by_action(Action::StartTransaction).len();
    assert!(starts >= 4, "{starts}");
    let first_status = central
        .received
        .iter()
        .position(|(action, _)| *action == Action::StatusNotification);
    let (late, state) = central.received.split_at(first_status.unwrap());
    assert_eq!(state.len(), 3, "the state as it is now");
    for id in 41..=central.transactions {
        let of: Vec<_> = late
            .iter()
            .filter(|(_, payload)| payload["transactionId"] == id)
            .map(|(action, _)| *action)
            .collect();
        let Some((last, values)) = of.split_last() else {
            continue;
        };
        assert!(values.iter().all(|action| *action == Action::MeterValues));
        let ends = [Action::StopTransaction, Action::MeterValues];
        assert!(ends.contains(last));
    }
}

#[test]
fn a_remote_start_and_stop_really_start_and_stop() {
    let mut central = Central::booted(day());
    let start = json!({"connectorId": 2, "idTag": "REMOTE"});
    let answer = central.ask("RemoteStartTransaction", &start);
    assert_eq!(answer["status"], "Accepted");
    central.now = later(central.now, 2);
    central.charger.tick(central.now);
    central.answer_all();
    assert_eq!(
        central.sent_by_action(Action::StartTransaction)[0]["idTag"],
        "REMOTE"
    );
    assert!(central.sent_by_action(Action::Authorize).is_empty());
    let again = central.ask("RemoteStartTransaction", &start);
    assert_eq!(again["status"], "Rejected", "it is taken");

    let unknown = central.ask("RemoteStopTransaction", &json!({"transactionId": 7}));
    assert_eq!(unknown["status"], "Rejected");
    let answer = central.ask("RemoteStopTransaction", &json!({"transactionId": 41}));
    assert_eq!(answer["status"], "Accepted");
    central.answer_all();
    let stop = central.sent_by_action(Action::StopTransaction)[0];
    assert_eq!(
        (&stop["reason"], &stop["transactionId"]),
        (&json!("Remote"), &json!(41))
    );
}

#[test]
fn a_reset_stops_and_boots_again() {
    let mut central = Central::booted(ArrivalPattern::Busy);
    central.run_until_charging();
    assert_eq!(
        central.ask("Reset", &json!({"type": "Soft"}))["status"],
        "Accepted"
    );
    central.answer_all();
    assert!(central.charger.take_reboot());
    assert!(!central.charger.take_reboot(), "once");
    central.charger.disconnected(central.now);
    central.received.clear();
    central.connect();
    assert_eq!(central.received[0].0, Action::BootNotification);
}

#[test]
fn what_it_answers() {
    let mut central = Central::booted(day());
    for (action, payload, status) in [
        ("ClearCache", json!({}), "Accepted"),
        ("DataTransfer", json!({"vendorId": "x"}), "UnknownVendorId"),
        ("UnlockConnector", json!({"connectorId": 1}), "Unlocked"),
        ("UnlockConnector", json!({"connectorId": 9}), "NotSupported"),
        (
            "TriggerMessage",
            json!({"requestedMessage": "Heartbeat"}),
            "Accepted",
        ),
        (
            "TriggerMessage",
            json!({"requestedMessage": "MeterValues", "connectorId": 9}),
            "Rejected",
        ),
        (
            "TriggerMessage",
            json!({"requestedMessage": "FirmwareStatusNotification"}),
            "NotImplemented",
        ),
        (
            "ChangeConfiguration",
            json!({"key": "HeartbeatInterval", "value": "60"}),
            "Accepted",
        ),
        (
            "ChangeConfiguration",
            json!({"key": "HeartbeatInterval", "value": "0"}),
            "Rejected",
        ),
        (
            "ChangeConfiguration",
            json!({"key": "NumberOfConnectors", "value": "9"}),
            "Rejected",
        ),
        (
            "ChangeConfiguration",
            json!({"key": "Nothing", "value": "9"}),
            "NotSupported",
        ),
        (
            "ChangeAvailability",
            json!({"connectorId": 1, "type": "Inoperative"}),
            "Accepted",
        ),
        (
            "RemoteStartTransaction",
            json!({"connectorId": 1, "idTag": "T"}),
            "Rejected",
        ),
        (
            "ChangeAvailability",
            json!({"connectorId": 9, "type": "Operative"}),
            "Rejected",
        ),
    ] {
        assert_eq!(
            central.ask(action, &payload)["status"],
            status,
            "{action} {payload}"
        );
    }
    for (action, payload, code) in [
        ("SetChargingProfile", json!({}), "NotImplemented"),
        ("Reset", json!({}), "FormationViolation"),
        (
            "Reset",
            json!({"type": "Odd"}),
            "PropertyConstraintViolation",
        ),
    ] {
        assert_eq!(central.ask(action, &payload), code, "{action}");
    }
    let asked = json!({"key": ["HeartbeatInterval", "Nothing"]});
    let configuration = central.ask("GetConfiguration", &asked);
    assert_eq!(configuration["configurationKey"][0]["value"], "60");
    assert_eq!(configuration["unknownKey"], json!(["Nothing"]));
    central.answer_all();
    assert_eq!(central.statuses(1), ["Available", "Unavailable"]);
    assert_eq!(central.sent_by_action(Action::Heartbeat).len(), 1);
}

#[test]
fn a_connector_that_is_charging_becomes_unavailable_afterwards() {
    let mut central = Central::booted(ArrivalPattern::Busy);
    let id = central.run_until_charging();
    let off = json!({"connectorId": id, "type": "Inoperative"});
    assert_eq!(
        central.ask("ChangeAvailability", &off)["status"],
        "Scheduled"
    );
    central.run(6);
    let statuses = central.statuses(id);
    assert_eq!(statuses[statuses.len() - 2..], ["Finishing", "Unavailable"]);
}

#[test]
fn who_is_not_welcome_does_not_charge() {
    let mut central = Central::booted(ArrivalPattern::Busy);
    let refusal = json!({"idTagInfo": {"status": "Invalid"}});
    for _ in 0..2_000 {
        central.now = central.charger.due();
        central.charger.tick(central.now);
        while let Some(Outgoing { text, .. }) = central.charger.next_frame(central.now) {
            let frame: Vec<Value> = serde_json::from_str(&text).unwrap();
            assert_ne!(frame[2], "StartTransaction");
            let answer = frame::result(frame[1].as_str().unwrap(), &refusal);
            central.charger.handle_frame(&answer, central.now);
        }
    }
}

#[test]
fn a_charger_that_has_to_wait_says_nothing_but_its_boot() {
    let mut central = Central::new(ArrivalPattern::Busy);
    let pending = json!({"status": "Pending", "interval": 120});
    central.charger.connected(central.now);
    for _ in 0..3 {
        let Outgoing { text, call } = central.charger.next_frame(central.now).unwrap();
        assert_eq!(call, Some(Action::BootNotification));
        let frame: Vec<Value> = serde_json::from_str(&text).unwrap();
        let answer = frame::result(frame[1].as_str().unwrap(), &pending);
        central.charger.handle_frame(&answer, central.now);
        assert_eq!(central.charger.next_frame(central.now), None);
        central.now = later(central.now, 120_000);
        central.charger.tick(central.now);
    }
}

#[test]
fn at_the_end_no_session_is_left_open() {
    let mut central = Central::booted(ArrivalPattern::Busy);
    central.run_until_charging();
    central.charger.close(central.now);
    central.answer_all();
    assert!(central.charger.has_sent_all());
    let (starts, stops) = (Action::StartTransaction, Action::StopTransaction);
    assert_eq!(
        central.sent_by_action(starts).len(),
        central.sent_by_action(stops).len()
    );
    for connector in 1..=2 {
        assert_eq!(central.statuses(connector).last(), Some(&"Available"));
    }
    central.run(48);
    assert_eq!(
        central.sent_by_action(starts).len(),
        central.sent_by_action(stops).len()
    );
}

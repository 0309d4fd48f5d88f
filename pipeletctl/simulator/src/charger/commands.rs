//! What a charger does when the central system asks it for something.
//!
//! Pure. What it knows nothing of gets the CALLERROR `NotImplemented`, as OCPP wants it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{ChargePointStatus, Charger, connector::Stage, frame};
use crate::arrivals::{Car, later};

/// A CALLERROR's code and description.
type Refusal = (&'static str, &'static str);

const MALFORMED: Refusal = ("FormationViolation", "a field is missing");

/// Configuration keys that can't be changed, and their values.
const FIXED_KEYS: &[(&str, &str)] = &[
    ("NumberOfConnectors", ""),
    ("SupportedFeatureProfiles", "Core,RemoteTrigger"),
    (
        "MeterValuesSampledData",
        "Energy.Active.Import.Register,Power.Active.Import",
    ),
    ("TransactionMessageAttempts", "3"),
    ("TransactionMessageRetryInterval", "60"),
    ("LocalAuthorizeOffline", "true"),
];

impl Charger {
    /// Carries out a CALL, and answers it before whatever it leads to is said.
    pub(super) fn handle_call(&mut self, id: &str, action: &str, payload: &Value, now: Timestamp) {
        let reply = match self.execute(action, payload, now) {
            Ok(payload) => frame::result(id, &payload),
            Err((code, description)) => frame::error(id, code, description),
        };
        self.replies.push_back(reply);
    }

    fn execute(&mut self, action: &str, payload: &Value, now: Timestamp) -> Result<Value, Refusal> {
        let status = match action {
            "RemoteStartTransaction" => self.remote_start(payload, now)?,
            "RemoteStopTransaction" => self.remote_stop(payload, now)?,
            "Reset" => self.reset(payload, now)?,
            "ChangeAvailability" => self.change_availability(payload, now)?,
            "UnlockConnector" => self.unlock(payload, now)?,
            "TriggerMessage" => self.trigger(payload, now)?,
            "ChangeConfiguration" => self.change_configuration(payload)?,
            "GetConfiguration" => return Ok(self.configuration(payload)),
            "ClearCache" => "Accepted",
            "DataTransfer" => "UnknownVendorId",
            _ => return Err(("NotImplemented", "this charger does not know the action")),
        };
        Ok(json!({ "status": status }))
    }

    fn remote_start(&mut self, payload: &Value, now: Timestamp) -> Result<&'static str, Refusal> {
        let id_tag = payload["idTag"].as_str().ok_or(MALFORMED)?;
        let wanted = payload["connectorId"].as_u64();
        let could = |connector: &&mut super::Connector| {
            let idle = matches!(
                connector.stage,
                Stage::Free { .. } | Stage::Plugged { .. } | Stage::Authorising { .. }
            );
            connector.operative && idle && wanted.is_none_or(|id| id == u64::from(connector.id))
        };
        let Some(connector) = self.connectors.iter_mut().find(could) else {
            return Ok("Rejected");
        };
        let car = Car {
            id_tag: id_tag.to_owned(),
            ..self.arrivals.car(&mut self.rng)
        };
        // Long enough for the answer to be there first.
        let until = later(now, 1);
        connector.stage = Stage::Authorising { car, until };
        let id = connector.id;
        self.remote_starts.push(id);
        self.set_status(id, ChargePointStatus::Preparing, now);
        Ok("Accepted")
    }

    fn remote_stop(&mut self, payload: &Value, now: Timestamp) -> Result<&'static str, Refusal> {
        let wanted = payload["transactionId"].as_i64().ok_or(MALFORMED)?;
        let found = self.connectors.iter().find(|connector| {
            let session = connector.session();
            session.and_then(|session| self.queue.transaction(session.number)) == Some(wanted)
        });
        let Some(id) = found.map(|connector| connector.id) else {
            return Ok("Rejected");
        };
        self.stop(id, "Remote", now);
        Ok("Accepted")
    }

    fn reset(&mut self, payload: &Value, now: Timestamp) -> Result<&'static str, Refusal> {
        let reason = match payload["type"].as_str().ok_or(MALFORMED)? {
            "Hard" => "HardReset",
            "Soft" => "SoftReset",
            _ => return Err(("PropertyConstraintViolation", "type is Hard or Soft")),
        };
        for id in self.ids() {
            self.stop(id, reason, now);
        }
        self.reboots = true;
        Ok("Accepted")
    }

    fn change_availability(
        &mut self,
        payload: &Value,
        now: Timestamp,
    ) -> Result<&'static str, Refusal> {
        let wanted = payload["connectorId"].as_u64().ok_or(MALFORMED)?;
        let operative = match payload["type"].as_str().ok_or(MALFORMED)? {
            "Operative" => true,
            "Inoperative" => false,
            _ => return Err(("PropertyConstraintViolation", "type is (In)Operative")),
        };
        let meant = |id: u32| wanted == 0 || u64::from(id) == wanted;
        let ids: Vec<u32> = self.ids().into_iter().filter(|id| meant(*id)).collect();
        if ids.is_empty() {
            return Ok("Rejected");
        }
        let mut status = "Accepted";
        for id in ids {
            let connector = self.connector(id);
            connector.operative = operative;
            if !matches!(connector.stage, Stage::Free { .. }) {
                // Once the car has left.
                status = "Scheduled";
            } else if operative {
                self.set_status(id, ChargePointStatus::Available, now);
            } else {
                self.set_status(id, ChargePointStatus::Unavailable, now);
            }
        }
        Ok(status)
    }

    fn unlock(&mut self, payload: &Value, now: Timestamp) -> Result<&'static str, Refusal> {
        let wanted = payload["connectorId"].as_u64().ok_or(MALFORMED)?;
        let known = self.ids().into_iter().find(|id| u64::from(*id) == wanted);
        let Some(id) = known else {
            return Ok("NotSupported");
        };
        self.stop(id, "UnlockCommand", now);
        Ok("Unlocked")
    }

    fn trigger(&mut self, payload: &Value, now: Timestamp) -> Result<&'static str, Refusal> {
        let ids = match payload["connectorId"].as_u64() {
            None => self.ids(),
            Some(wanted) => {
                let meant = |id: &u32| u64::from(*id) == wanted;
                self.ids().into_iter().filter(meant).collect()
            }
        };
        match payload["requestedMessage"].as_str().ok_or(MALFORMED)? {
            "BootNotification" => self.queue_boot(),
            "Heartbeat" => self.queue_heartbeat(),
            "StatusNotification" | "MeterValues" if ids.is_empty() => return Ok("Rejected"),
            "StatusNotification" => {
                for id in ids {
                    self.queue_status(id, now);
                }
            }
            "MeterValues" => {
                for id in ids {
                    self.queue_meter_values(id, "Trigger", now);
                }
            }
            _ => return Ok("NotImplemented"),
        }
        Ok("Accepted")
    }

    fn change_configuration(&mut self, payload: &Value) -> Result<&'static str, Refusal> {
        let key = payload["key"].as_str().ok_or(MALFORMED)?;
        let value = payload["value"].as_str().ok_or(MALFORMED)?;
        if FIXED_KEYS.iter().any(|(fixed, _)| *fixed == key) {
            return Ok("Rejected");
        }
        let seconds = value.parse().ok().filter(|seconds| *seconds > 0);
        let setting = match key {
            "HeartbeatInterval" => &mut self.heartbeat_every,
            "MeterValueSampleInterval" => &mut self.sample_every,
            _ => return Ok("NotSupported"),
        };
        let Some(seconds) = seconds else {
            return Ok("Rejected");
        };
        *setting = Duration::from_secs(seconds);
        Ok("Accepted")
    }

    fn configuration(&self, payload: &Value) -> Value {
        let connectors = self.connectors.len().to_string();
        let seconds = |duration: Duration| duration.as_secs().to_string();
        let mut all = vec![
            ("HeartbeatInterval", false, seconds(self.heartbeat_every)),
            (
                "MeterValueSampleInterval",
                false,
                seconds(self.sample_every),
            ),
        ];
        for (key, value) in FIXED_KEYS {
            let value = match *key {
                "NumberOfConnectors" => connectors.clone(),
                _ => (*value).to_owned(),
            };
            all.push((key, true, value));
        }
        let asked: Vec<&str> = payload["key"]
            .as_array()
            .map(|keys| keys.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let unknown: Vec<_> = asked
            .iter()
            .filter(|key| !all.iter().any(|(known, ..)| known == *key))
            .collect();
        let known: Vec<_> = all
            .iter()
            .filter(|(key, ..)| asked.is_empty() || asked.contains(key))
            .map(|(key, readonly, value)| json!({"key": key, "readonly": readonly, "value": value}))
            .collect();
        json!({"configurationKey": known, "unknownKey": unknown})
    }
}

//! Synthetic events: made up for whoever wants to see how receivers take one, then journaled and
//! delivered as every other.
//!
//! Each is marked for good, so nothing is believed of a station because of it.

use std::fmt::Display;

use pipelet_domain::{
    events::{Event, EventId, EventType, Payload, Seq, StationId, Synthetic, sample_payload},
    webhooks::{Fault, Webhook, WebhookId},
};
use serde_json::Value;

use super::error::ApiError;
use crate::{delivery::Delivery, journal::Journals, system::clock::Clock};

/// In bytes; what a station may send in one message.
const MAX_PAYLOAD: usize = 1 << 20;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Trigger {
    pub(super) journals: Journals,
    pub(super) delivery: Delivery,
    pub(super) clock: Clock,
}

/// What a caller wants to happen.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) event: Option<String>,
    pub(super) station: Option<String>,
    /// None takes a realistic one.
    pub(super) payload: Option<Value>,
    /// A JSON Merge Patch of the payload (RFC 7396).
    pub(super) patch: Option<Value>,
    /// The only webhook that it goes to.
    pub(super) webhook: Option<u64>,
}

/// What was made of it.
#[derive(Debug)]
pub(super) struct Triggered {
    pub(super) event: Event,
    /// Who it is on its way to.
    pub(super) webhooks: Vec<WebhookId>,
}

impl Trigger {
    pub fn new(journals: Journals, delivery: Delivery, clock: Clock) -> Self {
        Self {
            journals,
            delivery,
            clock,
        }
    }

    /// The event is durable once this returns.
    pub(super) async fn pull(&self, asked: Asked) -> Result<Triggered, ApiError> {
        let only = asked.webhook.map(WebhookId);
        let event = self.event(asked).map_err(ApiError::Invalid)?;
        if let Some(only) = only {
            let webhook = self.delivery.get(only).await?.webhook;
            if let Some(why) = unwanted(&webhook, &event) {
                return Err(ApiError::Conflict {
                    code: "not_wanted",
                    message: format!("{why}: it would not get this event"),
                });
            }
        }
        let then = |seq: Seq, event: &Event| (seq, event.clone());
        let journal = self.journals.of(&event.station);
        let (seq, event) = journal.append(event, then).await?;
        Ok(Triggered {
            webhooks: self.delivery.owed(seq, &event),
            event,
        })
    }

    fn event(&self, asked: Asked) -> Result<Event, Vec<Fault>> {
        let mut faults = Vec::new();
        let kind = needed("/event", "unknown_event", asked.event, &mut faults);
        let station = needed("/station_id", "invalid_value", asked.station, &mut faults);
        let now = self.clock.now();
        let payload = kind.and_then(|kind: EventType| {
            let made = payload(asked.payload, asked.patch, || sample_payload(kind, now));
            made.map_err(|fault| faults.push(fault)).ok()
        });
        let (Some(kind), Some(Station(station)), Some(payload)) = (kind, station, payload) else {
            return Err(faults);
        };
        let mut random = [0; 10];
        // An id that isn't random still has its time.
        let _ = getrandom::fill(&mut random);
        let id = EventId::new(now, random);
        let mut event = Event::new(id, kind, station, now, None, payload);
        event.synthetic = Some(Synthetic {
            only: asked.webhook,
        });
        Ok(event)
    }
}

/// A station's id, as a caller writes it.
struct Station(StationId);

impl std::str::FromStr for Station {
    type Err = pipelet_domain::events::InvalidStationId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        StationId::new(text).map(Self)
    }
}

fn needed<T>(
    pointer: &str,
    code: &'static str,
    text: Option<String>,
    faults: &mut Vec<Fault>,
) -> Option<T>
where
    T: std::str::FromStr<Err: Display>,
{
    let (code, message) = match text.map(|text| text.parse()) {
        Some(Ok(value)) => return Some(value),
        Some(Err(error)) => (code, error.to_string()),
        None => ("required", "it is needed".to_owned()),
    };
    faults.push(Fault::new(pointer, code, message));
    None
}

fn payload(
    given: Option<Value>,
    patch: Option<Value>,
    sample: impl FnOnce() -> String,
) -> Result<Payload, Fault> {
    let text = match (given, patch) {
        (None, None) => sample(),
        (given, patch) => {
            let mut value = given.unwrap_or_else(|| {
                serde_json::from_str(&sample()).expect("the samples are JSON objects")
            });
            if let Some(patch) = patch {
                merge(&mut value, patch);
            }
            value.to_string()
        }
    };
    if text.len() > MAX_PAYLOAD {
        let message = format!("it has more than {MAX_PAYLOAD} bytes");
        return Err(Fault::new("/payload", "too_long", message));
    }
    Payload::parse(text.as_bytes())
        .map_err(|error| Fault::new("/payload", "wrong_type", error.to_string()))
}

/// RFC 7396, section 2.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(fields) = target else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            fields.remove(&key);
        } else {
            merge(fields.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// Why a webhook would not get the event.
fn unwanted(webhook: &Webhook, event: &Event) -> Option<&'static str> {
    if !webhook.enabled {
        Some("the webhook is disabled")
    } else if !webhook.events.contains(event.kind) {
        Some("the webhook is subscribed to other events")
    } else if !webhook.stations.contains(&event.station) {
        Some("the webhook is for other stations")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The examples of RFC 7396, appendix A, that are of objects.
    #[test]
    fn a_patch_is_merged_as_the_rfc_has_it() {
        for (target, patch, merged) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            let mut value = target.clone();
            merge(&mut value, patch.clone());
            assert_eq!(value, merged, "{target} with {patch}");
        }
    }

    #[test]
    fn a_payload_is_an_object_of_a_bounded_length() {
        let made = |given, patch| {
            let made = payload(given, patch, || r#"{"a":1}"#.to_owned());
            made.map(|made| String::from_utf8(made.as_bytes().to_vec()).unwrap())
                .map_err(|fault| fault.code)
        };
        assert_eq!(made(None, None).unwrap(), r#"{"a":1}"#);
        assert_eq!(made(None, Some(json!({"a": 2}))).unwrap(), r#"{"a":2}"#);
        assert_eq!(made(Some(json!({"b": 1})), None).unwrap(), r#"{"b":1}"#);
        assert_eq!(made(None, Some(json!([]))), Err("wrong_type"));
        assert_eq!(made(Some(json!("x")), None), Err("wrong_type"));
        let long = "x".repeat(MAX_PAYLOAD);
        assert_eq!(made(Some(json!({"long": long})), None), Err("too_long"));
    }
}

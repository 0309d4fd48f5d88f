//! `trigger`, as clap reads it.

use std::{str::FromStr, time::Duration};

use clap::{Args, builder::NonEmptyStringValueParser};
use serde_json::{Map, Value};

use super::{candidates::Candidates, named::Named};
use crate::system::when::parse_timeout;

#[derive(Debug, Args)]
pub(crate) struct Trigger {
    /// An event type, as in `events types`
    #[arg(value_name = "EVENT", add = Candidates::EventTypes)]
    pub(crate) event: String,
    /// The station that it is said to come from
    #[arg(long, value_name = "STATION", default_value = "DEMO-01", value_parser = NonEmptyStringValueParser::new(), add = Candidates::Stations)]
    pub(crate) station: String,
    /// The payload [otherwise: a realistic one]
    #[arg(long, value_name = "JSON")]
    pub(crate) payload: Option<String>,
    /// Changes a field of the payload; the value is JSON, or else text (repeat it)
    #[arg(long = "set", value_name = "payload.FIELD=VALUE")]
    pub(crate) set: Vec<Setting>,
    /// Only to this webhook, which must want it
    #[arg(long, value_name = "WEBHOOK", add = Candidates::Webhooks)]
    pub(crate) webhook: Option<Named>,
    /// Waits until every webhook has it, or has failed once, and shows what became of it; fails
    /// where one failed
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true,
          default_missing_value = "30s", value_parser = parse_timeout)]
    pub(crate) wait: Option<Duration>,
}

/// A field, by the names that lead to it, and its new value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setting {
    path: Vec<String>,
    value: Value,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidSetting {
    #[error("it is not of the form payload.FIELD=VALUE")]
    Form,
}

impl FromStr for Setting {
    type Err = InvalidSetting;

    fn from_str(text: &str) -> Result<Self, InvalidSetting> {
        let (path, value) = text.split_once('=').ok_or(InvalidSetting::Form)?;
        let path = path.strip_prefix("payload.").ok_or(InvalidSetting::Form)?;
        let path: Vec<_> = path.split('.').map(str::to_owned).collect();
        if path.iter().any(String::is_empty) {
            return Err(InvalidSetting::Form);
        }
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        Ok(Self { path, value })
    }
}

impl Setting {
    /// All of them as a merge patch (RFC 7396); a later one goes before.
    pub(crate) fn patch(all: Vec<Self>) -> Value {
        let mut patch = Value::Object(Map::new());
        for Self { path, value } in all {
            let mut place = &mut patch;
            for name in path {
                if !place.is_object() {
                    *place = Value::Object(Map::new());
                }
                place = &mut place[name];
            }
            *place = value;
        }
        patch
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_make_a_patch() {
        let patch = |settings: &[&str]| {
            let settings = settings.iter().map(|text| text.parse().unwrap());
            Setting::patch(settings.collect())
        };
        assert_eq!(patch(&["payload.reason=Local"]), json!({"reason": "Local"}));
        let several = [
            "payload.meterStop=1500",
            "payload.a.b=[1,2]",
            "payload.a.c=\"7\"",
            "payload.idTag=null",
            "payload.text=a=b",
        ];
        assert_eq!(
            patch(&several),
            json!({
                "meterStop": 1500, "a": {"b": [1, 2], "c": "7"}, "idTag": null, "text": "a=b",
            })
        );
        assert_eq!(
            patch(&["payload.a=1", "payload.a.b=2"]),
            json!({"a": {"b": 2}})
        );
        for wrong in [
            "reason=Local",
            "payload.reason",
            "payload.=1",
            "payload.a..b=1",
        ] {
            assert!(wrong.parse::<Setting>().is_err(), "{wrong}");
        }
    }
}

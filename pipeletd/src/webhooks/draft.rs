//! What a caller says of a webhook, and all that is wrong with it.
//!
//! A draft holds raw input, whichever way it came. It becomes a webhook as a whole or not at
//! all, and every fault is told at once.

use jiff::Timestamp;

use super::{
    InvalidSecretHeader, InvalidWebhookUrl, NewWebhook, Secret, SecretHeader, TargetPolicy,
    Webhook, WebhookUrl, secret,
};
use crate::events::{EventSelection, SelectionError, StationPatternError, StationSelection};

/// A field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Field<T> {
    /// Not mentioned: an update leaves it as it is.
    #[default]
    Absent,
    /// Explicitly nothing.
    Null,
    Value(T),
}

/// What a caller says of a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WebhookDraft {
    pub name: Field<String>,
    pub url: Field<String>,
    /// A new webhook is enabled unless told otherwise.
    pub enabled: Field<bool>,
    pub events: Field<Vec<String>>,
    /// Ids and patterns; `Null` and an empty list mean all stations.
    pub station_ids: Field<Vec<String>>,
    /// Comes with a value, or finds one in the webhook that is updated. `Null` clears both.
    pub secret_header: Field<String>,
    pub secret_value: Field<Secret>,
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where, as a JSON pointer (RFC 6901) into the request.
    pub pointer: String,
    /// What, for programs; these never change.
    pub code: &'static str,
    /// What, for people.
    pub message: String,
}

/// In characters.
const MAX_NAME_LEN: usize = 200;

impl WebhookDraft {
    pub fn create(self, policy: TargetPolicy) -> Result<NewWebhook, Vec<Fault>> {
        let mut faults = Vec::new();
        let name = required("name", self.name, &mut faults, parse_name);
        let url = required("url", self.url, &mut faults, |url| parse_url(&url, policy));
        let events = required("events", self.events, &mut faults, |names| {
            parse_events(&names)
        });
        let stations = parse_stations(self.station_ids, &mut faults).unwrap_or_default();
        let secret = parse_secret(self.secret_header, self.secret_value, None, &mut faults);
        let enabled = match self.enabled {
            Field::Absent | Field::Null => true,
            Field::Value(enabled) => enabled,
        };
        match (name, url, events) {
            (Some(name), Some(url), Some(events)) if faults.is_empty() => Ok(NewWebhook {
                name,
                url,
                enabled,
                events,
                stations,
                secret,
            }),
            _ => Err(faults),
        }
    }

    /// Changes what the draft mentions and leaves the rest.
    pub fn update(
        self,
        current: &Webhook,
        policy: TargetPolicy,
        now: Timestamp,
    ) -> Result<Webhook, Vec<Fault>> {
        let mut faults = Vec::new();
        let name = changed("name", self.name, &mut faults, parse_name);
        let url = changed("url", self.url, &mut faults, |url| parse_url(&url, policy));
        let enabled = changed("enabled", self.enabled, &mut faults, Ok);
        let events = changed("events", self.events, &mut faults, |names| {
            parse_events(&names)
        });
        let stations = parse_stations(self.station_ids, &mut faults);
        let secret = parse_secret(
            self.secret_header,
            self.secret_value,
            current.secret.as_ref(),
            &mut faults,
        );
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Webhook {
            id: current.id,
            name: name.unwrap_or_else(|| current.name.clone()),
            url: url.unwrap_or_else(|| current.url.clone()),
            enabled: enabled.unwrap_or(current.enabled),
            events: events.unwrap_or_else(|| current.events.clone()),
            stations: stations.unwrap_or_else(|| current.stations.clone()),
            secret,
            created_at: current.created_at,
            updated_at: now,
        })
    }
}

/// The parsed value of a field that must be there.
fn required<T, U>(
    key: &str,
    field: Field<T>,
    faults: &mut Vec<Fault>,
    parse: impl FnOnce(T) -> Result<U, Vec<Fault>>,
) -> Option<U> {
    match field {
        Field::Value(value) => keep(parse(value), faults),
        Field::Absent | Field::Null => {
            faults.push(fault(key, "required", format!("{key} is required")));
            None
        }
    }
}

/// The parsed value of a field that may be left out, but not emptied.
fn changed<T, U>(
    key: &str,
    field: Field<T>,
    faults: &mut Vec<Fault>,
    parse: impl FnOnce(T) -> Result<U, Vec<Fault>>,
) -> Option<U> {
    match field {
        Field::Value(value) => keep(parse(value), faults),
        Field::Absent => None,
        Field::Null => {
            let message = format!("{key} can't be null; leave it out to keep it");
            faults.push(fault(key, "required", message));
            None
        }
    }
}

fn keep<T>(result: Result<T, Vec<Fault>>, faults: &mut Vec<Fault>) -> Option<T> {
    result.map_err(|more| faults.extend(more)).ok()
}

fn parse_name(name: String) -> Result<String, Vec<Fault>> {
    let (code, message) = if name.trim().is_empty() {
        ("required", "name is empty".to_owned())
    } else if name.chars().count() > MAX_NAME_LEN {
        let message = format!("a name has at most {MAX_NAME_LEN} characters");
        ("too_long", message)
    } else if name.contains(char::is_control) {
        let message = "a name has no control characters, such as line breaks";
        ("invalid_name", message.to_owned())
    } else {
        return Ok(name);
    };
    Err(vec![fault("name", code, message)])
}

fn parse_url(text: &str, policy: TargetPolicy) -> Result<WebhookUrl, Vec<Fault>> {
    let at_url = |code, message| vec![fault("url", code, message)];
    let url = WebhookUrl::parse(text).map_err(|error| {
        let code = match error {
            InvalidWebhookUrl::TooLong => "too_long",
            InvalidWebhookUrl::Whitespace
            | InvalidWebhookUrl::Scheme
            | InvalidWebhookUrl::Malformed(_)
            | InvalidWebhookUrl::Credentials
            | InvalidWebhookUrl::Fragment
            | InvalidWebhookUrl::Port
            | InvalidWebhookUrl::NotHttp => "invalid_url",
        };
        at_url(code, error.to_string())
    })?;
    if let Some(host) = url.url().host() {
        policy
            .check_host(&host)
            .map_err(|refused| at_url("private_target", refused.to_string()))?;
    }
    Ok(url)
}

fn parse_events(names: &[String]) -> Result<EventSelection, Vec<Fault>> {
    EventSelection::parse(names).map_err(|faults| {
        let to_fault = |(index, error): (usize, SelectionError)| match error {
            SelectionError::Empty => fault("events", "required", error.to_string()),
            SelectionError::Unknown(_) => fault(
                &format!("events/{index}"),
                "unknown_event",
                error.to_string(),
            ),
            SelectionError::UnknownGroup(_) => fault(
                &format!("events/{index}"),
                "unknown_event_group",
                error.to_string(),
            ),
        };
        faults.into_iter().map(to_fault).collect()
    })
}

/// `None` where the draft doesn't mention them, or not rightly.
fn parse_stations(field: Field<Vec<String>>, faults: &mut Vec<Fault>) -> Option<StationSelection> {
    let patterns = match field {
        Field::Absent => return None,
        Field::Null => Vec::new(),
        Field::Value(patterns) => patterns,
    };
    let to_fault = |(index, error): (Option<usize>, StationPatternError)| {
        let code = match error {
            StationPatternError::TooMany => "too_many",
            StationPatternError::Empty => "required",
            StationPatternError::TooLong => "too_long",
            StationPatternError::StarNotLast | StationPatternError::Control => "invalid_pattern",
        };
        let path = index.map_or_else(
            || "station_ids".to_owned(),
            |index| format!("station_ids/{index}"),
        );
        fault(&path, code, error.to_string())
    };
    let parsed = StationSelection::parse(&patterns);
    let parsed = parsed.map_err(|faults| faults.into_iter().map(to_fault).collect());
    keep(parsed, faults)
}

/// The header and its value: both are given, or the missing one is taken from `current`.
fn parse_secret(
    header: Field<String>,
    value: Field<Secret>,
    current: Option<&SecretHeader>,
    faults: &mut Vec<Fault>,
) -> Option<SecretHeader> {
    use Field::{Absent, Null, Value};
    match (header, value) {
        (Absent, Absent) => current.cloned(),
        (Null, Absent | Null) | (Absent, Null) => None,
        (Value(header), Value(secret)) => both(&header, secret, faults),
        (Value(header), Absent) if let Some(current) = current => {
            both(&header, current.secret().clone(), faults)
        }
        (Absent, Value(secret)) if let Some(current) = current => {
            both(current.text(), secret, faults)
        }
        (Value(header), Absent | Null) => {
            note(secret::parse_name(&header), faults);
            let message = "secret_header is given, so secret_value is required";
            faults.push(fault("secret_value", "required", message.to_owned()));
            None
        }
        (Absent | Null, Value(secret)) => {
            let message = "secret_value is given, so secret_header is required";
            faults.push(fault("secret_header", "required", message.to_owned()));
            note(secret::parse_value(&secret), faults);
            None
        }
    }
}

fn both(header: &str, secret: Secret, faults: &mut Vec<Fault>) -> Option<SecretHeader> {
    let before = faults.len();
    note(secret::parse_name(header), faults);
    note(secret::parse_value(&secret), faults);
    if faults.len() > before {
        return None;
    }
    SecretHeader::new(header, secret).ok()
}

fn note<T>(result: Result<T, InvalidSecretHeader>, faults: &mut Vec<Fault>) {
    let Err(error) = result else { return };
    let (key, code) = match error {
        InvalidSecretHeader::Name(_) => ("secret_header", "invalid_header"),
        InvalidSecretHeader::ForbiddenName(_) => ("secret_header", "forbidden_header"),
        InvalidSecretHeader::EmptyValue => ("secret_value", "required"),
        InvalidSecretHeader::LongValue => ("secret_value", "too_long"),
        InvalidSecretHeader::ControlInValue | InvalidSecretHeader::PaddedValue => {
            ("secret_value", "invalid_secret")
        }
    };
    faults.push(fault(key, code, error.to_string()));
}

fn fault(path: &str, code: &'static str, message: String) -> Fault {
    Fault {
        pointer: format!("/{path}"),
        code,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Field::{Absent, Null, Value},
        *,
    };
    use crate::webhooks::WebhookId;

    const STRICT: TargetPolicy = TargetPolicy {
        allow_private: false,
    };

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn text(value: &str) -> Field<String> {
        Value(value.to_owned())
    }

    fn secret(value: &str) -> Field<Secret> {
        Value(Secret::new(value))
    }

    fn names(names: &[&str]) -> Field<Vec<String>> {
        Value(names.iter().map(|name| (*name).to_owned()).collect())
    }

    /// The contract's own example.
    fn example() -> WebhookDraft {
        WebhookDraft {
            name: text("My Integration"),
            url: text("https://my-app.example.com/webhooks/ocpp"),
            enabled: Value(true),
            events: names(&["StartTransaction", "StopTransaction"]),
            station_ids: Absent,
            secret_header: text("X-Webhook-Secret"),
            secret_value: secret("my-secret-value-here"),
        }
    }

    fn stored() -> Webhook {
        let webhook = example().create(STRICT).unwrap();
        webhook.into_webhook(WebhookId(42), time(1))
    }

    fn codes(faults: &[Fault]) -> Vec<(&str, &str)> {
        faults
            .iter()
            .map(|fault| (fault.pointer.as_str(), fault.code))
            .collect()
    }

    #[test]
    fn the_example_is_created_as_written() {
        let webhook = example().create(STRICT).unwrap();
        assert_eq!(webhook.name, "My Integration");
        assert_eq!(
            webhook.url.as_str(),
            "https://my-app.example.com/webhooks/ocpp"
        );
        assert!(webhook.enabled);
        assert_eq!(
            webhook.events.names(),
            ["StartTransaction", "StopTransaction"]
        );
        assert_eq!(webhook.secret.unwrap().text(), "X-Webhook-Secret");
    }

    #[test]
    fn a_secret_and_enabled_may_be_left_out() {
        let draft = WebhookDraft {
            enabled: Absent,
            secret_header: Absent,
            secret_value: Null,
            ..example()
        };
        let webhook = draft.create(STRICT).unwrap();
        assert!(webhook.enabled);
        assert_eq!(webhook.secret, None);
    }

    #[test]
    fn what_is_wrong_with_a_new_one() {
        let check = |draft: WebhookDraft, expected: &[(&str, &str)]| {
            let faults = draft.clone().create(STRICT).unwrap_err();
            assert_eq!(codes(&faults), expected, "{draft:?}");
        };
        check(
            WebhookDraft::default(),
            &[
                ("/name", "required"),
                ("/url", "required"),
                ("/events", "required"),
            ],
        );
        check(
            WebhookDraft {
                name: text(" "),
                url: text("ftp://example.com"),
                enabled: Null,
                events: names(&["Heartbeat", "Bogus", "group:Bogus"]),
                station_ids: names(&["A*", "*A", ""]),
                secret_header: text("Host"),
                secret_value: secret("a\nb"),
            },
            &[
                ("/name", "required"),
                ("/url", "invalid_url"),
                ("/events/1", "unknown_event"),
                ("/events/2", "unknown_event_group"),
                ("/station_ids/1", "invalid_pattern"),
                ("/station_ids/2", "required"),
                ("/secret_header", "forbidden_header"),
                ("/secret_value", "invalid_secret"),
            ],
        );
        let one = |change: fn(&mut WebhookDraft), pointer: &str, code: &str| {
            let mut draft = example();
            change(&mut draft);
            check(draft, &[(pointer, code)]);
        };
        one(|d| d.name = text(&"x".repeat(201)), "/name", "too_long");
        one(|d| d.name = text("a\u{7}"), "/name", "invalid_name");
        one(
            |d| d.url = text("http://10.0.0.1/"),
            "/url",
            "private_target",
        );
        one(
            |d| d.url = text("http://localhost"),
            "/url",
            "private_target",
        );
        one(|d| d.events = names(&[]), "/events", "required");
        one(
            |d| d.station_ids = names(&["A"; 1001]),
            "/station_ids",
            "too_many",
        );
        one(
            |d| d.secret_header = text("a b"),
            "/secret_header",
            "invalid_header",
        );
        one(|d| d.secret_header = Absent, "/secret_header", "required");
        one(|d| d.secret_header = Null, "/secret_header", "required");
        one(|d| d.secret_value = Absent, "/secret_value", "required");
        one(|d| d.secret_value = secret(""), "/secret_value", "required");
    }

    #[test]
    fn the_flag_allows_private_targets() {
        let open = TargetPolicy {
            allow_private: true,
        };
        let draft = WebhookDraft {
            url: text("http://127.0.0.1:3000/"),
            ..example()
        };
        assert!(draft.create(open).is_ok());
    }

    #[test]
    fn an_update_leaves_what_it_does_not_mention() {
        let nothing = WebhookDraft::default();
        let expected = Webhook {
            updated_at: time(2),
            ..stored()
        };
        assert_eq!(nothing.update(&stored(), STRICT, time(2)), Ok(expected));

        let draft = WebhookDraft {
            enabled: Value(false),
            ..WebhookDraft::default()
        };
        let updated = draft.update(&stored(), STRICT, time(2)).unwrap();
        assert!(!updated.enabled);
        assert_eq!(updated.secret, stored().secret);
        assert_eq!(updated.created_at, time(1));
    }

    #[test]
    fn stations_in_an_update() {
        let update = |station_ids| {
            let current = WebhookDraft {
                station_ids: names(&["A", "B*"]),
                ..example()
            };
            let current = current.create(STRICT).unwrap();
            let draft = WebhookDraft {
                station_ids,
                ..WebhookDraft::default()
            };
            let current = current.into_webhook(WebhookId(42), time(1));
            let updated = draft.update(&current, STRICT, time(2)).unwrap();
            updated.stations.patterns().to_vec()
        };
        assert_eq!(update(Absent), ["A", "B*"]);
        assert_eq!(update(names(&["C"])), ["C"]);
        assert_eq!(update(names(&[])), [""; 0]);
        assert_eq!(update(Null), [""; 0]);
    }

    #[test]
    fn secrets_in_an_update() {
        let update = |current: &Webhook, header: Field<String>, value: Field<Secret>| {
            let draft = WebhookDraft {
                secret_header: header,
                secret_value: value,
                ..WebhookDraft::default()
            };
            let updated = draft.update(current, STRICT, time(2))?;
            let shown = |s: &SecretHeader| format!("{}: {}", s.text(), s.secret().expose());
            Ok::<_, Vec<Fault>>(updated.secret.as_ref().map(shown))
        };
        let check = |header, value, expected: Option<&str>| {
            let got = update(&stored(), header, value).unwrap();
            assert_eq!(got.as_deref(), expected);
        };
        check(text("X-New"), Absent, Some("X-New: my-secret-value-here"));
        check(Absent, secret("new"), Some("X-Webhook-Secret: new"));
        check(text("X-New"), secret("new"), Some("X-New: new"));
        check(Null, Absent, None);
        check(Absent, Null, None);

        let without = Webhook {
            secret: None,
            ..stored()
        };
        let check = |current: &Webhook, header, value, expected: (&str, &str)| {
            let faults = update(current, header, value).unwrap_err();
            assert_eq!(codes(&faults), [expected]);
        };
        let value_missing = ("/secret_value", "required");
        let header_missing = ("/secret_header", "required");
        check(&without, text("X-New"), Absent, value_missing);
        check(&without, Absent, secret("new"), header_missing);
        check(&stored(), Null, secret("new"), header_missing);
        check(&stored(), text("X-New"), Null, value_missing);
    }

    #[test]
    fn a_null_in_an_update_is_no_value() {
        let draft = WebhookDraft {
            name: Null,
            url: Null,
            enabled: Null,
            events: Null,
            ..WebhookDraft::default()
        };
        let faults = draft.update(&stored(), STRICT, time(2)).unwrap_err();
        assert_eq!(
            codes(&faults),
            [
                ("/name", "required"),
                ("/url", "required"),
                ("/enabled", "required"),
                ("/events", "required"),
            ]
        );
    }

    #[test]
    fn a_draft_hides_its_secret() {
        assert!(!format!("{:?}", example()).contains("my-secret-value-here"));
    }
}

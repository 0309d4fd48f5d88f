//! A webhook, what a caller says of it, and all that is wrong with that.
//!
//! A draft holds raw input, whichever way it came. It becomes a webhook as a whole or not at
//! all, and every fault is told at once.

use jiff::Timestamp;

use super::{
    InvalidSecretHeader, InvalidWebhookUrl, Secret, SecretHeader, Signing, SigningSecret,
    TargetPolicy, WebhookId, WebhookUrl, secret,
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

impl<T> Field<T> {
    /// Where nothing is the same as not mentioned.
    pub fn given(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Null => None,
        }
    }
}

/// What a caller says of a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WebhookDraft {
    pub name: Field<String>,
    /// `Null` and an empty text remove it.
    pub description: Field<String>,
    pub url: Field<String>,
    /// A new webhook is enabled unless told otherwise.
    pub enabled: Field<bool>,
    pub events: Field<Vec<String>>,
    /// Ids and patterns; `Null` and an empty list mean all stations.
    pub station_ids: Field<Vec<String>>,
    /// Comes with a value, or finds one in the webhook that is updated. `Null` clears both.
    pub secret_header: Field<String>,
    pub secret_value: Field<Secret>,
    /// Takes the place of all that there were, at once. `Null` clears them.
    pub signing_secret: Field<Secret>,
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub id: WebhookId,
    /// For people; need not be unique.
    pub name: String,
    /// What it is for, in free text.
    pub description: Option<String>,
    pub url: WebhookUrl,
    /// A disabled webhook gets no new events, and its retries wait.
    pub enabled: bool,
    pub events: EventSelection,
    pub stations: StationSelection,
    /// The header by which the receiver knows that a delivery is ours.
    pub secret: Option<SecretHeader>,
    /// What deliveries are signed with.
    pub signing: Option<Signing>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Counts its changes: no two configurations of it have the same.
    pub revision: u64,
}

/// A webhook that has everything but an id and times, which the store's owner gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWebhook {
    pub name: String,
    pub description: Option<String>,
    pub url: WebhookUrl,
    pub enabled: bool,
    pub events: EventSelection,
    pub stations: StationSelection,
    pub secret: Option<SecretHeader>,
    pub signing: Option<Signing>,
}

impl NewWebhook {
    pub fn into_webhook(self, id: WebhookId, now: Timestamp) -> Webhook {
        Webhook {
            id,
            name: self.name,
            description: self.description,
            url: self.url,
            enabled: self.enabled,
            events: self.events,
            stations: self.stations,
            secret: self.secret,
            signing: self.signing,
            created_at: now,
            updated_at: now,
            revision: 1,
        }
    }
}

impl Webhook {
    /// The same with a new signing secret, the present one signing beside it for a while.
    #[must_use]
    pub fn rotated(&self, new: SigningSecret, now: Timestamp) -> Self {
        let signing = match &self.signing {
            Some(signing) => signing.rotated(new, now),
            None => Signing::new(new),
        };
        Self {
            signing: Some(signing),
            updated_at: now,
            revision: self.revision + 1,
            ..self.clone()
        }
    }
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

impl Fault {
    pub fn new(pointer: &str, code: &'static str, message: String) -> Self {
        Self {
            pointer: pointer.to_owned(),
            code,
            message,
        }
    }
}

/// In characters.
const MAX_NAME_LEN: usize = 200;
const MAX_DESCRIPTION_LEN: usize = 2000;

impl WebhookDraft {
    pub fn create(self, policy: &TargetPolicy) -> Result<NewWebhook, Vec<Fault>> {
        let mut faults = Vec::new();
        let name = required("name", self.name, &mut faults, parse_name);
        let description = parse_description(self.description, None, &mut faults);
        let url = required("url", self.url, &mut faults, |url| parse_url(&url, policy));
        let events = required("events", self.events, &mut faults, |names| {
            parse_events(&names)
        });
        let stations = parse_stations(self.station_ids, &mut faults).unwrap_or_default();
        let secret = parse_secret(self.secret_header, self.secret_value, None, &mut faults);
        let signing = parse_signing(self.signing_secret, None, &mut faults);
        let enabled = match self.enabled {
            Field::Absent | Field::Null => true,
            Field::Value(enabled) => enabled,
        };
        match (name, url, events) {
            (Some(name), Some(url), Some(events)) if faults.is_empty() => Ok(NewWebhook {
                name,
                description,
                url,
                enabled,
                events,
                stations,
                secret,
                signing,
            }),
            _ => Err(faults),
        }
    }

    /// Changes what the draft mentions and leaves the rest.
    pub fn update(
        self,
        current: &Webhook,
        policy: &TargetPolicy,
        now: Timestamp,
    ) -> Result<Webhook, Vec<Fault>> {
        let mut faults = Vec::new();
        let name = changed("name", self.name, &mut faults, parse_name);
        let description =
            parse_description(self.description, current.description.as_ref(), &mut faults);
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
        let signing = parse_signing(self.signing_secret, current.signing.as_ref(), &mut faults);
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Webhook {
            id: current.id,
            name: name.unwrap_or_else(|| current.name.clone()),
            description,
            url: url.unwrap_or_else(|| current.url.clone()),
            enabled: enabled.unwrap_or(current.enabled),
            events: events.unwrap_or_else(|| current.events.clone()),
            stations: stations.unwrap_or_else(|| current.stations.clone()),
            secret,
            signing,
            created_at: current.created_at,
            updated_at: now,
            revision: current.revision + 1,
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

/// What there was where the draft doesn't mention it.
fn parse_description(
    field: Field<String>,
    current: Option<&String>,
    faults: &mut Vec<Fault>,
) -> Option<String> {
    let text = match field {
        Field::Absent => return current.cloned(),
        Field::Null => return None,
        Field::Value(text) => text,
    };
    if text.chars().count() > MAX_DESCRIPTION_LEN {
        let message = format!("a description has at most {MAX_DESCRIPTION_LEN} characters");
        faults.push(fault("description", "too_long", message));
    }
    Some(text).filter(|text| !text.is_empty())
}

fn parse_url(text: &str, policy: &TargetPolicy) -> Result<WebhookUrl, Vec<Fault>> {
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
            SelectionError::TooMany => fault("events", "too_many", error.to_string()),
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

fn parse_signing(
    field: Field<Secret>,
    current: Option<&Signing>,
    faults: &mut Vec<Fault>,
) -> Option<Signing> {
    match field {
        Field::Absent => current.cloned(),
        Field::Null => None,
        Field::Value(secret) => {
            let parsed = SigningSecret::parse(&secret).map_err(|error| {
                let message = error.to_string();
                vec![fault("signing_secret", "invalid_signing_secret", message)]
            });
            keep(parsed, faults).map(|secret| match current {
                // What is said again changes nothing.
                Some(current) if *current.current() == secret => current.clone(),
                Some(_) | None => Signing::new(secret),
            })
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
#[path = "draft_tests.rs"]
mod tests;

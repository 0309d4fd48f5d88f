//! Reads requests: times, pages and filters, and what a caller says of a thing.

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::FailedFilter,
    events::{EventFilter, EventType},
    webhooks::WebhookId,
};
use pipelet_proto::v1;
use serde::Serialize;
use serde_json::{Map, Value};

use super::super::{DEFAULT_PAGE, MAX_PAGE, error::ApiError, event_filter::Said, fields::Fields};
use crate::store::Part;

/// What a message says, by the names of its fields, which are those of REST.
pub(in crate::api) fn said(message: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(message) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    }
}

/// A new thing says everything that is set. Fields of which proto3 can't tell an empty string from
/// none are named.
pub(in crate::api) fn set(mut said: Map<String, Value>, or_empty: &[&str]) -> Fields {
    let is_empty = |field: &str, value: &Value| value == "" && or_empty.contains(&field);
    said.retain(|field, value| !value.is_null() && !is_empty(field, value));
    said.into()
}

/// A change says what the mask names.
pub(in crate::api) fn masked(
    said: &Map<String, Value>,
    paths: &[String],
) -> Result<Map<String, Value>, ApiError> {
    if paths.is_empty() {
        let message = "name the fields to change";
        return Err(ApiError::fault("/update_mask", "required", message));
    }
    let named = paths.iter().map(|path| {
        let value = said.get(path).cloned().ok_or_else(|| {
            let message = format!("{path:?} is no field that can be changed");
            ApiError::fault("/update_mask", "unknown_field", message)
        });
        Ok((path.clone(), value?))
    });
    named.collect()
}

pub(in crate::api) fn from_time(
    time: prost_types::Timestamp,
    field: &str,
) -> Result<Timestamp, ApiError> {
    Timestamp::new(time.seconds, time.nanos)
        .map_err(|_| ApiError::fault(field, "invalid_time", "this time is out of range"))
}

/// How many items to give; 0 leaves it to us.
pub(in crate::api) fn page_size(asked: u32) -> usize {
    match usize::try_from(asked) {
        Ok(0) => DEFAULT_PAGE,
        Ok(asked) => asked.min(MAX_PAGE),
        Err(_) => MAX_PAGE,
    }
}

/// An empty token means the beginning.
pub(in crate::api) fn page_token<C, E>(
    token: &str,
    read: impl FnOnce(&str) -> Result<C, E>,
) -> Result<Option<C>, E> {
    if token.is_empty() {
        Ok(None)
    } else {
        read(token).map(Some)
    }
}

/// Cuts a list that was fetched with one item more than asked for, and names the next page.
pub(in crate::api) fn page<I>(
    items: Vec<I>,
    size: usize,
    cursor: impl FnOnce(&I) -> String,
) -> (Vec<I>, String) {
    let is_cut = false;
    page_part(Part { items, is_cut }, size, cursor)
}

/// The same of what was read up to a number of bytes.
pub(in crate::api) fn page_part<I>(
    Part { mut items, is_cut }: Part<I>,
    size: usize,
    cursor: impl FnOnce(&I) -> String,
) -> (Vec<I>, String) {
    let more = is_cut || items.len() > size;
    items.truncate(size);
    let next = items
        .last()
        .filter(|_| more)
        .map(cursor)
        .unwrap_or_default();
    (items, next)
}

pub(in crate::api) fn filter(filter: v1::FailedDeliveryFilter) -> Result<FailedFilter, ApiError> {
    let kind = filter
        .event
        .map(|name| event_type(&name, "/filter/event"))
        .transpose()?;
    Ok(FailedFilter {
        webhook: filter.webhook_id.map(WebhookId),
        kind,
        station: filter.station_id,
        since: filter
            .since
            .map(|time| from_time(time, "/filter/since"))
            .transpose()?,
        until: filter
            .until
            .map(|time| from_time(time, "/filter/until"))
            .transpose()?,
    })
}

pub(in crate::api) fn event_type(name: &str, pointer: &str) -> Result<EventType, ApiError> {
    name.parse()
        .map_err(|unknown: pipelet_domain::events::UnknownEventType| {
            ApiError::fault(pointer, "unknown_event", unknown.to_string())
        })
}

pub(in crate::api) fn event_filter(
    filter: v1::EventFilter,
    pointer: &str,
) -> Result<EventFilter, ApiError> {
    let time = |time: Option<prost_types::Timestamp>, field| {
        let pointer = format!("{pointer}/{field}");
        time.map(|time| from_time(time, &pointer)).transpose()
    };
    let said = Said {
        since: time(filter.since, "since")?,
        until: time(filter.until, "until")?,
        events: filter.events,
        stations: filter.station_ids,
    };
    let (events, stations) = (
        format!("{pointer}/events"),
        format!("{pointer}/station_ids"),
    );
    said.parse(&events, &stations).map_err(ApiError::Invalid)
}

//! `/failed-deliveries`: the dead letters.

use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    routing::{delete, get, post},
};
use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{FailedDelivery, FailedFilter, FailedId},
    events::EventType,
    webhooks::{Fault, Field, WebhookId},
};
use pipelet_proto::v1;
use serde::Serialize;

use super::{
    super::{
        cursor,
        error::ApiError,
        fields::Fields,
        readers::{Held, Reader},
        wire,
    },
    access::{Routes, operates, reads},
    page::{List, Query},
    path::Path,
    problem::Problem,
};
use crate::delivery::{Delivery, DeliveryError, ReplayProgress, Selection};

pub(super) fn routes(delivery: Delivery) -> Routes {
    Routes::new()
        .route("/failed-deliveries", [reads(get(list))])
        .route("/failed-deliveries/replay", [operates(post(replay))])
        .route(
            "/failed-deliveries/{id}",
            [reads(get(show)), operates(delete(purge))],
        )
        .route(
            "/failed-deliveries/{id}/replay",
            [operates(post(replay_one))],
        )
        .with_state(delivery)
}

#[derive(Debug, Serialize)]
struct ReplayedJson {
    replayed: u64,
    skipped: u64,
}

impl From<ReplayProgress> for ReplayedJson {
    fn from(
        ReplayProgress {
            replayed, skipped, ..
        }: ReplayProgress,
    ) -> Self {
        Self { replayed, skipped }
    }
}

fn id(path: &str) -> Result<FailedId, ApiError> {
    path.parse().map(FailedId).map_err(|_| ApiError::NotFound {
        code: "no_such_failed_delivery",
        message: format!("there is no dead letter {path:?}; ids are numbers"),
    })
}

async fn list(
    State(delivery): State<Delivery>,
    Extension(reader): Extension<Reader>,
    mut query: Query,
) -> Result<(Extension<Held>, Json<List<v1::FailedDelivery>>), Problem> {
    let page = query.page(|text| cursor::to_number(text).map(FailedId));
    let filter = FailedFilter {
        webhook: query.take("webhook_id", "a webhook's id", |text| text.parse().ok()),
        kind: query.take("event", "an event type", |text| text.parse().ok()),
        station: query.take("station_id", "a station's id", |text| Some(text.to_owned())),
        since: query.time("since"),
        until: query.time("until"),
    };
    query.finish()?;
    let room = reader.page().await?;
    let failed = delivery
        .failed_deliveries(filter, page.after, page.read())
        .await?;
    let room = room.down_to(failed.items.iter().map(FailedDelivery::memory_size));
    let after = |last: &FailedDelivery| cursor::of_number(last.id.0);
    let list = page.list_part(failed, after, wire::failed);
    Ok((Extension(room.held()), Json(list)))
}

async fn show(
    State(delivery): State<Delivery>,
    Extension(reader): Extension<Reader>,
    Path(path): Path<String>,
) -> Result<(Extension<Held>, Json<v1::FailedDelivery>), Problem> {
    let room = reader.event().await?;
    let failed = delivery.failed_delivery(id(&path)?).await?;
    let room = room.down_to([failed.memory_size()].into_iter());
    Ok((Extension(room.held()), Json(wire::failed(failed))))
}

async fn purge(
    State(delivery): State<Delivery>,
    Path(path): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = id(&path)?;
    // One that is replayed meanwhile is not there any more, either.
    match delivery.purge(Selection::Ids(vec![id])).await? {
        0 => Err(DeliveryError::NoSuchFailedDelivery(id).into()),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

async fn replay_one(
    State(delivery): State<Delivery>,
    Path(path): Path<String>,
) -> Result<(StatusCode, Json<ReplayedJson>), Problem> {
    let progress = delivery.replay_one(id(&path)?).await?;
    Ok((StatusCode::ACCEPTED, Json(progress.into())))
}

/// Replays what the filter in the body selects, or, with `"all": true`, everything.
async fn replay(
    State(delivery): State<Delivery>,
    body: Fields,
) -> Result<(StatusCode, Json<ReplayedJson>), Problem> {
    let progress = delivery.replay(filter(body)?.into(), None).await?;
    Ok((StatusCode::ACCEPTED, Json(progress.into())))
}

fn filter(mut body: Fields) -> Result<FailedFilter, ApiError> {
    let mut faults = Vec::new();
    let all = matches!(body.bool("all"), Field::Value(true));
    let webhook = value(body.number("webhook_id")).map(WebhookId);
    let kind = parsed(body.string("event"), "/event", "unknown_event", &mut faults);
    let kind: Option<EventType> = kind;
    let station = value(body.string("station_id"));
    let since: Option<Timestamp> =
        parsed(body.string("since"), "/since", "invalid_time", &mut faults);
    let until = parsed(body.string("until"), "/until", "invalid_time", &mut faults);
    let filter = FailedFilter {
        webhook,
        kind,
        station,
        since,
        until,
    };
    faults.extend(body.finish());
    if faults.is_empty() && !all && filter == FailedFilter::default() {
        let message = "name what to replay: webhook_id, event, station_id, since, until, or all";
        return Err(ApiError::fault("", "required", message));
    }
    if faults.is_empty() {
        Ok(filter)
    } else {
        Err(ApiError::Invalid(faults))
    }
}

fn value<T>(field: Field<T>) -> Option<T> {
    match field {
        Field::Absent | Field::Null => None,
        Field::Value(value) => Some(value),
    }
}

pub(super) fn parsed<T>(
    field: Field<String>,
    pointer: &str,
    code: &'static str,
    faults: &mut Vec<Fault>,
) -> Option<T>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    match value(field)?.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            let message = T::Err::to_string(&error);
            faults.push(Fault {
                pointer: pointer.to_owned(),
                code,
                message,
            });
            None
        }
    }
}

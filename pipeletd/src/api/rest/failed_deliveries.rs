//! `/failed-deliveries`: the dead letters.

use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    routing::{delete, get, post},
};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use pipelet_domain::{
    events::EventType,
    webhooks::{Fault, Field},
};
use pipelet_proto::v1::{self, purge_request, replay_request};
use serde::Serialize;

use super::{
    super::{error::ApiError, fields::Fields, grpc::FailedDeliveries, readers::Held, wire::time},
    access::{Routes, operates, reads},
    page::{List, Query},
    path::Path,
    problem::Problem,
    services::{self, Asking, answered},
};

pub(super) fn routes(failed: FailedDeliveries) -> Routes {
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
        .with_state(failed)
}

#[derive(Debug, Serialize)]
struct ReplayedJson {
    replayed: u64,
    skipped: u64,
}

fn id(path: &str) -> Result<u64, ApiError> {
    path.parse().map_err(|_| ApiError::NotFound {
        code: "no_such_failed_delivery",
        message: format!("there is no dead letter {path:?}; ids are numbers"),
    })
}

async fn list(
    State(failed): State<FailedDeliveries>,
    asking: Asking,
    mut query: Query,
) -> Result<(Option<Extension<Held>>, Json<List<v1::FailedDelivery>>), Problem> {
    let (page_size, page_token) = query.service_page();
    let webhook_id = query.take("webhook_id", "a webhook's id", |text| text.parse().ok());
    let kind = query.take("event", "an event type", |text| {
        text.parse::<EventType>().ok()
    });
    let filter = v1::FailedDeliveryFilter {
        webhook_id,
        event: kind.map(|kind| kind.name().to_owned()),
        station_id: query.take("station_id", "a station's id", |text| Some(text.to_owned())),
        since: query.time("since").map(time),
        until: query.time("until").map(time),
    };
    query.finish()?;
    let asked = asking.request(v1::ListFailedDeliveriesRequest {
        filter: Some(filter),
        page_size,
        page_token,
    });
    let (held, found) = services::page(failed.list_failed_deliveries(asked).await)?;
    let list = List::part(found.failed_deliveries, found.next_page_token);
    Ok((held, Json(list)))
}

async fn show(
    State(failed): State<FailedDeliveries>,
    asking: Asking,
    Path(path): Path<String>,
) -> Result<(Option<Extension<Held>>, Json<v1::FailedDelivery>), Problem> {
    let asked = asking.request(v1::GetFailedDeliveryRequest { id: id(&path)? });
    let (held, found) = answered(failed.get_failed_delivery(asked).await)?;
    Ok((held, Json(found.failed_delivery.unwrap_or_default())))
}

async fn purge(
    State(failed): State<FailedDeliveries>,
    asking: Asking,
    Path(path): Path<String>,
) -> Result<StatusCode, Problem> {
    let ids = vec![id(&path)?];
    let which = purge_request::Which::Ids(v1::FailedDeliveryIds { ids });
    let asked = asking.request(v1::PurgeRequest { which: Some(which) });
    let (_, v1::PurgeResponse { purged }) = answered(failed.purge(asked).await)?;
    if purged == 0 {
        // One that was replayed meanwhile is not there any more, either.
        return Err(ApiError::NotFound {
            code: "no_such_failed_delivery",
            message: format!("there is no dead letter {path}"),
        }
        .into());
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn replay_one(
    State(failed): State<FailedDeliveries>,
    asking: Asking,
    Path(path): Path<String>,
) -> Result<(StatusCode, Json<ReplayedJson>), Problem> {
    let ids = vec![id(&path)?];
    let which = replay_request::Which::Ids(v1::FailedDeliveryIds { ids });
    replayed(&failed, asking, which).await
}

/// Replays what the filter in the body selects, or, with `"all": true`, everything.
async fn replay(
    State(failed): State<FailedDeliveries>,
    asking: Asking,
    body: Fields,
) -> Result<(StatusCode, Json<ReplayedJson>), Problem> {
    let which = replay_request::Which::Filter(filter(body)?);
    replayed(&failed, asking, which).await
}

/// Has them replayed, and doesn't wait for what comes of it.
async fn replayed(
    failed: &FailedDeliveries,
    asking: Asking,
    which: replay_request::Which,
) -> Result<(StatusCode, Json<ReplayedJson>), Problem> {
    let asked = asking.request(v1::ReplayRequest {
        which: Some(which),
        unwatched: true,
    });
    let (_, mut told) = answered(failed.replay(asked).await)?;
    let mut last = v1::ReplayResponse::default();
    while let Some(progress) = told.next().await {
        last = progress.map_err(Problem::of_status)?;
    }
    let v1::ReplayResponse {
        replayed, skipped, ..
    } = last;
    let answer = Json(ReplayedJson { replayed, skipped });
    Ok((StatusCode::ACCEPTED, answer))
}

fn filter(mut body: Fields) -> Result<v1::FailedDeliveryFilter, ApiError> {
    let mut faults = Vec::new();
    let all = matches!(body.bool("all"), Field::Value(true));
    let webhook = value(body.number("webhook_id"));
    let kind = parsed(body.string("event"), "/event", "unknown_event", &mut faults);
    let kind: Option<EventType> = kind;
    let station = value(body.string("station_id"));
    let since: Option<Timestamp> =
        parsed(body.string("since"), "/since", "invalid_time", &mut faults);
    let until = parsed(body.string("until"), "/until", "invalid_time", &mut faults);
    let until: Option<Timestamp> = until;
    let filter = v1::FailedDeliveryFilter {
        webhook_id: webhook,
        event: kind.map(|kind| kind.name().to_owned()),
        station_id: station,
        since: since.map(time),
        until: until.map(time),
    };
    faults.extend(body.finish());
    if faults.is_empty() && !all && filter == v1::FailedDeliveryFilter::default() {
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

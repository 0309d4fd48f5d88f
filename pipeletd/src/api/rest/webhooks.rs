//! `/webhooks`: the lifecycle of the contract.

use std::collections::BTreeMap;

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use pipelet_domain::{
    events::EventType,
    webhooks::{Field, Secret, WebhookId},
};
use pipelet_proto::v1;
use serde::Serialize;

use super::{
    super::{
        DEFAULT_PAGE, MAX_PAGE, cursor,
        error::ApiError,
        event_filter::Said,
        fields::{Fields, merged},
        readers::{Held, Reader},
        signing_secret, wire,
    },
    access::{Routes, operates, reads},
    body::OptionalFields,
    etag::{IfMatch, etag},
    failed_deliveries::parsed,
    page::{List, Query},
    path::Path,
    problem::Problem,
};
use crate::delivery::{Backfill, Delivery, Listed, WebhookView};

pub(super) fn routes(delivery: Delivery) -> Routes {
    Routes::new()
        .route("/webhooks", [reads(get(list)), operates(post(create))])
        .route(
            "/webhooks/{id}",
            [reads(get(show)), operates(put(update).delete(delete))],
        )
        .route("/webhooks/{id}/test", [operates(post(test))])
        .route("/webhooks/{id}/retry", [operates(post(retry))])
        .route("/webhooks/{id}/rotate-secret", [operates(post(rotate))])
        .route("/webhooks/{id}/deliveries", [reads(get(deliveries))])
        .route("/webhooks/{id}/backfill", [operates(post(backfill))])
        .route("/audit", [reads(get(audit))])
        .with_state(delivery)
}

/// How many deliveries wait for a retry.
#[derive(Debug, Serialize)]
struct RetryingJson {
    retrying: u64,
}

/// What isn't a number names no webhook.
fn id(path: &str) -> Result<WebhookId, ApiError> {
    path.parse().map_err(|_| ApiError::NotFound {
        code: "no_such_webhook",
        message: format!("there is no webhook {path:?}; ids are numbers"),
    })
}

async fn create(State(delivery): State<Delivery>, mut body: Fields) -> Result<Response, Problem> {
    let (draft, made) = wire::webhook_draft(&mut body)?;
    let faults = body.finish();
    if !faults.is_empty() {
        let faults = merged(faults, delivery.faults(draft, None)?);
        return Err(ApiError::Invalid(faults).into());
    }
    let webhook = delivery.create(draft).await?;
    let location = format!("/api/v1/webhooks/{}", webhook.webhook.id);
    let etag = etag(&webhook.webhook);
    let json = wire::webhook_and_secret(webhook, made.as_ref());
    let mut response = (StatusCode::CREATED, etag, Json(json)).into_response();
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn list(
    State(delivery): State<Delivery>,
    mut query: Query,
) -> Result<Json<List<v1::Webhook>>, Problem> {
    let page = query.page(|text| cursor::to_number(text).map(WebhookId));
    query.finish()?;
    let webhooks = delivery.list(page.after, page.fetch()).await;
    let after = |last: &WebhookView| cursor::of_number(last.webhook.id.0);
    Ok(Json(page.list(webhooks, after, wire::webhook)))
}

async fn show(
    State(delivery): State<Delivery>,
    Path(path): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let webhook = delivery.get(id(&path)?).await?;
    Ok((etag(&webhook.webhook), Json(wire::webhook(webhook))))
}

async fn update(
    State(delivery): State<Delivery>,
    Path(path): Path<String>,
    only: IfMatch,
    mut body: Fields,
) -> Result<Response, Problem> {
    let id = id(&path)?;
    let (draft, made) = wire::webhook_draft(&mut body)?;
    let faults = body.finish();
    if !faults.is_empty() {
        let faults = merged(faults, delivery.faults(draft, Some(id))?);
        return Err(ApiError::Invalid(faults).into());
    }
    let webhook = delivery.update(id, draft, only.of(id)).await?;
    Ok(answer(webhook, made.as_ref()))
}

/// Signs with a new secret, made or given, and for a while with the one before, too.
async fn rotate(
    State(delivery): State<Delivery>,
    Path(path): Path<String>,
    only: IfMatch,
    OptionalFields(mut body): OptionalFields,
) -> Result<Response, Problem> {
    let id = id(&path)?;
    let given = body.secret("signing_secret");
    let faults = body.finish();
    if !faults.is_empty() {
        return Err(ApiError::Invalid(faults).into());
    }
    let given = match given {
        Field::Value(given) => Some(given),
        Field::Absent | Field::Null => None,
    };
    let (new, made) = signing_secret::given_or_made(given)?;
    let rotated = delivery.rotate_signing_secret(id, new, only.of(id));
    Ok(answer(rotated.await?, made.as_ref()))
}

fn answer(webhook: WebhookView, made: Option<&Secret>) -> Response {
    let etag = etag(&webhook.webhook);
    (etag, Json(wire::webhook_and_secret(webhook, made))).into_response()
}

async fn delete(
    State(delivery): State<Delivery>,
    Path(path): Path<String>,
    only: IfMatch,
) -> Result<StatusCode, Problem> {
    let id = id(&path)?;
    delivery.delete(id, only.of(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends what waits for a retry before it is due.
async fn retry(
    State(delivery): State<Delivery>,
    Path(path): Path<String>,
) -> Result<(StatusCode, Json<RetryingJson>), Problem> {
    let (retrying, _) = delivery.retry_now(id(&path)?).await?;
    Ok((StatusCode::ACCEPTED, Json(RetryingJson { retrying })))
}

async fn test(
    State(delivery): State<Delivery>,
    Path(path): Path<String>,
    OptionalFields(mut body): OptionalFields,
) -> Result<Json<v1::TestWebhookResponse>, Problem> {
    let id = id(&path)?;
    let event = body.string("event");
    let mut faults = body.finish();
    let kind = match event {
        Field::Absent | Field::Null => None,
        Field::Value(name) => match name.parse::<EventType>() {
            Ok(kind) => Some(kind),
            Err(unknown) => {
                faults.push(pipelet_domain::webhooks::Fault {
                    pointer: "/event".to_owned(),
                    code: "unknown_event",
                    message: unknown.to_string(),
                });
                None
            }
        },
    };
    if !faults.is_empty() {
        return Err(ApiError::Invalid(faults).into());
    }
    Ok(Json(wire::test_result(delivery.test(id, kind).await?)))
}

/// What waits for a retry, by due time, then the latest deliveries that were settled.
async fn deliveries(
    State(delivery): State<Delivery>,
    Extension(reader): Extension<Reader>,
    Path(path): Path<String>,
    mut query: Query,
) -> Result<(Extension<Held>, Json<List<v1::Delivery>>), Problem> {
    let id = id(&path)?;
    let page = query.page(|text| cursor::to_delivery(id, text));
    query.finish()?;
    let room = reader.page().await?;
    let deliveries = delivery
        .deliveries(id, None, page.after, page.read())
        .await?;
    let room = room.down_to(deliveries.items.iter().map(Listed::memory_size));
    let list = page.list_part(
        deliveries,
        |last| cursor::of_delivery(last.place()),
        |listed| match listed {
            Listed::Waiting(retry) => {
                let due = delivery.due_at(retry.key);
                wire::retry(retry, due)
            }
            Listed::Settled(settled) => wire::settled(settled),
        },
    );
    Ok((Extension(room.held()), Json(list)))
}

/// Sends a part of the journal to the webhook again. Asked again with what is left until that is
/// empty, it sends all that is meant.
async fn backfill(
    State(delivery): State<Delivery>,
    Path(path): Path<String>,
    mut body: Fields,
) -> Result<Json<v1::BackfillResponse>, Problem> {
    let id = id(&path)?;
    let mut faults = Vec::new();
    let said = Said {
        events: body.strings("events").given().unwrap_or_default(),
        stations: body.strings("station_ids").given().unwrap_or_default(),
        since: parsed(body.string("since"), "/since", "invalid_time", &mut faults),
        until: parsed(body.string("until"), "/until", "invalid_time", &mut faults),
    };
    let left = body.string("left").given().filter(|left| !left.is_empty());
    let limit = body.number("limit").given();
    let dry_run = body.bool("dry_run").given().unwrap_or_default();
    let filter = said.parse("/events", "/station_ids");
    faults.extend(body.finish());
    let filter = match filter {
        Ok(filter) if faults.is_empty() => filter,
        Ok(_) => return Err(ApiError::Invalid(faults).into()),
        Err(content) => return Err(ApiError::Invalid(merged(faults, content)).into()),
    };
    let limit = match limit.unwrap_or_default() {
        0 => DEFAULT_PAGE,
        limit => usize::try_from(limit).map_or(MAX_PAGE, |limit| limit.min(MAX_PAGE)),
    };
    let left = left.map(|left| cursor::to_ranges(&left)).transpose();
    let left = left.map_err(|_| {
        let message = "this is not what an answer said is left";
        ApiError::fault("/left", "invalid_value", message)
    })?;
    let asked = Backfill {
        filter,
        left,
        limit,
        dry_run,
    };
    let done = delivery.backfill(id, asked).await?;
    Ok(Json(wire::backfilled(&done)))
}

/// The books of all webhooks, deleted ones included, or of one.
async fn audit(
    State(delivery): State<Delivery>,
    mut query: Query,
) -> Result<Json<v1::AuditWebhooksResponse>, Problem> {
    let only = query.take("webhook_id", "a webhook's id", |text| text.parse().ok());
    let since = query.time("since");
    query.finish()?;
    let audit = delivery.audit(only).await?;
    let lately = match since {
        Some(since) => delivery.since(since, only).await?,
        None => BTreeMap::new(),
    };
    Ok(Json(wire::audit(audit, &lately)))
}

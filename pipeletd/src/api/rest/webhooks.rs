//! `/webhooks`: the lifecycle of the contract.

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use pipelet_domain::webhooks::{Field, Secret, WebhookId};
use pipelet_proto::v1;
use serde::Serialize;

use super::{
    super::{
        cursor,
        error::ApiError,
        event_filter::Said,
        fields::{Fields, merged},
        grpc::{self, Events},
        readers::Held,
        signing_secret,
        webhooks::{Shown, Webhooks},
        wire::{self, time},
    },
    access::{Routes, operates, reads},
    body::OptionalFields,
    etag::{IfMatch, etag},
    failed_deliveries::parsed,
    page::{List, Query},
    path::Path,
    problem::Problem,
    services::{self, Asking, answered},
};

pub(super) fn routes(webhooks: Webhooks, delivered: grpc::Webhooks, events: Events) -> Routes {
    let kept = Routes::new()
        .route("/webhooks", [reads(get(list)), operates(post(create))])
        .route(
            "/webhooks/{id}",
            [reads(get(show)), operates(put(update).delete(delete))],
        )
        .route("/webhooks/{id}/rotate-secret", [operates(post(rotate))])
        .with_state(webhooks);
    let figures = Routes::new()
        .route("/webhooks/{id}/test", [operates(post(test))])
        .route("/webhooks/{id}/retry", [operates(post(retry))])
        .route("/webhooks/{id}/deliveries", [reads(get(deliveries))])
        .route("/audit", [reads(get(audit))])
        .with_state(delivered);
    let again = Routes::new()
        .route("/webhooks/{id}/backfill", [operates(post(backfill))])
        .with_state(events);
    kept.merge(figures).merge(again)
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

async fn create(State(webhooks): State<Webhooks>, mut body: Fields) -> Result<Response, Problem> {
    let (draft, made) = wire::webhook_draft(&mut body)?;
    let faults = body.finish();
    if !faults.is_empty() {
        let faults = merged(faults, webhooks.faults(draft, None)?);
        return Err(ApiError::Invalid(faults).into());
    }
    let shown = webhooks.create(draft).await?;
    let location = format!("/api/v1/webhooks/{}", shown.webhook().id);
    let etag = etag(shown.webhook());
    let json = wire::webhook_and_secret(&shown, made.as_ref());
    let mut response = (StatusCode::CREATED, etag, Json(json)).into_response();
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn list(
    State(webhooks): State<Webhooks>,
    mut query: Query,
) -> Result<Json<List<v1::Webhook>>, Problem> {
    let page = query.page(|text| cursor::to_number(text).map(WebhookId));
    query.finish()?;
    let shown = webhooks.list(page.after, page.fetch()).await?;
    let after = |last: &Shown| cursor::of_number(last.webhook().id.0);
    Ok(Json(page.list(shown, after, |shown| shown.message())))
}

async fn show(
    State(webhooks): State<Webhooks>,
    Path(path): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let shown = webhooks.get(id(&path)?).await?;
    Ok((etag(shown.webhook()), Json(shown.message())))
}

async fn update(
    State(webhooks): State<Webhooks>,
    Path(path): Path<String>,
    only: IfMatch,
    mut body: Fields,
) -> Result<Response, Problem> {
    let id = id(&path)?;
    let (draft, made) = wire::webhook_draft(&mut body)?;
    let faults = body.finish();
    if !faults.is_empty() {
        let faults = merged(faults, webhooks.faults(draft, Some(id))?);
        return Err(ApiError::Invalid(faults).into());
    }
    let shown = webhooks.update(id, draft, only.of(id)).await?;
    Ok(answer(&shown, made.as_ref()))
}

/// Signs with a new secret, made or given, and for a while with the one before, too.
async fn rotate(
    State(webhooks): State<Webhooks>,
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
    let rotated = webhooks.rotate_signing_secret(id, new, only.of(id));
    Ok(answer(&rotated.await?, made.as_ref()))
}

fn answer(shown: &Shown, made: Option<&Secret>) -> Response {
    let etag = etag(shown.webhook());
    (etag, Json(wire::webhook_and_secret(shown, made))).into_response()
}

async fn delete(
    State(webhooks): State<Webhooks>,
    Path(path): Path<String>,
    only: IfMatch,
) -> Result<StatusCode, Problem> {
    let id = id(&path)?;
    webhooks.delete(id, only.of(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends what waits for a retry before it is due.
async fn retry(
    State(webhooks): State<grpc::Webhooks>,
    asking: Asking,
    Path(path): Path<String>,
) -> Result<(StatusCode, Json<RetryingJson>), Problem> {
    let asked = asking.request(v1::RetryDeliveriesRequest {
        id: id(&path)?.0,
        wait: Some(prost_types::Duration::default()),
    });
    let (_, begun) = answered(webhooks.retry_deliveries(asked).await)?;
    let retrying = begun.retrying;
    Ok((StatusCode::ACCEPTED, Json(RetryingJson { retrying })))
}

async fn test(
    State(webhooks): State<grpc::Webhooks>,
    asking: Asking,
    Path(path): Path<String>,
    OptionalFields(mut body): OptionalFields,
) -> Result<Json<v1::TestWebhookResponse>, Problem> {
    let id = id(&path)?.0;
    let event = body.string("event").given();
    let faults = body.finish();
    if !faults.is_empty() {
        return Err(ApiError::Invalid(faults).into());
    }
    let asked = asking.request(v1::TestWebhookRequest { id, event });
    let (_, result) = answered(webhooks.test_webhook(asked).await)?;
    Ok(Json(result))
}

/// What waits for a retry, by due time, then the latest deliveries that were settled.
async fn deliveries(
    State(webhooks): State<grpc::Webhooks>,
    asking: Asking,
    Path(path): Path<String>,
    mut query: Query,
) -> Result<(Option<Extension<Held>>, Json<List<v1::Delivery>>), Problem> {
    let id = id(&path)?;
    let (page_size, page_token) = query.service_page();
    query.finish()?;
    let asked = asking.request(v1::ListDeliveriesRequest {
        webhook_id: id.0,
        page_size,
        page_token,
        status: String::new(),
    });
    let (held, found) = services::page(webhooks.list_deliveries(asked).await)?;
    Ok((
        held,
        Json(List::part(found.deliveries, found.next_page_token)),
    ))
}

/// Sends a part of the journal to the webhook again. Asked again with what is left until that is
/// empty, it sends all that is meant.
async fn backfill(
    State(events): State<Events>,
    asking: Asking,
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
    let left = body.string("left").given().unwrap_or_default();
    let limit = body.number("limit").given().unwrap_or_default();
    let dry_run = body.bool("dry_run").given().unwrap_or_default();
    let filter = v1::EventFilter {
        events: said.events.clone(),
        station_ids: said.stations.clone(),
        since: said.since.map(time),
        until: said.until.map(time),
    };
    let content = said.parse("/events", "/station_ids");
    faults.extend(body.finish());
    match content {
        Ok(_) if faults.is_empty() => {}
        Ok(_) => return Err(ApiError::Invalid(faults).into()),
        Err(content) => return Err(ApiError::Invalid(merged(faults, content)).into()),
    }
    let asked = asking.request(v1::BackfillRequest {
        webhook_id: id.0,
        filter: Some(filter),
        left,
        limit: u32::try_from(limit).unwrap_or(u32::MAX),
        dry_run,
    });
    let (_, done) = answered(events.backfill(asked).await)?;
    Ok(Json(done))
}

/// The books of all webhooks, deleted ones included, or of one.
async fn audit(
    State(webhooks): State<grpc::Webhooks>,
    asking: Asking,
    mut query: Query,
) -> Result<Json<v1::AuditWebhooksResponse>, Problem> {
    let webhook_id = query.take("webhook_id", "a webhook's id", |text| text.parse().ok());
    let since = query.time("since").map(time);
    query.finish()?;
    let asked = asking.request(v1::AuditWebhooksRequest { webhook_id, since });
    let (_, audit) = answered(webhooks.audit_webhooks(asked).await)?;
    Ok(Json(audit))
}

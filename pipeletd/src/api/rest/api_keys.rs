//! `/api-keys`: who may call.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    routing::{delete, get, post},
};
use pipelet_domain::webhooks::Field;
use pipelet_proto::v1;

use super::{
    super::{
        error::ApiError,
        fields::{Fields, merged},
        keys::{ApiKeys, KeyDraft},
        wire,
    },
    access::{Routes, administers},
    page::{List, Query},
    path::Path,
    problem::Problem,
};
use crate::system::clock::Clock;

#[derive(Debug, Clone)]
struct Handles {
    keys: ApiKeys,
    clock: Clock,
}

pub(super) fn routes(keys: ApiKeys, clock: Clock) -> Routes {
    Routes::new()
        .route(
            "/api-keys",
            [administers(get(list)), administers(post(create))],
        )
        .route("/api-keys/{id}", [administers(delete(revoke))])
        .with_state(Handles { keys, clock })
}

async fn list(
    State(Handles { keys, clock }): State<Handles>,
    query: Query,
) -> Result<Json<List<v1::ApiKey>>, Problem> {
    query.finish()?;
    let now = clock.now();
    let keys = keys.list().into_iter();
    let keys = keys.map(|key| wire::api_key(key, now)).collect();
    Ok(Json(List::whole(keys)))
}

/// The answer is the only one that shows the key.
async fn create(
    State(Handles { keys, clock }): State<Handles>,
    mut body: Fields,
) -> Result<(StatusCode, Json<v1::CreateApiKeyResponse>), Problem> {
    let name = body.string("name").given().unwrap_or_default();
    let role = body.string("role").given();
    let life = body.take("expires_in", "a duration such as 90d", |value| {
        humantime::parse_duration(value.as_str()?).ok()
    });
    let draft = KeyDraft {
        name,
        role,
        expires_in: match life {
            Field::Value(life) => Some(life),
            Field::Absent | Field::Null => None,
        },
    };
    let faults = body.finish();
    if !faults.is_empty() {
        return Err(ApiError::Invalid(merged(faults, draft.faults())).into());
    }
    let (info, key) = keys.create(draft).await?;
    let made = v1::CreateApiKeyResponse {
        api_key: Some(wire::api_key(info, clock.now())),
        key: key.expose().to_owned(),
    };
    Ok((StatusCode::CREATED, Json(made)))
}

async fn revoke(
    State(Handles { keys, .. }): State<Handles>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = id.parse().map_err(|_| ApiError::NotFound {
        code: "no_such_api_key",
        message: format!("there is no API key {id:?}; ids are numbers"),
    })?;
    keys.revoke(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

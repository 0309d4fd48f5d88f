//! `/id-tags`: who may charge.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use pipelet_domain::id_tags::IdTagEntry;
use pipelet_proto::v1;
use url::form_urlencoded;

use super::{
    super::{
        cursor,
        error::ApiError,
        fields::{Fields, merged},
        wire,
    },
    access::{Routes, operates, reads},
    page::{List, Query},
    path::Path,
    problem::Problem,
};
use crate::registries::IdTags;

pub(super) fn routes(id_tags: IdTags) -> Routes {
    Routes::new()
        .route("/id-tags", [reads(get(list)), operates(post(create))])
        .route(
            "/id-tags/{tag}",
            [reads(get(show)), operates(put(update).delete(remove))],
        )
        .with_state(id_tags)
}

async fn create(State(id_tags): State<IdTags>, mut body: Fields) -> Result<Response, Problem> {
    let id_tag = body.string("id_tag");
    let draft = wire::id_tag_draft(&mut body);
    let faults = body.finish();
    if !faults.is_empty() {
        let faults = merged(faults, id_tags.faults(Some(id_tag), draft));
        return Err(ApiError::Invalid(faults).into());
    }
    let created = id_tags.create(id_tag, draft).await;
    let created = wire::id_tag(&*created.map_err(ApiError::from)?);
    let path: String = form_urlencoded::byte_serialize(created.id_tag.as_bytes()).collect();
    // A plus sign means a blank in forms only.
    let location = format!("/api/v1/id-tags/{}", path.replace('+', "%20"));
    let mut response = (StatusCode::CREATED, Json(created)).into_response();
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn list(
    State(id_tags): State<IdTags>,
    mut query: Query,
) -> Result<Json<List<v1::IdTag>>, Problem> {
    let page = query.page(cursor::to_id_tag);
    query.finish()?;
    let found = id_tags.list(page.after.as_ref(), page.fetch());
    let last = |last: &Arc<IdTagEntry>| cursor::of_id_tag(&last.id_tag.key());
    Ok(Json(page.list(found, last, |entry| wire::id_tag(&entry))))
}

async fn show(
    State(id_tags): State<IdTags>,
    Path(tag): Path<String>,
) -> Result<Json<v1::IdTag>, Problem> {
    let entry = id_tags.get(&tag).map_err(ApiError::from)?;
    Ok(Json(wire::id_tag(&entry)))
}

async fn update(
    State(id_tags): State<IdTags>,
    Path(tag): Path<String>,
    mut body: Fields,
) -> Result<Json<v1::IdTag>, Problem> {
    let draft = wire::id_tag_draft(&mut body);
    let faults = body.finish();
    if !faults.is_empty() {
        let faults = merged(faults, id_tags.faults(None, draft));
        return Err(ApiError::Invalid(faults).into());
    }
    let changed = id_tags.update(tag, draft).await;
    Ok(Json(wire::id_tag(&*changed.map_err(ApiError::from)?)))
}

async fn remove(
    State(id_tags): State<IdTags>,
    Path(tag): Path<String>,
) -> Result<StatusCode, Problem> {
    id_tags.remove(tag).await.map_err(ApiError::from)?;
    Ok(StatusCode::NO_CONTENT)
}

//! `/stations`: the chargers that have connected.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::get,
};

use super::{
    super::{cursor, error::ApiError},
    page::{List, Query},
    problem::Problem,
    view::StationJson,
};
use crate::{
    events::StationId,
    ocpp::{StationView, Stations},
};

pub(super) fn routes(stations: Stations) -> Router {
    Router::new()
        .route("/stations", get(list))
        .route("/stations/{id}", get(show))
        .with_state(stations)
}

async fn list(
    State(stations): State<Stations>,
    mut query: Query,
) -> Result<Json<List<StationJson>>, Problem> {
    let page = query.page(cursor::to_station);
    let connected = query.take("connected", "true or false", |text| text.parse().ok());
    query.finish()?;
    let found = stations.list(page.after.as_ref(), connected, page.fetch());
    let after = |last: &StationView| cursor::of_station(&last.state.id);
    Ok(Json(page.list(found, after, StationJson::from)))
}

async fn show(
    State(stations): State<Stations>,
    Path(id): Path<String>,
) -> Result<Json<StationJson>, Problem> {
    let station = StationId::new(&id).ok().and_then(|id| stations.get(&id));
    let station = station.ok_or_else(|| ApiError::NotFound {
        code: "no_such_station",
        message: format!("no station {id:?} has connected yet"),
    })?;
    Ok(Json(station.into()))
}

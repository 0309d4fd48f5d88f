//! `/stations/{id}/commands/{Action}`: asking something of a station, in OCPP's words.
//!
//! The body is the OCPP request and goes out as it came, `?timeout=10s` says how long to wait. An
//! answer of the station is a 200, be it a CALLRESULT or a CALLERROR:
//!
//! ```json
//! {"status": "answered", "payload": {"status": "Accepted"}}
//! {"status": "error", "error": {"code": "NotSupported", "description": "", "details": {}}}
//! ```

use std::time::Duration;

use axum::{Json, extract::State, http::StatusCode, routing::post};
use pipelet_domain::events::{EventType, Payload, StationId};
use pipelet_proto::v1::call_response::Outcome;

use super::{
    super::error::ApiError,
    access::{Routes, operates},
    body::RawBody,
    page::Query,
    path::Path,
    problem::Problem,
};
use crate::ocpp::{DEFAULT_TIMEOUT, MAX_TIMEOUT, Stations};

pub(super) fn routes(stations: Stations) -> Routes {
    Routes::new()
        .route("/stations/{id}/commands/{action}", [operates(post(call))])
        .route("/stations/{id}/disconnect", [operates(post(disconnect))])
        .with_state(stations)
}

async fn call(
    State(stations): State<Stations>,
    Path((id, action)): Path<(String, String)>,
    mut query: Query,
    RawBody(payload): RawBody,
) -> Result<Json<Outcome>, Problem> {
    let wait = timeout(&mut query);
    query.finish()?;
    let action = action
        .parse::<EventType>()
        .map_err(|unknown| ApiError::NotFound {
            code: "no_such_action",
            message: unknown.to_string(),
        })?;
    Ok(ask(&stations, &id, action, payload, wait).await?)
}

/// Ends the station's connection; it may dial again at once. 202, because it ends by itself after
/// the answer, which `StationDisconnected` tells.
async fn disconnect(
    State(stations): State<Stations>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    stations
        .disconnect(&station(&id)?)
        .map_err(ApiError::from)?;
    Ok(StatusCode::ACCEPTED)
}

/// How long the caller waits.
pub(super) fn timeout(query: &mut Query) -> Duration {
    let expected = "a duration such as 10s, up to 10m";
    let timeout = query.take("timeout", expected, |text| {
        let wait = humantime::parse_duration(text).ok()?;
        (!wait.is_zero() && wait <= MAX_TIMEOUT).then_some(wait)
    });
    timeout.unwrap_or(DEFAULT_TIMEOUT)
}

/// What is no id names no station.
pub(super) fn station(id: &str) -> Result<StationId, ApiError> {
    StationId::new(id).map_err(|_| ApiError::NotFound {
        code: "no_such_station",
        message: format!("no station {id:?} has connected yet"),
    })
}

pub(super) async fn ask(
    stations: &Stations,
    id: &str,
    action: EventType,
    payload: Payload,
    wait: Duration,
) -> Result<Json<Outcome>, ApiError> {
    let answer = stations.call(&station(id)?, action, payload, wait).await?;
    Ok(Json(answer.into()))
}

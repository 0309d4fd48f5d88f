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
use pipelet_domain::{
    events::{EventType, Payload},
    webhooks::Fault,
};
use pipelet_proto::v1::{self, call_response::Outcome};

use super::{
    super::{error::ApiError, grpc::Stations},
    access::{Routes, operates},
    body::RawBody,
    page::Query,
    path::Path,
    problem::Problem,
    services::{Asking, answered},
};
use crate::ocpp::{DEFAULT_TIMEOUT, MAX_TIMEOUT};

pub(super) fn routes(stations: Stations) -> Routes {
    Routes::new()
        .route("/stations/{id}/commands/{action}", [operates(post(call))])
        .route("/stations/{id}/disconnect", [operates(post(disconnect))])
        .with_state(stations)
}

async fn call(
    State(stations): State<Stations>,
    asking: Asking,
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
    ask(&stations, asking, id, action, &payload, wait).await
}

/// Ends the station's connection; it may dial again at once. 202, because it ends by itself after
/// the answer, which `StationDisconnected` tells.
async fn disconnect(
    State(stations): State<Stations>,
    asking: Asking,
    Path(station_id): Path<String>,
) -> Result<StatusCode, Problem> {
    let asked = asking.request(v1::DisconnectRequest { station_id });
    answered(stations.disconnect(asked).await)?;
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

/// Asks a station, and puts what is wrong with the payload into the words of a body.
pub(super) async fn ask(
    stations: &Stations,
    asking: Asking,
    station_id: String,
    action: EventType,
    payload: &Payload,
    wait: Duration,
) -> Result<Json<Outcome>, Problem> {
    let asked = asking.request(v1::CallRequest {
        station_id,
        action: action.name().to_owned(),
        payload: String::from_utf8_lossy(payload.as_bytes()).into_owned(),
        parameters: Vec::new(),
        timeout: prost_types::Duration::try_from(wait).ok(),
    });
    let answer = answered(stations.call(asked).await);
    let (_, answer) = answer.map_err(|problem| problem.map(of_body))?;
    let outcome = answer.outcome;
    outcome.map(Json).ok_or_else(|| {
        let error = anyhow::anyhow!("a station's answer is nothing");
        ApiError::internal(error).into()
    })
}

fn of_body(error: ApiError) -> ApiError {
    let ApiError::Invalid(faults) = error else {
        return error;
    };
    if let Some(unknown) = faults.iter().find(|fault| fault.pointer == "/action") {
        return ApiError::NotFound {
            code: "no_such_action",
            message: unknown.message.clone(),
        };
    }
    let of_body = |fault: Fault| Fault {
        pointer: match fault.pointer.strip_prefix("/payload") {
            Some(pointer) => pointer.to_owned(),
            None => fault.pointer,
        },
        ..fault
    };
    ApiError::Invalid(faults.into_iter().map(of_body).collect())
}

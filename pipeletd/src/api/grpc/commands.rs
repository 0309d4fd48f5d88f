//! `StationService.Call`: what it asks for, and the answer.

use std::time::Duration;

use pipelet_domain::{
    events::{EventType, Payload, StationId},
    webhooks::Fault,
};
use pipelet_proto::v1;

use super::super::error::ApiError;
use crate::ocpp::{CommandError, DEFAULT_TIMEOUT, MAX_TIMEOUT, Stations, v16};

pub(super) async fn call(
    stations: &Stations,
    request: v1::CallRequest,
) -> Result<v1::CallResponse, ApiError> {
    let unknown_action = |why: String| ApiError::fault("/action", "unknown_action", why);
    let action = request
        .action
        .parse::<EventType>()
        .map_err(|unknown| unknown_action(unknown.as_action()))?;
    let payload = payload(action, &request)?;
    let wait = timeout(request.timeout)?;
    let answer = stations
        .call(&station(&request.station_id)?, action, payload, wait)
        .await
        .map_err(|error| match error {
            CommandError::NotACommand(_) => unknown_action(error.to_string()),
            error => within_payload(error.into()),
        })?;
    Ok(v1::CallResponse {
        outcome: Some(answer.into()),
    })
}

pub(super) fn disconnect(stations: &Stations, id: &str) -> Result<(), ApiError> {
    Ok(stations.disconnect(&station(id)?)?)
}

fn station(id: &str) -> Result<StationId, ApiError> {
    StationId::new(id).map_err(|_| ApiError::NotFound {
        code: "no_such_station",
        message: format!("no station {id:?} has connected yet"),
    })
}

fn payload(action: EventType, request: &v1::CallRequest) -> Result<Payload, ApiError> {
    match (request.payload.as_str(), request.parameters.as_slice()) {
        ("", parameters) => {
            let parameters = parameters
                .iter()
                .map(|p| (p.name.as_str(), p.value.as_str()));
            Ok(v16::payload_of(action, parameters))
        }
        (text, []) => Payload::parse(text.as_bytes())
            .map_err(|error| ApiError::fault("/payload", "malformed", error.to_string())),
        (_, [_, ..]) => Err(ApiError::fault(
            "/parameters",
            "ambiguous",
            "give a payload or parameters, not both",
        )),
    }
}

fn timeout(asked: Option<prost_types::Duration>) -> Result<Duration, ApiError> {
    let Some(asked) = asked else {
        return Ok(DEFAULT_TIMEOUT);
    };
    let wait = Duration::try_from(asked).ok();
    wait.filter(|wait| !wait.is_zero() && *wait <= MAX_TIMEOUT)
        .ok_or_else(|| {
            let message = "must be longer than nothing, and 10 minutes at most";
            ApiError::fault("/timeout", "invalid_duration", message)
        })
}

/// The faults of a payload point into it; here it is a field of the request.
fn within_payload(error: ApiError) -> ApiError {
    let ApiError::Invalid(faults) = error else {
        return error;
    };
    let faults = faults.into_iter().map(|fault| Fault {
        pointer: format!("/payload{}", fault.pointer),
        ..fault
    });
    ApiError::Invalid(faults.collect())
}

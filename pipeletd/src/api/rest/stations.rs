//! `/stations`: the chargers that have connected, and those that are registered.

use std::fmt::Write as _;

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use pipelet_domain::{registration::RegistrationDraft, webhooks::Field};
use pipelet_proto::v1;

use super::{
    super::{
        error::ApiError,
        fields::{Fields, merged},
        grpc, station_directory, wire,
    },
    access::{Routes, operates, reads},
    page::{List, Query},
    path::Path,
    problem::Problem,
    services::{self, Asking, answered},
};
use crate::registries::Registrations;

#[derive(Clone)]
struct Handles {
    registrations: Registrations,
    stations: grpc::Stations,
}

pub(super) fn routes(registrations: Registrations, stations: grpc::Stations) -> Routes {
    Routes::new()
        .route("/stations", [reads(get(list))])
        .route(
            "/stations/{id}",
            [reads(get(show)), operates(put(register).delete(unregister))],
        )
        .with_state(Handles {
            registrations,
            stations,
        })
}

async fn list(
    State(Handles { stations, .. }): State<Handles>,
    asking: Asking,
    mut query: Query,
) -> Result<Json<List<v1::Station>>, Problem> {
    let (page_size, page_token) = query.service_page();
    let connected = query.take("connected", "true or false", |text| text.parse().ok());
    query.finish()?;
    let asked = asking.request(v1::ListStationsRequest {
        page_size,
        page_token,
        connected,
    });
    let (_, found) = services::page(stations.list_stations(asked).await)?;
    Ok(Json(List::part(found.stations, found.next_page_token)))
}

async fn show(
    State(Handles { stations, .. }): State<Handles>,
    asking: Asking,
    Path(id): Path<String>,
) -> Result<Json<v1::Station>, Problem> {
    let asked = asking.request(v1::GetStationRequest { id });
    let (_, found) = answered(stations.get_station(asked).await)?;
    Ok(Json(found.station.unwrap_or_default()))
}

/// Registers the station, or changes what the body mentions.
async fn register(
    State(Handles {
        registrations,
        stations,
    }): State<Handles>,
    asking: Asking,
    Path(id): Path<String>,
    mut body: Fields,
) -> Result<Response, Problem> {
    let draft = wire::registration_draft(&mut body);
    let faults = body.finish();
    if !faults.is_empty() {
        let content = registrations.faults(&station_directory::station(&id)?, draft);
        return Err(ApiError::Invalid(merged(faults, content)).into());
    }
    let (registration, paths) = spec(draft);
    let asked = asking.request(v1::UpdateStationRequest {
        id: id.clone(),
        registration: Some(registration),
        update_mask: Some(prost_types::FieldMask { paths }),
        allow_missing: true,
    });
    let (_, answer) = answered(stations.update_station(asked).await)?;
    let station = Json(answer.station.unwrap_or_default());
    if !answer.created {
        return Ok(station.into_response());
    }
    let location = format!("/api/v1/stations/{}", segment(&id));
    let mut response = (StatusCode::CREATED, station).into_response();
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// What a draft says, and the names of what it mentions.
fn spec(draft: RegistrationDraft) -> (v1::RegistrationSpec, Vec<String>) {
    let RegistrationDraft {
        password,
        security_profile,
        boot_policy,
    } = draft;
    let mentioned = [
        ("password", password != Field::Absent),
        ("security_profile", security_profile != Field::Absent),
        ("boot_policy", boot_policy != Field::Absent),
    ];
    let mentioned = mentioned.into_iter().filter(|(_, mentioned)| *mentioned);
    let paths = mentioned.map(|(name, _)| name.to_owned()).collect();
    let profile = security_profile.given();
    let spec = v1::RegistrationSpec {
        password: password.given().map(|it| it.expose().to_owned()),
        security_profile: profile.map(|it| u32::try_from(it).unwrap_or(u32::MAX)),
        boot_policy: boot_policy.given(),
    };
    (spec, paths)
}

async fn unregister(
    State(Handles { stations, .. }): State<Handles>,
    asking: Asking,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let asked = asking.request(v1::RemoveStationRequest { id });
    answered(stations.remove_station(asked).await)?;
    Ok(StatusCode::NO_CONTENT)
}

/// An id as a segment of a path (RFC 3986, section 3.3): all but the unreserved is escaped.
fn segment(id: &str) -> String {
    let mut text = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // A string takes all that is written.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

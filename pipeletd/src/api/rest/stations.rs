//! `/stations`: the chargers that have connected, and those that are registered.

use std::fmt::Write as _;

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use pipelet_proto::v1;

use super::{
    super::{
        error::ApiError,
        fields::{Fields, merged},
        grpc,
        station_directory::StationDirectory,
        wire,
    },
    access::{Routes, operates, reads},
    page::{List, Query},
    path::Path,
    problem::Problem,
    services::{self, Asking, answered},
};

#[derive(Clone)]
struct Handles {
    directory: StationDirectory,
    stations: grpc::Stations,
}

pub(super) fn routes(directory: StationDirectory, stations: grpc::Stations) -> Routes {
    Routes::new()
        .route("/stations", [reads(get(list))])
        .route(
            "/stations/{id}",
            [reads(get(show)), operates(put(register).delete(unregister))],
        )
        .with_state(Handles {
            directory,
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
    State(Handles { directory, .. }): State<Handles>,
    Path(id): Path<String>,
    mut body: Fields,
) -> Result<Response, Problem> {
    let draft = wire::registration_draft(&mut body);
    let faults = body.finish();
    if !faults.is_empty() {
        let faults = merged(faults, directory.faults(&id, draft)?);
        return Err(ApiError::Invalid(faults).into());
    }
    let (station, is_new) = directory.put(&id, draft).await?;
    let station = Json(wire::station(station));
    if !is_new {
        return Ok(station.into_response());
    }
    let location = format!("/api/v1/stations/{}", segment(&id));
    let mut response = (StatusCode::CREATED, station).into_response();
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn unregister(
    State(Handles { directory, .. }): State<Handles>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    directory.unregister(&id).await?;
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

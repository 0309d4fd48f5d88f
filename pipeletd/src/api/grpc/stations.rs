//! `StationService`.

use pipelet_domain::{
    registration::RegistrationDraft,
    webhooks::{Field, Secret},
};
use pipelet_proto::v1::{self, station_service_server::StationService};
use tonic::{Request, Response, Status};

use super::{
    super::{
        cursor,
        error::ApiError,
        station_directory::{Listed, StationDirectory},
        wire,
    },
    access::Needs,
    commands,
};
use crate::auth::Role;

pub(super) struct StationRpc {
    pub(super) directory: StationDirectory,
}

/// A new registration says everything that is set.
fn draft(spec: v1::RegistrationSpec) -> RegistrationDraft {
    RegistrationDraft {
        password: given(spec.password.map(Secret::new), Field::Absent),
        security_profile: given(spec.security_profile.map(u64::from), Field::Absent),
        boot_policy: given(spec.boot_policy, Field::Absent),
    }
}

/// A change says what the mask names.
fn masked(spec: v1::RegistrationSpec, paths: &[String]) -> Result<RegistrationDraft, ApiError> {
    let v1::RegistrationSpec {
        password,
        security_profile,
        boot_policy,
    } = spec;
    let full = RegistrationDraft {
        password: given(password.map(Secret::new), Field::Null),
        security_profile: given(security_profile.map(u64::from), Field::Null),
        boot_policy: given(boot_policy, Field::Null),
    };
    let mut draft = RegistrationDraft::default();
    if paths.is_empty() {
        let message = "name the fields to change";
        return Err(ApiError::fault("/update_mask", "required", message));
    }
    for path in paths {
        match path.as_str() {
            "password" => draft.password = full.password.clone(),
            "security_profile" => draft.security_profile = full.security_profile.clone(),
            "boot_policy" => draft.boot_policy = full.boot_policy.clone(),
            other => {
                let message = format!("{other:?} is no field that can be changed");
                return Err(ApiError::fault("/update_mask", "unknown_field", message));
            }
        }
    }
    Ok(draft)
}

fn given<T>(value: Option<T>, otherwise: Field<T>) -> Field<T> {
    value.map_or(otherwise, Field::Value)
}

/// What the caller of each method needs.
pub(super) const NEEDS: Needs = &[
    ("ListStations", Role::ReadOnly),
    ("GetStation", Role::ReadOnly),
    ("Call", Role::Operator),
    ("Disconnect", Role::Operator),
    ("RegisterStation", Role::Operator),
    ("UpdateStation", Role::Operator),
    ("RemoveStation", Role::Operator),
];

#[tonic::async_trait]
impl StationService for StationRpc {
    async fn list_stations(
        &self,
        request: Request<v1::ListStationsRequest>,
    ) -> Result<Response<v1::ListStationsResponse>, Status> {
        let v1::ListStationsRequest {
            page_size,
            page_token,
            connected,
        } = request.into_inner();
        let size = wire::page_size(page_size);
        let after = wire::page_token(&page_token, cursor::to_station).map_err(ApiError::from)?;
        let stations = self.directory.list(after.as_ref(), connected, size + 1);
        let last = |listed: &Listed| cursor::of_station(listed.id());
        let (stations, next_page_token) = wire::page(stations, size, last);
        let stations = stations.into_iter().map(wire::station).collect();
        Ok(Response::new(v1::ListStationsResponse {
            stations,
            next_page_token,
        }))
    }

    async fn get_station(
        &self,
        request: Request<v1::GetStationRequest>,
    ) -> Result<Response<v1::GetStationResponse>, Status> {
        let station = self.directory.get(&request.into_inner().id)?;
        let station = Some(wire::station(station));
        Ok(Response::new(v1::GetStationResponse { station }))
    }

    async fn call(
        &self,
        request: Request<v1::CallRequest>,
    ) -> Result<Response<v1::CallResponse>, Status> {
        let answer = commands::call(self.directory.stations(), request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn disconnect(
        &self,
        request: Request<v1::DisconnectRequest>,
    ) -> Result<Response<v1::DisconnectResponse>, Status> {
        commands::disconnect(self.directory.stations(), &request.into_inner().station_id)?;
        Ok(Response::new(v1::DisconnectResponse {}))
    }

    async fn register_station(
        &self,
        request: Request<v1::RegisterStationRequest>,
    ) -> Result<Response<v1::RegisterStationResponse>, Status> {
        let v1::RegisterStationRequest { id, registration } = request.into_inner();
        let draft = draft(registration.unwrap_or_default());
        let station = self.directory.register(&id, draft).await?;
        let station = Some(wire::station(station));
        Ok(Response::new(v1::RegisterStationResponse { station }))
    }

    async fn update_station(
        &self,
        request: Request<v1::UpdateStationRequest>,
    ) -> Result<Response<v1::UpdateStationResponse>, Status> {
        let v1::UpdateStationRequest {
            id,
            registration,
            update_mask,
        } = request.into_inner();
        let paths = update_mask.unwrap_or_default().paths;
        let draft = masked(registration.unwrap_or_default(), &paths)?;
        let station = self.directory.change(&id, draft).await?;
        let station = Some(wire::station(station));
        Ok(Response::new(v1::UpdateStationResponse { station }))
    }

    async fn remove_station(
        &self,
        request: Request<v1::RemoveStationRequest>,
    ) -> Result<Response<v1::RemoveStationResponse>, Status> {
        self.directory.unregister(&request.into_inner().id).await?;
        Ok(Response::new(v1::RemoveStationResponse {}))
    }
}

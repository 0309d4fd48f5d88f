//! `StationService`.

use pipelet_proto::v1::{self, station_service_server::StationService};
use tonic::{Request, Response, Status};

use super::{
    super::{
        cursor,
        error::ApiError,
        fields::Fields,
        station_directory::{Listed, StationDirectory},
        wire,
    },
    access::Needs,
    commands, request,
};
use crate::auth::Role;

#[derive(Debug)]
pub struct StationRpc {
    pub(super) directory: StationDirectory,
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
        let size = request::page_size(page_size);
        let after = request::page_token(&page_token, cursor::to_station).map_err(ApiError::from)?;
        let stations = self.directory.list(after.as_ref(), connected, size + 1);
        let last = |listed: &Listed| cursor::of_station(listed.id());
        let (stations, next_page_token) = request::page(stations, size, last);
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
        let said = request::said(&registration.unwrap_or_default());
        let draft = wire::registration_draft(&mut request::set(said, &[]));
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
            allow_missing,
        } = request.into_inner();
        let paths = update_mask.unwrap_or_default().paths;
        let said = request::said(&registration.unwrap_or_default());
        let mut named = if paths.is_empty() && allow_missing {
            Fields::default()
        } else {
            request::masked(&said, &paths)?.into()
        };
        let draft = wire::registration_draft(&mut named);
        let (station, created) = if allow_missing {
            self.directory.put(&id, draft).await?
        } else {
            (self.directory.change(&id, draft).await?, false)
        };
        let station = Some(wire::station(station));
        Ok(Response::new(v1::UpdateStationResponse {
            station,
            created,
        }))
    }

    async fn remove_station(
        &self,
        request: Request<v1::RemoveStationRequest>,
    ) -> Result<Response<v1::RemoveStationResponse>, Status> {
        self.directory.unregister(&request.into_inner().id).await?;
        Ok(Response::new(v1::RemoveStationResponse {}))
    }
}

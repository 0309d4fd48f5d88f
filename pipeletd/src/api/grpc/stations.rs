//! `StationService`.

use pipelet_proto::v1::{self, station_service_server::StationService};
use tonic::{Request, Response, Status};

use super::{
    super::{cursor, error::ApiError},
    commands, convert,
};
use crate::{
    events::StationId,
    ocpp::{StationView, Stations},
};

pub(super) struct StationRpc {
    pub(super) stations: Stations,
}

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
        let size = convert::page_size(page_size);
        let after = convert::page_token(&page_token, cursor::to_station).map_err(ApiError::from)?;
        let stations = self.stations.list(after.as_ref(), connected, size + 1);
        let last = |view: &StationView| cursor::of_station(&view.state.id);
        let (stations, next_page_token) = convert::page(stations, size, last);
        let stations = stations.into_iter().map(convert::station).collect();
        Ok(Response::new(v1::ListStationsResponse {
            stations,
            next_page_token,
        }))
    }

    async fn get_station(
        &self,
        request: Request<v1::GetStationRequest>,
    ) -> Result<Response<v1::GetStationResponse>, Status> {
        let id = request.into_inner().id;
        let station = StationId::new(&id)
            .ok()
            .and_then(|id| self.stations.get(&id));
        let station = station.ok_or_else(|| ApiError::NotFound {
            code: "no_such_station",
            message: format!("no station {id:?} has connected yet"),
        })?;
        let station = Some(convert::station(station));
        Ok(Response::new(v1::GetStationResponse { station }))
    }

    async fn call(
        &self,
        request: Request<v1::CallRequest>,
    ) -> Result<Response<v1::CallResponse>, Status> {
        let answer = commands::call(&self.stations, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn disconnect(
        &self,
        request: Request<v1::DisconnectRequest>,
    ) -> Result<Response<v1::DisconnectResponse>, Status> {
        commands::disconnect(&self.stations, &request.into_inner().station_id)?;
        Ok(Response::new(v1::DisconnectResponse {}))
    }
}

//! `StationService` of all shards: each station is of one of them.

use pipelet_proto::v1::{self, station_service_server::StationService};
use tonic::{Request, Response, Status};

use super::{
    super::grpc::{readers, request},
    Front, Shard, asking,
    paging::{self, Page},
};

#[tonic::async_trait]
impl StationService for Front {
    /// By id.
    async fn list_stations(
        &self,
        request: Request<v1::ListStationsRequest>,
    ) -> Result<Response<v1::ListStationsResponse>, Status> {
        let reader = readers::of(&request)?;
        let v1::ListStationsRequest {
            page_size,
            page_token,
            connected,
        } = request.into_inner();
        let size = request::page_size(page_size);
        let fetch = |shard: Shard, size: usize, page_token: String| {
            let asked = v1::ListStationsRequest {
                page_size: paging::size(size),
                page_token,
                connected,
            };
            let asked = asking(Some(&reader), asked);
            async move {
                let page = shard.stations().list_stations(asked).await?.into_inner();
                Ok(Page {
                    items: page.stations,
                    next: page.next_page_token,
                })
            }
        };
        let first = vec![String::new(); self.all.0.count()];
        let shards = self.all.0.as_slice();
        let key = |station: &v1::Station| station.id.clone();
        let page = paging::page(shards, size, &page_token, first, fetch, key);
        let (stations, next_page_token) = page.await?;
        Ok(Response::new(v1::ListStationsResponse {
            stations,
            next_page_token,
        }))
    }

    async fn get_station(
        &self,
        request: Request<v1::GetStationRequest>,
    ) -> Result<Response<v1::GetStationResponse>, Status> {
        let reader = readers::of(&request)?;
        let asked = request.into_inner();
        let mut stations = self.all.of(&asked.id).stations();
        stations.get_station(asking(Some(&reader), asked)).await
    }

    async fn call(
        &self,
        request: Request<v1::CallRequest>,
    ) -> Result<Response<v1::CallResponse>, Status> {
        let reader = readers::of(&request)?;
        let asked = request.into_inner();
        let mut stations = self.all.of(&asked.station_id).stations();
        stations.call(asking(Some(&reader), asked)).await
    }

    async fn disconnect(
        &self,
        request: Request<v1::DisconnectRequest>,
    ) -> Result<Response<v1::DisconnectResponse>, Status> {
        let reader = readers::of(&request)?;
        let asked = request.into_inner();
        let mut stations = self.all.of(&asked.station_id).stations();
        stations.disconnect(asking(Some(&reader), asked)).await
    }

    async fn register_station(
        &self,
        request: Request<v1::RegisterStationRequest>,
    ) -> Result<Response<v1::RegisterStationResponse>, Status> {
        let reader = readers::of(&request)?;
        let asked = request.into_inner();
        let mut stations = self.all.of(&asked.id).stations();
        stations
            .register_station(asking(Some(&reader), asked))
            .await
    }

    async fn update_station(
        &self,
        request: Request<v1::UpdateStationRequest>,
    ) -> Result<Response<v1::UpdateStationResponse>, Status> {
        let reader = readers::of(&request)?;
        let asked = request.into_inner();
        let mut stations = self.all.of(&asked.id).stations();
        stations.update_station(asking(Some(&reader), asked)).await
    }

    async fn remove_station(
        &self,
        request: Request<v1::RemoveStationRequest>,
    ) -> Result<Response<v1::RemoveStationResponse>, Status> {
        let reader = readers::of(&request)?;
        let asked = request.into_inner();
        let mut stations = self.all.of(&asked.id).stations();
        stations.remove_station(asking(Some(&reader), asked)).await
    }
}

//! `StationService` of all shards: each station is of one of them.

use pipelet_proto::v1::{
    self, station_service_client::StationServiceClient, station_service_server::StationService,
};
use tonic::{Request, Response, Status};

use super::{
    super::grpc::readers, First, Front, Shard, asking, channel::ShardChannel, paging::Page,
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
        let fetch = |shard: Shard, page_size, page_token| {
            let asked = v1::ListStationsRequest {
                page_size,
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
        let key = |station: &v1::Station| station.id.clone();
        let page = self
            .all
            .page(page_size, &page_token, First::Lowest, fetch, key);
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
        let (mut shard, asked) = self.of_station(request, |it| &it.id)?;
        shard.get_station(asked).await
    }

    async fn call(
        &self,
        request: Request<v1::CallRequest>,
    ) -> Result<Response<v1::CallResponse>, Status> {
        let (mut shard, asked) = self.of_station(request, |it| &it.station_id)?;
        shard.call(asked).await
    }

    async fn disconnect(
        &self,
        request: Request<v1::DisconnectRequest>,
    ) -> Result<Response<v1::DisconnectResponse>, Status> {
        let (mut shard, asked) = self.of_station(request, |it| &it.station_id)?;
        shard.disconnect(asked).await
    }

    async fn register_station(
        &self,
        request: Request<v1::RegisterStationRequest>,
    ) -> Result<Response<v1::RegisterStationResponse>, Status> {
        let (mut shard, asked) = self.of_station(request, |it| &it.id)?;
        shard.register_station(asked).await
    }

    async fn update_station(
        &self,
        request: Request<v1::UpdateStationRequest>,
    ) -> Result<Response<v1::UpdateStationResponse>, Status> {
        let (mut shard, asked) = self.of_station(request, |it| &it.id)?;
        shard.update_station(asked).await
    }

    async fn remove_station(
        &self,
        request: Request<v1::RemoveStationRequest>,
    ) -> Result<Response<v1::RemoveStationResponse>, Status> {
        let (mut shard, asked) = self.of_station(request, |it| &it.id)?;
        shard.remove_station(asked).await
    }
}

impl Front {
    /// The shard of the station that a request names, and the request to it.
    fn of_station<T>(
        &self,
        request: Request<T>,
        station: impl Fn(&T) -> &str,
    ) -> Result<(StationServiceClient<ShardChannel>, Request<T>), Status> {
        let reader = readers::of(&request)?;
        let asked = request.into_inner();
        let shard = self.all.of(station(&asked));
        Ok((shard.stations(), asking(Some(&reader), asked)))
    }
}

//! `FailedDeliveryService` of all shards.

use std::collections::BTreeMap;

use futures_util::{Stream, StreamExt as _, stream};
use pipelet_domain::deliveries::FailedId;
use pipelet_proto::v1::{
    self, failed_delivery_service_server::FailedDeliveryService, purge_request, replay_request,
};
use tonic::{Code, Request, Response, Status, codegen::BoxStream};

use super::{
    super::{
        error::ApiError,
        grpc::{readers, statuses, validity},
    },
    First, Front, Shard, asking,
    paging::Page,
};

#[tonic::async_trait]
impl FailedDeliveryService for Front {
    type ReplayStream = BoxStream<v1::ReplayResponse>;

    /// By ascending number.
    async fn list_failed_deliveries(
        &self,
        request: Request<v1::ListFailedDeliveriesRequest>,
    ) -> Result<Response<v1::ListFailedDeliveriesResponse>, Status> {
        let reader = readers::of(&request)?;
        let v1::ListFailedDeliveriesRequest {
            filter,
            page_size,
            page_token,
        } = request.into_inner();
        let room = reader.page().await?;
        let fetch = |shard: Shard, page_size, page_token| {
            let asked = self.all.part_of(
                &reader,
                v1::ListFailedDeliveriesRequest {
                    filter: filter.clone(),
                    page_size,
                    page_token,
                },
            );
            async move {
                let page = shard
                    .failed_deliveries()
                    .list_failed_deliveries(asked)
                    .await?
                    .into_inner();
                Ok(Page {
                    items: page.failed_deliveries,
                    next: page.next_page_token,
                })
            }
        };
        let page = self
            .all
            .page(page_size, &page_token, First::Lowest, fetch, |failed| {
                failed.id
            });
        let (failed_deliveries, next_page_token) = page.await?;
        let answer = v1::ListFailedDeliveriesResponse {
            failed_deliveries,
            next_page_token,
        };
        Ok(room.held().within(Response::new(answer)))
    }

    async fn get_failed_delivery(
        &self,
        request: Request<v1::GetFailedDeliveryRequest>,
    ) -> Result<Response<v1::GetFailedDeliveryResponse>, Status> {
        let reader = readers::of(&request)?;
        let room = reader.event().await?;
        let asked = request.into_inner();
        let shard = self.all.0.of_failed(FailedId(asked.id));
        let asked = asking(Some(&reader), asked);
        let found = shard.failed_deliveries().get_failed_delivery(asked).await?;
        Ok(room.held().within(found))
    }

    /// All shards beside each other.
    async fn replay(
        &self,
        request: Request<v1::ReplayRequest>,
    ) -> Result<Response<Self::ReplayStream>, Status> {
        let (validity, reader) = (validity(&request)?, readers::of(&request)?);
        let v1::ReplayRequest { which, unwatched } = request.into_inner();
        let parts = match which.ok_or_else(nothing_selected)? {
            replay_request::Which::Ids(ids) => {
                let parts = self.by_shard(ids);
                let parts = parts.into_iter();
                let parts = parts.map(|(shard, ids)| (shard, replay_request::Which::Ids(ids)));
                parts.collect::<Vec<_>>()
            }
            filter @ replay_request::Which::Filter(_) => {
                let shards = self.all.iter().cloned();
                shards.map(|shard| (shard, filter.clone())).collect()
            }
        };
        let mut begun: Vec<BoxStream<v1::ReplayResponse>> = Vec::new();
        let is_alone = parts.len() == 1;
        for (shard, which) in parts {
            let which = Some(which);
            let asked = asking(Some(&reader), v1::ReplayRequest { which, unwatched });
            // What is wrong with one that is named alone is told before any progress.
            match shard.failed_deliveries().replay(asked).await {
                Ok(told) => begun.push(Box::pin(told.into_inner())),
                Err(status) if !is_alone && is_left_out(&status) => {
                    begun.push(Box::pin(stream::iter([Ok(v1::ReplayResponse {
                        total: 1,
                        skipped: 1,
                        done: true,
                        ..v1::ReplayResponse::default()
                    })])));
                }
                Err(status) => return Err(status),
            }
        }
        let told = added_up(begun).map(|told| told.map_err(ApiError::of_status));
        let told = validity.stream(told);
        Ok(Response::new(Box::pin(statuses(told))))
    }

    async fn purge(
        &self,
        request: Request<v1::PurgeRequest>,
    ) -> Result<Response<v1::PurgeResponse>, Status> {
        let reader = readers::of(&request)?;
        let purged = match request.into_inner().which.ok_or_else(nothing_selected)? {
            purge_request::Which::Ids(ids) => {
                let (mut purged, parts) = (0, self.by_shard(ids));
                let is_alone = parts.len() == 1;
                for (shard, ids) in parts {
                    let which = Some(purge_request::Which::Ids(ids));
                    let asked = asking(Some(&reader), v1::PurgeRequest { which });
                    match shard.failed_deliveries().purge(asked).await {
                        Ok(answer) => purged += answer.into_inner().purged,
                        Err(status) if !is_alone && is_left_out(&status) => {}
                        Err(status) => return Err(status),
                    }
                }
                purged
            }
            filter @ purge_request::Which::Filter(_) => {
                let answers = self.all.each(|shard| {
                    let which = Some(filter.clone());
                    let asked = asking(Some(&reader), v1::PurgeRequest { which });
                    async move { shard.failed_deliveries().purge(asked).await }
                });
                let answers = answers.await?.into_iter();
                answers.map(|answer| answer.into_inner().purged).sum()
            }
        };
        Ok(Response::new(v1::PurgeResponse { purged }))
    }
}

impl Front {
    /// Those of each shard.
    fn by_shard(&self, ids: v1::FailedDeliveryIds) -> Vec<(Shard, v1::FailedDeliveryIds)> {
        let mut parts = BTreeMap::new();
        for id in ids.ids {
            let shard = self.all.0.of_failed(FailedId(id));
            let part = parts.entry(shard.id);
            let (_, part) =
                part.or_insert_with(|| (shard.clone(), v1::FailedDeliveryIds::default()));
            part.ids.push(id);
        }
        parts.into_values().collect()
    }
}

/// Whether that is why one of several dead letters is left as it is: to its shard, it was named alone.
fn is_left_out(status: &Status) -> bool {
    matches!(status.code(), Code::NotFound | Code::FailedPrecondition)
}

fn nothing_selected() -> ApiError {
    ApiError::fault(
        "/which",
        "required",
        "name ids, or a filter; an empty filter means all",
    )
}

/// The progress of all of them; the last is done once all are.
fn added_up(
    begun: Vec<BoxStream<v1::ReplayResponse>>,
) -> impl Stream<Item = Result<v1::ReplayResponse, Status>> + Send {
    let nothing = begun.is_empty().then(|| Ok(sum(&[])));
    let mut last = vec![v1::ReplayResponse::default(); begun.len()];
    let streams = begun.into_iter().enumerate();
    let streams = streams.map(|(which, told)| Box::pin(told.map(move |told| (which, told))));
    let told = stream::select_all(streams).map(move |(which, told)| {
        last[which] = told?;
        Ok(sum(&last))
    });
    told.chain(stream::iter(nothing))
}

fn sum(of_shards: &[v1::ReplayResponse]) -> v1::ReplayResponse {
    let mut sum = v1::ReplayResponse {
        done: true,
        ..v1::ReplayResponse::default()
    };
    for part in of_shards {
        sum.total += part.total;
        sum.replayed += part.replayed;
        sum.delivered += part.delivered;
        sum.failed += part.failed;
        sum.skipped += part.skipped;
        sum.dead += part.dead;
        sum.done &= part.done;
    }
    sum
}

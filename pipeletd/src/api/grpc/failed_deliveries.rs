//! `FailedDeliveryService`.

use pipelet_domain::deliveries::{FailedDelivery, FailedId};
use pipelet_proto::v1::{
    self, failed_delivery_service_server::FailedDeliveryService, purge_request, replay_request,
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, codegen::BoxStream};
use tracing::Instrument as _;

use super::{
    super::{cursor, error::ApiError, wire},
    access::{Needs, validity},
    readers, request,
    status::statuses,
};
use crate::{
    auth::Role,
    delivery::{Delivery, ReplayProgress, Selection},
};

/// Progress that a slow caller may have waiting.
const PROGRESS_QUEUE: usize = 16;

#[derive(Debug)]
pub struct FailedDeliveryRpc {
    pub(super) delivery: Delivery,
}

type Answer<T> = Result<Response<T>, Status>;

fn nothing_selected() -> ApiError {
    ApiError::fault(
        "/which",
        "required",
        "name ids, or a filter; an empty filter means all",
    )
}

impl FailedDeliveryRpc {
    /// What was named alone and isn't there is an error, not a zero.
    async fn named(&self, ids: v1::FailedDeliveryIds) -> Result<Selection, ApiError> {
        if let [only] = ids.ids[..] {
            self.delivery.failed_delivery(FailedId(only)).await?;
        }
        Ok(selection(ids))
    }
}

fn selection(ids: v1::FailedDeliveryIds) -> Selection {
    Selection::Ids(ids.ids.into_iter().map(FailedId).collect())
}

fn progress(progress: ReplayProgress, done: bool) -> v1::ReplayResponse {
    let ReplayProgress {
        total,
        replayed,
        delivered,
        failed,
        dead,
        skipped,
    } = progress;
    v1::ReplayResponse {
        total,
        replayed,
        delivered,
        failed,
        dead,
        skipped,
        done,
    }
}

/// What the caller of each method needs.
pub(super) const NEEDS: Needs = &[
    ("ListFailedDeliveries", Role::ReadOnly),
    ("GetFailedDelivery", Role::ReadOnly),
    ("Replay", Role::Operator),
    ("Purge", Role::Operator),
];

#[tonic::async_trait]
impl FailedDeliveryService for FailedDeliveryRpc {
    type ReplayStream = BoxStream<v1::ReplayResponse>;

    async fn list_failed_deliveries(
        &self,
        request: Request<v1::ListFailedDeliveriesRequest>,
    ) -> Answer<v1::ListFailedDeliveriesResponse> {
        let reader = readers::of(&request)?;
        let v1::ListFailedDeliveriesRequest {
            filter,
            page_size,
            page_token,
        } = request.into_inner();
        let filter = request::filter(filter.unwrap_or_default())?;
        let size = request::page_size(page_size);
        let after = request::page_token(&page_token, cursor::to_number).map_err(ApiError::from)?;
        let room = reader.page().await?;
        let failed = self
            .delivery
            .failed_deliveries(filter, after.map(FailedId), reader.limit(size + 1))
            .await
            .map_err(ApiError::from)?;
        let room = room.down_to(failed.items.iter().map(FailedDelivery::memory_size));
        let last = |failed: &FailedDelivery| cursor::of_number(failed.id.0);
        let (failed, next_page_token) = request::page_part(failed, size, last);
        let answer = v1::ListFailedDeliveriesResponse {
            failed_deliveries: failed.into_iter().map(wire::failed).collect(),
            next_page_token,
        };
        Ok(room.held().within(Response::new(answer)))
    }

    async fn get_failed_delivery(
        &self,
        request: Request<v1::GetFailedDeliveryRequest>,
    ) -> Answer<v1::GetFailedDeliveryResponse> {
        let room = readers::of(&request)?.event().await?;
        let id = FailedId(request.into_inner().id);
        let failed = self
            .delivery
            .failed_delivery(id)
            .await
            .map_err(ApiError::from)?;
        let room = room.down_to([failed.memory_size()].into_iter());
        let failed_delivery = Some(wire::failed(failed));
        let answer = v1::GetFailedDeliveryResponse { failed_delivery };
        Ok(room.held().within(Response::new(answer)))
    }

    async fn replay(&self, request: Request<v1::ReplayRequest>) -> Answer<Self::ReplayStream> {
        let validity = validity(&request)?;
        let v1::ReplayRequest { which, unwatched } = request.into_inner();
        let selection = match which {
            Some(replay_request::Which::Ids(ids)) => {
                if let [only] = ids.ids[..] {
                    let checked = self.delivery.check_replay(FailedId(only)).await;
                    checked.map_err(ApiError::from)?;
                }
                selection(ids)
            }
            Some(replay_request::Which::Filter(filter)) => request::filter(filter)?.into(),
            None => return Err(nothing_selected().into()),
        };
        let (told, progressing) = mpsc::channel(PROGRESS_QUEUE);
        let (ended, end) = mpsc::channel(1);
        let delivery = self.delivery.clone();
        // Its own end is awaited by the delivery's tracker; the stream only listens.
        let replaying = async move {
            let result = delivery
                .replay(selection, (!unwatched).then_some(told))
                .await;
            let last = result.map(|state| progress(state, true));
            // A caller that has hung up doesn't want to know.
            let _ = ended.send(last.map_err(ApiError::from)).await;
        };
        // Under the id of the request that asks for it.
        tokio::spawn(replaying.in_current_span());
        let updates = ReceiverStream::new(progressing).map(|state| Ok(progress(state, false)));
        let told = validity.stream(updates.chain(ReceiverStream::new(end)));
        Ok(Response::new(Box::pin(statuses(told))))
    }

    async fn purge(&self, request: Request<v1::PurgeRequest>) -> Answer<v1::PurgeResponse> {
        let selection = match request.into_inner().which {
            Some(purge_request::Which::Ids(ids)) => self.named(ids).await?,
            Some(purge_request::Which::Filter(filter)) => request::filter(filter)?.into(),
            None => return Err(nothing_selected().into()),
        };
        let purged = self
            .delivery
            .purge(selection)
            .await
            .map_err(ApiError::from)?;
        Ok(Response::new(v1::PurgeResponse { purged }))
    }
}

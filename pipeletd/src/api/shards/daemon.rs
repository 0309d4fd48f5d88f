//! `DaemonService` of a node: its own state, and what all shards tell.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use pipelet_proto::v1::{self, daemon_service_server::DaemonService};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{
    super::grpc::{backed_up, validity},
    Front, asking, deliverers,
};
use crate::registries::Caller;

#[tonic::async_trait]
impl DaemonService for Front {
    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let caller = request.extensions().get::<Caller>();
        let told = self.all.each(|shard| {
            let asked = asking(None, v1::GetStatusRequest {});
            async move { shard.daemon().get_status(asked).await }
        });
        let mut sum = v1::GetStatusResponse::default();
        for of_shard in told.await? {
            let of_shard = of_shard.into_inner();
            sum.stations_connected += of_shard.stations_connected;
            sum.stations_known += of_shard.stations_known;
            // The same in each.
            sum.webhooks = sum.webhooks.max(of_shard.webhooks);
            sum.webhooks_enabled = sum.webhooks_enabled.max(of_shard.webhooks_enabled);
            sum.journal_head += of_shard.journal_head;
            sum.journal_tail += of_shard.journal_tail;
            sum.deliveries_pending += of_shard.deliveries_pending;
            sum.failed_deliveries += of_shard.failed_deliveries;
            sum.unstable_stations.extend(of_shard.unstable_stations);
        }
        sum.unstable_stations.sort_by_key(|it| Reverse(it.count));
        Ok(Response::new(self.daemon.status(caller, sum).await))
    }

    async fn get_overview(
        &self,
        _: Request<v1::GetOverviewRequest>,
    ) -> Result<Response<v1::GetOverviewResponse>, Status> {
        let told = self.all.each(|shard| {
            let asked = asking(None, v1::GetOverviewRequest {});
            async move { shard.daemon().get_overview(asked).await }
        });
        let mut sum = v1::GetOverviewResponse::default();
        let (mut events, mut webhooks) = (BTreeMap::new(), BTreeMap::new());
        for of_shard in told.await? {
            let of_shard = of_shard.into_inner();
            sum.stations_connected += of_shard.stations_connected;
            sum.failed_deliveries += of_shard.failed_deliveries;
            sum.unstable_stations.extend(of_shard.unstable_stations);
            for counted in of_shard.events {
                *events.entry(counted.event).or_default() += counted.count;
            }
            for webhook in of_shard.webhooks {
                let known: &mut Vec<_> = webhooks.entry(webhook.id).or_default();
                known.push(webhook);
            }
        }
        sum.unstable_stations.sort_by_key(|it| Reverse(it.count));
        let events = events.into_iter();
        let events = events.map(|(event, count)| v1::EventCount { event, count });
        sum.events = events.collect();
        sum.webhooks = webhooks.into_values().filter_map(added_up).collect();
        Ok(Response::new(self.daemon.overview(sum)))
    }

    type BackUpStream = BoxStream<v1::BackUpResponse>;

    async fn back_up(
        &self,
        request: Request<v1::BackUpRequest>,
    ) -> Result<Response<Self::BackUpStream>, Status> {
        let validity = validity(&request)?;
        Ok(backed_up(validity, Arc::new(self.backup())))
    }
}

/// One webhook, as its shards tell of it.
fn added_up(of_shards: Vec<v1::WebhookOverview>) -> Option<v1::WebhookOverview> {
    let healths = of_shards.iter().filter_map(|it| it.health.clone());
    let health = deliverers::health(healths);
    let mut of_shards = of_shards.into_iter();
    let mut sum = of_shards.next()?;
    for of_shard in of_shards {
        let stats = sum.stats.get_or_insert_default();
        deliverers::add(stats, &of_shard.stats.unwrap_or_default());
        let next = [sum.next_retry_at, of_shard.next_retry_at];
        let next = next.into_iter().flatten();
        sum.next_retry_at = next.min_by_key(|it| (it.seconds, it.nanos));
        sum.in_flight += of_shard.in_flight;
        sum.attempts += of_shard.attempts;
        sum.attempts_delivered += of_shard.attempts_delivered;
        for (sum, count) in sum.latency_buckets.iter_mut().zip(of_shard.latency_buckets) {
            *sum += count;
        }
    }
    sum.health = Some(health);
    Some(sum)
}

//! What all shards deliver to webhooks.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
};

use pipelet_proto::v1;
use tonic::{Request, Response};

use super::{
    super::grpc::{Answer, Deliveries, readers},
    First, Front, Shard, asking, deliverers,
    paging::Page,
};

#[tonic::async_trait]
impl Deliveries for Front {
    async fn retry(
        &self,
        request: Request<v1::RetryDeliveriesRequest>,
    ) -> Answer<v1::RetryDeliveriesResponse> {
        let reader = readers::of(&request)?;
        let asked = request.into_inner();
        let told = self.all.each(|shard| {
            let asked = asking(Some(&reader), asked);
            async move { shard.webhooks().retry_deliveries(asked).await }
        });
        let mut sum = v1::RetryDeliveriesResponse {
            ended: true,
            ..v1::RetryDeliveriesResponse::default()
        };
        for of_shard in told.await? {
            let of_shard = of_shard.into_inner();
            sum.retrying += of_shard.retrying;
            sum.delivered += of_shard.delivered;
            sum.failed += of_shard.failed;
            sum.ended &= of_shard.ended;
        }
        if !sum.ended {
            (sum.delivered, sum.failed) = (0, 0);
        }
        Ok(Response::new(sum))
    }

    /// What waits for a retry, by due time, then the latest that were settled.
    async fn list(
        &self,
        request: Request<v1::ListDeliveriesRequest>,
    ) -> Answer<v1::ListDeliveriesResponse> {
        let reader = readers::of(&request)?;
        let v1::ListDeliveriesRequest {
            webhook_id,
            page_size,
            page_token,
            status,
        } = request.into_inner();
        let room = reader.page().await?;
        let fetch = |shard: Shard, page_size, page_token| {
            let asked = self.all.part_of(
                &reader,
                v1::ListDeliveriesRequest {
                    webhook_id,
                    page_size,
                    page_token,
                    status: status.clone(),
                },
            );
            async move {
                let page = shard.webhooks().list_deliveries(asked).await?.into_inner();
                Ok(Page {
                    items: page.deliveries,
                    next: page.next_page_token,
                })
            }
        };
        let time = |time: Option<prost_types::Timestamp>| time.map(|it| (it.seconds, it.nanos));
        let key = |delivery: &v1::Delivery| {
            let last = delivery.attempts.last().and_then(|attempt| attempt.at);
            (
                delivery.status != "pending",
                time(delivery.next_attempt_at),
                Reverse(time(last)),
            )
        };
        let page = self
            .all
            .page(page_size, &page_token, First::Lowest, fetch, key);
        let (deliveries, next_page_token) = page.await?;
        let answer = v1::ListDeliveriesResponse {
            deliveries,
            next_page_token,
        };
        Ok(room.held().within(Response::new(answer)))
    }

    /// The books add up, and of each shard they balance, too: the first that doesn't is named.
    async fn audit(
        &self,
        request: Request<v1::AuditWebhooksRequest>,
    ) -> Answer<v1::AuditWebhooksResponse> {
        let reader = readers::of(&request)?;
        let asked = request.into_inner();
        let told = self.all.each(|shard| {
            let asked = asking(Some(&reader), asked);
            async move {
                let audit = shard.webhooks().audit_webhooks(asked).await;
                match audit {
                    // It has not taken it up yet, or has archived it.
                    Err(status) if status.code() == tonic::Code::NotFound => Ok(Err(status)),
                    audit => audit.map(|audit| Ok((shard.id, audit.into_inner()))),
                }
            }
        });
        let mut webhooks: BTreeMap<u64, v1::WebhookAudit> = BTreeMap::new();
        let mut forgotten: Option<v1::ForgottenWebhooks> = None;
        let (mut missing, mut is_found) = (None, false);
        for audit in told.await? {
            let (shard, audit) = match audit {
                Ok(audit) => audit,
                Err(status) => {
                    missing = Some(status);
                    continue;
                }
            };
            is_found = true;
            for of_shard in audit.webhooks {
                add(&mut webhooks, of_shard, shard.0.into());
            }
            if let Some(of_shard) = audit.forgotten {
                let sum = forgotten.get_or_insert_default();
                // The same ones in each.
                sum.webhooks = sum.webhooks.max(of_shard.webhooks);
                let stats = sum.stats.get_or_insert_default();
                deliverers::add(stats, &of_shard.stats.unwrap_or_default());
            }
        }
        match missing {
            Some(status) if !is_found => Err(status),
            _ => Ok(Response::new(v1::AuditWebhooksResponse {
                webhooks: webhooks.into_values().collect(),
                forgotten,
            })),
        }
    }
}

fn add(webhooks: &mut BTreeMap<u64, v1::WebhookAudit>, of_shard: v1::WebhookAudit, shard: u32) {
    let is_even = balances(&of_shard);
    let sum = match webhooks.entry(of_shard.id) {
        Entry::Vacant(place) => place.insert(of_shard),
        Entry::Occupied(place) => {
            let sum = place.into_mut();
            // It is so as long as it is so in one.
            if of_shard.state == "deleting" {
                sum.state.clone_from(&of_shard.state);
            }
            sum.stats = both(sum.stats, of_shard.stats, deliverers::add);
            sum.since = both(sum.since, of_shard.since, deliverers::add);
            let kept = |sum: &mut v1::KeptDeliveries, of_shard: &v1::KeptDeliveries| {
                sum.retries += of_shard.retries;
                sum.failed_deliveries += of_shard.failed_deliveries;
            };
            sum.booked = both(sum.booked, of_shard.booked, kept);
            sum.kept = both(sum.kept, of_shard.kept, kept);
            sum.backfilled += of_shard.backfilled;
            let from = [sum.since_counted_from, of_shard.since_counted_from];
            let from = from.into_iter().flatten();
            sum.since_counted_from = from.max_by_key(|it| (it.seconds, it.nanos));
            sum
        }
    };
    if !is_even {
        sum.unbalanced_shards.push(shard);
    }
}

/// Their sum, where both are known.
fn both<T>(sum: Option<T>, of_shard: Option<T>, add: impl Fn(&mut T, &T)) -> Option<T> {
    let (mut sum, of_shard) = (sum?, of_shard?);
    add(&mut sum, &of_shard);
    Some(sum)
}

fn balances(audit: &v1::WebhookAudit) -> bool {
    let is_even = audit
        .stats
        .is_none_or(|it| it.received == it.delivered + it.pending + it.dead + it.cancelled);
    is_even && (audit.booked.is_none() || audit.booked == audit.kept)
}

//! Webhooks, as all shards deliver to them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use axum::http::Method;
use futures_util::future::join_all;
use pipelet_domain::{deliveries::StoredWebhook, webhooks::WebhookId};
use pipelet_proto::v1;
use tonic::Code;

use super::{
    super::{
        MAX_PAGE, cursor,
        error::ApiError,
        webhooks::{Change, Deliverers, Figures, TakenUp},
        wire,
    },
    AllShards, Shard, asking, internal,
};
use crate::delivery::health::Health;

/// How long a caller waits for a shard that no node owns. It follows later.
const PATIENCE: Duration = Duration::from_secs(2);

#[tonic::async_trait]
impl Deliverers for AllShards {
    fn check(&self, _: Change) -> Result<(), ApiError> {
        Ok(())
    }

    async fn take_up(&self, id: WebhookId) -> Result<TakenUp, ApiError> {
        let path = internal::take_up(id);
        let taking = self.iter().map(|shard| async {
            let channel = shard.within(PATIENCE).channel;
            (shard.id, channel.fetch(Method::POST, &path).await)
        });
        let mut taken = TakenUp::default();
        for (shard, answer) in join_all(taking).await {
            match answer {
                Ok(cancelled) => {
                    let cancelled = String::from_utf8_lossy(&cancelled).parse();
                    taken.cancelled += cancelled.unwrap_or(0);
                }
                Err(ApiError::Unavailable(_)) => taken.absent.push(shard.0.into()),
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    async fn figures(&self, webhooks: &[Arc<StoredWebhook>]) -> Result<Vec<Figures>, ApiError> {
        let ids: Vec<_> = webhooks.iter().map(|stored| stored.webhook.id).collect();
        let told = self.iter().map(|shard| async {
            let told = of_shard(&shard.within(PATIENCE), &ids).await;
            (u32::from(shard.id.0), told)
        });
        let mut figures = vec![Vec::new(); ids.len()];
        let mut absent = vec![Vec::new(); ids.len()];
        for (shard, told) in join_all(told).await {
            let mut told = match told {
                Ok(told) => told,
                Err(status) if status.code() == Code::Unavailable => HashMap::new(),
                Err(status) => return Err(ApiError::of_status(status)),
            };
            for (index, id) in ids.iter().enumerate() {
                match told.remove(&id.0) {
                    Some(webhook) if webhook.absent_shards.is_empty() => {
                        figures[index].push(webhook);
                    }
                    Some(_) | None => absent[index].push(shard),
                }
            }
        }
        if absent.iter().any(|absent| absent.len() == self.0.count()) {
            let why = "no shard can be asked now, try again";
            return Err(ApiError::Unavailable(why.to_owned()));
        }
        let figures = figures.into_iter().zip(absent);
        Ok(figures
            .map(|(of_shards, absent)| merged(of_shards, absent))
            .collect())
    }

    async fn audited(&self) -> Result<BTreeSet<WebhookId>, ApiError> {
        let audits = self.each(|shard| {
            let asked = asking(None, v1::AuditWebhooksRequest::default());
            async move { shard.webhooks().audit_webhooks(asked).await }
        });
        let audits = audits.await.map_err(ApiError::of_status)?;
        let audited = audits
            .into_iter()
            .flat_map(|audit| audit.into_inner().webhooks);
        Ok(audited.map(|audited| WebhookId(audited.id)).collect())
    }
}

/// What a shard tells of these webhooks, which are in the order of their ids.
async fn of_shard(
    shard: &Shard,
    ids: &[WebhookId],
) -> Result<HashMap<u64, v1::Webhook>, tonic::Status> {
    let mut told = HashMap::new();
    if let [id] = ids {
        let asked = asking(None, v1::GetWebhookRequest { id: id.0 });
        let answer = shard.webhooks().get_webhook(asked).await;
        match answer {
            Ok(answer) => told.extend(answer.into_inner().webhook.map(|it| (it.id, it))),
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => return Err(status),
        }
    }
    for ids in ids.chunks(MAX_PAGE).filter(|_| ids.len() > 1) {
        let before = ids.first().map_or(0, |first| first.0.saturating_sub(1));
        let asked = asking(
            None,
            v1::ListWebhooksRequest {
                page_size: u32::try_from(ids.len()).unwrap_or(u32::MAX),
                page_token: cursor::of_number(before),
            },
        );
        let answer = shard.webhooks().list_webhooks(asked).await?.into_inner();
        told.extend(answer.webhooks.into_iter().map(|it| (it.id, it)));
    }
    Ok(told)
}

fn merged(of_shards: Vec<v1::Webhook>, absent: Vec<u32>) -> Figures {
    let mut figures = Figures {
        absent,
        ..Figures::default()
    };
    let mut healths = Vec::new();
    for webhook in of_shards {
        add(&mut figures.stats, &webhook.stats.unwrap_or_default());
        healths.push(webhook.health.unwrap_or_default());
    }
    figures.health = health(healths.into_iter());
    figures
}

pub(super) fn add(sum: &mut v1::WebhookStats, of_shard: &v1::WebhookStats) {
    let v1::WebhookStats {
        received,
        delivered,
        pending,
        retrying,
        dead,
        purged,
        cancelled,
    } = of_shard;
    sum.received += received;
    sum.delivered += delivered;
    sum.pending += pending;
    sum.retrying += retrying;
    sum.dead += dead;
    sum.purged += purged;
    sum.cancelled += cancelled;
}

/// How a webhook is doing, as all shards tell.
pub(super) fn health(of_shards: impl Iterator<Item = v1::WebhookHealth>) -> v1::WebhookHealth {
    let of_shards = of_shards.map(|health| wire::health_of(&health));
    wire::health(&of_shards.reduce(Health::plus).unwrap_or_default())
}

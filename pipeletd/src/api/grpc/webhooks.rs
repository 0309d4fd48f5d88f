//! `WebhookService`.

use std::{collections::BTreeMap, time::Duration};

use pipelet_domain::webhooks::{Secret, WebhookId};
use pipelet_proto::v1::{self, webhook_service_server::WebhookService};
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use super::{
    super::{
        cursor,
        error::ApiError,
        fields::Fields,
        signing_secret,
        webhooks::{Shown, Webhooks},
        wire,
    },
    access::Needs,
    readers, request,
};
use crate::{
    auth::Role,
    delivery::{self, Delivery, Listed, RetriedNow},
    registries::IfRevision,
};

/// Webhooks over their lives, and what is delivered to them.
#[derive(Debug)]
pub struct WebhookRpc<D> {
    pub(in crate::api) webhooks: Webhooks,
    pub(in crate::api) deliveries: D,
}

/// What is delivered: by some shards, or by all.
#[tonic::async_trait]
pub trait Deliveries: Send + Sync + 'static {
    async fn retry(
        &self,
        request: Request<v1::RetryDeliveriesRequest>,
    ) -> Answer<v1::RetryDeliveriesResponse>;

    async fn list(
        &self,
        request: Request<v1::ListDeliveriesRequest>,
    ) -> Answer<v1::ListDeliveriesResponse>;

    async fn audit(
        &self,
        request: Request<v1::AuditWebhooksRequest>,
    ) -> Answer<v1::AuditWebhooksResponse>;
}

/// By the shards of this process.
#[derive(Debug)]
pub struct OwnDeliveries(pub(super) Delivery);

pub(in crate::api) type Answer<T> = Result<Response<T>, Status>;

/// How long the answer waits for what came of retries that were asked for.
const RETRY_PATIENCE: Duration = Duration::from_secs(3);
const MOST_RETRY_PATIENCE: Duration = Duration::from_mins(1);

/// What the caller of each method needs.
pub(super) const NEEDS: Needs = &[
    ("CreateWebhook", Role::Operator),
    ("GetWebhook", Role::ReadOnly),
    ("ListWebhooks", Role::ReadOnly),
    ("UpdateWebhook", Role::Operator),
    ("DeleteWebhook", Role::Operator),
    ("TestWebhook", Role::Operator),
    ("RetryDeliveries", Role::Operator),
    ("RotateSigningSecret", Role::Operator),
    ("ListDeliveries", Role::ReadOnly),
    ("AuditWebhooks", Role::ReadOnly),
];

#[tonic::async_trait]
impl<D: Deliveries> WebhookService for WebhookRpc<D> {
    async fn create_webhook(
        &self,
        request: Request<v1::CreateWebhookRequest>,
    ) -> Answer<v1::CreateWebhookResponse> {
        let spec = request.into_inner().webhook.unwrap_or_default();
        let mut fields = request::set(request::said(&spec), &["name", "url"]);
        let (draft, made) = wire::webhook_draft(&mut fields)?;
        let created = self.webhooks.create(draft).await?;
        let answer = wire::webhook_and_secret(&created, made.as_ref());
        Ok(Response::new(answer))
    }

    async fn get_webhook(
        &self,
        request: Request<v1::GetWebhookRequest>,
    ) -> Answer<v1::GetWebhookResponse> {
        let id = WebhookId(request.into_inner().id);
        let webhook = Some(self.webhooks.get(id).await?.message());
        Ok(Response::new(v1::GetWebhookResponse { webhook }))
    }

    async fn list_webhooks(
        &self,
        request: Request<v1::ListWebhooksRequest>,
    ) -> Answer<v1::ListWebhooksResponse> {
        let v1::ListWebhooksRequest {
            page_size,
            page_token,
        } = request.into_inner();
        let size = request::page_size(page_size);
        let after = request::page_token(&page_token, cursor::to_number).map_err(ApiError::from)?;
        let webhooks = self.webhooks.list(after.map(WebhookId), size + 1).await?;
        let last = |shown: &Shown| cursor::of_number(shown.webhook().id.0);
        let (webhooks, next_page_token) = request::page(webhooks, size, last);
        let webhooks = webhooks.iter().map(Shown::message).collect();
        Ok(Response::new(v1::ListWebhooksResponse {
            webhooks,
            next_page_token,
        }))
    }

    async fn update_webhook(
        &self,
        request: Request<v1::UpdateWebhookRequest>,
    ) -> Answer<v1::UpdateWebhookResponse> {
        let v1::UpdateWebhookRequest {
            id,
            webhook,
            update_mask,
        } = request.into_inner();
        let paths = update_mask.unwrap_or_default().paths;
        let spec = webhook.unwrap_or_default();
        let (draft, made) = wire::webhook_draft(&mut change(&spec, &paths)?)?;
        let updated = self
            .webhooks
            .update(WebhookId(id), draft, IfRevision::Any)
            .await?;
        let v1::CreateWebhookResponse {
            webhook,
            signing_secret,
        } = wire::webhook_and_secret(&updated, made.as_ref());
        Ok(Response::new(v1::UpdateWebhookResponse {
            webhook,
            signing_secret,
        }))
    }

    async fn retry_deliveries(
        &self,
        request: Request<v1::RetryDeliveriesRequest>,
    ) -> Answer<v1::RetryDeliveriesResponse> {
        self.deliveries.retry(request).await
    }

    async fn rotate_signing_secret(
        &self,
        request: Request<v1::RotateSigningSecretRequest>,
    ) -> Answer<v1::RotateSigningSecretResponse> {
        let v1::RotateSigningSecretRequest { id, signing_secret } = request.into_inner();
        let given = signing_secret.map(Secret::new);
        let (new, made) = signing_secret::given_or_made(given)?;
        let rotated = self
            .webhooks
            .rotate_signing_secret(WebhookId(id), new, IfRevision::Any);
        let rotated = rotated.await?;
        let v1::CreateWebhookResponse {
            webhook,
            signing_secret,
        } = wire::webhook_and_secret(&rotated, made.as_ref());
        Ok(Response::new(v1::RotateSigningSecretResponse {
            webhook,
            signing_secret,
        }))
    }

    async fn delete_webhook(
        &self,
        request: Request<v1::DeleteWebhookRequest>,
    ) -> Answer<v1::DeleteWebhookResponse> {
        let id = WebhookId(request.into_inner().id);
        let cancelled = self.webhooks.delete(id, IfRevision::Any).await?;
        Ok(Response::new(v1::DeleteWebhookResponse { cancelled }))
    }

    async fn test_webhook(
        &self,
        request: Request<v1::TestWebhookRequest>,
    ) -> Answer<v1::TestWebhookResponse> {
        let v1::TestWebhookRequest { id, event } = request.into_inner();
        let kind = event
            .map(|name| request::event_type(&name, "/event"))
            .transpose()?;
        let result = self.webhooks.test(WebhookId(id), kind).await?;
        Ok(Response::new(wire::test_result(result)))
    }

    async fn list_deliveries(
        &self,
        request: Request<v1::ListDeliveriesRequest>,
    ) -> Answer<v1::ListDeliveriesResponse> {
        self.deliveries.list(request).await
    }

    async fn audit_webhooks(
        &self,
        request: Request<v1::AuditWebhooksRequest>,
    ) -> Answer<v1::AuditWebhooksResponse> {
        self.deliveries.audit(request).await
    }
}

#[tonic::async_trait]
impl Deliveries for OwnDeliveries {
    async fn retry(
        &self,
        request: Request<v1::RetryDeliveriesRequest>,
    ) -> Answer<v1::RetryDeliveriesResponse> {
        let v1::RetryDeliveriesRequest { id, wait } = request.into_inner();
        let wait = wait.map_or(RETRY_PATIENCE, |wait| {
            let wait = Duration::try_from(wait).unwrap_or(Duration::ZERO);
            wait.min(MOST_RETRY_PATIENCE)
        });
        let begun = self.0.retry_now(WebhookId(id)).await;
        let (retrying, told) = begun.map_err(ApiError::from)?;
        let ended = timeout(wait, told).await.ok().flatten();
        let RetriedNow { delivered, failed } = ended.unwrap_or_default();
        Ok(Response::new(v1::RetryDeliveriesResponse {
            retrying,
            delivered,
            failed,
            ended: ended.is_some(),
        }))
    }

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
        let id = WebhookId(webhook_id);
        let only = self::status(&status)?;
        let size = request::page_size(page_size);
        let after = request::page_token(&page_token, |text| cursor::to_delivery(id, text))
            .map_err(ApiError::from)?;
        let room = reader.page().await?;
        let limit = reader.limit(size + 1);
        let deliveries = self.0.deliveries(id, only, after, limit).await;
        let deliveries = deliveries.map_err(ApiError::from)?;
        let room = room.down_to(deliveries.items.iter().map(Listed::memory_size));
        let last = |last: &Listed| cursor::of_delivery(last.place());
        let (deliveries, next_page_token) = request::page_part(deliveries, size, last);
        let deliveries = deliveries.into_iter().map(|listed| match listed {
            Listed::Waiting(retry) => {
                let due = self.0.due_at(retry.key);
                wire::retry(retry, due)
            }
            Listed::Settled(settled) => wire::settled(settled),
        });
        let deliveries = deliveries.collect();
        let answer = v1::ListDeliveriesResponse {
            deliveries,
            next_page_token,
        };
        Ok(room.held().within(Response::new(answer)))
    }

    async fn audit(
        &self,
        request: Request<v1::AuditWebhooksRequest>,
    ) -> Answer<v1::AuditWebhooksResponse> {
        let request = request.into_inner();
        let only = request.webhook_id.map(WebhookId);
        let since = request
            .since
            .map(|since| request::from_time(since, "/since"));
        let since = since.transpose()?;
        let audit = self.0.audit(only).await.map_err(ApiError::from)?;
        let lately = match since {
            Some(since) => self.0.since(since, only).await,
            None => Ok(BTreeMap::new()),
        };
        let lately = lately.map_err(ApiError::from)?;
        Ok(Response::new(wire::audit(audit, &lately)))
    }
}

/// What a change says. The mask says by the secret's name that one is to be made.
fn change(spec: &v1::WebhookSpec, paths: &[String]) -> Result<Fields, ApiError> {
    const SECRET: &str = "signing_secret";
    const GENERATE: &str = "generate_signing_secret";
    let mut said = request::said(spec);
    let generate = said.remove(GENERATE);
    let mut named = request::masked(&said, paths)?;
    if spec.generate_signing_secret && named.remove(SECRET).is_some() {
        named.extend(generate.map(|generate| (GENERATE.to_owned(), generate)));
    }
    Ok(named.into())
}

/// Which deliveries a caller asks for.
fn status(name: &str) -> Result<Option<delivery::Status>, ApiError> {
    Ok(Some(match name {
        "" => return Ok(None),
        "pending" => delivery::Status::Pending,
        "delivered" => delivery::Status::Delivered,
        "dead" => delivery::Status::Dead,
        _ => {
            let message = "must be \"pending\", \"delivered\" or \"dead\"";
            return Err(ApiError::fault("/status", "unknown_status", message));
        }
    }))
}

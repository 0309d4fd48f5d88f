//! `ApiKeyService`.

use std::time::Duration;

use pipelet_proto::v1::{self, api_key_service_server::ApiKeyService};
use tonic::{Request, Response, Status};

use super::{
    super::{
        error::ApiError,
        keys::{ApiKeys, KeyDraft},
        wire,
    },
    access::Needs,
};
use crate::{auth::Role, system::clock::Clock};

pub(super) struct ApiKeyRpc {
    pub(super) keys: ApiKeys,
    pub(super) clock: Clock,
}

/// What the caller of each method needs.
pub(super) const NEEDS: Needs = &[
    ("CreateApiKey", Role::Admin),
    ("ListApiKeys", Role::Admin),
    ("RevokeApiKey", Role::Admin),
];

#[tonic::async_trait]
impl ApiKeyService for ApiKeyRpc {
    async fn create_api_key(
        &self,
        request: Request<v1::CreateApiKeyRequest>,
    ) -> Result<Response<v1::CreateApiKeyResponse>, Status> {
        let v1::CreateApiKeyRequest {
            name,
            role,
            expires_in,
        } = request.into_inner();
        let expires_in = expires_in.map(Duration::try_from).transpose();
        let expires_in = expires_in.map_err(|_| {
            let message = "it is a time from now on, and not before";
            ApiError::fault("/expires_in", "invalid_duration", message)
        })?;
        let draft = KeyDraft {
            name,
            role,
            expires_in,
        };
        let (info, key) = self.keys.create(draft).await?;
        let key = key.expose().to_owned();
        Ok(Response::new(v1::CreateApiKeyResponse {
            api_key: Some(wire::api_key(info, self.clock.now())),
            key,
        }))
    }

    async fn list_api_keys(
        &self,
        _: Request<v1::ListApiKeysRequest>,
    ) -> Result<Response<v1::ListApiKeysResponse>, Status> {
        let now = self.clock.now();
        let keys = self.keys.list().into_iter();
        let api_keys = keys.map(|key| wire::api_key(key, now)).collect();
        Ok(Response::new(v1::ListApiKeysResponse { api_keys }))
    }

    async fn revoke_api_key(
        &self,
        request: Request<v1::RevokeApiKeyRequest>,
    ) -> Result<Response<v1::RevokeApiKeyResponse>, Status> {
        self.keys.revoke(request.into_inner().id).await?;
        Ok(Response::new(v1::RevokeApiKeyResponse {}))
    }
}

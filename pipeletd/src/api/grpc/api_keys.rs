//! `ApiKeyService`.

use pipelet_proto::v1::{self, api_key_service_server::ApiKeyService};
use tonic::{Request, Response, Status};

use super::{super::keys::ApiKeys, convert};
use crate::auth::ApiKeyInfo;

pub(super) struct ApiKeyRpc {
    pub(super) keys: ApiKeys,
}

fn api_key(key: ApiKeyInfo) -> v1::ApiKey {
    v1::ApiKey {
        id: key.id,
        name: key.name,
        created_at: Some(convert::time(key.created_at)),
    }
}

#[tonic::async_trait]
impl ApiKeyService for ApiKeyRpc {
    async fn create_api_key(
        &self,
        request: Request<v1::CreateApiKeyRequest>,
    ) -> Result<Response<v1::CreateApiKeyResponse>, Status> {
        let (info, key) = self.keys.create(&request.into_inner().name).await?;
        let key = key.expose().to_owned();
        Ok(Response::new(v1::CreateApiKeyResponse {
            api_key: Some(api_key(info)),
            key,
        }))
    }

    async fn list_api_keys(
        &self,
        _: Request<v1::ListApiKeysRequest>,
    ) -> Result<Response<v1::ListApiKeysResponse>, Status> {
        let api_keys = self.keys.list().into_iter().map(api_key).collect();
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

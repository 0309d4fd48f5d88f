//! `IdTagService`.

use std::sync::Arc;

use pipelet_domain::{id_tags::IdTagEntry, webhooks::Field};
use pipelet_proto::v1::{self, id_tag_service_server::IdTagService};
use tonic::{Request, Response, Status};

use super::{
    super::{cursor, error::ApiError, wire},
    access::Needs,
    request,
};
use crate::{auth::Role, registries::IdTags};

pub(super) struct IdTagRpc {
    pub(super) id_tags: IdTags,
}

type Answer<T> = Result<Response<T>, Status>;

/// The time as it was said, for JSON has it to the millisecond.
fn expiry(spec: &v1::IdTagSpec) -> Result<Field<String>, ApiError> {
    let time = spec.expiry_date;
    let time = time.map(|time| request::from_time(time, "/spec/expiry_date"));
    Ok(match time.transpose()? {
        Some(time) => Field::Value(time.to_string()),
        None => Field::Null,
    })
}

/// What the caller of each method needs.
pub(super) const NEEDS: Needs = &[
    ("CreateIdTag", Role::Operator),
    ("GetIdTag", Role::ReadOnly),
    ("ListIdTags", Role::ReadOnly),
    ("UpdateIdTag", Role::Operator),
    ("DeleteIdTag", Role::Operator),
];

#[tonic::async_trait]
impl IdTagService for IdTagRpc {
    async fn create_id_tag(
        &self,
        request: Request<v1::CreateIdTagRequest>,
    ) -> Answer<v1::CreateIdTagResponse> {
        let v1::CreateIdTagRequest { id_tag: tag, spec } = request.into_inner();
        let spec = spec.unwrap_or_default();
        let mut draft = wire::id_tag_draft(&mut request::set(request::said(&spec), &[]));
        draft.expiry_date = expiry(&spec)?;
        let created = self.id_tags.create(Field::Value(tag), draft).await;
        let id_tag = Some(wire::id_tag(&*created.map_err(ApiError::from)?));
        Ok(Response::new(v1::CreateIdTagResponse { id_tag }))
    }

    async fn get_id_tag(
        &self,
        request: Request<v1::GetIdTagRequest>,
    ) -> Answer<v1::GetIdTagResponse> {
        let found = self.id_tags.get(&request.into_inner().id_tag);
        let id_tag = Some(wire::id_tag(&*found.map_err(ApiError::from)?));
        Ok(Response::new(v1::GetIdTagResponse { id_tag }))
    }

    async fn list_id_tags(
        &self,
        request: Request<v1::ListIdTagsRequest>,
    ) -> Answer<v1::ListIdTagsResponse> {
        let v1::ListIdTagsRequest {
            page_size,
            page_token,
        } = request.into_inner();
        let size = request::page_size(page_size);
        let after = request::page_token(&page_token, cursor::to_id_tag).map_err(ApiError::from)?;
        let found = self.id_tags.list(after.as_ref(), size + 1);
        let last = |last: &Arc<IdTagEntry>| cursor::of_id_tag(&last.id_tag.key());
        let (found, next_page_token) = request::page(found, size, last);
        let id_tags = found.iter().map(|entry| wire::id_tag(entry)).collect();
        Ok(Response::new(v1::ListIdTagsResponse {
            id_tags,
            next_page_token,
        }))
    }

    async fn update_id_tag(
        &self,
        request: Request<v1::UpdateIdTagRequest>,
    ) -> Answer<v1::UpdateIdTagResponse> {
        let v1::UpdateIdTagRequest {
            id_tag: tag,
            spec,
            update_mask,
        } = request.into_inner();
        let paths = update_mask.unwrap_or_default().paths;
        let spec = spec.unwrap_or_default();
        let mut named = request::masked(&request::said(&spec), &paths)?.into();
        let mut draft = wire::id_tag_draft(&mut named);
        if draft.expiry_date != Field::Absent {
            draft.expiry_date = expiry(&spec)?;
        }
        let changed = self.id_tags.update(tag, draft).await;
        let id_tag = Some(wire::id_tag(&*changed.map_err(ApiError::from)?));
        Ok(Response::new(v1::UpdateIdTagResponse { id_tag }))
    }

    async fn delete_id_tag(
        &self,
        request: Request<v1::DeleteIdTagRequest>,
    ) -> Answer<v1::DeleteIdTagResponse> {
        let removed = self.id_tags.remove(request.into_inner().id_tag).await;
        removed.map_err(ApiError::from)?;
        Ok(Response::new(v1::DeleteIdTagResponse {}))
    }
}

//! `IdTagService`.

use std::sync::Arc;

use pipelet_domain::{
    id_tags::{IdTagDraft, IdTagEntry},
    webhooks::Field,
};
use pipelet_proto::v1::{self, id_tag_service_server::IdTagService};
use tonic::{Request, Response, Status};

use super::{
    super::{
        cursor,
        error::ApiError,
        wire::{self, from_time, time},
    },
    access::Needs,
};
use crate::{auth::Role, registries::IdTags};

pub(super) struct IdTagRpc {
    pub(super) id_tags: IdTags,
}

type Answer<T> = Result<Response<T>, Status>;

fn id_tag(entry: &IdTagEntry) -> v1::IdTag {
    v1::IdTag {
        id_tag: entry.id_tag.to_string(),
        status: entry.status.name().to_owned(),
        expiry_date: entry.expiry_date.map(time),
        parent_id_tag: entry.parent_id_tag.as_ref().map(ToString::to_string),
        created_at: Some(time(entry.created_at)),
        updated_at: Some(time(entry.updated_at)),
    }
}

/// What is absent is said to be nothing.
fn said(spec: v1::IdTagSpec) -> Result<IdTagDraft, ApiError> {
    let expiry_date = spec
        .expiry_date
        .map(|time| from_time(time, "/spec/expiry_date"))
        .transpose()?;
    Ok(IdTagDraft {
        status: spec.status.map_or(Field::Null, Field::Value),
        expiry_date: expiry_date.map_or(Field::Null, |time| Field::Value(time.to_string())),
        parent_id_tag: spec.parent_id_tag.map_or(Field::Null, Field::Value),
    })
}

/// A change says what the mask names.
fn masked(spec: v1::IdTagSpec, paths: &[String]) -> Result<IdTagDraft, ApiError> {
    if paths.is_empty() {
        let message = "name the fields to change";
        return Err(ApiError::fault("/update_mask", "required", message));
    }
    let said = said(spec)?;
    let mut draft = IdTagDraft::default();
    for path in paths {
        match path.as_str() {
            "status" => draft.status = said.status.clone(),
            "expiry_date" => draft.expiry_date = said.expiry_date.clone(),
            "parent_id_tag" => draft.parent_id_tag = said.parent_id_tag.clone(),
            other => {
                let message = format!("{other:?} is no field that can be changed");
                return Err(ApiError::fault("/update_mask", "unknown_field", message));
            }
        }
    }
    Ok(draft)
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
        let mut draft = said(spec.unwrap_or_default())?;
        if draft.status == Field::Null {
            draft.status = Field::Absent;
        }
        let created = self.id_tags.create(Field::Value(tag), draft).await;
        let id_tag = Some(id_tag(&*created.map_err(ApiError::from)?));
        Ok(Response::new(v1::CreateIdTagResponse { id_tag }))
    }

    async fn get_id_tag(
        &self,
        request: Request<v1::GetIdTagRequest>,
    ) -> Answer<v1::GetIdTagResponse> {
        let found = self.id_tags.get(&request.into_inner().id_tag);
        let id_tag = Some(id_tag(&*found.map_err(ApiError::from)?));
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
        let size = wire::page_size(page_size);
        let after = wire::page_token(&page_token, cursor::to_id_tag).map_err(ApiError::from)?;
        let found = self.id_tags.list(after.as_ref(), size + 1);
        let last = |last: &Arc<IdTagEntry>| cursor::of_id_tag(&last.id_tag.key());
        let (found, next_page_token) = wire::page(found, size, last);
        let id_tags = found.iter().map(|entry| id_tag(entry)).collect();
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
        let draft = masked(spec.unwrap_or_default(), &paths)?;
        let changed = self.id_tags.update(tag, draft).await;
        let id_tag = Some(id_tag(&*changed.map_err(ApiError::from)?));
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

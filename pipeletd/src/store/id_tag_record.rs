//! A registered id tag as a stored record: a version byte, then JSON.

use jiff::Timestamp;
use pipelet_domain::id_tags::{IdTag, IdTagEntry, TagStatus};
use serde::{Deserialize, Serialize};

use super::{
    StoreError,
    codec::record_error,
    records::{decode, encode},
};

const WHAT: &str = "id tag";

#[derive(Serialize, Deserialize)]
struct IdTagRecord {
    id_tag: String,
    status: StatusRecord,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expiry_date: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent_id_tag: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StatusRecord {
    Accepted,
    Blocked,
    Invalid,
}

pub(super) fn encode_id_tag(entry: &IdTagEntry) -> Vec<u8> {
    encode(&IdTagRecord {
        id_tag: entry.id_tag.as_str().to_owned(),
        status: match entry.status {
            TagStatus::Accepted => StatusRecord::Accepted,
            TagStatus::Blocked => StatusRecord::Blocked,
            TagStatus::Invalid => StatusRecord::Invalid,
        },
        expiry_date: entry.expiry_date,
        parent_id_tag: entry.parent_id_tag.as_ref().map(ToString::to_string),
        created_at: entry.created_at,
        updated_at: entry.updated_at,
    })
}

pub(super) fn decode_id_tag(bytes: &[u8]) -> Result<IdTagEntry, StoreError> {
    let record: IdTagRecord = decode(WHAT, bytes)?;
    let tag = |text: &str| IdTag::new(text).map_err(|error| record_error(WHAT, error));
    Ok(IdTagEntry {
        id_tag: tag(&record.id_tag)?,
        status: match record.status {
            StatusRecord::Accepted => TagStatus::Accepted,
            StatusRecord::Blocked => TagStatus::Blocked,
            StatusRecord::Invalid => TagStatus::Invalid,
        },
        expiry_date: record.expiry_date,
        parent_id_tag: record.parent_id_tag.as_deref().map(tag).transpose()?,
        created_at: record.created_at,
        updated_at: record.updated_at,
    })
}

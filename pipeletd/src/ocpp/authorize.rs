//! Which id tag a message is about, and the verdict on it.

use std::fmt;

use jiff::Timestamp;
use pipelet_domain::{
    events::{AuthorizationStatus, EventType, IdTagKey, Payload, StationId},
    id_tags::{IdTagInfo, Policy},
    projection::Fields,
};

use super::{all_stations::Stations, transactions::Connector};
use crate::registries::{IdTags, Starting};

/// The shards that are others', where a tag may charge, too.
#[tonic::async_trait]
pub trait OtherShards: fmt::Debug + Send + Sync {
    /// Claims that a transaction with this tag starts there now.
    async fn claim(&self, tag: &IdTagKey, station: &StationId, connector_id: Option<u32>) -> Claim;
}

/// That a transaction starts, as long as it is not dropped.
#[derive(Debug)]
pub struct Claim {
    /// Another one starts or charges with the same tag.
    pub taken: bool,
    /// What keeps others from claiming the same.
    pub held: Box<dyn fmt::Debug + Send + Sync>,
}

/// The verdict on a message's tag.
#[derive(Debug)]
pub(super) struct Authorization {
    pub(super) info: IdTagInfo,
    /// Held until the start is in the journal: two that come at once can't both be accepted.
    _starting: Option<Starting>,
    _claim: Option<Claim>,
}

/// The claim of a transaction's start, where that is also other shards' business.
pub(super) async fn claim(
    others: &dyn OtherShards,
    id_tags: &IdTags,
    station: &StationId,
    kind: EventType,
    payload: &Payload,
) -> Option<Claim> {
    if kind != EventType::StartTransaction || id_tags.policy() == Policy::AcceptAll {
        return None;
    }
    let fields = Fields::parse(payload.as_bytes());
    let tag = IdTagKey::of(&fields.text("idTag").unwrap_or_default());
    Some(others.claim(&tag, station, connector(&fields)).await)
}

fn connector(fields: &Fields) -> Option<u32> {
    let connector = fields.integer("connectorId");
    connector.and_then(|id| id.try_into().ok())
}

impl Authorization {
    /// `None` for a message that asks about no tag.
    pub(super) fn of(
        id_tags: &IdTags,
        stations: &Stations,
        station: &StationId,
        kind: EventType,
        payload: &Payload,
        now: Timestamp,
        claim: Option<Claim>,
    ) -> Option<Self> {
        let starts = kind == EventType::StartTransaction;
        let stops = kind == EventType::StopTransaction;
        if !starts && !stops && kind != EventType::Authorize {
            return None;
        }
        let fields = Fields::parse(payload.as_bytes());
        // A StopTransaction need not say whose it is; the others must, and no tag is no good one.
        if stops && !fields.has("idTag") {
            return None;
        }
        let tag = IdTagKey::of(&fields.text("idTag").unwrap_or_default());
        if !starts || id_tags.policy() == Policy::AcceptAll {
            return Some(Self {
                info: id_tags.verdict(&tag, now, || false),
                _starting: None,
                _claim: None,
            });
        }
        // ConcurrentTx is about starts alone (OCPP 1.6, section 7.2).
        let here = Connector {
            station,
            connector_id: connector(&fields),
        };
        // Where others have a say, the claim is among all.
        let starting = claim.is_none().then(|| id_tags.starting_with(tag.clone()));
        let is_taken = starting.as_ref().is_some_and(|it| it.taken)
            || claim.as_ref().is_some_and(|claim| claim.taken);
        let elsewhere = || is_taken || stations.charges_elsewhere(&tag, here);
        let info = id_tags.verdict(&tag, now, elsewhere);
        Some(Self {
            info,
            _starting: starting,
            _claim: claim,
        })
    }

    pub(super) const fn status(&self) -> AuthorizationStatus {
        self.info.status
    }
}

//! Which id tag a message is about, and the verdict on it.

use jiff::Timestamp;
use pipelet_domain::{
    events::{AuthorizationStatus, EventType, IdTagKey, Payload, StationId},
    id_tags::{IdTagInfo, Policy},
    projection::Fields,
};

use super::{all_stations::Stations, transactions::Connector};
use crate::registries::{IdTags, Starting};

/// The verdict on a message's tag.
#[derive(Debug)]
pub(super) struct Authorization {
    pub(super) info: IdTagInfo,
    /// Held until the start is in the journal: two that come at once can't both be accepted.
    _starting: Option<Starting>,
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
            });
        }
        // ConcurrentTx is about starts alone (OCPP 1.6, section 7.2).
        let starting = id_tags.starting_with(tag.clone());
        let connector = fields
            .integer("connectorId")
            .and_then(|id| id.try_into().ok());
        let here = Connector {
            station,
            connector_id: connector,
        };
        let elsewhere = || starting.taken || stations.charges_elsewhere(&tag, here);
        let info = id_tags.verdict(&tag, now, elsewhere);
        Some(Self {
            info,
            _starting: Some(starting),
        })
    }

    pub(super) const fn status(&self) -> AuthorizationStatus {
        self.info.status
    }
}

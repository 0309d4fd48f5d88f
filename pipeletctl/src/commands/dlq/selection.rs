//! Which dead letters a command is about.

use jiff::Timestamp;
use pipelet_proto::v1;

use crate::{
    cli::{Filter, Selection},
    client::Client,
    error::Error,
    system::when::{self, When},
};

/// Payloads may be large, so a page holds few.
pub(super) const PAGE: u32 = 50;

/// Which dead letters are meant, as the wire has it.
#[derive(Debug)]
pub(super) enum Which {
    /// Each once.
    Ids(Vec<u64>),
    Filter(v1::FailedDeliveryFilter),
}

impl Which {
    pub(super) async fn from(
        selection: Selection,
        now: Timestamp,
        client: &Client,
    ) -> Result<Self, Error> {
        if selection.ids.is_empty() {
            let filter = filter_on_wire(selection.filter, now, client);
            return Ok(Self::Filter(filter.await?));
        }
        let mut ids = selection.ids;
        ids.sort_unstable();
        ids.dedup();
        Ok(Self::Ids(ids))
    }

    /// How many were asked for by name.
    pub(super) fn asked(&self) -> Option<u64> {
        match self {
            Self::Ids(ids) => Some(ids.len() as u64),
            Self::Filter(_) => None,
        }
    }
}

pub(crate) async fn filter_on_wire(
    filter: Filter,
    now: Timestamp,
    client: &Client,
) -> Result<v1::FailedDeliveryFilter, Error> {
    let wire = |when: When| when::on_wire(when.resolve(now));
    Ok(v1::FailedDeliveryFilter {
        webhook_id: client.webhook_id_if(filter.webhook.as_ref()).await?,
        event: filter.event,
        station_id: filter.station,
        since: filter.since.map(wire),
        until: filter.until.map(wire),
    })
}

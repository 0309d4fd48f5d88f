//! Which dead letters a command is about.

use jiff::Timestamp;
use pipelet_proto::v1;

use crate::{
    cli::{Filter, Selection},
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
    pub(super) fn from(selection: Selection, now: Timestamp) -> Self {
        if selection.ids.is_empty() {
            return Self::Filter(filter_on_wire(selection.filter, now));
        }
        let mut ids = selection.ids;
        ids.sort_unstable();
        ids.dedup();
        Self::Ids(ids)
    }

    /// How many were asked for by name.
    pub(super) fn asked(&self) -> Option<u64> {
        match self {
            Self::Ids(ids) => Some(ids.len() as u64),
            Self::Filter(_) => None,
        }
    }
}

pub(crate) fn filter_on_wire(filter: Filter, now: Timestamp) -> v1::FailedDeliveryFilter {
    let wire = |when: When| when::on_wire(when.resolve(now));
    v1::FailedDeliveryFilter {
        webhook_id: filter.webhook,
        event: filter.event,
        station_id: filter.station,
        since: filter.since.map(wire),
        until: filter.until.map(wire),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_once() {
        let selection = Selection {
            ids: vec![3, 1, 3],
            all: false,
            filter: Filter::default(),
        };
        let which = Which::from(selection, Timestamp::UNIX_EPOCH);
        assert_eq!(which.asked(), Some(2));

        let selection = Selection {
            ids: Vec::new(),
            all: true,
            filter: Filter::default(),
        };
        let which = Which::from(selection, Timestamp::UNIX_EPOCH);
        assert_eq!(which.asked(), None);
    }
}

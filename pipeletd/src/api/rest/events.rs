//! `/event-types`: the catalogue.

use axum::{Json, routing::get};

use super::{
    access::{Routes, reads},
    page::List,
    view::EventTypeJson,
};
use crate::events::EventType;

pub(super) fn routes() -> Routes {
    Routes::new().route("/event-types", [reads(get(event_types))])
}

async fn event_types() -> Json<List<EventTypeJson>> {
    Json(List::whole(
        EventType::ALL
            .iter()
            .copied()
            .map(EventTypeJson::from)
            .collect(),
    ))
}

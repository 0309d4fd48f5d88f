//! `/event-types`: the catalogue.

use axum::{Json, Router, routing::get};

use super::{page::List, view::EventTypeJson};
use crate::events::EventType;

pub(super) fn routes() -> Router {
    Router::new().route("/event-types", get(event_types))
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

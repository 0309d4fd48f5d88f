//! `/transactions`: what was charged, the latest first.

use axum::{Json, extract::State, routing::get};
use pipelet_domain::{
    events::{IdTagKey, StationId},
    projection::TransactionFilter,
};
use pipelet_proto::v1;

use super::{
    super::{cursor, error::ApiError, wire},
    access::{Routes, reads},
    page::{List, Query},
    path::Path,
    problem::Problem,
};
use crate::ocpp::Transactions;

pub(super) fn routes(transactions: Transactions) -> Routes {
    Routes::new()
        .route("/transactions", [reads(get(list))])
        .route("/transactions/{id}", [reads(get(show))])
        .with_state(transactions)
}

async fn list(
    State(transactions): State<Transactions>,
    mut query: Query,
) -> Result<Json<List<v1::Transaction>>, Problem> {
    let page = query.page(cursor::to_positions);
    let status = query.take("status", "open, stopped or abandoned", |text| match text {
        "open" => Some((true, false)),
        "stopped" => Some((false, false)),
        "abandoned" => Some((false, true)),
        _ => None,
    });
    let filter = TransactionFilter {
        station: query.take("station_id", "a station's id", |text| {
            StationId::new(text).ok()
        }),
        id_tag: query.take("id_tag", "an id tag", |text| Some(IdTagKey::of(text))),
        open: status.map(|(open, _)| open),
        abandoned: status.map(|(_, abandoned)| abandoned),
        since: query.time("since"),
        until: query.time("until"),
    };
    query.finish()?;
    let found = transactions.list(&filter, page.after, page.limit).await;
    let (found, next) = found.map_err(ApiError::from)?;
    let data = found.iter().map(|found| wire::transaction(found)).collect();
    let next = next.as_ref().map(cursor::of_positions);
    Ok(Json(List::part(data, next)))
}

async fn show(
    State(transactions): State<Transactions>,
    Path(path): Path<String>,
) -> Result<Json<v1::Transaction>, Problem> {
    let found = match path.parse() {
        Ok(id) => transactions.get(id).await.map_err(ApiError::from)?,
        Err(_) => None,
    };
    let transaction = found.ok_or_else(|| ApiError::NotFound {
        code: "no_such_transaction",
        message: format!("there is no transaction {path:?}"),
    })?;
    Ok(Json(wire::transaction(&transaction)))
}

//! `/transactions`: what was charged, the latest first.

use axum::{Json, extract::State, routing::get};
use pipelet_domain::events::StationId;
use pipelet_proto::v1;

use super::{
    super::{error::ApiError, grpc::Transactions, wire::time},
    access::{Routes, reads},
    page::{List, Query},
    path::Path,
    problem::Problem,
    services::{self, Asking, answered},
};

pub(super) fn routes(transactions: Transactions) -> Routes {
    Routes::new()
        .route("/transactions", [reads(get(list))])
        .route("/transactions/{id}", [reads(get(show))])
        .with_state(transactions)
}

async fn list(
    State(transactions): State<Transactions>,
    asking: Asking,
    mut query: Query,
) -> Result<Json<List<v1::Transaction>>, Problem> {
    let (page_size, page_token) = query.service_page();
    let status = query.take("status", "open, stopped or abandoned", |text| match text {
        "open" => Some((true, false)),
        "stopped" => Some((false, false)),
        "abandoned" => Some((false, true)),
        _ => None,
    });
    let station = query.take("station_id", "a station's id", |text| {
        StationId::new(text).ok()
    });
    let filter = v1::TransactionFilter {
        station_id: station.map(|station| station.to_string()),
        id_tag: query.take("id_tag", "an id tag", |text| Some(text.to_owned())),
        open: status.map(|(open, _)| open),
        abandoned: status.map(|(_, abandoned)| abandoned),
        since: query.time("since").map(time),
        until: query.time("until").map(time),
    };
    query.finish()?;
    let asked = asking.request(v1::ListTransactionsRequest {
        filter: Some(filter),
        page_size,
        page_token,
    });
    let (_, found) = services::page(transactions.list_transactions(asked).await)?;
    Ok(Json(List::part(found.transactions, found.next_page_token)))
}

async fn show(
    State(transactions): State<Transactions>,
    asking: Asking,
    Path(path): Path<String>,
) -> Result<Json<v1::Transaction>, Problem> {
    let transaction_id = path.parse().map_err(|_| ApiError::NotFound {
        code: "no_such_transaction",
        message: format!("there is no transaction {path:?}"),
    })?;
    let asked = asking.request(v1::GetTransactionRequest { transaction_id });
    let (_, found) = answered(transactions.get_transaction(asked).await)?;
    Ok(Json(found.transaction.unwrap_or_default()))
}

//! `/transactions`: what was charged, the latest first.

use std::sync::Arc;

use axum::{Json, extract::State, routing::get};
use pipelet_domain::{
    events::{AuthorizationStatus, IdTagKey, Seq, StationId},
    projection::{MeterReading, Transaction, TransactionFilter},
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    super::{cursor, error::ApiError},
    access::{Routes, reads},
    page::{List, Query},
    path::Path,
    problem::Problem,
    view::time,
};
use crate::ocpp::Transactions;

pub(super) fn routes(transactions: Transactions) -> Routes {
    Routes::new()
        .route("/transactions", [reads(get(list))])
        .route("/transactions/{id}", [reads(get(show))])
        .with_state(transactions)
}

#[derive(Debug, Serialize)]
struct TransactionJson {
    transaction_id: i64,
    station_id: String,
    connector_id: Option<u32>,
    id_tag: String,
    id_tag_status: Option<&'static str>,
    status: &'static str,
    meter_start: Option<i64>,
    meter_stop: Option<i64>,
    energy_wh: Option<i64>,
    started_at: Option<String>,
    start_received_at: String,
    stopped_at: Option<String>,
    stop_received_at: Option<String>,
    stop_reason: Option<String>,
    stop_id_tag: Option<String>,
    last_meter_values: Option<MeterValuesJson>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct MeterValuesJson {
    timestamp: Option<String>,
    /// Absent where the stored text is not JSON, which would be a fault of ours.
    sampled_value: Option<Box<RawValue>>,
}

impl From<&MeterReading> for MeterValuesJson {
    fn from(reading: &MeterReading) -> Self {
        Self {
            timestamp: reading.sampled_at.map(time),
            sampled_value: RawValue::from_string(reading.sampled_values.clone()).ok(),
        }
    }
}

impl From<Arc<Transaction>> for TransactionJson {
    fn from(transaction: Arc<Transaction>) -> Self {
        let stop = transaction.stop.as_ref();
        let reading = transaction.last_meter_values.as_ref();
        Self {
            transaction_id: transaction.transaction_id,
            station_id: transaction.station.to_string(),
            connector_id: transaction.connector_id,
            id_tag: transaction.id_tag.clone(),
            id_tag_status: transaction.authorization.map(AuthorizationStatus::name),
            status: transaction.status(),
            meter_start: transaction.meter_start,
            meter_stop: stop.and_then(|stop| stop.meter_stop),
            energy_wh: transaction.energy_wh(),
            started_at: transaction.started_at.map(time),
            start_received_at: time(transaction.start_received_at),
            stopped_at: stop.and_then(|stop| stop.stopped_at).map(time),
            stop_received_at: stop.map(|stop| time(stop.received_at)),
            stop_reason: stop.and_then(|stop| stop.reason.clone()),
            stop_id_tag: stop.and_then(|stop| stop.id_tag.clone()),
            last_meter_values: reading.map(MeterValuesJson::from),
            notes: transaction.notes.clone(),
        }
    }
}

async fn list(
    State(transactions): State<Transactions>,
    mut query: Query,
) -> Result<Json<List<TransactionJson>>, Problem> {
    let page = query.page(|text| cursor::to_number(text).map(Seq));
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
    let found = transactions.list(filter, page.after, page.fetch()).await;
    let found = found.map_err(ApiError::from)?;
    let last = |last: &Arc<Transaction>| cursor::of_number(last.seq.0);
    Ok(Json(page.list(found, last, TransactionJson::from)))
}

async fn show(
    State(transactions): State<Transactions>,
    Path(path): Path<String>,
) -> Result<Json<TransactionJson>, Problem> {
    let found = match path.parse() {
        Ok(id) => transactions.get(id).await.map_err(ApiError::from)?,
        Err(_) => None,
    };
    let transaction = found.ok_or_else(|| ApiError::NotFound {
        code: "no_such_transaction",
        message: format!("there is no transaction {path:?}"),
    })?;
    Ok(Json(transaction.into()))
}

//! `TransactionService`.

use pipelet_domain::{
    events::{IdTagKey, StationId},
    projection::TransactionFilter,
};
use pipelet_proto::v1::{self, transaction_service_server::TransactionService};
use tonic::{Request, Response, Status};

use super::{
    super::{cursor, error::ApiError, wire},
    access::Needs,
    request::{self, from_time},
};
use crate::{auth::Role, ocpp::Transactions};

#[derive(Debug)]
pub struct TransactionRpc {
    pub(super) transactions: Transactions,
}

fn filter(filter: v1::TransactionFilter) -> Result<TransactionFilter, ApiError> {
    let station = filter.station_id.map(|id| {
        StationId::new(&id).map_err(|error| {
            ApiError::fault(
                "/filter/station_id",
                "invalid_station_id",
                error.to_string(),
            )
        })
    });
    let time = |time: Option<_>, field| time.map(|time| from_time(time, field)).transpose();
    Ok(TransactionFilter {
        station: station.transpose()?,
        id_tag: filter.id_tag.as_deref().map(IdTagKey::of),
        open: filter.open,
        abandoned: filter.abandoned,
        since: time(filter.since, "/filter/since")?,
        until: time(filter.until, "/filter/until")?,
    })
}

/// What the caller of each method needs.
pub(super) const NEEDS: Needs = &[
    ("ListTransactions", Role::ReadOnly),
    ("GetTransaction", Role::ReadOnly),
];

#[tonic::async_trait]
impl TransactionService for TransactionRpc {
    async fn list_transactions(
        &self,
        request: Request<v1::ListTransactionsRequest>,
    ) -> Result<Response<v1::ListTransactionsResponse>, Status> {
        let v1::ListTransactionsRequest {
            filter: wanted,
            page_size,
            page_token,
        } = request.into_inner();
        let filter = filter(wanted.unwrap_or_default())?;
        let size = request::page_size(page_size);
        let before =
            request::page_token(&page_token, cursor::to_positions).map_err(ApiError::from)?;
        let (found, next) = self
            .transactions
            .list(&filter, before, size)
            .await
            .map_err(ApiError::from)?;
        let next = next.as_ref().map(cursor::of_positions);
        let transactions = found.iter().map(|found| wire::transaction(found)).collect();
        Ok(Response::new(v1::ListTransactionsResponse {
            transactions,
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn get_transaction(
        &self,
        request: Request<v1::GetTransactionRequest>,
    ) -> Result<Response<v1::GetTransactionResponse>, Status> {
        let id = request.into_inner().transaction_id;
        let found = self.transactions.get(id).await.map_err(ApiError::from)?;
        let found = found.ok_or_else(|| ApiError::NotFound {
            code: "no_such_transaction",
            message: format!("there is no transaction {id}"),
        })?;
        let transaction = Some(wire::transaction(&found));
        Ok(Response::new(v1::GetTransactionResponse { transaction }))
    }
}

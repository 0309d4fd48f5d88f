//! `TransactionService` of all shards.

use std::cmp::Reverse;

use pipelet_proto::v1::{self, transaction_service_server::TransactionService};
use tonic::{Request, Response, Status};

use super::{super::grpc::readers, First, Front, Shard, asking, paging::Page};

#[tonic::async_trait]
impl TransactionService for Front {
    /// The latest first.
    async fn list_transactions(
        &self,
        request: Request<v1::ListTransactionsRequest>,
    ) -> Result<Response<v1::ListTransactionsResponse>, Status> {
        let reader = readers::of(&request)?;
        let v1::ListTransactionsRequest {
            filter,
            page_size,
            page_token,
        } = request.into_inner();
        let fetch = |shard: Shard, page_size, page_token| {
            let asked = v1::ListTransactionsRequest {
                filter: filter.clone(),
                page_size,
                page_token,
            };
            let asked = asking(Some(&reader), asked);
            async move {
                let page = shard
                    .transactions()
                    .list_transactions(asked)
                    .await?
                    .into_inner();
                Ok(Page {
                    items: page.transactions,
                    next: page.next_page_token,
                })
            }
        };
        let key =
            |it: &v1::Transaction| Reverse(it.started_at.as_ref().map(|at| (at.seconds, at.nanos)));
        let page = self
            .all
            .page(page_size, &page_token, First::Latest, fetch, key);
        let (transactions, next_page_token) = page.await?;
        Ok(Response::new(v1::ListTransactionsResponse {
            transactions,
            next_page_token,
        }))
    }

    async fn get_transaction(
        &self,
        request: Request<v1::GetTransactionRequest>,
    ) -> Result<Response<v1::GetTransactionResponse>, Status> {
        let reader = readers::of(&request)?;
        let asked = request.into_inner();
        let found = self.all.find(|shard| {
            let asked = asking(Some(&reader), asked);
            async move { shard.transactions().get_transaction(asked).await }
        });
        found.await
    }
}

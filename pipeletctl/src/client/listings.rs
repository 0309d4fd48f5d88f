//! The listings that more than one command walks, a page at a time.

use pipelet_proto::v1;

use super::{Client, paging::Pages};
use crate::error::Error;

impl Client {
    /// The next webhooks, by their ids, while there are any.
    pub(crate) async fn next_webhooks(
        &self,
        pages: &mut Pages,
    ) -> Result<Option<Vec<v1::Webhook>>, Error> {
        let Some(page) = pages.next() else {
            return Ok(None);
        };
        let request = v1::ListWebhooksRequest {
            page_size: page.size,
            page_token: page.token,
        };
        let answer = self.webhooks().list_webhooks(request).await?.into_inner();
        Ok(Some(pages.accept(answer.webhooks, answer.next_page_token)))
    }

    /// The next dead letters, while there are any.
    pub(crate) async fn next_dead_letters(
        &self,
        filter: &v1::FailedDeliveryFilter,
        pages: &mut Pages,
    ) -> Result<Option<Vec<v1::FailedDelivery>>, Error> {
        let Some(page) = pages.next() else {
            return Ok(None);
        };
        let request = v1::ListFailedDeliveriesRequest {
            filter: Some(filter.clone()),
            page_size: page.size,
            page_token: page.token,
        };
        let mut service = self.failed_deliveries();
        let answer = service.list_failed_deliveries(request).await?.into_inner();
        let letters = pages.accept(answer.failed_deliveries, answer.next_page_token);
        Ok(Some(letters))
    }
}

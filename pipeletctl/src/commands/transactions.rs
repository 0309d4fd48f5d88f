//! `transactions`: what was charged.

use jiff::Timestamp;
use pipelet_proto::v1;

use crate::{
    cli::{Limit, TransactionFilter, Transactions},
    client::{Client, paging::Pages},
    error::{Error, ExitStatus},
    output::Printer,
    system::when::{self, When},
    view::OneLine,
};

pub(crate) async fn run(
    verb: Transactions,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    match verb {
        Transactions::List { filter, limit } => {
            let filter = filter_on_wire(filter, when::now());
            list(&filter, limit, client, printer).await
        }
        Transactions::Show { id } => show(id, client, printer).await,
    }
}

async fn list(
    filter: &v1::TransactionFilter,
    limit: Limit,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let mut list = printer.list::<v1::Transaction>("no transactions");
    let mut pages = Pages::new(limit.count(printer.is_on_a_terminal()));
    while let Some(page) = pages.next() {
        let request = v1::ListTransactionsRequest {
            filter: Some(filter.clone()),
            page_size: page.size,
            page_token: page.token,
        };
        let answer = client.transactions().list_transactions(request).await?;
        let answer = answer.into_inner();
        let transactions = pages.accept(answer.transactions, answer.next_page_token);
        list.extend(transactions.into_iter().map(OneLine::one_line))?;
    }
    list.finish(printer, pages.has_more())?;
    Ok(ExitStatus::Success)
}

async fn show(id: i64, client: &Client, printer: &Printer) -> Result<ExitStatus, Error> {
    let request = v1::GetTransactionRequest { transaction_id: id };
    let answer = client.transactions().get_transaction(request).await?;
    let transaction = answer.into_inner().transaction;
    let transaction = transaction.ok_or(Error::Incomplete("transaction"))?;
    printer.one(&transaction.one_line())?;
    Ok(ExitStatus::Success)
}

fn filter_on_wire(filter: TransactionFilter, now: Timestamp) -> v1::TransactionFilter {
    let ended = filter.stopped || filter.abandoned;
    let open = (filter.open || ended).then_some(filter.open);
    let abandoned = ended.then_some(filter.abandoned);
    let moment = |when: When| when::on_wire(when.resolve(now));
    v1::TransactionFilter {
        station_id: filter.station,
        id_tag: filter.id_tag,
        open,
        abandoned,
        since: filter.since.map(moment),
        until: filter.until.map(moment),
    }
}

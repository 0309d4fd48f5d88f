//! `dlq`: what could not be delivered, and what becomes of it.
//!
//! Invariants: nothing is purged without a yes, given on the terminal or by flag; the
//! exit status tells all, some and none apart.

mod groups;
mod outcome;
mod paced;
mod selection;

use pipelet_proto::v1;

use self::{
    outcome::PurgeOutcome,
    selection::{PAGE, Which},
};
pub(crate) use self::{outcome::ReplayOutcome, selection::filter_on_wire};
use crate::{
    cli::{AssumeYes, Dlq, Limit},
    client::{Client, paging::Pages},
    error::{Error, ExitStatus},
    output::Printer,
    system::when,
    view::OneLine,
    words::counted,
};

pub(crate) async fn run(
    verb: Dlq,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let now = when::now();
    match verb {
        Dlq::List {
            filter,
            group_by,
            limit,
        } => {
            let filter = filter_on_wire(filter, now, client).await?;
            match group_by {
                Some(what) => groups::list(what, filter, limit, client, printer).await,
                None => list(filter, limit, client, printer).await,
            }
        }
        Dlq::Show { id } => show(id, client, printer).await,
        Dlq::Replay { selection, pace } => {
            let which = Which::from(selection, now, client).await?;
            if pace.rate.is_some() || pace.canary {
                paced::replay(which, pace, client, printer).await
            } else {
                replay(which, client, printer).await
            }
        }
        Dlq::Purge { selection, assume } => {
            purge(
                Which::from(selection, now, client).await?,
                assume,
                client,
                printer,
            )
            .await
        }
    }
}

async fn list(
    filter: v1::FailedDeliveryFilter,
    limit: Limit,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let mut list = printer.list::<v1::FailedDelivery>("no dead letters");
    let mut pages = Pages::new(limit.count(printer.is_on_a_terminal())).with_page_size(PAGE);
    while let Some(failed) = client.next_dead_letters(&filter, &mut pages).await? {
        list.extend(failed.into_iter().map(OneLine::one_line))?;
    }
    list.finish(printer, pages.has_more())?;
    Ok(ExitStatus::Success)
}

async fn show(id: u64, client: &Client, printer: &Printer) -> Result<ExitStatus, Error> {
    let request = v1::GetFailedDeliveryRequest { id };
    let mut service = client.failed_deliveries();
    let answer = service.get_failed_delivery(request).await?.into_inner();
    let failed = answer
        .failed_delivery
        .ok_or(Error::Incomplete("dead letter"))?;
    printer.one(&failed.one_line())?;
    Ok(ExitStatus::Success)
}

async fn replay(which: Which, client: &Client, printer: &Printer) -> Result<ExitStatus, Error> {
    let asked = which.asked();
    let request = v1::ReplayRequest {
        which: Some(match which {
            Which::Ids(ids) => v1::replay_request::Which::Ids(v1::FailedDeliveryIds { ids }),
            Which::Filter(filter) => v1::replay_request::Which::Filter(filter),
        }),
        unwatched: false,
    };
    let mut stream = client
        .failed_deliveries()
        .replay(request)
        .await?
        .into_inner();
    let bar = printer.progress("replaying");
    let outcome = loop {
        let message = stream.message().await?.ok_or(Error::StreamEnded)?;
        bar.set_length(message.total);
        bar.set_position(message.delivered + message.failed + message.skipped);
        if message.done {
            break ReplayOutcome::new(&message, asked);
        }
    };
    drop(bar);
    printer.done(&outcome, &outcome.sentence())?;
    Ok(outcome.status())
}

async fn purge(
    which: Which,
    assume: AssumeYes,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    if !assume.yes {
        let Some(question) = purge_question(&which, client).await? else {
            printer.note("no dead letters to purge");
            return Ok(ExitStatus::Success);
        };
        if !printer.confirm(&question).await? {
            return Ok(ExitStatus::Failed);
        }
    }
    let asked = which.asked();
    let request = v1::PurgeRequest {
        which: Some(match which {
            Which::Ids(ids) => v1::purge_request::Which::Ids(v1::FailedDeliveryIds { ids }),
            Which::Filter(filter) => v1::purge_request::Which::Filter(filter),
        }),
    };
    let answer = client.failed_deliveries().purge(request).await?;
    let outcome = PurgeOutcome::new(answer.into_inner().purged, asked);
    printer.done(&outcome, &outcome.sentence())?;
    Ok(outcome.status())
}

/// Says how many it is about, as far as one page tells; none: it is about nothing.
async fn purge_question(which: &Which, client: &Client) -> Result<Option<String>, Error> {
    let filter = match which {
        Which::Ids(ids) => {
            let many = counted(ids.len() as u64, "dead letter", "dead letters");
            return Ok(Some(format!("purge {many} for good?")));
        }
        Which::Filter(filter) => filter.clone(),
    };
    let mut pages = Pages::new(None).with_page_size(PAGE);
    let found = client.next_dead_letters(&filter, &mut pages).await?;
    let count = found.map_or(0, |found| found.len() as u64);
    let many = counted(count, "dead letter", "dead letters");
    Ok(match (count, pages.has_more()) {
        (0, false) => None,
        (_, false) => Some(format!("purge {many} for good?")),
        (_, true) => Some(format!("purge more than {many} for good?")),
    })
}

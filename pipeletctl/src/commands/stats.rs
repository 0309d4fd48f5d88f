//! `webhooks stats`: how each webhook fares.

use std::time::Duration;

use pipelet_proto::v1;
use tokio::time::sleep;
use tonic::Status;

use crate::{
    client::Client,
    error::{Error, ExitStatus},
    output::Printer,
    overview::Overview,
    view::WebhookFigures,
};

pub(crate) async fn run(
    id: Option<u64>,
    over: Option<Duration>,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let earlier = match over {
        Some(over) => {
            let earlier = look(client).await?;
            sleep(over).await;
            Some(earlier)
        }
        None => None,
    };
    let now = look(client).await?;
    let wanted = |webhook: &&v1::WebhookOverview| id.is_none_or(|id| id == webhook.id);
    let webhooks = now.webhooks.iter().filter(wanted);
    let figures: Vec<_> = webhooks
        .map(|webhook| WebhookFigures::new(webhook, now.lately(webhook, earlier.as_ref()), now.at))
        .collect();
    if let (Some(id), true) = (id, figures.is_empty()) {
        return Err(Status::not_found(format!("there is no webhook {id}")).into());
    }
    let mut list = printer.list("no webhooks: `pipeletctl webhooks create` makes one");
    list.extend(figures)?;
    list.finish(printer, false)?;
    Ok(ExitStatus::Success)
}

async fn look(client: &Client) -> Result<Overview, Error> {
    let mut daemon = client.daemon();
    let answer = daemon.get_overview(v1::GetOverviewRequest {}).await?;
    Ok(answer.into_inner().into())
}

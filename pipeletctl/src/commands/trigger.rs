//! `trigger`: a synthetic event goes the whole way.

use std::time::Duration;

use pipelet_proto::v1;
use tokio::time::{Instant, sleep};

use super::trace;
use crate::{
    cli::{Setting, Trigger},
    client::Client,
    error::{Error, ExitStatus},
    output::Printer,
    view::OneLine as _,
};

/// How often it is asked what became of the event.
const ASK_EVERY: Duration = Duration::from_millis(50);

pub(crate) async fn run(
    args: Trigger,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let patch = (!args.set.is_empty()).then(|| Setting::patch(args.set).to_string());
    let request = v1::TriggerEventRequest {
        event: args.event,
        station_id: args.station,
        payload: args.payload,
        payload_patch: patch,
        webhook_id: client.webhook_id_if(args.webhook.as_ref()).await?,
    };
    let answer = client.events().trigger_event(request).await?.into_inner();
    let event = answer.event.ok_or(Error::Incomplete("event"))?;
    let id = &event.id;
    let to = match answer.webhook_ids.as_slice() {
        [] => format!("{id}: no webhook wants it"),
        ids => {
            let ids: Vec<_> = ids.iter().map(u64::to_string).collect();
            let webhooks = if ids.len() == 1 {
                "webhook"
            } else {
                "webhooks"
            };
            format!("{id} is on its way to {webhooks} {}", ids.join(", "))
        }
    };
    printer.note(&to);
    match args.wait {
        None => {
            printer.one(&event.one_line())?;
            Ok(ExitStatus::Success)
        }
        Some(time) => {
            let settled = settled(&event.id, time, client).await?;
            let fared_well = settled.webhooks.iter().all(is_well);
            trace::show(settled, printer)?;
            Ok(if fared_well {
                ExitStatus::Success
            } else {
                ExitStatus::Failed
            })
        }
    }
}

/// What became of it, once no webhook waits for its first attempt any more, or the time is over.
async fn settled(
    id: &str,
    time: Duration,
    client: &Client,
) -> Result<v1::TraceEventResponse, Error> {
    let end = Instant::now() + time;
    loop {
        let request = v1::TraceEventRequest { id: id.to_owned() };
        let answer = client.events().trace_event(request).await?.into_inner();
        let waits = |webhook: &v1::WebhookTrace| webhook.outcome == "waiting";
        if !answer.webhooks.iter().any(waits) || Instant::now() >= end {
            return Ok(answer);
        }
        sleep(ASK_EVERY).await;
    }
}

fn is_well(webhook: &v1::WebhookTrace) -> bool {
    matches!(webhook.outcome.as_str(), "delivered" | "not_wanted")
}

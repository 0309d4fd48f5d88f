//! `events`: what can happen, and what happens now.

use pipelet_proto::v1;

use crate::{
    cli::{Events, Limit},
    client::Client,
    commands::counted,
    error::{Error, ExitStatus},
    output::Printer,
    view::{Event, EventType},
};

pub(crate) async fn run(
    verb: Events,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    match verb {
        Events::Types => types(client, printer).await,
        Events::Tail {
            events,
            stations,
            limit,
        } => {
            let request = v1::TailEventsRequest {
                events,
                station_ids: stations,
                ..v1::TailEventsRequest::default()
            };
            tail(request, limit, client, printer).await
        }
    }
}

async fn types(client: &Client, printer: &Printer) -> Result<ExitStatus, Error> {
    let answer = client
        .events()
        .list_event_types(v1::ListEventTypesRequest {})
        .await?;
    let types = answer.into_inner().event_types;
    let mut list = printer.list("the daemon knows no event types");
    list.extend(types.into_iter().map(EventType::from))?;
    list.finish(printer)?;
    Ok(ExitStatus::Success)
}

/// Ends at the limit, at Ctrl-C, or when the daemon does.
async fn tail(
    request: v1::TailEventsRequest,
    limit: Limit,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let mut stream = client.events().tail_events(request).await?.into_inner();
    // Who waits for this line can be sure that what happens from now on is shown.
    printer.note("waiting for events; Ctrl-C ends");
    let mut shown = 0;
    while limit.count.is_none_or(|limit| shown < limit) {
        let message = stream.message().await?.ok_or(Error::StreamEnded)?;
        if message.missed > 0 {
            let missed = counted(message.missed, "event was", "events were");
            printer.note(&format!("{missed} left out: this reader was too slow"));
        }
        if let Some(event) = message.event.map(Event::from) {
            printer.follow(&event, &event.line())?;
            shown += 1;
        }
    }
    Ok(ExitStatus::Success)
}

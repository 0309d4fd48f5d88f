//! `events`: what can happen, what happened, and what happens now.

use pipelet_proto::v1;

use crate::{
    cli::{EndAfter, EventFilter, Events, Limit},
    client::{Client, paging::Pages, tail::Tail},
    error::{Error, ExitStatus},
    output::Printer,
    system::when::{self, When},
    view::{OneLine, event_line},
    words::counted,
};

/// Payloads may be large, so a page holds few.
const PAGE: u32 = 50;

pub(crate) async fn run(
    verb: Events,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    match verb {
        Events::Types => types(client, printer).await,
        Events::List {
            filter,
            until,
            limit,
        } => list(on_wire(filter, until), limit, client, printer).await,
        Events::Show { id } => show(id, client, printer).await,
        Events::Tail { filter, end } => {
            let v1::EventFilter {
                events,
                station_ids,
                since,
                until: _,
            } = on_wire(filter, None);
            let request = v1::TailEventsRequest {
                events,
                station_ids,
                since,
                ..v1::TailEventsRequest::default()
            };
            tail(request, end, client, printer).await
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
    list.extend(types)?;
    list.finish(printer, false)?;
    Ok(ExitStatus::Success)
}

/// The journal has millions: unless told otherwise no more than people read, in any format. A page
/// may be empty and yet not the last.
async fn list(
    filter: v1::EventFilter,
    limit: Limit,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let mut list = printer.list::<v1::Event>("no such events in what the journal keeps");
    let mut pages = Pages::new(limit.count(true)).with_page_size(PAGE);
    while let Some(page) = pages.next() {
        let request = v1::ListEventsRequest {
            filter: Some(filter.clone()),
            page_size: page.size,
            page_token: page.token,
        };
        let answer = client.events().list_events(request).await?.into_inner();
        let events = pages.accept(answer.events, answer.next_page_token);
        list.extend(events.into_iter().map(OneLine::one_line))?;
    }
    list.finish(printer, pages.has_more())?;
    Ok(ExitStatus::Success)
}

async fn show(id: String, client: &Client, printer: &Printer) -> Result<ExitStatus, Error> {
    let request = v1::GetEventRequest { id };
    let answer = client.events().get_event(request).await?.into_inner();
    let event = answer.event.ok_or(Error::Incomplete("event"))?;
    printer.one(&event.one_line())?;
    Ok(ExitStatus::Success)
}

/// Ends at the limit, or at Ctrl-C.
pub(super) async fn tail(
    request: v1::TailEventsRequest,
    end: EndAfter,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let mut tail = Tail::open(request, client).await?;
    // Who waits for this line can be sure that what happens from now on is shown.
    printer.note("waiting for events; Ctrl-C ends");
    let mut shown = 0;
    while end.count.is_none_or(|end| shown < end) {
        let message = tail.next(printer).await?;
        if message.missed > 0 {
            let missed = counted(message.missed, "event", "events");
            printer.note(&format!("{missed} left out: no longer kept"));
        }
        if let Some(event) = message.event.map(OneLine::one_line) {
            printer.follow(&event, &event_line(&event))?;
            shown += 1;
        }
    }
    Ok(ExitStatus::Success)
}

fn on_wire(filter: EventFilter, until: Option<When>) -> v1::EventFilter {
    let now = when::now();
    let wire = |when: When| when::on_wire(when.resolve(now));
    v1::EventFilter {
        events: filter.events,
        station_ids: filter.stations,
        since: filter.since.map(wire),
        until: until.map(wire),
    }
}

//! `trace`: what became of one event.

use pipelet_proto::v1;

use crate::{
    client::Client,
    error::{Error, ExitStatus},
    output::Printer,
    view::{OneLine as _, drawn_trace},
};

/// Where nobody looks at a terminal.
const WIDTH: usize = 80;

pub(crate) async fn run(
    id: String,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let request = v1::TraceEventRequest { id };
    let answer = client.events().trace_event(request).await?.into_inner();
    show(answer, printer)?;
    Ok(ExitStatus::Success)
}

pub(super) fn show(answer: v1::TraceEventResponse, printer: &Printer) -> Result<(), Error> {
    let event = answer.event.ok_or(Error::Incomplete("event"))?;
    let trace = v1::TraceEventResponse {
        event: Some(event.one_line()),
        ..answer
    };
    let width = crossterm::terminal::size().map_or(WIDTH, |(columns, _)| columns.into());
    printer.either(&trace, &drawn_trace(&trace, width))?;
    Ok(())
}

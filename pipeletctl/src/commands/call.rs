//! `stations call` and `stations disconnect`: asking something of a station.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use pipelet_proto::v1::{self, call_response::Outcome};
use serde::Serialize;

use crate::{
    cli::CallStation,
    client::Client,
    error::{Error, ExitStatus},
    output::Printer,
    view::{OneLine as _, answered, refused},
};

/// More than the daemon takes, so whatever is longer was the wrong file.
const MAX_BODY: u64 = 4 * 1024 * 1024;

/// Ends with 1 where the station answers with a CALLERROR.
pub(crate) async fn call(
    args: CallStation,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let payload = args.json.as_deref().map(body).transpose()?;
    let parameters = args.parameters.into_iter().map(|p| v1::CallParameter {
        name: p.name,
        value: p.value,
    });
    let request = v1::CallRequest {
        station_id: args.id,
        action: args.action,
        payload: payload.unwrap_or_default(),
        parameters: parameters.collect(),
        timeout: prost_types::Duration::try_from(client.timeout()).ok(),
    };
    let answer = client
        .stations_for_calls()
        .call(request)
        .await?
        .into_inner();
    let outcome = answer.outcome.ok_or(Error::Incomplete("answer"))?;
    let outcome = outcome.one_line();
    match &outcome {
        Outcome::Payload(payload) => {
            printer.either(&outcome, &answered(payload))?;
            Ok(ExitStatus::Success)
        }
        Outcome::Error(error) => {
            printer.done(&outcome, &refused(error))?;
            Ok(ExitStatus::Failed)
        }
    }
}

pub(crate) async fn disconnect(
    id: String,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    #[derive(Serialize)]
    struct Disconnected {
        id: String,
    }

    let request = v1::DisconnectRequest {
        station_id: id.clone(),
    };
    client.stations().disconnect(request).await?;
    let sentence = format!("disconnected {id}; it may dial again at once");
    printer.done(&Disconnected { id }, &sentence)?;
    Ok(ExitStatus::Success)
}

/// The text itself, `@FILE`, or `-` for standard input.
fn body(argument: &str) -> Result<String, Error> {
    let read = match (argument, argument.strip_prefix('@')) {
        ("-", _) => read_from(io::stdin().lock()),
        (_, Some(path)) => File::open(Path::new(path)).and_then(read_from),
        (text, None) => return Ok(text.to_owned()),
    };
    read.map_err(|source| Error::Body {
        argument: argument.to_owned(),
        source,
    })
}

fn read_from(source: impl Read) -> io::Result<String> {
    let mut text = String::new();
    source.take(MAX_BODY + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BODY {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "longer than 4 MiB",
        ));
    }
    Ok(text)
}

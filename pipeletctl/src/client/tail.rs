//! Events as they happen, over as many connections as that takes.
//!
//! Invariant: nothing is skipped and nothing comes twice when a connection breaks, because each
//! new one begins behind the last event, or where the first one began. What an event is, and what
//! becomes of it, is the caller's.

use std::{error::Error as _, time::Duration};

use pipelet_proto::v1;
use tonic::{Code, Streaming};

use crate::{
    client::Client,
    error::{Error, chain},
    output::Printer,
};

/// The waits before a daemon that is away is tried again; the last repeats.
const BACKOFF: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

#[derive(Debug)]
pub(crate) struct Tail<'a> {
    client: &'a Client,
    /// Says where the next connection begins.
    request: v1::TailEventsRequest,
    stream: Streaming<v1::TailEventsResponse>,
}

impl<'a> Tail<'a> {
    /// Fails where the daemon can't be reached now: to wait for one that was never there would
    /// hide a wrong address.
    pub(crate) async fn open(
        request: v1::TailEventsRequest,
        client: &'a Client,
    ) -> Result<Self, Error> {
        let request = v1::TailEventsRequest {
            announce: true,
            ..request
        };
        let mut stream = open_stream(&request, client).await?;
        let announced = stream.message().await?.ok_or(Error::StreamEnded)?;
        if announced.event.is_some() {
            // A daemon that is older, and knows of no announcement.
            return Err(Error::Incomplete("beginning of the tail"));
        }
        let mut tail = Self {
            client,
            request,
            stream,
        };
        tail.advance(announced.cursor);
        tail.request.announce = false;
        Ok(tail)
    }

    pub(crate) async fn next(
        &mut self,
        printer: &Printer,
    ) -> Result<v1::TailEventsResponse, Error> {
        loop {
            let lost = match self.stream.message().await {
                Ok(Some(message)) => {
                    self.advance(message.cursor.clone());
                    return Ok(message);
                }
                Ok(None) => Error::StreamEnded,
                Err(status) => status.into(),
            };
            if !is_transient(&lost) {
                return Err(lost);
            }
            printer.note(&format!("lost the daemon ({}); trying again", chain(&lost)));
            self.stream = self.reconnect().await?;
            printer.note("the daemon is back; going on behind the last event");
        }
    }

    async fn reconnect(&self) -> Result<Streaming<v1::TailEventsResponse>, Error> {
        let last = BACKOFF[BACKOFF.len() - 1];
        for wait in BACKOFF.into_iter().chain(std::iter::repeat(last)) {
            tokio::time::sleep(wait).await;
            match open_stream(&self.request, self.client).await {
                Ok(stream) => return Ok(stream),
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::StreamEnded)
    }

    fn advance(&mut self, cursor: String) {
        if !cursor.is_empty() {
            self.request.after = cursor;
        }
    }
}

async fn open_stream(
    request: &v1::TailEventsRequest,
    client: &Client,
) -> Result<Streaming<v1::TailEventsResponse>, Error> {
    let answer = client.events().tail_events(request.clone()).await?;
    Ok(answer.into_inner())
}

/// Whether it may be over in a while: the connection, or the daemon's being away.
fn is_transient(error: &Error) -> bool {
    let Error::Call(status) = error else {
        return matches!(error, Error::StreamEnded);
    };
    // Only what failed on this side of the wire has a source.
    status.source().is_some()
        || matches!(
            status.code(),
            // A daemon may still hold the place of the connection that broke.
            Code::Unavailable | Code::Cancelled | Code::ResourceExhausted
        )
}

//! A connection that speaks HTTP/2, over which one webhook's attempts have a stream each.
//!
//! It has a task of its own, because its streams don't end in turn. It lives for as long as
//! somebody holds it.

use std::{
    future::{Future as _, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason, RecvStream,
    client::{Builder, Connection, ResponseFuture, SendRequest},
};
use http::{Request, Response, Uri};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{
    AttemptError,
    response_buffer::{Interim, ResponseBuffer},
    stream::{Allowance, Stream},
};

/// Of an answer's body, how much may be on its way. More than is kept of it, so that one that has
/// more is known by it.
const WINDOW: u32 = 16 * 1024;
/// Of an answer's head, in bytes.
const HEAD: u32 = 16 * 1024;
/// At most so many streams at once, whatever the receiver allows.
const STREAMS: usize = 100;

#[derive(Debug)]
pub(super) struct Http2 {
    pub(super) origin: Uri,
    requests: SendRequest<Bytes>,
    /// Attempts that use it, or are about to.
    in_use: AtomicUsize,
    allowance: Allowance,
    /// The receiver takes no more requests over it, though there may be streams that have not ended.
    is_closing: AtomicBool,
    task: AbortOnDropHandle<()>,
}

/// A right to a stream.
#[derive(Debug)]
pub(super) struct StreamSlot(Arc<Http2>);

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.in_use.fetch_sub(1, Relaxed);
    }
}

impl Http2 {
    /// One over which nothing comes any more is found out by a ping every so often.
    pub(super) async fn begin(
        stream: Stream,
        origin: Uri,
        ping_every: Duration,
    ) -> Result<Arc<Self>, AttemptError> {
        let allowance = stream.allowance();
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(WINDOW)
            .max_header_list_size(HEAD);
        let (requests, mut connection) = builder.handshake(stream).await?;
        let pings = connection.ping_pong().expect("taken once");
        let task = tokio::spawn(drive(connection, pings, ping_every));
        Ok(Arc::new(Self {
            origin,
            requests,
            in_use: AtomicUsize::new(0),
            allowance,
            is_closing: AtomicBool::new(false),
            task: AbortOnDropHandle::new(task),
        }))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.is_closing.load(Relaxed) || self.task.is_finished()
    }

    /// None where it has ended, or has as many streams as it may.
    pub(super) fn slot(self: Arc<Self>) -> Option<StreamSlot> {
        let most = STREAMS.min(self.requests.current_max_send_streams());
        let take = |in_use| (in_use < most).then_some(in_use + 1);
        let taken = !self.has_ended() && self.in_use.fetch_update(Relaxed, Relaxed, take).is_ok();
        taken.then(|| StreamSlot(self))
    }
}

impl StreamSlot {
    pub(super) fn connection(&self) -> &Arc<Http2> {
        &self.0
    }

    /// Sends the request on a stream of its own and receives the answer.
    pub(super) async fn exchange(
        &self,
        request: impl Fn() -> Request<()>,
        body: &Bytes,
        buffer: &mut ResponseBuffer,
    ) -> Result<(), AttemptError> {
        let ended = self.attempt(request(), body.clone(), buffer).await;
        if ended == Err(AttemptError::StreamRefused) && buffer.is_empty() {
            // Nothing was done with it (RFC 9113, section 8.7).
            return self.attempt(request(), body.clone(), buffer).await;
        }
        ended
    }

    async fn attempt(
        &self,
        request: Request<()>,
        body: Bytes,
        buffer: &mut ResponseBuffer,
    ) -> Result<(), AttemptError> {
        let Http2 {
            requests,
            in_use,
            allowance,
            is_closing,
            task,
            ..
        } = &*self.0;
        let all = Allowance::STREAM * in_use.load(Relaxed);
        allowance.at_least(all);
        // Whatever this says, the connection is not one for a request.
        let ready = requests.clone().ready().await;
        let mut requests = ready.map_err(|_ended| {
            is_closing.store(true, Relaxed);
            AttemptError::BrokenOff
        })?;
        let (answer, mut sending) = requests.send_request(request, false)?;
        // What the receiver has no room for yet waits within the connection.
        sending.send_data(body, true)?;
        let interim = Interim::default();
        let response = head(answer, &interim).await.inspect_err(|error| {
            // Resetting the stream would not keep more of them from coming.
            if *error == AttemptError::Interim {
                task.abort();
            }
        })?;
        let (parts, mut body) = response.into_parts();
        buffer.begin(&parts);
        receive(&mut body, buffer).await
    }
}

async fn head(
    mut answer: ResponseFuture,
    interim: &Interim,
) -> Result<Response<RecvStream>, AttemptError> {
    poll_fn(|context| {
        while let Poll::Ready(Some(Ok(response))) = answer.poll_informational(context) {
            interim.note(response.headers());
            interim.check()?;
        }
        let answer = Pin::new(&mut answer).poll(context);
        answer.map_err(AttemptError::from)
    })
    .await
}

async fn receive(body: &mut RecvStream, buffer: &mut ResponseBuffer) -> Result<(), AttemptError> {
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        // What is not given back here is when the stream ends.
        let _ = body.flow_control().release_capacity(chunk.len());
        if !buffer.push(&chunk) {
            return Ok(());
        }
    }
    buffer.end();
    Ok(())
}

/// Lets the connection do its reading and writing until it ends, or doesn't answer a ping.
async fn drive(connection: Connection<Stream, Bytes>, mut pings: PingPong, every: Duration) {
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            // Its streams say why.
            _ = &mut connection => return,
            () = sleep(every) => {}
        }
        let pong = timeout(every / 2, pings.ping(Ping::opaque()));
        tokio::select! {
            _ = &mut connection => return,
            pong = pong => if !matches!(pong, Ok(Ok(_))) { return },
        }
    }
}

impl From<h2::Error> for AttemptError {
    fn from(error: h2::Error) -> Self {
        if let Some(io) = error.get_io() {
            Self::by_cause(io).unwrap_or(Self::BrokenOff)
        } else if error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM) {
            Self::StreamRefused
        } else if error.is_remote() && error.is_reset() {
            Self::StreamReset
        } else if error.is_remote() {
            Self::BrokenOff
        } else {
            Self::Protocol
        }
    }
}

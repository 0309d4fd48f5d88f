//! A connection that speaks HTTP/1.1.
//!
//! It is driven by the attempt that uses it, within that attempt's task: no task for the
//! connection, and nobody to be woken on another thread. Measured against reqwest in the same
//! daemon, that halves what a POST costs.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::{client::conn::http1, ext};
use hyper_util::rt::TokioIo;
use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};

use super::{
    AttemptError,
    response_buffer::{Interim, ResponseBuffer},
    stream::{Allowance, Stream},
};

/// Of an answer's head and what is read ahead of its body, in bytes.
const READ_BUFFER: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Http1 {
    sender: http1::SendRequest<Full<Bytes>>,
    /// On the heap: it is moved with every attempt.
    driver: Box<Driver>,
    allowance: Allowance,
}

/// None once the connection has ended.
#[derive(Debug)]
struct Driver(Option<http1::Connection<TokioIo<Stream>, Full<Bytes>>>);

impl Http1 {
    pub(super) async fn begin(stream: Stream) -> Result<Self, AttemptError> {
        let allowance = stream.allowance();
        let mut builder = http1::Builder::new();
        builder.max_buf_size(READ_BUFFER);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        let driver = Box::new(Driver(Some(connection)));
        Ok(Self {
            sender,
            driver,
            allowance,
        })
    }

    /// The same connection, where nothing is there to be read. The socket itself is asked, because
    /// what the runtime knows of it may be older, and what is read behind the next request would
    /// pass for its answer.
    pub(super) async fn if_silent(self) -> Option<Self> {
        let parts = self.driver.0?.into_parts();
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let there = recv(parts.io.inner().socket(), &mut [0], peek);
        if !parts.read_buf.is_empty() || there.err() != Some(Errno::WOULDBLOCK) {
            return None;
        }
        Self::begin(parts.io.into_inner()).await.ok()
    }

    /// Sends the request and receives the answer; returns whether the connection can be used again.
    pub(super) async fn exchange(
        &mut self,
        mut request: Request<Full<Bytes>>,
        buffer: &mut ResponseBuffer,
    ) -> Result<bool, AttemptError> {
        self.allowance.at_least(Allowance::EXCHANGE);
        let interim = Arc::new(Interim::default());
        let noted = Arc::clone(&interim);
        ext::on_informational(&mut request, move |answer| noted.note(answer.headers()));
        let Self { sender, driver, .. } = self;
        let exchange = async {
            sender.ready().await?;
            let sent = sender.try_send_request(request).await;
            let response = sent.map_err(|mut error| match error.take_message() {
                // Nothing of it was written, whatever it was that ended the connection.
                Some(_) => AttemptError::BrokenOff,
                None => error.into_error().into(),
            })?;
            let (parts, mut body) = response.into_parts();
            buffer.begin(&parts);
            while let Some(frame) = body.frame().await {
                if let Some(chunk) = frame?.data_ref()
                    && !buffer.push(chunk)
                {
                    return Ok(false);
                }
            }
            buffer.end();
            // A receiver may answer before it has read everything: then the rest is still to be
            // written.
            Ok(sender.ready().await.is_ok())
        };
        driver.along(exchange, &interim).await
    }
}

impl Driver {
    /// Lets the connection do its reading and writing for as long as the exchange takes.
    async fn along<T>(
        &mut self,
        exchange: impl Future<Output = Result<T, AttemptError>>,
        interim: &Interim,
    ) -> Result<T, AttemptError> {
        let mut exchange = pin!(exchange);
        poll_fn(|context| {
            if let Poll::Ready(done) = exchange.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            // What ends the connection also ends the exchange, which says why.
            if let Some(connection) = &mut self.0
                && Pin::new(connection).poll(context).is_ready()
            {
                self.0 = None;
            }
            interim.check()?;
            exchange.as_mut().poll(context)
        })
        .await
    }
}

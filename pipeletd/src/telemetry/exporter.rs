//! Takes spans to a collector, in batches.
//!
//! A batch that the collector does not take is dropped and counted: it is not sent again, because
//! the next ones wait behind it. The log tells of dropped spans once in a while.

use std::{fmt, time::Duration};

use reqwest::{Client, Response, header, redirect};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{Endpoint, Span, Spans, otlp};

/// As many as a collector takes at once in its default settings.
const BATCH: usize = 512;
/// How long a batch waits for more.
const DELAY: Duration = Duration::from_secs(1);
/// The time limit of an exchange with the collector.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often the log tells of dropped spans, at most.
const REPORT_EVERY: Duration = Duration::from_mins(1);
/// How long what is queued may take to be exported at shutdown.
const FLUSH: Duration = Duration::from_secs(2);
/// How much of an answer is read, in bytes.
const ANSWER_LIMIT: usize = 4096;

/// The task that exports.
#[derive(Debug)]
pub struct Exporter {
    spans: Spans,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Debug, thiserror::Error)]
#[error("can't set up the exporter of spans")]
pub struct ExporterError(#[source] reqwest::Error);

/// Why a batch was not taken.
#[derive(Debug)]
enum NotTaken {
    Status(u16),
    /// No answer. Its text has the collector's URL, which is no secret.
    Http(reqwest::Error),
    Some(u64),
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "the collector answered {status}"),
            Self::Http(error) if error.is_timeout() => f.write_str("the collector takes too long"),
            Self::Http(error) if error.is_connect() => f.write_str("can't connect"),
            Self::Http(error) => write!(f, "{error}"),
            Self::Some(count) => write!(f, "the collector rejected {count} of a batch"),
        }
    }
}

struct Worker {
    endpoint: Endpoint,
    client: Client,
    spans: Spans,
    queue: mpsc::Receiver<Span>,
    stop: CancellationToken,
    reported: Reported,
}

/// What was reported to the log.
#[derive(Default)]
struct Reported {
    dropped: u64,
    at: Option<Instant>,
}

impl Exporter {
    /// Exports what is left in the returned [`Spans`], until it is stopped. Must be called within a
    /// runtime; the process must have a default rustls provider by now.
    pub fn start(endpoint: Endpoint) -> Result<(Spans, Self), ExporterError> {
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .timeout(TIMEOUT)
            .build()
            .map_err(ExporterError)?;
        let (spans, queue) = Spans::queued();
        let stop = CancellationToken::new();
        let worker = Worker {
            endpoint,
            client,
            spans: spans.clone(),
            queue,
            stop: stop.clone(),
            reported: Reported::default(),
        };
        let exporter = Self {
            spans: spans.clone(),
            stop,
            task: tokio::spawn(worker.run()),
        };
        Ok((spans, exporter))
    }

    /// Exports what is queued, for a moment, and ends.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if timeout(FLUSH, &mut self.task).await.is_err() {
            self.task.abort();
            let dropped = self.spans.counts().dropped;
            tracing::warn!(dropped, "the last spans could not be exported in time");
        }
    }
}

impl Worker {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.gather(&mut batch).await {
            let exported = self.export(&batch).await;
            batch.clear();
            match exported {
                Ok(()) => self.report(&"more came than the collector takes"),
                Err(why) => self.report(&why),
            }
        }
        // Whatever was not reported yet.
        self.reported.at = None;
        self.report(&"the daemon ended");
    }

    /// Waits for spans, and then for more of them, unless it is to stop; false once there will be
    /// no more.
    async fn gather(&mut self, batch: &mut Vec<Span>) -> bool {
        tokio::select! {
            got = self.queue.recv_many(batch, BATCH) => if got == 0 {
                return false;
            },
            () = self.stop.cancelled(), if !self.queue.is_closed() => {
                self.queue.close();
                return self.queue.recv_many(batch, BATCH).await > 0;
            }
        }
        let end = Instant::now() + DELAY;
        while batch.len() < BATCH && !self.queue.is_closed() {
            let room = BATCH - batch.len();
            tokio::select! {
                got = timeout_at(end, self.queue.recv_many(batch, room)) => match got {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                },
                () = self.stop.cancelled() => self.queue.close(),
            }
        }
        true
    }

    async fn export(&self, batch: &[Span]) -> Result<(), NotTaken> {
        let sent = self.send(batch).await;
        let rejected = match &sent {
            Ok(()) => 0,
            Err(NotTaken::Some(count)) => usize::try_from(*count).unwrap_or(usize::MAX),
            Err(NotTaken::Status(_) | NotTaken::Http(_)) => batch.len(),
        };
        let rejected = rejected.min(batch.len());
        self.spans.dropped(rejected);
        self.spans.exported(batch.len() - rejected);
        sent
    }

    async fn send(&self, batch: &[Span]) -> Result<(), NotTaken> {
        let url = self.endpoint.traces().clone();
        let request = self.client.post(url);
        let request = request.header(header::CONTENT_TYPE, "application/x-protobuf");
        let sent = request.body(otlp::request(batch)).send().await;
        let response = sent.map_err(NotTaken::Http)?;
        if !response.status().is_success() {
            return Err(NotTaken::Status(response.status().as_u16()));
        }
        let answer = beginning(response).await.map_err(NotTaken::Http)?;
        match otlp::rejected(&answer) {
            0 => Ok(()),
            count => Err(NotTaken::Some(count)),
        }
    }

    /// Reports to the log that spans were dropped, where it has not done so for a while.
    fn report(&mut self, why: &(dyn fmt::Display + Sync)) {
        let (dropped, now) = (self.spans.counts().dropped, Instant::now());
        let quiet = |at: Instant| now.duration_since(at) < REPORT_EVERY;
        if dropped == self.reported.dropped || self.reported.at.is_some_and(quiet) {
            return;
        }
        let more = dropped - self.reported.dropped;
        tracing::warn!(dropped = more, error = %why, "spans were dropped");
        self.reported = Reported {
            dropped,
            at: Some(now),
        };
    }
}

/// What an answer begins with: a collector has little to say.
async fn beginning(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut answer = Vec::new();
    while answer.len() < ANSWER_LIMIT {
        let Some(chunk) = response.chunk().await? else {
            break;
        };
        answer.extend_from_slice(&chunk);
    }
    Ok(answer)
}

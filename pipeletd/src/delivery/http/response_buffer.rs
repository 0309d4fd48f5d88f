//! What was received of an answer, whole or not: a deadline may cut it anywhere.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, response};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{AttemptError, Outcome, Sender, policy};

#[derive(Debug, Default)]
pub(super) struct ResponseBuffer {
    status: Option<StatusCode>,
    since: Option<Instant>,
    /// As often as the answer says it.
    retry_after: Vec<HeaderValue>,
    /// The body's beginning.
    pub(super) answer: Vec<u8>,
    /// All of it that matters was received.
    ended: bool,
}

/// The interim answers (1xx) to one request. A receiver may say that it is still there; what it
/// says is not for us, and must end.
#[derive(Debug, Default)]
pub(super) struct Interim {
    count: AtomicUsize,
    bytes: AtomicUsize,
}

impl Interim {
    /// Early hints (RFC 8297) may come several times, and nothing else does.
    pub(super) const MOST: usize = 8;

    pub(super) fn note(&self, headers: &HeaderMap) {
        let field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
        self.count.fetch_add(1, Relaxed);
        let bytes = headers.iter().map(field).sum();
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn check(&self) -> Result<(), AttemptError> {
        let (count, bytes) = (self.count.load(Relaxed), self.bytes.load(Relaxed));
        if count > Self::MOST || bytes > Sender::ANSWER_LIMIT {
            return Err(AttemptError::Interim);
        }
        Ok(())
    }
}

impl ResponseBuffer {
    /// The answer's head has come.
    pub(super) fn begin(&mut self, head: &response::Parts) {
        self.status = Some(head.status);
        self.since = Some(Instant::now());
        let retry_after = head.headers.get_all(header::RETRY_AFTER);
        self.retry_after = retry_after.iter().cloned().collect();
    }

    /// Some of its body has come. False once that exceeds the limit: what is beyond is not waited
    /// for.
    pub(super) fn push(&mut self, chunk: &[u8]) -> bool {
        let room = Sender::ANSWER_LIMIT - self.answer.len();
        self.answer
            .extend_from_slice(&chunk[..chunk.len().min(room)]);
        self.ended = chunk.len() > room;
        !self.ended
    }

    /// That was all of it.
    pub(super) const fn end(&mut self) {
        self.ended = true;
    }

    /// When the answer began.
    pub(super) const fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Not a word of an answer has come, as far as that can be told.
    pub(super) const fn is_empty(&self) -> bool {
        self.status.is_none()
    }

    /// The deadline has come; an answer that had ended by then counts.
    pub(super) const fn cut_off(&self, limit: Duration) -> Result<(), AttemptError> {
        match self.status {
            Some(_) if self.ended => Ok(()),
            Some(_) => Err(AttemptError::AnswerTimeout { limit }),
            None => Err(AttemptError::Timeout { limit }),
        }
    }

    /// What it comes to, `end` being how it ended.
    pub(super) fn outcome(
        &self,
        end: Result<(), AttemptError>,
        now: Timestamp,
    ) -> Outcome<AttemptError> {
        match (self.status, end) {
            // What the receiver said counts, even where it did not finish saying it.
            (Some(status), _) if !status.is_success() => Outcome::Rejected {
                status: status.as_u16(),
                retry_after: self.retry_after(now),
            },
            (Some(status), Ok(())) => Outcome::Delivered {
                status: status.as_u16(),
            },
            // A receiver that fails in the middle of its answer may not have kept the event.
            (status, Err(error)) => Outcome::Failed {
                status: status.map(|status| status.as_u16()),
                error,
            },
            (None, Ok(())) => Outcome::Failed {
                status: None,
                error: AttemptError::Protocol,
            },
        }
    }

    /// The longest wait that it asks for, where it says several.
    fn retry_after(&self, now: Timestamp) -> Option<Duration> {
        let values = self
            .retry_after
            .iter()
            .filter_map(|value| value.to_str().ok());
        values
            .filter_map(|value| policy::parse_retry_after(value, now))
            .max()
    }
}

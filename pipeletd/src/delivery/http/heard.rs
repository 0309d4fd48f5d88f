//! What was heard of an answer, whole or not: a deadline may cut it anywhere.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Body;
use jiff::Timestamp;
use tokio::time::Instant;

use super::{AttemptError, Outcome, Sender, policy};

#[derive(Debug, Default)]
pub(super) struct Heard {
    status: Option<StatusCode>,
    since: Option<Instant>,
    /// As often as the answer says it.
    retry_after: Vec<HeaderValue>,
    /// The body's beginning.
    pub(super) answer: Vec<u8>,
    /// All of it that matters was heard.
    ended: bool,
}

impl Heard {
    /// Reads an answer to its end, or to where it exceeds the limit: what is beyond is not waited
    /// for. Tells whether the end was reached.
    pub(super) async fn listen<B>(
        &mut self,
        mut response: Response<B>,
    ) -> Result<bool, AttemptError>
    where
        B: Body<Data = Bytes> + Unpin,
        AttemptError: From<B::Error>,
    {
        self.status = Some(response.status());
        self.since = Some(Instant::now());
        let retry_after = response.headers().get_all(header::RETRY_AFTER);
        self.retry_after = retry_after.iter().cloned().collect();
        let body = response.body_mut();
        while let Some(frame) = body.frame().await {
            let frame = frame?;
            let Some(chunk) = frame.data_ref() else {
                continue;
            };
            let room = Sender::ANSWER_LIMIT - self.answer.len();
            self.answer
                .extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() > room {
                self.ended = true;
                return Ok(false);
            }
        }
        self.ended = true;
        Ok(true)
    }

    /// When the answer began.
    pub(super) const fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Not a word of an answer has come, as far as that can be told.
    pub(super) const fn is_nothing(&self) -> bool {
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

//! The id of a request: in its answer, and in the log lines of all that it leads to.
//!
//! A caller may bring its own, so that its log and ours tell one story; what is no plain word is
//! replaced, because it goes into log lines and headers as it is.

use std::fmt;

use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::{Instrument as _, Span, error_span};

pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// In bytes, of an id that a caller brings.
const MAX_LEN: usize = 64;

tokio::task_local! {
    /// The id of the request that this task answers.
    static CURRENT: RequestId;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestId(String);

impl RequestId {
    /// The caller's, or a new one.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut brought = headers.get_all(HEADER).iter();
        let brought = (brought.next(), brought.next());
        let one = match brought {
            (Some(id), None) => id.to_str().ok().filter(|id| is_plain(id)),
            (_, _) => None,
        };
        one.map_or_else(Self::random, |id| Self(id.to_owned()))
    }

    /// Writes it down for whoever answers.
    pub(super) fn set(&self, headers: &mut HeaderMap) {
        if let Ok(id) = HeaderValue::from_str(&self.0) {
            headers.insert(HEADER, id);
        }
    }

    /// That of the request which is answered here, or a new one.
    pub(super) fn current() -> Self {
        CURRENT
            .try_with(Self::clone)
            .unwrap_or_else(|_| Self::random())
    }

    /// Answers a request under this id, which the answer bears too.
    pub(super) async fn answer(self, answer: impl Future<Output = Response>) -> Response {
        let span = self.span();
        let answer = CURRENT.scope(self.clone(), answer).instrument(span);
        let mut response = answer.await;
        self.set(response.headers_mut());
        response
    }

    /// Does something under this id, where the task is no longer the one that answers.
    pub(super) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), work)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn random() -> Self {
        let mut random = [0; 8];
        // Without randomness an id says less, but a request is still answered.
        let _ = getrandom::fill(&mut random);
        Self(format!("req_{:016x}", u64::from_be_bytes(random)))
    }

    /// At the highest level, so that whatever is logged at all within it has the id.
    fn span(&self) -> Span {
        error_span!("request", request_id = %self)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_plain(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=MAX_LEN).contains(&id.len()) && id.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_brings() {
        let check = |brought: &[&[u8]], taken: bool| {
            let values = brought
                .iter()
                .map(|id| HeaderValue::from_bytes(id).unwrap());
            let headers = values.map(|id| (HEADER, id)).collect();
            let id = RequestId::of(&headers);
            let same = brought
                .first()
                .is_some_and(|first| *first == id.0.as_bytes());
            assert_eq!(same, taken, "{brought:?}");
            assert!(taken || id.0.starts_with("req_"), "{id}");
        };
        check(&[b"01J9-a.b_c"], true);
        check(&[&[b'a'; MAX_LEN]], true);
        check(&[&[b'a'; MAX_LEN + 1]], false);
        check(&[], false);
        check(&[b""], false);
        check(&[b"a", b"b"], false);
        check(&[b"a b"], false);
        check(&[b"a\"b"], false);
        check(&["\u{e4}".as_bytes()], false);
    }
}

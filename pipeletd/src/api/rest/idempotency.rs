//! `Idempotency-Key` on POST (draft-ietf-httpapi-idempotency-key-header): who does not know whether
//! a request came through sends it again, and it is done once.
//!
//! The first answer is kept for a day, for the API key that asked, and given again. In memory only:
//! after a restart of the daemon a key is a new one. What fails on our side is not kept, so that it
//! can be tried again. A request that has been begun is finished, though its caller goes away.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Extension,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{
    super::{error::ApiError, request_id::RequestId},
    body,
    problem::Problem,
};
use crate::registries::Caller;

pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer is an earlier one.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// In bytes, of a key.
const MAX_KEY: usize = 255;
/// In bytes, of an answer; a longer one is not kept.
const MAX_ANSWER: usize = 1 << 20;
const KEPT_FOR: Duration = Duration::from_hours(24);
const MAX_KEPT: usize = 10_000;
const MAX_KEPT_BYTES: usize = 32 << 20;

/// Of whom, and the key.
type Asked = (u64, String);
/// What tells two requests apart.
type Fingerprint = [u8; 32];

/// What has been asked under which key. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Idempotency(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    asked: HashMap<Asked, Entry>,
    /// Those that were answered, the oldest first.
    answered: VecDeque<(Instant, Asked)>,
    /// Of the answers.
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    fingerprint: Fingerprint,
    /// None while it is under way.
    answer: Option<Answer>,
}

#[derive(Debug, Clone)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// What to do about a request.
#[derive(Debug)]
enum Found {
    /// It is new, and under way from now on.
    New,
    UnderWay,
    Answered(Answer),
    /// The key was used for another.
    Another,
}

/// Answers what was asked before as it was answered then.
pub(super) async fn once(
    State(idempotency): State<Idempotency>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let key = match key(&request) {
        Ok(Some(key)) => key,
        Ok(None) => return next.run(request).await,
        Err(error) => return Problem::from(error).into_response(),
    };
    let (request, fingerprint) = match read(request).await {
        Ok(read) => read,
        Err(error) => return Problem::from(error).into_response(),
    };
    let asked = (caller.key_id, key);
    let found = idempotency.table().begin(asked.clone(), fingerprint);
    match found {
        Found::New => idempotency.answer(asked, request, next).await,
        Found::Answered(answer) => answer.again(),
        Found::UnderWay => Problem::from(ApiError::Conflict {
            code: "idempotency_in_flight",
            message: "the same request is still under way".to_owned(),
        })
        .into_response(),
        Found::Another => {
            let message = "this key was used for another request";
            let error = ApiError::fault("Idempotency-Key", "idempotency_key_reused", message);
            Problem::from(error).into_response()
        }
    }
}

/// The key, as the draft writes it or bare.
fn key(request: &Request) -> Result<Option<String>, ApiError> {
    let Some(said) = request.headers().get(KEY) else {
        return Ok(None);
    };
    if request.method() != Method::POST {
        return Ok(None);
    }
    let said = said.to_str().unwrap_or_default().trim();
    let bare = said.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
    let key = bare.unwrap_or(said);
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'"';
    if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(fits) {
        let message = format!("a key has 1 to {MAX_KEY} visible characters of ASCII");
        return Err(ApiError::fault("Idempotency-Key", "invalid_value", message));
    }
    Ok(Some(key.to_owned()))
}

/// Reads the body, for what follows to read it again.
async fn read(request: Request) -> Result<(Request, Fingerprint), ApiError> {
    let (parts, body) = request.into_parts();
    let bytes = body::read(body).await?;
    let mut hash = Sha256::new();
    hash.update(parts.uri.to_string());
    hash.update([0]);
    hash.update(&bytes);
    let request = Request::from_parts(parts, Body::from(bytes));
    Ok((request, hash.finalize().into()))
}

impl Idempotency {
    async fn answer(self, asked: Asked, request: Request, next: Next) -> Response {
        let running = async move {
            let mut unanswered = Unanswered(&self, Some(asked));
            let response = next.run(request).await;
            let (answer, response) = Answer::of(response).await;
            if let Some(answer) = answer
                && let Some(asked) = unanswered.1.take()
            {
                self.table().end(asked, answer, Instant::now());
            }
            response
        };
        // A task of its own does not know by itself whose it is.
        match tokio::spawn(RequestId::current().answer(running)).await {
            Ok(response) => response,
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
                let why = "shutting down".to_owned();
                Problem::from(ApiError::Unavailable(why)).into_response()
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets a request that ends without an answer to keep.
struct Unanswered<'a>(&'a Idempotency, Option<Asked>);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(asked) = self.1.take() {
            self.0.table().asked.remove(&asked);
        }
    }
}

impl Table {
    fn begin(&mut self, asked: Asked, fingerprint: Fingerprint) -> Found {
        self.forget(Instant::now());
        match self.asked.get(&asked) {
            Some(known) if known.fingerprint != fingerprint => Found::Another,
            Some(Entry {
                answer: Some(answer),
                ..
            }) => Found::Answered(answer.clone()),
            Some(_) => Found::UnderWay,
            None => {
                let answer = None;
                let entry = Entry {
                    fingerprint,
                    answer,
                };
                self.asked.insert(asked, entry);
                Found::New
            }
        }
    }

    fn end(&mut self, asked: Asked, answer: Answer, now: Instant) {
        let Some(entry) = self.asked.get_mut(&asked) else {
            return;
        };
        self.bytes += answer.body.len();
        entry.answer = Some(answer);
        self.answered.push_back((now, asked));
        self.forget(now);
    }

    /// Forgets what is too old, and the oldest of what is too much.
    fn forget(&mut self, now: Instant) {
        while let Some((at, asked)) = self.answered.front() {
            let too_old = now.saturating_duration_since(*at) > KEPT_FOR;
            if !too_old && self.answered.len() <= MAX_KEPT && self.bytes <= MAX_KEPT_BYTES {
                return;
            }
            let entry = self.asked.remove(asked);
            let answer = entry.and_then(|entry| entry.answer);
            self.bytes -= answer.map_or(0, |answer| answer.body.len());
            self.answered.pop_front();
        }
    }
}

impl Answer {
    /// The answer, where it is one to keep, and the response that it was taken from.
    async fn of(response: Response) -> (Option<Self>, Response) {
        let status = response.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return (None, response);
        }
        let (parts, body) = response.into_parts();
        let Ok(body) = to_bytes(body, usize::MAX).await else {
            let why = anyhow::anyhow!("an answer broke off");
            return (None, Problem::from(ApiError::internal(why)).into_response());
        };
        let keep = [header::CONTENT_TYPE, header::LOCATION, header::ETAG];
        let kept = keep.into_iter().filter_map(|name| {
            let value = parts.headers.get(&name)?.clone();
            Some((name, value))
        });
        let answer = Self {
            status,
            headers: kept.collect(),
            body: body.clone(),
        };
        let answer = (body.len() <= MAX_ANSWER).then_some(answer);
        (answer, Response::from_parts(parts, Body::from(body)))
    }

    fn again(self) -> Response {
        let replayed = [(REPLAYED, HeaderValue::from_static("true"))];
        (self.status, self.headers, replayed, self.body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(len: usize) -> Answer {
        Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: vec![0; len].into(),
        }
    }

    fn asked(number: u64) -> Asked {
        (1, number.to_string())
    }

    #[test]
    fn a_request_is_new_under_way_and_answered() {
        let mut table = Table::default();
        let now = Instant::now();
        assert!(matches!(table.begin(asked(1), [1; 32]), Found::New));
        assert!(matches!(table.begin(asked(1), [1; 32]), Found::UnderWay));
        assert!(matches!(table.begin(asked(1), [2; 32]), Found::Another));
        // Another caller's key is another key.
        assert!(matches!(
            table.begin((2, "1".to_owned()), [2; 32]),
            Found::New
        ));
        table.end(asked(1), answer(7), now);
        assert!(matches!(table.begin(asked(1), [1; 32]), Found::Answered(_)));
        assert!(matches!(table.begin(asked(1), [2; 32]), Found::Another));
        table.forget(now + KEPT_FOR + Duration::from_secs(1));
        assert!(matches!(table.begin(asked(1), [2; 32]), Found::New));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut table = Table::default();
        let now = Instant::now();
        for number in 0..MAX_KEPT as u64 + 5 {
            table.begin(asked(number), [0; 32]);
            table.end(asked(number), answer(1), now);
        }
        assert_eq!(table.answered.len(), MAX_KEPT);
        assert_eq!(table.asked.len(), MAX_KEPT);
        for number in 0..40 {
            table.begin((2, number.to_string()), [0; 32]);
            table.end((2, number.to_string()), answer(MAX_ANSWER), now);
        }
        assert!(table.bytes <= MAX_KEPT_BYTES, "{}", table.bytes);
        let sizes = table.asked.values().map(|entry| {
            let answer = entry.answer.as_ref();
            answer.map_or(0, |answer| answer.body.len())
        });
        assert_eq!(table.bytes, sizes.sum::<usize>());
    }
}

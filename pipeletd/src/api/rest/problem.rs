//! Errors as `application/problem+json` (RFC 9457).

use std::any::Any;

use axum::{
    Json,
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use tonic::Status;

use super::super::{error::ApiError, request_id::RequestId};

/// An error as an answer.
#[derive(Debug)]
pub(in crate::api) struct Problem {
    error: ApiError,
    id: RequestId,
    /// Whether the log knows of it.
    is_logged: bool,
}

impl Problem {
    pub(super) fn new(error: ApiError, id: RequestId) -> Self {
        let is_logged = false;
        Self {
            error,
            id,
            is_logged,
        }
    }

    /// The same, where only its words are others.
    pub(super) fn map(self, words: impl FnOnce(ApiError) -> ApiError) -> Self {
        let error = words(self.error);
        Self { error, ..self }
    }

    /// The document that tells of it.
    pub(super) fn document(&self) -> Value {
        let Self { error, id, .. } = self;
        let status = status(error);
        let mut problem = Map::from_iter([
            ("type".to_owned(), json!("about:blank")),
            ("title".to_owned(), json!(status.canonical_reason())),
            ("status".to_owned(), json!(status.as_u16())),
            ("code".to_owned(), json!(error.code())),
            ("detail".to_owned(), json!(error.message())),
            ("request_id".to_owned(), json!(id.as_str())),
        ]);
        if let ApiError::Invalid(faults) = error {
            let faults = faults.iter().map(|fault| {
                json!({ "pointer": fault.pointer, "code": fault.code, "message": fault.message })
            });
            problem.insert("errors".to_owned(), faults.collect());
        }
        if let ApiError::Forbidden { needed, .. } = error {
            problem.insert("needed_role".to_owned(), json!(needed.name()));
        }
        Value::Object(problem)
    }
}

impl<E: Into<ApiError>> From<E> for Problem {
    fn from(error: E) -> Self {
        Self::new(error.into(), RequestId::current())
    }
}

impl Problem {
    /// What a service has answered instead.
    pub(super) fn of_status(status: Status) -> Self {
        Self {
            error: ApiError::of_status(status),
            id: RequestId::current(),
            is_logged: true,
        }
    }
}

/// A panic is our fault, and no reason to leave the caller without an answer.
pub(super) fn of_panic(_: Box<dyn Any + Send>) -> Response<Body> {
    Problem::from(ApiError::internal(anyhow::anyhow!("a handler panicked"))).into_response()
}

fn status(error: &ApiError) -> StatusCode {
    match error {
        ApiError::Unauthenticated { .. } | ApiError::KeyExpired | ApiError::KeyRevoked => {
            StatusCode::UNAUTHORIZED
        }
        ApiError::Forbidden { .. } => StatusCode::FORBIDDEN,
        ApiError::NotFound { .. } => StatusCode::NOT_FOUND,
        ApiError::Conflict { .. } => StatusCode::CONFLICT,
        ApiError::PreconditionFailed(_) => StatusCode::PRECONDITION_FAILED,
        ApiError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        ApiError::Malformed(_) => StatusCode::BAD_REQUEST,
        ApiError::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ApiError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        ApiError::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ApiError::TooMany { .. } | ApiError::Throttled { .. } => StatusCode::TOO_MANY_REQUESTS,
        ApiError::NoAnswer { .. } => StatusCode::GATEWAY_TIMEOUT,
        ApiError::MalformedAnswer(_) => StatusCode::BAD_GATEWAY,
        ApiError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        ApiError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self {
            error,
            id,
            is_logged,
        } = &self;
        if !is_logged {
            error.log(id.as_str());
        }
        let status = status(error);
        let mut response = (status, Json(self.document())).into_response();
        let headers = response.headers_mut();
        let problem_json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem_json);
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110, section 11.6.1, asks for a challenge; ours is a scheme of our own.
            let challenge = HeaderValue::from_static("ApiKey realm=\"pipelet\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let ApiError::Throttled { retry_after, .. } = error {
            // Whole seconds (RFC 9110, section 10.2.3), of which none would be too early.
            let seconds = retry_after.as_secs() + 1;
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

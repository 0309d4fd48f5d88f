//! Errors as a gRPC status with details (`google.rpc.ErrorInfo`, `BadRequest`, `RequestInfo`).

use std::{collections::HashMap, error::Error as _, sync::Arc};

use futures_util::{Stream, StreamExt as _};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::super::{cursor::InvalidCursor, error::ApiError, request_id::RequestId};

/// Who defines the reasons (`ErrorInfo.domain`).
const DOMAIN: &str = "pipelet";

const fn code(error: &ApiError) -> Code {
    match error {
        ApiError::Unauthenticated { .. } | ApiError::KeyExpired | ApiError::KeyRevoked => {
            Code::Unauthenticated
        }
        ApiError::Forbidden { .. } => Code::PermissionDenied,
        ApiError::NotFound { .. } => Code::NotFound,
        ApiError::Conflict { .. } | ApiError::PreconditionFailed(_) => Code::FailedPrecondition,
        ApiError::Invalid(_)
        | ApiError::Malformed(_)
        | ApiError::TooLarge { .. }
        | ApiError::UnsupportedMediaType => Code::InvalidArgument,
        ApiError::MethodNotAllowed => Code::Unimplemented,
        ApiError::TooMany { .. } | ApiError::Throttled { .. } => Code::ResourceExhausted,
        ApiError::NoAnswer { .. } => Code::DeadlineExceeded,
        // It comes from somebody who does not speak gRPC.
        ApiError::MalformedAnswer(_) => Code::Unknown,
        ApiError::Unavailable(_) => Code::Unavailable,
        ApiError::Internal(_) => Code::Internal,
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let request_id = RequestId::current();
        error.log(request_id.as_str());

        let mut details = ErrorDetails::new();
        let mut metadata = HashMap::new();
        if let ApiError::Forbidden { needed, .. } = &error {
            metadata.insert("needed_role".to_owned(), needed.to_string());
        }
        details.set_error_info(error.code(), DOMAIN, metadata);
        if let ApiError::Throttled { retry_after, .. } = &error {
            details.set_retry_info(Some(*retry_after));
        }
        details.set_request_info(request_id.as_str(), "");
        if let ApiError::Invalid(faults) = &error {
            for fault in faults {
                details.add_bad_request_violation(field(&fault.pointer), &fault.message);
            }
        }
        let mut status = Self::with_error_details(code(&error), error.message(), details);
        status.set_source(Arc::new(Within(error)));
        status
    }
}

/// What a status was made of, for those of this daemon.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message())]
struct Within(ApiError);

impl ApiError {
    /// What a service has answered instead; the log knows of it.
    pub(in crate::api) fn of_status(status: Status) -> Self {
        let within = status.source().and_then(|it| it.downcast_ref::<Within>());
        match within {
            Some(Within(error)) => error.clone(),
            None => Self::internal(status),
        }
    }
}

/// What a call streams, its errors under the call's id: the stream is read when the call is over.
pub(super) fn statuses<T>(
    items: impl Stream<Item = Result<T, ApiError>>,
) -> impl Stream<Item = Result<T, Status>> {
    let id = RequestId::current();
    items.map(move |item| item.map_err(|error| id.within(|| error.into())))
}

/// A JSON pointer as a field's path: `/events/1` is `events[1]`.
fn field(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            path.extend(["[", part, "]"]);
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(part);
        }
    }
    path
}

impl From<InvalidCursor> for ApiError {
    fn from(_: InvalidCursor) -> Self {
        Self::fault(
            "/page_token",
            "invalid_page_token",
            "the page token is not one that a list gave",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_become_paths() {
        assert_eq!(field("/events/1"), "events[1]");
        assert_eq!(field("/url"), "url");
        assert_eq!(field("/a/b/0/c"), "a.b[0].c");
        assert_eq!(field(""), "");
    }
}

//! Errors as a gRPC status with details (`google.rpc.ErrorInfo`, `BadRequest`, `RequestInfo`).

use std::{
    collections::{BTreeSet, HashMap},
    error::Error as _,
    iter::repeat,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{Stream, StreamExt as _};
use pipelet_domain::webhooks::Fault;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::super::{cursor::InvalidCursor, error::ApiError, request_id::RequestId};

/// Who defines the reasons (`ErrorInfo.domain`).
const DOMAIN: &str = "pipelet";
/// The codes of the violations that a `BadRequest` has, in their order.
const FAULTS: &str = "fault_codes";
/// A code that another version of the daemon gives.
const UNKNOWN: &str = "other";
/// So many codes are known.
const MOST_CODES: usize = 1_000;

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
        if let ApiError::Invalid(faults) = &error {
            let codes: Vec<_> = faults.iter().map(|fault| fault.code).collect();
            metadata.insert(FAULTS.to_owned(), codes.join(","));
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
            None => Self::of_details(status),
        }
    }

    /// That of another node.
    fn of_details(status: Status) -> Self {
        let details = status.get_error_details();
        let message = status.message().to_owned();
        let Some(info) = details.error_info().filter(|info| info.domain == DOMAIN) else {
            return Self::internal(status);
        };
        let code = interned(&info.reason);
        match status.code() {
            Code::NotFound => Self::NotFound { code, message },
            Code::FailedPrecondition => {
                let failed = Self::PreconditionFailed(message);
                if code == failed.code() {
                    return failed;
                }
                let message = failed.message();
                Self::Conflict { code, message }
            }
            Code::InvalidArgument => match details.bad_request() {
                Some(bad) => {
                    let codes = info.metadata.get(FAULTS).map_or("", String::as_str);
                    let codes = codes.split(',').chain(repeat(UNKNOWN));
                    let violations = bad.field_violations.iter().zip(codes);
                    let faults = violations.map(|(violation, code)| Fault {
                        pointer: pointer(&violation.field),
                        code: interned(code),
                        message: violation.description.clone(),
                    });
                    Self::Invalid(faults.collect())
                }
                None => Self::Malformed(message),
            },
            Code::ResourceExhausted => {
                let retry_after = details.retry_info().and_then(|it| it.retry_delay);
                match retry_after {
                    Some(retry_after) => Self::Throttled {
                        code,
                        message,
                        retry_after,
                    },
                    None => Self::TooMany { code, message },
                }
            }
            Code::DeadlineExceeded => Self::NoAnswer { code, message },
            Code::Unknown => Self::MalformedAnswer(message),
            Code::Unavailable => Self::Unavailable(
                message
                    .strip_prefix(Self::UNAVAILABLE)
                    .unwrap_or(&message)
                    .to_owned(),
            ),
            _ => Self::internal(status),
        }
    }
}

/// What a call streams, its errors under the call's id: the stream is read when the call is over.
pub(in crate::api) fn statuses<T>(
    items: impl Stream<Item = Result<T, ApiError>>,
) -> impl Stream<Item = Result<T, Status>> {
    let id = RequestId::current();
    items.map(move |item| item.map_err(|error| id.within(|| error.into())))
}

/// A word of this program's, of which there are few.
fn interned(code: &str) -> &'static str {
    static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = known.get(code) {
        return known;
    }
    if known.len() == MOST_CODES {
        return UNKNOWN;
    }
    let code = Box::leak(code.to_owned().into_boxed_str());
    known.insert(code);
    code
}

/// The path of a field as a JSON pointer: `events[1]` is `/events/1`.
fn pointer(field: &str) -> String {
    let parts = field.split(['.', '[']).filter(|part| !part.is_empty());
    let parts = parts.map(|part| format!("/{}", part.trim_end_matches(']')));
    parts.collect()
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
        for pointer in ["/events/1", "/url", "/a/b/0/c", "", "/payload/?x"] {
            assert_eq!(super::pointer(&field(pointer)), pointer);
        }
    }

    /// What one node says comes out of another one as it was.
    #[test]
    fn errors_go_from_node_to_node() {
        let faults = [("/events/0", "unknown_event"), ("/url", "required")];
        let faults = faults.map(|(pointer, code)| Fault::new(pointer, code, "why".to_owned()));
        for error in [
            ApiError::no_such_event("x"),
            ApiError::Conflict {
                code: "webhook_disabled",
                message: "why".to_owned(),
            },
            ApiError::PreconditionFailed("why".to_owned()),
            ApiError::Invalid(faults.into()),
            ApiError::Malformed("why".to_owned()),
            ApiError::TooMany {
                code: "station_busy",
                message: "why".to_owned(),
            },
            ApiError::NoAnswer {
                code: "station_timeout",
                message: "why".to_owned(),
            },
            ApiError::MalformedAnswer("why".to_owned()),
            ApiError::Unavailable("why".to_owned()),
        ] {
            let expected = format!("{error:?}");
            let sent = Status::from(error).into_http::<()>();
            let received = Status::from_header_map(sent.headers()).unwrap();
            assert_eq!(format!("{:?}", ApiError::of_status(received)), expected);
        }
    }
}

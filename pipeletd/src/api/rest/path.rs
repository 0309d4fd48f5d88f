//! What the variable parts of a path hold.

use axum::{
    extract::{FromRequestParts, path::ErrorKind, rejection::PathRejection},
    http::request::Parts,
};
use serde::de::DeserializeOwned;

use super::{super::error::ApiError, problem::Problem};

/// The parts of a path, decoded. Axum's own extractor answers in plain text what can't be decoded.
#[derive(Debug)]
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        #[expect(clippy::disallowed_types, reason = "this is the one place")]
        let taken = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        match taken {
            Ok(taken) => Ok(Self(taken.0)),
            Err(rejection) => Err(error(rejection).into()),
        }
    }
}

fn error(rejection: PathRejection) -> ApiError {
    if let PathRejection::FailedToDeserializePathParams(failed) = &rejection
        && let ErrorKind::InvalidUtf8InPathParam { .. } = failed.kind()
    {
        return ApiError::Malformed("the path is not UTF-8".to_owned());
    }
    // A route and its handler don't fit together.
    ApiError::internal(rejection)
}

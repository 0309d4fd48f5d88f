//! REST asks the services that gRPC's callers ask: what shards answer is put together in one place.

use axum::{Extension, extract::FromRequestParts, http::request::Parts};
use tonic::{Request, Response, Status};

use super::{
    super::{
        error::ApiError,
        readers::{Held, Reader},
        validity::Validity,
    },
    problem::Problem,
};
use crate::registries::Caller;

/// For whom services are asked.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    caller: Caller,
    reader: Reader,
    validity: Validity,
}

impl Asking {
    pub(super) fn request<T>(self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let extensions = request.extensions_mut();
        extensions.insert(self.caller);
        extensions.insert(self.reader);
        extensions.insert(self.validity);
        request
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Asking {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let of = &parts.extensions;
        let found = (of.get().cloned(), of.get().cloned(), of.get().cloned());
        let (Some(caller), Some(reader), Some(validity)) = found else {
            return Err(ApiError::Unauthenticated { first_key: None }.into());
        };
        Ok(Self {
            caller,
            reader,
            validity,
        })
    }
}

/// What a service has answered, and what is held for that.
pub(super) fn answered<T>(
    answer: Result<Response<T>, Status>,
) -> Result<(Option<Extension<Held>>, T), Problem> {
    let mut answer = answer.map_err(Problem::of_status)?;
    let held = answer.extensions_mut().remove().map(Extension);
    Ok((held, answer.into_inner()))
}

/// A page of a list; what is wrong with its token, in REST's words.
pub(super) fn page<T>(
    answer: Result<Response<T>, Status>,
) -> Result<(Option<Extension<Held>>, T), Problem> {
    answered(answer).map_err(|problem| {
        problem.map(|error| match error {
            ApiError::Invalid(mut faults) => {
                let of_token = faults.iter_mut().filter(|it| it.pointer == "/page_token");
                for fault in of_token {
                    "?cursor".clone_into(&mut fault.pointer);
                    fault.code = "invalid_parameter";
                }
                ApiError::Invalid(faults)
            }
            error => error,
        })
    })
}

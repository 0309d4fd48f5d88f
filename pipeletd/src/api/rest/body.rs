//! Reads bodies of requests.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::header,
};
use futures_util::StreamExt as _;
use pipelet_domain::events::{Payload, PayloadError};
use tokio::time;

use super::{
    super::{error::ApiError, fields::Fields, readers::NoRoom},
    MAX_BODY,
    problem::Problem,
};

/// In bytes; what of a body that is too long is read before the connection is given up.
const MAX_DISCARDED: usize = 16 << 20;
/// How long a caller may take to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON object as the bytes that came. It may be left out, which is the same as `{}`.
#[derive(Debug)]
pub(super) struct RawBody(pub(super) Payload);

/// A body that may be left out, which is the same as `{}`.
#[derive(Debug)]
pub(super) struct OptionalFields(pub(super) Fields);

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let is_json = is_json(&request);
        let body = read(request.into_body()).await?;
        if !is_json {
            return Err(ApiError::UnsupportedMediaType.into());
        }
        Ok(Self::parse(&body)?)
    }
}

impl<S: Send + Sync> FromRequest<S> for OptionalFields {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let is_json = is_json(&request);
        let body = read(request.into_body()).await?;
        match (body.is_empty(), is_json) {
            (true, _) => Ok(Self(Fields::default())),
            (false, true) => Ok(Self(Fields::parse(&body)?)),
            (false, false) => Err(ApiError::UnsupportedMediaType.into()),
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let is_json = is_json(&request);
        let body = read(request.into_body()).await?;
        match (body.is_empty(), is_json) {
            (true, _) => Ok(Self(Payload::empty())),
            (false, true) => Ok(Self(Payload::parse(&body).map_err(not_a_payload)?)),
            (false, false) => Err(ApiError::UnsupportedMediaType.into()),
        }
    }
}

fn not_a_payload(error: PayloadError) -> ApiError {
    ApiError::Malformed(match error {
        PayloadError::NotJson(error) => format!("the body is not JSON: {error}"),
        PayloadError::NotAnObject => "the body is not a JSON object".to_owned(),
        PayloadError::TooDeep => {
            format!(
                "the body is nested deeper than {} levels",
                Payload::MAX_DEPTH
            )
        }
    })
}

fn is_json(request: &Request) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let essence = content_type.and_then(|value| value.to_str().ok()?.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// Reads the body. One that is too long is read too, and thrown away: an answer that comes while
/// the caller still writes would be lost to a reset connection.
pub(super) async fn read(body: Body) -> Result<Vec<u8>, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut body = Vec::new();
    let mut read = 0;
    let reading = async {
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| {
                if NoRoom::is_cause(&error) {
                    NoRoom.into()
                } else {
                    ApiError::Malformed("the body broke off".to_owned())
                }
            })?;
            read += chunk.len();
            if read > MAX_DISCARDED {
                break;
            }
            if read <= MAX_BODY {
                body.extend_from_slice(&chunk);
            }
        }
        Ok(())
    };
    match time::timeout(BODY_TIMEOUT, reading).await {
        Ok(Ok(())) if read <= MAX_BODY => Ok(body),
        Ok(Ok(())) => Err(ApiError::TooLarge { limit: MAX_BODY }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ApiError::Malformed("the body took too long".to_owned())),
    }
}

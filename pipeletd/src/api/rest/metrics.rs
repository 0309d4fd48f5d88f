//! `/metrics`, for Prometheus. It asks for no key: it names no URL, no station and no secret.

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
    routing::get,
};

use super::{
    super::{
        error::ApiError,
        metrics::{CONTENT_TYPE, Metrics, MetricsError},
    },
    problem::Problem,
};

pub(super) fn routes(metrics: Metrics) -> Router {
    Router::new()
        .route("/metrics", get(text))
        .with_state(metrics)
}

async fn text(State(metrics): State<Metrics>) -> Result<Response, Problem> {
    let text = metrics.text().await?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

impl From<MetricsError> for ApiError {
    fn from(error: MetricsError) -> Self {
        match error {
            MetricsError::Store(error) => error.into(),
            MetricsError::Text(error) => Self::internal(error),
        }
    }
}

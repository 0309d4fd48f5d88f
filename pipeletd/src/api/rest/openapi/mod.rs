//! `/api/v1/openapi.json`: the API told to programs (OpenAPI 3.1). It asks for no key.
//!
//! The document, `openapi.json` of this package, is made of the messages and of what `frame.yaml` says
//! of the operations; a test holds it to them. Whatever is built for tests does not start while it
//! names other routes or roles than the router has.

#[cfg(test)]
mod document;

use std::collections::BTreeSet;

use axum::{
    Router,
    http::{HeaderName, HeaderValue, header},
    routing::get,
};
use serde_json::Value;

const DOCUMENT: &str = include_str!("../../../../openapi.json");

const JSON: (HeaderName, HeaderValue) = (
    header::CONTENT_TYPE,
    HeaderValue::from_static("application/json"),
);

pub(super) fn routes() -> Router {
    Router::new().route("/api/v1/openapi.json", get(async || ([JSON], DOCUMENT)))
}

/// The paths under `/api/v1` that are described, each with the names of the roles that its methods
/// need.
pub(super) fn described() -> BTreeSet<(String, String)> {
    let document: Value = serde_json::from_str(DOCUMENT).unwrap_or_default();
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        let path = path.strip_prefix("/api/v1").unwrap_or(path);
        for operation in methods.as_object().into_iter().flat_map(|all| all.values()) {
            let role = operation["x-required-role"].as_str().unwrap_or_default();
            described.insert((path.to_owned(), role.to_owned()));
        }
    }
    described
}

//! `/docs`: the API told to people, with a "try it". It asks for no key.
//!
//! Swagger UI and the page that begins it are in the binary, and the page names nothing that is
//! elsewhere: it works on a machine without a network.

use axum::{
    Router,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Redirect},
    routing::get,
};

/// Only what is served here runs, and only the daemon is asked. Swagger UI writes styles into its
/// elements, and its icons are in its style sheet.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);
/// Asked for again, a new version of the daemon gives its own.
const CACHE: HeaderValue = HeaderValue::from_static("no-cache");

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const SCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=utf-8");
const STYLE: HeaderValue = HeaderValue::from_static("text/css; charset=utf-8");

const PAGE: &[u8] = include_bytes!("../../../api-docs/index.html");
const BEGIN: &[u8] = include_bytes!("../../../api-docs/begin.js");
const BUNDLE: &[u8] = include_bytes!("../../../api-docs/swagger-ui/swagger-ui-bundle.js.gz");
const SHEET: &[u8] = include_bytes!("../../../api-docs/swagger-ui/swagger-ui.css.gz");

pub(super) fn routes() -> Router {
    Router::new()
        .route("/", get(async || Redirect::to("/docs")))
        .route("/docs/", get(async || Redirect::to("/docs")))
        .route("/docs", get(async || plain(HTML, PAGE)))
        .route("/docs/begin.js", get(async || plain(SCRIPT, BEGIN)))
        .route(
            "/docs/swagger-ui-bundle.js",
            get(async || packed(SCRIPT, BUNDLE)),
        )
        .route("/docs/swagger-ui.css", get(async || packed(STYLE, SHEET)))
}

fn plain(kind: HeaderValue, bytes: &'static [u8]) -> impl IntoResponse {
    (headers(kind), bytes)
}

/// There is nobody who shows such a page and can't unpack it.
fn packed(kind: HeaderValue, bytes: &'static [u8]) -> impl IntoResponse {
    let encoding = (header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    (headers(kind), [encoding], bytes)
}

fn headers(kind: HeaderValue) -> [(HeaderName, HeaderValue); 5] {
    let nosniff = HeaderValue::from_static("nosniff");
    let nothing = HeaderValue::from_static("no-referrer");
    [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, CACHE),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, nosniff),
        (header::REFERRER_POLICY, nothing),
    ]
}

//! `/openapi.json`, and `/docs` to browse it: nothing is loaded from another host.

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use utoipa::openapi::OpenApi;

/// The documentation's routes.
pub fn router<S: Clone + Send + Sync + 'static>(document: &OpenApi) -> Router<S> {
    // The document is made of names and texts: writing it does not fail, and a test reads it.
    let json = Bytes::from(super::openapi::write(document));
    let openapi = move || async move {
        (
            [(CONTENT_TYPE, HeaderValue::from_static("application/json"))],
            json,
        )
            .into_response()
    };
    Router::new().route("/openapi.json", get(openapi))
}

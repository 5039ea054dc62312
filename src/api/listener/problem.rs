//! The problems (RFC 9457) that are found before a request reaches the router.

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use axum::http::{StatusCode, Version};
use axum::response::Response;

use super::headers::harden;

/// The request came in clear, or not from a trusted proxy.
pub(super) fn tls_required(detail: &str) -> Response {
    let mut response = problem(
        StatusCode::FORBIDDEN,
        "tls-required",
        "TLS is required",
        detail,
    );
    harden(response.headers_mut());
    response
}

/// The body of the request did not come in time. The rest of it is not waited for: over HTTP/1 the
/// connection ends with it.
pub(super) fn request_timeout(version: Version) -> Response {
    let mut response = problem(
        StatusCode::REQUEST_TIMEOUT,
        "request-timeout",
        "The request took too long to arrive",
        "The body of the request came too slowly; send it again on a faster connection.",
    );
    if version < Version::HTTP_2 {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn problem(status: StatusCode, slug: &str, title: &str, detail: &str) -> Response {
    let body = serde_json::json!({
        "type": format!("/problems/{slug}"),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
    });
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    response
}

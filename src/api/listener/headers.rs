//! The headers that every answer carries, so that a browser makes nothing of it that it is not.

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::middleware::map_response;
use axum::response::Response;

const ALWAYS: [(HeaderName, &str); 5] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    ),
    (REFERRER_POLICY, "no-referrer"),
    (X_FRAME_OPTIONS, "DENY"),
    (CACHE_CONTROL, "no-store"),
];

/// Two years, the least that browsers' preload lists take seriously.
const TRANSPORT: &str = "max-age=63072000";

/// Gives every answer of the router the headers that its handler did not set itself. For routers
/// that are only reached over TLS: `Strict-Transport-Security` is among them.
pub fn secured(router: Router) -> Router {
    router.layer(map_response(|mut response: Response| async {
        let headers = response.headers_mut();
        harden(headers);
        headers
            .entry(STRICT_TRANSPORT_SECURITY)
            .or_insert(HeaderValue::from_static(TRANSPORT));
        response
    }))
}

/// The headers that an answer in clear may carry too (RFC 6797 §7.2: without
/// `Strict-Transport-Security`).
pub(super) fn harden(headers: &mut HeaderMap) {
    for (name, value) in ALWAYS {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
}

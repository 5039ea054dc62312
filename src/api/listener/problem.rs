//! The problems that are found before a request reaches the router.

use axum::http::Version;
use axum::http::header::{CONNECTION, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::headers::harden;
use crate::api::Problem;
use crate::api::problem_type::ProblemType;

/// The request came in clear, or not from a trusted proxy.
pub(super) fn tls_required(detail: &str) -> Response {
    let mut response = Problem::new(ProblemType::TlsRequired)
        .detail(detail)
        .into_response();
    harden(response.headers_mut());
    response
}

/// The body of the request did not come in time. The rest of it is not waited for: over HTTP/1 the
/// connection ends with it.
pub(super) fn request_timeout(version: Version) -> Response {
    let problem = Problem::new(ProblemType::RequestTimeout);
    if version < Version::HTTP_2 {
        problem
            .header(CONNECTION, HeaderValue::from_static("close"))
            .into_response()
    } else {
        problem.into_response()
    }
}

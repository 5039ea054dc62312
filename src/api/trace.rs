//! Request ids, the access log, and spans.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use super::Api;
use super::listener::ClientAddress;
use crate::domain::ids::{ApiKeyId, RequestId};
use crate::telemetry::Tracer;
use crate::telemetry::trace::{Span, SpanKind, TRACEPARENT};

/// The header that names a request in the logs (product.md §5).
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the API is also served under.
pub(super) const ALSO: &str = "/report-forge";

/// What is known of a request from the beginning.
#[derive(Clone, Debug)]
pub struct Traced {
    /// Its name in the logs.
    pub request_id: String,
    /// The client's address.
    pub address: IpAddr,
    /// What it makes belongs to this trace; `None` where it is not exported.
    traceparent: Option<String>,
}

impl Traced {
    /// What [`trace`] put into the request.
    pub(super) fn of(request: &Request) -> Self {
        let traced = request.extensions().get::<Self>().cloned();
        traced.unwrap_or_else(|| Self {
            request_id: String::new(),
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            traceparent: None,
        })
    }

    /// The `traceparent` of what it makes.
    pub(super) fn traceparent(&self) -> Option<String> {
        self.traceparent.clone()
    }
}

/// The key that an answer was for.
#[derive(Clone, Copy)]
struct Key(ApiKeyId);

/// Has the access log name the key.
pub(super) fn note_key(response: &mut Response, key: ApiKeyId) {
    response.extensions_mut().insert(Key(key));
}

/// The route as it is documented: no ids, no query, one spelling for both prefixes.
pub(super) fn route(request: &Request) -> String {
    let path = request.extensions().get::<MatchedPath>();
    let path = path.map_or("unknown", MatchedPath::as_str);
    documented(path).to_owned()
}

/// A path under its documented name, by whichever of both it was asked for.
pub(super) fn documented(path: &str) -> &str {
    path.strip_prefix(ALSO).unwrap_or(path)
}

/// Names the request, and writes its line when the answer begins.
pub async fn trace(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let began = api.clock().monotonic();
    let id: RequestId = api.entropy().id(api.clock().now());
    let request_id = id.to_string();
    let address = request.extensions().get::<ClientAddress>();
    let method = request.method().clone();
    let route = route(&request);
    let mut span = begin(api.tracer(), &request, &route);
    let traced = Traced {
        request_id: request_id.clone(),
        address: address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.0),
        traceparent: span.traceparent(),
    };
    let address = traced.address;
    request.extensions_mut().insert(traced);
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::try_from(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let took = millis(api.clock().monotonic().saturating_sub(began));
    let key = response.extensions().get::<Key>();
    let key = key.map(|key| key.0.to_string());
    let status = response.status().as_u16();
    span.note(|span| {
        span.set("http.response.status_code", i64::from(status));
        span.set("forge.request_id", request_id.clone());
        if response.status().is_server_error() {
            span.failed("http_status");
        }
    });
    tracing::info!(
        target: "forge_dispatch::access",
        %method, route, status, took_ms = took, %address, key, request_id, "answered"
    );
    response
}

/// The request's span, in the trace that its client says (`traceparent`), if any. By the semantic
/// conventions for HTTP servers, without the query, which holds cursors and what clients look for.
fn begin(tracer: &Tracer, request: &Request, route: &str) -> Span {
    if !tracer.is_on() {
        return Span::none();
    }
    let parent = request.headers().get(TRACEPARENT);
    let parent = parent.and_then(|value| value.to_str().ok());
    let mut span = tracer.start(SpanKind::Server, "request", parent);
    span.note(|span| {
        let method = request.method();
        span.name(format!("{method} {route}"));
        span.set("http.request.method", method.to_string());
        span.set("http.route", route.to_owned());
        span.set("url.scheme", "https");
        span.set("url.path", request.uri().path().to_owned());
    });
    span
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

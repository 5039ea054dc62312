//! The routes of the API, and what lies around them.

use std::any::Any;
use std::time::Duration;

use axum::error_handling::HandleErrorLayer;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{BoxError, Router};
use tower::ServiceBuilder;
use tower::timeout::TimeoutLayer;
use tower_http::catch_panic::CatchPanicLayer;

use super::auth::{Admission, admit};
use super::body::{MAX_BODY_BYTES, is_encoded};
use super::listener::on_time;
use super::problem_type::ProblemType;
use super::resources::feed::MAX_WAIT;
use super::{Api, Problem, Recorder, docs, openapi, problem_docs, trace};

/// For a handler, once the body has come, beside what it may wait for.
const HANDLER_TIME: Duration = Duration::from_secs(30);

/// The whole API under both of its names, its documentation, and nothing else.
pub fn router(api: Api, recorder: Recorder) -> Router {
    // A body has its own deadline, of the listener: what is left is the handler's.
    let timeout = api.settings().request_timeout + MAX_WAIT + HANDLER_TIME;
    let admission = Admission::new(api.clone(), recorder);
    let (routes, resources) = openapi::routes().split_for_parts();
    let document = openapi::describe(resources);
    let v1 = routes
        .fallback(nothing_here)
        .method_not_allowed_fallback(no_such_method)
        .layer(
            ServiceBuilder::new()
                .layer(from_fn_with_state(admission, admit))
                // Inside of the admission: an answer that came too late is one to a valid key all the same.
                .layer(from_fn(on_time))
                .layer(HandleErrorLayer::new(too_late))
                .layer(TimeoutLayer::new(timeout))
                .layer(CatchPanicLayer::custom(panicked))
                .layer(from_fn(plain_bodies_only))
                .layer(DefaultBodyLimit::max(MAX_BODY_BYTES)),
        );
    Router::new()
        .nest("/v1", v1.clone())
        .nest(&format!("{}/v1", trace::ALSO), v1)
        .merge(problem_docs::router())
        .merge(docs::router(&document))
        .fallback(nothing_here)
        .method_not_allowed_fallback(no_such_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(api.clone(), trace::trace))
        .with_state(api)
}

async fn nothing_here() -> Problem {
    Problem::not_found()
}

async fn no_such_method() -> Problem {
    Problem::new(ProblemType::MethodNotAllowed)
}

/// Whatever a handler would do with it: a body that has to be decoded first is not taken.
async fn plain_bodies_only(request: Request, next: Next) -> Response {
    if is_encoded(request.headers()) {
        return Problem::new(ProblemType::UnsupportedMediaType).into_response();
    }
    next.run(request).await
}

async fn too_late(_error: BoxError) -> Problem {
    Problem::unavailable()
}

/// A bug of ours. The panic's own text is for the log.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that the layer asks for"
)]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a text");
    tracing::error!(panic = text, "a handler panicked");
    Problem::new(ProblemType::Internal).into_response()
}

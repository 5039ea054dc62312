//! `/problems` and `/problems/{slug}`: what each problem means and what to do about it.

use axum::Router;
use axum::extract::Path;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::problem_type::ProblemType;
use super::{Problem, Result};

/// The documentation's routes.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/problems", get(list))
        .route("/problems/{slug}", get(one))
}

async fn list() -> Response {
    let texts: Vec<String> = ProblemType::ALL.into_iter().map(describe).collect();
    let intro = "# Problems\n\nWhat the API answers with when something is not as it should be \
                 (RFC 9457, `application/problem+json`). This list is complete.\n\n";
    markdown(format!("{intro}{}", texts.join("\n")))
}

async fn one(Path(slug): Path<String>) -> Result<Response> {
    let kind = ProblemType::ALL
        .into_iter()
        .find(|kind| kind.slug() == slug);
    let kind = kind.ok_or_else(Problem::not_found)?;
    Ok(markdown(describe(kind)))
}

fn describe(kind: ProblemType) -> String {
    format!(
        "## {} — {}\n\n`/problems/{}`\n\n{}\n\n{}\n",
        kind.status().as_u16(),
        kind.title(),
        kind.slug(),
        kind.detail(),
        kind.remedy()
    )
}

/// Markdown is read by people as it is, and a browser shows `text/plain` where it would save
/// `text/markdown`.
fn markdown(text: String) -> Response {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

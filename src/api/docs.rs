//! `/openapi.json`, and `/docs` to browse it: Swagger UI out of the binary, nothing from another host.

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::openapi;

/// Scripts and styles of our own origin only. Swagger UI sets styles on its elements, and draws its
/// icons from `data:`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                      img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The documentation's routes.
pub fn router<S: Clone + Send + Sync + 'static>(document: &OpenApi) -> Router<S> {
    let json = Bytes::from(openapi::write(document));
    let whole = move || async move {
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        ];
        (headers, json).into_response()
    };
    // A relative address: it is found behind a proxy that serves us under a path, too.
    // Without the bar that asks for another document: the policy lets no other be read.
    let config = Config::from("../openapi.json")
        .try_it_out_enabled(false)
        .use_base_layout();
    let pages: Router<S> = SwaggerUi::new("/docs").config(config).into();
    Router::new()
        .route("/openapi.json", get(whole))
        .merge(pages.layer(map_response(of_our_own)))
}

async fn of_our_own(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

//! The OpenAPI 3.1 document, made from the handlers.

use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa_axum::router::OpenApiRouter;

use super::{Api, resources};

/// What the document says beside its paths.
#[derive(Debug, OpenApi)]
#[openapi(info(title = "forge-dispatch: the Report Forge API"))]
struct Base;

/// All resources, each with its description.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Base::openapi()).merge(resources::api_keys::routes())
}

/// The document as JSON.
pub fn write(document: &Document) -> String {
    document.to_pretty_json().unwrap_or_default()
}

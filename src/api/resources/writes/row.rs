//! `PATCH` and `DELETE /v1/editions/{id}/sections/{name}/rows/{row}`

use axum::extract::State;
use axum::response::Response;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::edit::Sent;
use super::receipt::Receipt;
use super::sections::ValuesChange;
use super::terms::{RepeatHeader, Terms};
use super::writer::Writer;
use crate::api::auth::Caller;
use crate::api::auth::caller::WriteEditions;
use crate::api::body::JsonBody;
use crate::api::path::RowOf;
use crate::api::resources::fields::{PreconditionHeader, SectionPath};
use crate::api::{Api, Result};

/// The routes, for their idempotency keys.
const PATCH: &str = "PATCH /v1/editions/{id}/sections/{name}/rows/{row}";
const DELETE: &str = "DELETE /v1/editions/{id}/sections/{name}/rows/{row}";

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(change, delete))
}

/// A row in a path.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(
    dead_code,
    reason = "describes a part of a path that an extractor reads"
)]
struct RowPath {
    /// The row's id.
    #[param(
        example = "r1",
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    )]
    row: String,
}

/// Change the values of a row
///
/// What is left out stays as it is; null clears a field (RFC 7396).
#[utoipa::path(
    patch, path = "/editions/{id}/sections/{name}/rows/{row}", operation_id = "updateRow", tag = "Editions",
    request_body = ValuesChange,
    params(SectionPath, RowPath, PreconditionHeader, RepeatHeader),
    responses((status = 200, description = "Changed.", body = Receipt, headers(("ETag" = String, description = "That of the edition now.")))),
    security(("api_key" = ["write:editions"])),
)]
async fn change(
    State(api): State<Api>,
    caller: Caller<WriteEditions>,
    place: RowOf,
    terms: Terms,
    body: JsonBody<ValuesChange>,
) -> Result<Response> {
    let writer = Writer::new(api, &caller, terms, PATCH, &[&body.fingerprint]);
    let sent = Sent::Row(place.row, body.value.values);
    writer.edit(place.section, sent).await
}

/// Delete a row
///
/// The answer tells the version of the edition without it.
#[utoipa::path(
    delete, path = "/editions/{id}/sections/{name}/rows/{row}", operation_id = "deleteRow", tag = "Editions",
    params(SectionPath, RowPath, PreconditionHeader, RepeatHeader),
    responses((status = 200, description = "It is no more.", body = Receipt, headers(("ETag" = String, description = "That of the edition now.")))),
    security(("api_key" = ["write:editions"])),
)]
async fn delete(
    State(api): State<Api>,
    caller: Caller<WriteEditions>,
    place: RowOf,
    terms: Terms,
) -> Result<Response> {
    let writer = Writer::new(api, &caller, terms, DELETE, &[]);
    writer.edit(place.section, Sent::Delete(place.row)).await
}

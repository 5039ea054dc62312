//! `PATCH /v1/editions/{id}/sections/{name}`

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::edit::Sent;
use super::receipt::Receipt;
use super::terms::{RepeatHeader, Terms};
use super::writer::Writer;
use crate::api::auth::Caller;
use crate::api::auth::caller::WriteEditions;
use crate::api::body::JsonBody;
use crate::api::path::SectionOf;
use crate::api::resources::fields::{PreconditionHeader, SectionPath};
use crate::api::{Api, Result};
use crate::domain::values::Values;

/// The route, for its idempotency keys.
const ROUTE: &str = "PATCH /v1/editions/{id}/sections/{name}";

/// The route's.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(change))
}

/// Values that are to be different.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ValuesChange, example = json!({"values": {"note": "all well", "rate": 1.5}}))]
#[serde(deny_unknown_fields)]
pub(super) struct ValuesChange {
    /// By the names of their fields. Null clears a field; what is left out stays as it is.
    #[schema(value_type = Object)]
    pub(super) values: Values,
}

/// Change the values of a section
///
/// Of one that is filled once; the rows of others are at `…/rows`. What is left out stays as it is; null
/// clears a field (RFC 7396). Fields of the types `calculated` and `file` are read-only. With `If-Match`
/// it is changed only if nobody else has changed the edition meanwhile.
#[utoipa::path(
    patch, path = "/editions/{id}/sections/{name}", operation_id = "updateSection", tag = "Editions",
    request_body = ValuesChange,
    params(SectionPath, PreconditionHeader, RepeatHeader),
    responses((status = 200, description = "Changed.", body = Receipt, headers(("ETag" = String, description = "That of the edition now.")))),
    security(("api_key" = ["write:editions"])),
)]
async fn change(
    State(api): State<Api>,
    caller: Caller<WriteEditions>,
    section: SectionOf,
    terms: Terms,
    body: JsonBody<ValuesChange>,
) -> Result<Response> {
    let writer = Writer::new(api, &caller, terms, ROUTE, &[&body.fingerprint]);
    writer.edit(section, Sent::Values(body.value.values)).await
}

//! `POST /v1/editions/{id}/submit`

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::receipt::keep;
use super::terms::{RepeatHeader, Terms};
use super::writer::Writer;
use crate::api::auth::Caller;
use crate::api::auth::caller::WriteEditions;
use crate::api::body::OptionalBody;
use crate::api::path::Id;
use crate::api::resources::editions::View;
use crate::api::resources::fields::{CorePath, PreconditionHeader};
use crate::api::{Api, Result};
use crate::domain::ids::EditionId;
use crate::store::EditionRecord;

/// The route, for its idempotency keys.
const ROUTE: &str = "POST /v1/editions/{id}/submit";

/// The route's.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(submit))
}

/// How an edition is to be handed in: there is nothing to choose.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(example = json!({}))]
#[serde(deny_unknown_fields)]
struct Submission {}

/// Submit an edition
///
/// If every required field is filled; what is missing is told otherwise. Its status is `submitted` from
/// then on, and it takes no changes until changes are requested. Subscribers are told at once
/// (`edition.submitted`).
#[utoipa::path(
    post, path = "/editions/{id}/submit", operation_id = "submitEdition", tag = "Editions",
    request_body = Option<Submission>,
    params(CorePath, PreconditionHeader, RepeatHeader),
    responses((status = 200, description = "It is submitted.", body = View, headers(("ETag" = String, description = "Its version, and what tells this answer from others of it.")))),
    security(("api_key" = ["write:editions"])),
)]
async fn submit(
    State(api): State<Api>,
    caller: Caller<WriteEditions>,
    Id(id): Id<EditionId>,
    terms: Terms,
    _nothing: OptionalBody<Submission>,
) -> Result<Response> {
    let writer = Writer::new(api, &caller, terms, ROUTE, &[]);
    let view = |record: &EditionRecord| keep(record, &View::new(record));
    writer.submit(id, view).await
}

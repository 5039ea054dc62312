//! `/v1/projects`: the projects that are known.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::editions::as_json;
use super::fields::{self, KnownHeader};
use crate::api::auth::Caller;
use crate::api::auth::caller::ReadWorkspace;
use crate::api::etag::{Known, Tag};
use crate::api::page::{Asked, Listing, PageOf, Part, json};
use crate::api::path::Id;
use crate::api::query::Query;
use crate::api::{Api, Problem, Result};
use crate::domain::hex::hex;
use crate::domain::ids::ProjectId;
use crate::domain::payload::timestamp;
use crate::store::ProjectRecord;

/// The resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
}

/// A project.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Project)]
pub struct View {
    /// Report Forge's id.
    #[schema(example = "pr_1")]
    id: String,
    /// Its name; null while Report Forge has not told it.
    name: Option<String>,
    /// What it is about; null while Report Forge has not told that.
    #[schema(example = "All that is built in the north")]
    description: Option<String>,
    /// When it was first heard of.
    #[schema(format = DateTime)]
    first_seen_at: String,
}

/// List projects
///
/// Those that Report Forge told of, by itself or by what belongs to them, by id.
#[utoipa::path(
    get, path = "/projects", operation_id = "listProjects", tag = "Projects",
    params(Part),
    responses((status = 200, description = "A page of projects.", body = PageOf<View>)),
    security(("api_key" = ["read:workspace"])),
)]
async fn list(
    State(api): State<Api>,
    caller: Caller<ReadWorkspace>,
    asked: Asked,
    Query(part): Query<Part>,
) -> Result<Response> {
    let listing = Listing::new(&api, asked, caller.workspace(), part, &[])?;
    let page = api
        .store()
        .projects(&caller.reach(), listing.core_request(ProjectId::new)?)
        .await?;
    listing.answer(&page, |found: &ProjectRecord| found.id.clone(), View::new)
}

/// Show a project
#[utoipa::path(
    get, path = "/projects/{id}", operation_id = "getProject", tag = "Projects",
    params(fields::CorePath, KnownHeader),
    responses(
        (status = 200, description = "The project.", body = View, headers(("ETag" = String, description = "Changes whenever this answer does."))),
        (status = 304, description = "It is as `If-None-Match` says."),
    ),
    security(("api_key" = ["read:workspace"])),
)]
async fn show(
    State(api): State<Api>,
    caller: Caller<ReadWorkspace>,
    Id(id): Id<ProjectId>,
    known: Known,
) -> Result<Response> {
    let found = api.store().project(&caller.reach(), &id).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    let body = json(&View::new(&found))?;
    // What is known by events only has no version: the answer stands for itself.
    let digest = hex(&Sha256::digest(&body)[..8]);
    Ok(known.or(Tag::new(0, format_args!("json-{digest}")), as_json(body)))
}

impl View {
    fn new(found: &ProjectRecord) -> Self {
        Self {
            id: found.id.to_string(),
            name: found.name.clone(),
            description: found.description.clone(),
            first_seen_at: timestamp(found.first_seen_at),
        }
    }
}

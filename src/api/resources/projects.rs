//! `/v1/projects`: the projects that are known.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::auth::Caller;
use crate::api::auth::caller::ReadWorkspace;
use crate::api::page::{Asked, Listing, PageOf, Part};
use crate::api::path::CoreId;
use crate::api::query::Query;
use crate::api::{Api, Problem, Result};
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
    /// When the first event about it was accepted.
    #[schema(format = DateTime)]
    first_seen_at: String,
}

/// List projects
///
/// Those that an event was about, by id.
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
    params((
        "id" = String, Path, description = "Report Forge's id of it.", example = "pr_1",
        min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$",
    )),
    responses((status = 200, description = "The project.", body = View)),
    security(("api_key" = ["read:workspace"])),
)]
async fn show(
    State(api): State<Api>,
    caller: Caller<ReadWorkspace>,
    CoreId(id): CoreId,
) -> Result<Json<View>> {
    let id = ProjectId::new(&id).map_err(|_| Problem::not_found())?;
    let found = api.store().project(&caller.reach(), &id).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    Ok(Json(View::new(&found)))
}

impl View {
    fn new(found: &ProjectRecord) -> Self {
        Self {
            id: found.id.to_string(),
            name: found.name.clone(),
            first_seen_at: timestamp(found.first_seen_at),
        }
    }
}

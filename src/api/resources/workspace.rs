//! `/v1/workspace`: the workspace of the key, and who belongs to it.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::fields::KnownHeader;
use crate::api::auth::Caller;
use crate::api::auth::caller::{ReadMembers, ReadWorkspace};
use crate::api::etag::{Known, Tag};
use crate::api::page::{Asked, Listing, PageOf, Part};
use crate::api::query::Query;
use crate::api::{Api, Result};
use crate::domain::workspace::Member;

/// The resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(members))
}

/// The workspace.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Workspace)]
pub struct View<'a> {
    /// Report Forge's id.
    #[schema(example = "default")]
    id: &'a str,
    /// Its name; null while Report Forge has not told it.
    #[schema(example = "Acme")]
    name: Option<&'a str>,
    /// Its settings, as Report Forge told them; null while it has not.
    #[schema(value_type = Option<Object>, example = json!({"locale": "en"}))]
    settings: Option<&'a RawValue>,
}

/// Somebody who belongs to the workspace.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Member)]
pub struct MemberView {
    /// Report Forge's id.
    #[schema(example = "u_1")]
    id: String,
    /// Their name.
    #[schema(example = "Ada")]
    name: Option<String>,
    /// Where mail reaches them.
    #[schema(example = "ada@example.com")]
    email: Option<String>,
    /// What they may do in Report Forge, in its own word.
    #[schema(example = "editor")]
    role: Option<String>,
}

/// Show the workspace
///
/// That of the key.
#[utoipa::path(
    get, path = "/workspace", operation_id = "getWorkspace", tag = "Workspace",
    params(KnownHeader),
    responses(
        (status = 200, description = "The workspace.", body = View, headers(("ETag" = String, description = "Its version."))),
        (status = 304, description = "It is as `If-None-Match` says."),
    ),
    security(("api_key" = ["read:workspace"])),
)]
async fn show(
    State(api): State<Api>,
    caller: Caller<ReadWorkspace>,
    known: Known,
) -> Result<Response> {
    let id = caller.workspace();
    // A key is made for a workspace that Report Forge may not have told of yet.
    let found = api.store().workspace(id).await?;
    let view = View {
        id: id.as_str(),
        name: found.as_ref().map(|found| &*found.name),
        settings: found.as_ref().map(|found| &*found.settings),
    };
    let tag = match &found {
        Some(found) => Tag::new(found.version, "json"),
        None => Tag::new(0, "none-json"),
    };
    Ok(known.or(tag, axum::Json(view)))
}

/// List the members of the workspace
///
/// By id. Not for keys that are restricted to projects.
#[utoipa::path(
    get, path = "/workspace/members", operation_id = "listMembers", tag = "Workspace",
    params(Part),
    responses((status = 200, description = "A page of members.", body = PageOf<MemberView>)),
    security(("api_key" = ["read:workspace"])),
)]
async fn members(
    State(api): State<Api>,
    caller: Caller<ReadMembers>,
    asked: Asked,
    Query(part): Query<Part>,
) -> Result<Response> {
    let listing = Listing::new(&api, asked, caller.workspace(), part, &[])?;
    let page = api
        .store()
        .members(caller.workspace(), listing.request()?)
        .await?;
    let key = |member: &Member| member.user.id.clone();
    listing.answer(&page, key, MemberView::new)
}

impl MemberView {
    fn new(member: &Member) -> Self {
        Self {
            id: member.user.id.to_string(),
            name: member.user.name.clone(),
            email: member.email.clone(),
            role: member.role.clone(),
        }
    }
}

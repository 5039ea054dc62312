//! `/v1/outputs`: what editions are presented in.
//!
//! - [`generate`]: asks for one. [`download`]: its file, or a [`part`] of it, under a safe [`file_name`].

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::fields::{self, KnownHeader};
use crate::api::auth::Caller;
use crate::api::auth::caller::ReadOutputs;
use crate::api::etag::{Known, Tag};
use crate::api::page::{Asked, Listing, PageOf, Part};
use crate::api::path::Id;
use crate::api::query::Query;
use crate::api::{Api, Problem, Result};
use crate::domain::file::download_url;
use crate::domain::ids::{EditionId, OutputId};
use crate::domain::payload::timestamp;
use crate::store::OutputRecord;

mod download;
mod file_name;
mod generate;
mod part;

/// The routes that are read.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(of_edition))
        .routes(routes!(show))
        .merge(download::routes())
}

/// The route that asks for one.
pub fn writes() -> OpenApiRouter<Api> {
    generate::routes()
}

/// An output of an edition.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Output)]
pub struct View {
    /// Report Forge's id.
    #[schema(example = "out_1")]
    id: String,
    /// The edition that it presents.
    #[schema(example = "ed_1")]
    edition_id: String,
    /// The edition's project.
    #[schema(example = "pr_1")]
    project_id: String,
    /// What the blueprint calls it.
    #[schema(example = "Board report")]
    name: String,
    /// What it is made as: `csv`, `xlsx`, or another word of Report Forge's.
    #[schema(example = "xlsx")]
    format: String,
    /// How far it is.
    #[schema(schema_with = fields::output_statuses_schema)]
    status: &'static str,
    /// Bytes of its file, where there is one that is known.
    #[schema(example = 48_213)]
    size: Option<u64>,
    /// SHA-256 of its file, in hexadecimal.
    sha256: Option<String>,
    /// When its file was made.
    #[schema(format = DateTime)]
    generated_at: Option<String>,
    /// Why it failed, for a person to read.
    failure: Option<String>,
    /// Where its file is read, with a key; only where there is one. An address, or a path of this
    /// deployment where it was not told its own address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(
        required = false,
        example = "https://forge.example/v1/outputs/out_1/download"
    )]
    download_url: Option<String>,
    /// Grows with every change that Report Forge tells of.
    #[schema(example = 2)]
    version: i64,
    /// When it last changed.
    #[schema(format = DateTime)]
    updated_at: String,
}

/// List the outputs of an edition
///
/// By id.
#[utoipa::path(
    get, path = "/editions/{id}/outputs", operation_id = "listOutputs", tag = "Outputs",
    params(fields::CorePath, Part),
    responses((status = 200, description = "A page of outputs.", body = PageOf<View>)),
    security(("api_key" = ["read:outputs"])),
)]
async fn of_edition(
    State(api): State<Api>,
    caller: Caller<ReadOutputs>,
    asked: Asked,
    Id(id): Id<EditionId>,
    Query(part): Query<Part>,
) -> Result<Response> {
    let listing = Listing::new(&api, asked, caller.workspace(), part, &[])?;
    let page = api
        .store()
        .outputs(&caller.reach(), &id, listing.request()?)
        .await?;
    let page = page.ok_or_else(Problem::not_found)?;
    let key = |found: &OutputRecord| found.output.id.clone();
    listing.answer(&page, key, |found| View::new(&api, found))
}

/// Show an output
#[utoipa::path(
    get, path = "/outputs/{id}", operation_id = "getOutput", tag = "Outputs",
    params(fields::CorePath, KnownHeader),
    responses(
        (status = 200, description = "The output.", body = View, headers(("ETag" = String, description = "Its version, and what tells this answer from others of it."))),
        (status = 304, description = "It is as `If-None-Match` says."),
    ),
    security(("api_key" = ["read:outputs"])),
)]
async fn show(
    State(api): State<Api>,
    caller: Caller<ReadOutputs>,
    Id(id): Id<OutputId>,
    known: Known,
) -> Result<Response> {
    let found = api.store().output(&caller.reach(), &id).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    let variant = format_args!("{}-json", found.revision);
    let tag = Tag::new(found.output.version, variant);
    Ok(known.or(tag, axum::Json(View::new(&api, &found))))
}

impl View {
    fn new(api: &Api, found: &OutputRecord) -> Self {
        let output = &found.output;
        let file = output.file.as_ref();
        Self {
            id: output.id.to_string(),
            edition_id: output.edition.to_string(),
            project_id: output.project.to_string(),
            name: output.name.clone(),
            format: output.format.to_string(),
            status: output.status.as_str(),
            size: file.map(|file| file.size),
            sha256: file.map(|file| file.sha256.clone()),
            generated_at: file.map(|file| timestamp(file.generated_at)),
            failure: output.failure.clone(),
            download_url: found
                .kept
                .as_ref()
                .map(|_| download_url(api.settings().public_url.as_ref(), &output.id)),
            version: output.version,
            updated_at: timestamp(output.updated_at),
        }
    }
}

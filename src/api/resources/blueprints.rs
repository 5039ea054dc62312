//! `/v1/blueprints`: report structures, as their editions are to be filled.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::Number;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::fields::{self, KnownHeader};
use crate::api::auth::Caller;
use crate::api::auth::caller::ReadBlueprints;
use crate::api::etag::{Known, Tag};
use crate::api::page::{Asked, Listing, MAX_PAGE_BYTES, PageOf, Part};
use crate::api::path::Id;
use crate::api::query::Query;
use crate::api::{Api, Problem, Result};
use crate::domain::blueprint::{Field, OutputOffer, Section};
use crate::domain::ids::{BlueprintId, ProjectId};
use crate::store::BlueprintRecord;

/// The resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(of_project))
        .routes(routes!(show))
}

/// A blueprint: the structure of a report.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Blueprint)]
pub struct View<'a> {
    /// Report Forge's id.
    #[schema(example = "bp_1")]
    id: &'a str,
    /// The project it belongs to.
    #[schema(example = "pr_1")]
    project_id: &'a str,
    /// Its name.
    #[schema(example = "Monthly report")]
    name: &'a str,
    /// Grows with every change.
    #[schema(example = 3)]
    version: i64,
    /// Its sections, in the order of the report.
    sections: Vec<SectionView<'a>>,
    /// The outputs that an edition of it may have.
    outputs: Vec<OutputView<'a>>,
}

/// A part of the report.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Section)]
pub struct SectionView<'a> {
    /// What it is called in addresses.
    #[schema(example = "costs")]
    name: &'a str,
    /// What a person reads above it.
    #[schema(example = "Costs")]
    label: &'a str,
    /// Whether it is filled once or row by row.
    #[schema(schema_with = fields::section_kinds_schema)]
    kind: &'static str,
    /// Its fields, in order.
    fields: Vec<FieldView<'a>>,
}

/// One thing to fill in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Field)]
pub struct FieldView<'a> {
    /// What it is called in data.
    #[schema(example = "amount")]
    name: &'a str,
    /// What a person reads beside it.
    #[schema(example = "Amount")]
    label: &'a str,
    /// What it holds: `text`, `long_text`, `number`, `integer`, `date`, `datetime`, `boolean`,
    /// `select`, `multi_select`, `rag` (`red`, `amber` or `green`), `user` (the id of a member), `file`
    /// or `calculated`.
    #[schema(example = "number")]
    r#type: &'static str,
    /// Whether an edition can be submitted without it.
    required: bool,
    /// Whether only Report Forge writes it.
    read_only: bool,
    /// What may be chosen; only of `select` and `multi_select`.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    #[schema(required = false)]
    options: &'a [String],
    /// The least that it may hold: of a number its value, of a text its characters, of a choice of
    /// several their count.
    #[schema(value_type = Option<f64>)]
    min: Option<&'a Number>,
    /// The most that it may hold.
    #[schema(value_type = Option<f64>)]
    max: Option<&'a Number>,
    /// A regular expression that a text must match as a whole.
    pattern: Option<&'a str>,
}

/// An output that an edition may have.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OutputOffer)]
pub struct OutputView<'a> {
    /// What it is called.
    #[schema(example = "Board report")]
    name: &'a str,
    /// What it is made as.
    #[schema(example = "pdf")]
    format: &'a str,
}

/// List the blueprints of a project
///
/// By id.
#[utoipa::path(
    get, path = "/projects/{id}/blueprints", operation_id = "listBlueprints", tag = "Blueprints",
    params(fields::CorePath, Part),
    responses((status = 200, description = "A page of blueprints.", body = PageOf<View>)),
    security(("api_key" = ["read:blueprints"])),
)]
async fn of_project(
    State(api): State<Api>,
    caller: Caller<ReadBlueprints>,
    asked: Asked,
    Id(id): Id<ProjectId>,
    Query(part): Query<Part>,
) -> Result<Response> {
    let reach = caller.reach();
    let listing = Listing::new(&api, asked, caller.workspace(), part, &[])?;
    let request = listing.request()?;
    let project = api.store().project(&reach, &id).await?;
    project.ok_or_else(Problem::not_found)?;
    // What is kept is about as long as what is shown: a page that fits is not read twice.
    let page = api
        .store()
        .blueprints(&reach, &id, request, MAX_PAGE_BYTES)
        .await?;
    let key = |found: &BlueprintRecord| found.blueprint.id.clone();
    listing.answer_checked(&page, key, |found| Ok(View::new(found)))
}

/// Show a blueprint
#[utoipa::path(
    get, path = "/blueprints/{id}", operation_id = "getBlueprint", tag = "Blueprints",
    params(fields::CorePath, KnownHeader),
    responses(
        (status = 200, description = "The blueprint.", body = View, headers(("ETag" = String, description = "Its version."))),
        (status = 304, description = "It is as `If-None-Match` says."),
    ),
    security(("api_key" = ["read:blueprints"])),
)]
async fn show(
    State(api): State<Api>,
    caller: Caller<ReadBlueprints>,
    Id(id): Id<BlueprintId>,
    known: Known,
) -> Result<Response> {
    let found = api.store().blueprint(&caller.reach(), &id).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    let tag = Tag::new(found.version, "json");
    Ok(known.or(tag, axum::Json(View::new(&found))))
}

impl<'a> View<'a> {
    fn new(found: &'a BlueprintRecord) -> Self {
        let blueprint = &found.blueprint;
        Self {
            id: blueprint.id.as_str(),
            project_id: blueprint.project.as_str(),
            name: &blueprint.name,
            version: found.version,
            sections: blueprint.sections.iter().map(SectionView::new).collect(),
            outputs: blueprint.outputs.iter().map(OutputView::new).collect(),
        }
    }
}

impl<'a> SectionView<'a> {
    fn new(section: &'a Section) -> Self {
        Self {
            name: &section.name,
            label: section.title(),
            kind: section.kind.as_str(),
            fields: section.fields.iter().map(FieldView::new).collect(),
        }
    }
}

impl<'a> FieldView<'a> {
    fn new(field: &'a Field) -> Self {
        Self {
            name: &field.name,
            label: field.title(),
            r#type: field.field_type.as_str(),
            required: field.required,
            read_only: field.is_read_only(),
            options: field.field_type.options(),
            min: field.bounds.min.as_ref(),
            max: field.bounds.max.as_ref(),
            pattern: field.pattern.as_deref(),
        }
    }
}

impl<'a> OutputView<'a> {
    fn new(offer: &'a OutputOffer) -> Self {
        Self {
            name: &offer.name,
            format: offer.format.as_str(),
        }
    }
}

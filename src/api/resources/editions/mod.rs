//! `/v1/editions`: what each reporting cycle has made of a blueprint, without what its sections hold.

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::fields::{self, KnownHeader};
use crate::api::auth::Caller;
use crate::api::auth::caller::ReadEditions;
use crate::api::etag::{Known, Tag};
use crate::api::page::json;
use crate::api::path::Id;
use crate::api::query::Query;
use crate::api::trim::Members;
use crate::api::{Api, Problem, Result};
use crate::domain::ids::EditionId;
use crate::domain::payload::timestamp;
use crate::domain::workspace::Person;
use crate::store::{EditionRecord, EditionTag};

mod list;

/// The members of [`View`], in order.
const MEMBERS: [&str; 11] = [
    "id",
    "project_id",
    "blueprint_id",
    "name",
    "status",
    "status_changed_at",
    "period",
    "assignee",
    "version",
    "created_at",
    "updated_at",
];

/// The resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    list::routes().routes(routes!(show))
}

/// What of one edition.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Trimmed {
    /// Only these members, with commas between them.
    #[param(example = "id,status,version", schema_with = fields_schema)]
    fields: Option<String>,
}

/// An edition: one reporting cycle's filling of a blueprint. With `fields`, only what that names.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Edition)]
pub struct View<'a> {
    /// Report Forge's id.
    #[schema(required = false, example = "ed_1")]
    id: &'a str,
    /// The project of its blueprint.
    #[schema(required = false, example = "pr_1")]
    project_id: &'a str,
    /// What it is an edition of.
    #[schema(required = false, example = "bp_1")]
    blueprint_id: &'a str,
    /// Its name.
    #[schema(required = false, example = "Monthly report, April")]
    name: &'a str,
    /// Where it stands: `draft`, `submitted`, `in_review`, `changes_requested`, `approved`, `closed`,
    /// or another word of Report Forge's.
    #[schema(required = false, example = "approved")]
    status: &'a str,
    /// Since when it stands there.
    #[schema(required = false, format = DateTime)]
    status_changed_at: String,
    /// The reporting period, in Report Forge's own words.
    #[schema(required = false, example = "2026-Q2")]
    period: Option<&'a str>,
    /// Who has to fill it.
    #[schema(required = false)]
    assignee: Option<PersonView<'a>>,
    /// Grows with every change of its data. A change of status alone need not raise it.
    #[schema(required = false, example = 7)]
    version: i64,
    /// When it was made.
    #[schema(required = false, format = DateTime)]
    created_at: String,
    /// When it last changed here: what `updated_since` goes by.
    #[schema(required = false, format = DateTime)]
    updated_at: String,
}

/// A person.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Person)]
pub struct PersonView<'a> {
    /// Report Forge's id.
    #[schema(example = "u_1")]
    id: &'a str,
    /// Their name; null where Report Forge told only the id.
    name: Option<&'a str>,
}

/// Show an edition
///
/// Its sections are read on their own.
#[utoipa::path(
    get, path = "/editions/{id}", operation_id = "getEdition", tag = "Editions",
    params(fields::CorePath, Trimmed, KnownHeader),
    responses(
        (status = 200, description = "The edition.", body = View, headers(("ETag" = String, description = "Its version, and what tells this answer from others of it."))),
        (status = 304, description = "It is as `If-None-Match` says."),
    ),
    security(("api_key" = ["read:editions"])),
)]
async fn show(
    State(api): State<Api>,
    caller: Caller<ReadEditions>,
    Id(id): Id<EditionId>,
    Query(params): Query<Trimmed>,
    known: Known,
) -> Result<Response> {
    let members = Members::read(params.fields.as_deref(), &MEMBERS)?;
    let tag = |of: EditionTag| Tag::new(of.version, format_args!("{}-json{members}", of.revision));
    let reach = caller.reach();
    if known.names_tags() {
        let current = api.store().edition_tag(&reach, &id).await?;
        let current = current.ok_or_else(Problem::not_found)?;
        if let Some(same) = known.same(&tag(current)) {
            return Ok(same);
        }
    }
    let found = api.store().edition(&reach, &id).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    let body = members.trim(json(&View::new(&found))?)?;
    Ok(known.or(tag(found.tag()), as_json(body)))
}

/// A text that is JSON already.
pub(super) fn as_json(body: String) -> impl IntoResponse {
    let kind = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, kind)], body)
}

fn fields_schema() -> utoipa::openapi::schema::Schema {
    fields::list_of_names(&MEMBERS)
}

impl<'a> View<'a> {
    /// As it is kept.
    pub(super) fn new(record: &'a EditionRecord) -> Self {
        let edition = &record.edition;
        Self {
            id: edition.id.as_str(),
            project_id: edition.project.as_str(),
            blueprint_id: edition.blueprint.as_str(),
            name: &edition.name,
            status: edition.status.as_str(),
            status_changed_at: timestamp(edition.status_changed_at),
            period: edition.period.as_deref(),
            assignee: edition.assignee.as_ref().map(PersonView::new),
            version: edition.version,
            created_at: timestamp(edition.created_at),
            updated_at: timestamp(edition.updated_at),
        }
    }
}

impl<'a> PersonView<'a> {
    fn new(person: &'a Person) -> Self {
        Self {
            id: person.id.as_str(),
            name: person.name.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_members_that_can_be_asked_for_are_those_that_are_shown() {
        let view = View {
            id: "",
            project_id: "",
            blueprint_id: "",
            name: "",
            status: "",
            status_changed_at: String::new(),
            period: None,
            assignee: None,
            version: 0,
            created_at: String::new(),
            updated_at: String::new(),
        };
        let shown = crate::domain::values::Values::trusted(&json(&view).unwrap());
        let shown = shown.entries().unwrap();
        let names: Vec<_> = shown.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, MEMBERS);
    }
}

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
use crate::api::page::{Asked, Listing, Part, json};
use crate::api::path::Id;
use crate::api::query::{self, Query};
use crate::api::trim::Members;
use crate::api::{Api, Problem, Result};
use crate::domain::edition::EditionStatus;
use crate::domain::ids::{BlueprintId, EditionId, ProjectId};
use crate::domain::payload::timestamp;
use crate::domain::workspace::Person;
use crate::store::{EditionFilter, EditionKey, EditionRecord, EditionTag};

/// The most statuses that a list may be asked for at once.
const MAX_STATUSES: usize = 20;

/// The longest text of a period, in characters: that of the core's.
const MAX_PERIOD_CHARS: usize = 500;

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
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(of_blueprint))
        .routes(routes!(show))
}

/// Which editions.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Params {
    /// In this status only, or in one of these, with commas between them.
    #[param(
        example = "approved,closed",
        pattern = "^[a-z0-9_]{1,64}(,[a-z0-9_]{1,64}){0,19}$"
    )]
    status: Option<String>,
    /// Of this project only.
    #[param(
        example = "pr_1",
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    )]
    project: Option<String>,
    /// Of this blueprint only.
    #[param(
        example = "bp_1",
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    )]
    blueprint: Option<String>,
    /// Of this reporting period only, in Report Forge's own words.
    #[param(
        example = "2026-Q2",
        max_length = 500,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"
    )]
    period: Option<String>,
    /// Changed at this instant or later (RFC 3339): the `as_of` of the time before.
    #[param(value_type = Option<String>, format = DateTime)]
    updated_since: Option<String>,
    /// Only these members of each edition, with commas between them.
    #[param(example = "id,status,version", schema_with = fields_schema)]
    fields: Option<String>,
    /// At most so many items.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 500)]
    limit: Option<String>,
    /// Behind this cursor: `next_cursor` of the page before.
    after: Option<String>,
}

/// Which editions of a blueprint.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct OfBlueprint {
    /// In this status only, or in one of these, with commas between them.
    #[param(
        example = "approved,closed",
        pattern = "^[a-z0-9_]{1,64}(,[a-z0-9_]{1,64}){0,19}$"
    )]
    status: Option<String>,
    /// Of this reporting period only, in Report Forge's own words.
    #[param(
        example = "2026-Q2",
        max_length = 500,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"
    )]
    period: Option<String>,
    /// Changed at this instant or later (RFC 3339): the `as_of` of the time before.
    #[param(value_type = Option<String>, format = DateTime)]
    updated_since: Option<String>,
    /// Only these members of each edition, with commas between them.
    #[param(example = "id,status,version", schema_with = fields_schema)]
    fields: Option<String>,
    /// At most so many items.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 500)]
    limit: Option<String>,
    /// Behind this cursor: `next_cursor` of the page before.
    after: Option<String>,
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

/// A page of editions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EditionPage)]
pub struct Described<'a> {
    /// The editions, in the order in which they last changed.
    data: Vec<View<'a>>,
    /// Send as `after` for the next page; null on the last.
    next_cursor: Option<String>,
    /// After the last page, send as `updated_since` the next time: nothing that changed meanwhile is
    /// missed.
    #[schema(format = DateTime)]
    as_of: String,
}

/// List editions
///
/// In the order in which they last changed, oldest change first: what changes while you page comes again
/// at the end. To follow changes, read all pages, then ask again with the last page's `as_of` as
/// `updated_since`.
#[utoipa::path(
    get, path = "/editions", operation_id = "listEditions", tag = "Editions",
    params(Params),
    responses((status = 200, description = "A page of editions.", body = Described)),
    security(("api_key" = ["read:editions"])),
)]
async fn list(
    State(api): State<Api>,
    caller: Caller<ReadEditions>,
    asked: Asked,
    Query(params): Query<Params>,
) -> Result<Response> {
    page(&api, &caller, asked, params).await
}

/// List the editions of a blueprint
///
/// As `GET /editions` does.
#[utoipa::path(
    get, path = "/blueprints/{id}/editions", operation_id = "listBlueprintEditions", tag = "Editions",
    params(fields::CorePath, OfBlueprint),
    responses((status = 200, description = "A page of editions.", body = Described)),
    security(("api_key" = ["read:editions"])),
)]
async fn of_blueprint(
    State(api): State<Api>,
    caller: Caller<ReadEditions>,
    asked: Asked,
    Id(id): Id<BlueprintId>,
    Query(params): Query<OfBlueprint>,
) -> Result<Response> {
    let found = api.store().blueprint(&caller.reach(), &id).await?;
    found.ok_or_else(Problem::not_found)?;
    page(&api, &caller, asked, params.of(&id)).await
}

async fn page(
    api: &Api,
    caller: &Caller<ReadEditions>,
    asked: Asked,
    params: Params,
) -> Result<Response> {
    let members = Members::read(params.fields.as_deref(), &MEMBERS)?;
    let filter = params.filter()?;
    let filters = [
        ("status", params.status.as_deref()),
        ("project", params.project.as_deref()),
        ("blueprint", params.blueprint.as_deref()),
        ("period", params.period.as_deref()),
        ("updated_since", params.updated_since.as_deref()),
    ];
    let part = Part {
        limit: params.limit.clone(),
        after: params.after.clone(),
    };
    let listing = Listing::new(api, asked, caller.workspace(), part, &filters)?;
    let list = api
        .store()
        .editions(&caller.reach(), &filter, listing.request()?)
        .await?;
    let (items, cursor) = listing.fit(&list.page, EditionKey::of, |record| {
        members.trim(json(&View::new(record))?)
    })?;
    let body = format!(
        r#"{{"data":[{}],"next_cursor":{},"as_of":"{}"}}"#,
        items.join(","),
        json(&cursor)?,
        timestamp(list.as_of)
    );
    Ok(listing.respond("application/json", body, cursor.as_deref()))
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

impl OfBlueprint {
    fn of(self, blueprint: &BlueprintId) -> Params {
        Params {
            status: self.status,
            project: None,
            blueprint: Some(blueprint.to_string()),
            period: self.period,
            updated_since: self.updated_since,
            fields: self.fields,
            limit: self.limit,
            after: self.after,
        }
    }
}

impl Params {
    fn filter(&self) -> Result<EditionFilter> {
        let statuses = query::made("status", self.status.as_deref(), statuses)?;
        Ok(EditionFilter {
            project: query::made("project", self.project.as_deref(), ProjectId::new)?,
            blueprint: query::made("blueprint", self.blueprint.as_deref(), BlueprintId::new)?,
            statuses: statuses.unwrap_or_default(),
            period: query::made("period", self.period.as_deref(), period)?,
            updated_since: query::time("updated_since", self.updated_since.as_deref())?,
        })
    }
}

fn statuses(text: &str) -> std::result::Result<Vec<EditionStatus>, String> {
    let statuses: Option<Vec<_>> = text.split(',').map(EditionStatus::parse).collect();
    statuses
        .filter(|statuses| statuses.len() <= MAX_STATUSES)
        .ok_or_else(|| format!("must be 1 to {MAX_STATUSES} statuses, such as `approved,closed`"))
}

fn period(text: &str) -> std::result::Result<String, String> {
    if text.chars().count() > MAX_PERIOD_CHARS || text.chars().any(char::is_control) {
        return Err(format!(
            "must be at most {MAX_PERIOD_CHARS} characters, none of them a control character"
        ));
    }
    Ok(text.to_owned())
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

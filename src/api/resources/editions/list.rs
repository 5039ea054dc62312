//! Lists of editions: all, or those of a blueprint.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{MEMBERS, View, fields_schema};
use crate::api::auth::Caller;
use crate::api::auth::caller::ReadEditions;
use crate::api::page::{Asked, Listing, Part, json};
use crate::api::path::Id;
use crate::api::query::{self, Query};
use crate::api::resources::fields;
use crate::api::trim::Members;
use crate::api::{Api, Problem, Result};
use crate::domain::edition::EditionStatus;
use crate::domain::ids::{BlueprintId, ProjectId};
use crate::domain::payload::timestamp;
use crate::store::{EditionFilter, EditionKey};

/// The most statuses that a list may be asked for at once.
const MAX_STATUSES: usize = 20;

/// The longest text of a period, in characters: that of the core's.
const MAX_PERIOD_CHARS: usize = 500;

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(of_blueprint))
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

/// A page of editions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EditionPage)]
pub(super) struct Described<'a> {
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
/// `updated_since`. An edition that was deleted is listed no more, and nothing here tells of it: it answers
/// 404, and is missing where the whole list is read again.
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

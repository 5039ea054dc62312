//! `/v1/editions/{id}/sections/{name}/rows`: the rows of a section, all at once or page by page, as
//! JSON, CSV or NDJSON.

use axum::extract::State;
use axum::http::header::VARY;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::write::Table;
use super::fields::{self, KnownHeader};
use super::sections::{Defined, same, tag, variant};
use crate::api::accept;
use crate::api::auth::Caller;
use crate::api::auth::caller::ReadEditions;
use crate::api::etag::Known;
use crate::api::page::{Asked, Listing, MAX_ANSWER_BYTES, Part};
use crate::api::path::SectionOf;
use crate::api::problem_type::ProblemType;
use crate::api::query::Query;
use crate::api::{Api, Problem, Result};
use crate::domain::blueprint::SectionKind;
use crate::domain::edition::Row;
use crate::domain::reach::Reach;
use crate::heavy::heavy;
use crate::store::{PageRequest, RowsPage};

mod write;

/// The version of the edition that the rows are of: pages of one version belong together.
const EDITION_VERSION: HeaderName = HeaderName::from_static("x-edition-version");

/// What an answer depends on beside its address.
const DEPENDS_ON: HeaderValue = HeaderValue::from_static("Accept, Authorization");

/// What rows can be had as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Csv,
    Ndjson,
}

const FORMS: [accept::Offer<Form>; 3] = [
    (Form::Json, "application/json"),
    (Form::Csv, "text/csv"),
    (Form::Ndjson, "application/x-ndjson"),
];

impl Form {
    /// Its part of a tag's variant.
    fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    /// How many bytes of rows, as they are kept, are written into a page: few enough that it stays
    /// below 10 MB. JSON adds the names of two members to each row. CSV leaves the names of fields
    /// out, doubles quotes at the worst, and has a comma for every field, filled or not.
    fn page_bytes(self) -> usize {
        match self {
            Self::Json | Self::Ndjson => 9_500_000,
            Self::Csv => 4_200_000,
        }
    }

    /// How many bytes of rows, as they are kept, are read where all are wanted. With more, JSON is
    /// above 10 MB; CSV most likely, unless names of fields make up most of it.
    fn whole_bytes(self) -> usize {
        match self {
            Self::Json | Self::Ndjson => MAX_ANSWER_BYTES,
            Self::Csv => 3 * MAX_ANSWER_BYTES,
        }
    }
}

/// The resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Which rows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Params {
    /// At most so many rows. Without `limit` and `after`: all of them.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 500)]
    limit: Option<String>,
    /// Behind this cursor: `next_cursor` of the page before.
    after: Option<String>,
}

/// A row.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Row)]
pub struct View<'a> {
    /// Which; it stays the same for the row's life.
    #[schema(example = "row_1")]
    id: &'a str,
    /// What its fields hold, as it was written.
    #[schema(value_type = Object, example = json!({"item": "Steel", "amount": 12.50}))]
    values: &'a RawValue,
}

/// Rows of a section.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RowPage)]
pub struct Described<'a> {
    /// The version of the edition that they are of. Pages of one version belong together; where it
    /// differs from that of the page before, the edition has changed meanwhile: begin again.
    #[schema(example = 7)]
    edition_version: i64,
    /// The rows, in order.
    data: Vec<View<'a>>,
    /// Send as `after` for the next page; null on the last.
    next_cursor: Option<String>,
}

/// List the rows of a section
///
/// All of them, or, with `limit` or `after`, page by page; a page ends before 10 MB. As JSON, as CSV (a
/// header with `id` and the names of the blueprint's fields; cells that a spreadsheet would take for
/// formulas begin with an apostrophe) or as NDJSON, one row a line, by `Accept`. The version is in the
/// header `X-Edition-Version` of each answer, the next page in `Link`.
#[utoipa::path(
    get, path = "/editions/{id}/sections/{name}/rows", operation_id = "listRows", tag = "Editions",
    params(fields::SectionPath, Params, KnownHeader),
    responses(
        (status = 200, description = "The rows, or a page of them.", content(
            (Described = "application/json"),
            (String = "text/csv"),
            (String = "application/x-ndjson"),
        ), headers(
            ("ETag" = String, description = "The edition's version, and what tells this answer from others of it."),
            ("X-Edition-Version" = i64, description = "The version of the edition that the rows are of."),
            ("Vary" = String, description = "`Accept, Authorization`."),
        )),
        (status = 304, description = "They are as `If-None-Match` says."),
    ),
    security(("api_key" = ["read:editions"])),
)]
async fn list(
    State(api): State<Api>,
    caller: Caller<ReadEditions>,
    asked: Asked,
    section: SectionOf,
    headers: HeaderMap,
    Query(params): Query<Params>,
    known: Known,
) -> Result<Response> {
    let answer = answer(&api, &caller, asked, &section, &headers, params, &known).await;
    let mut response = answer.map_err(|problem| problem.header(VARY, DEPENDS_ON))?;
    response.headers_mut().insert(VARY, DEPENDS_ON);
    Ok(response)
}

async fn answer(
    api: &Api,
    caller: &Caller<ReadEditions>,
    asked: Asked,
    section: &SectionOf,
    headers: &HeaderMap,
    params: Params,
    known: &Known,
) -> Result<Response> {
    let form = accept::choose(headers, &FORMS)?;
    let whole = params.limit.is_none() && params.after.is_none();
    let limit = params.limit.clone().unwrap_or_default();
    let after = params.after.clone().unwrap_or_default();
    let part = Part {
        limit: params.limit,
        after: params.after,
    };
    let listing = Listing::new(api, asked, caller.workspace(), part, &[])?;
    let request = listing.request()?;
    let reach = caller.reach();
    let variant = if whole {
        variant(form.as_str(), &[&section.name])
    } else {
        variant(form.as_str(), &[&section.name, &limit, &after])
    };
    if let Some(same) = same(api, &reach, section, known, &variant).await? {
        return Ok(same);
    }
    let RowsPage { edition, page } = if whole {
        all(api, &reach, section, form).await?
    } else {
        read(api, &reach, section, request, form.page_bytes()).await?
    };
    let defined = Defined::of(api, &reach, &edition, &section.name).await?;
    if page.items.is_empty() && !repeats(api, &reach, section, &defined).await? {
        return Err(Problem::not_found());
    }
    let cursor = listing.cursor(page.next.as_ref());
    let version = edition.edition.version;
    let table = Table {
        rows: &page.items,
        version,
        cursor: cursor.as_deref(),
    };
    let written = heavy(table.bytes(), || match form {
        Form::Json => table.json().map(Some),
        Form::Csv => table.csv(defined.section.as_ref()),
        Form::Ndjson => table.ndjson().map(Some),
    });
    let body = written?.filter(|body| body.len() <= MAX_ANSWER_BYTES);
    let body = body.ok_or_else(|| too_large(&page.items))?;
    let mut rows = listing.respond(form.media_type(), body, cursor.as_deref());
    rows.headers_mut()
        .insert(EDITION_VERSION, HeaderValue::from(version));
    Ok(known.or(tag(defined.tag(&edition), &variant), rows))
}

/// All rows, if they fit into one answer.
async fn all(api: &Api, reach: &Reach, section: &SectionOf, form: Form) -> Result<RowsPage> {
    let request = PageRequest {
        limit: usize::MAX,
        after: None,
    };
    let found = read(api, reach, section, request, form.whole_bytes()).await?;
    match found.page.next {
        None => Ok(found),
        Some(_) => Err(Problem::new(ProblemType::ResponseTooLarge)),
    }
}

async fn read(
    api: &Api,
    reach: &Reach,
    section: &SectionOf,
    request: PageRequest<i64>,
    max_bytes: usize,
) -> Result<RowsPage> {
    let found = api
        .store()
        .rows(reach, &section.edition, &section.name, request, max_bytes)
        .await?;
    found.ok_or_else(Problem::not_found)
}

/// Whether a section that shows no rows is one of rows at all.
async fn repeats(api: &Api, reach: &Reach, section: &SectionOf, defined: &Defined) -> Result<bool> {
    let found = api
        .store()
        .section(reach, &section.edition, &section.name)
        .await?;
    let found = found.ok_or_else(Problem::not_found)?;
    Ok(defined.kind(&found.data) == Some(SectionKind::Repeating))
}

fn too_large(rows: &[Row]) -> Problem {
    let problem = Problem::new(ProblemType::ResponseTooLarge);
    match rows {
        [one] => problem.detail(format!(
            "The row `{}` alone holds more than an answer can: 10 MB (10,000,000 bytes).",
            one.id
        )),
        _ => problem,
    }
}

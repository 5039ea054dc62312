//! `PUT` and `POST /v1/editions/{id}/sections/{name}/rows`

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::edit::Sent;
use super::receipt::Receipt;
use super::terms::{RepeatHeader, Terms};
use super::writer::Writer;
use crate::api::auth::Caller;
use crate::api::auth::caller::WriteEditions;
use crate::api::path::SectionOf;
use crate::api::resources::fields::{PreconditionHeader, SectionPath};
use crate::api::table::TableBody;
use crate::api::{Api, Result};

/// The routes, for their idempotency keys.
const PUT: &str = "PUT /v1/editions/{id}/sections/{name}/rows";
const POST: &str = "POST /v1/editions/{id}/sections/{name}/rows";

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(put, append))
}

/// Rows that are sent.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewRows, example = json!({"rows": [{"values": {"item": "Steel", "amount": 12.5}}]}))]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what the domain reads")]
struct Described {
    /// The rows, in order.
    #[schema(max_items = 50_000)]
    rows: Vec<DescribedRow>,
}

/// A row that is sent.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewRow)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what the domain reads")]
struct DescribedRow {
    /// Which; a row without one is given one.
    #[schema(
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    )]
    id: Option<String>,
    /// What its fields are to hold, by their names.
    #[schema(value_type = Object)]
    values: Value,
}

/// Put the rows of a section
///
/// These instead of all that are there: a row whose id is there is replaced, and keeps what its
/// read-only fields hold; a row whose id is not sent is no more.
///
/// As JSON; as CSV; or as tab-separated text, which is what a spreadsheet puts on the clipboard. Text has
/// a header that names the columns by `id` and by the names or labels of fields; an empty cell clears its
/// field; options of a `multi_select` stand with `;` between them. At most 50,000 rows. If anything is
/// wrong, nothing is written, and `errors` tells each cell by line and column.
#[utoipa::path(
    put, path = "/editions/{id}/sections/{name}/rows", operation_id = "putRows", tag = "Editions",
    request_body(content(
        (Described = "application/json"),
        (String = "text/csv", example = "id,item,amount\r\nr1,Steel,12.50\r\n"),
        (String = "text/tab-separated-values", example = "item\tamount\nSteel\t12.50\n"),
    ), description = "The rows."),
    params(SectionPath, PreconditionHeader, RepeatHeader),
    responses((status = 200, description = "They are there now.", body = Receipt, headers(("ETag" = String, description = "That of the edition now.")))),
    security(("api_key" = ["write:editions"])),
)]
async fn put(
    State(api): State<Api>,
    caller: Caller<WriteEditions>,
    section: SectionOf,
    terms: Terms,
    table: TableBody,
) -> Result<Response> {
    let body = [table.form.as_str().as_bytes(), &table.bytes[..]];
    let writer = Writer::new(api, &caller, terms, PUT, &body);
    writer.edit(section, Sent::Put(table.clone())).await
}

/// Append rows to a section
///
/// Behind those that are there. None of their ids may be there yet. Sent as for `PUT`.
#[utoipa::path(
    post, path = "/editions/{id}/sections/{name}/rows", operation_id = "appendRows", tag = "Editions",
    request_body(content(
        (Described = "application/json"),
        (String = "text/csv", example = "item,amount\r\nSteel,12.50\r\n"),
        (String = "text/tab-separated-values", example = "item\tamount\nSteel\t12.50\n"),
    ), description = "The rows."),
    params(SectionPath, PreconditionHeader, RepeatHeader),
    responses((status = 200, description = "They are there now.", body = Receipt, headers(("ETag" = String, description = "That of the edition now.")))),
    security(("api_key" = ["write:editions"])),
)]
async fn append(
    State(api): State<Api>,
    caller: Caller<WriteEditions>,
    section: SectionOf,
    terms: Terms,
    table: TableBody,
) -> Result<Response> {
    let body = [table.form.as_str().as_bytes(), &table.bytes[..]];
    let writer = Writer::new(api, &caller, terms, POST, &body);
    writer.edit(section, Sent::Append(table.clone())).await
}

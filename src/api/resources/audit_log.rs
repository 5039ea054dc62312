//! `/v1/audit-log`: who did what, as JSON or as CSV.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::fields;
use crate::api::accept::{self, Offer};
use crate::api::auth::Caller;
use crate::api::auth::caller::Administer;
use crate::api::page::{Asked, Listing, PageOf, Part};
use crate::api::problem_type::ProblemType;
use crate::api::query::{self, Query};
use crate::api::{Api, Problem, Result};
use crate::domain::audit::AuditEntry;
use crate::domain::payload::timestamp;
use crate::domain::table::guarded;
use crate::store::AuditFilter;

const CSV: &str = "text/csv";

/// The columns of the CSV, in the order of [`View`]'s members.
const COLUMNS: [&str; 12] = [
    "id",
    "at",
    "actor",
    "action",
    "object",
    "address",
    "request_id",
    "method",
    "route",
    "status",
    "before",
    "after",
];

/// What it is told as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Csv,
}

/// Both, and the one that is taken where a client does not mind.
const FORMS: [Offer<Form>; 2] = [(Form::Json, "application/json"), (Form::Csv, CSV)];

/// The resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Params {
    /// Of this actor only: the id of a key, `cli`, or `program`.
    #[param(
        example = "key_01h455vb4pex5vsknk084sn02q",
        pattern = "^(cli|key_[0-7][0-9a-hjkmnp-tv-z]{25})$"
    )]
    actor: Option<String>,
    /// From this address only.
    #[param(example = "192.0.2.1", schema_with = fields::address_schema)]
    address: Option<String>,
    /// This action only: `request` for the uses of keys.
    #[param(inline, schema_with = fields::actions_schema)]
    action: Option<String>,
    /// From this instant on (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<String>,
    /// Before this instant (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<String>,
    /// At most so many items.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 500)]
    limit: Option<String>,
    /// Behind this cursor: `next_cursor` of the page before.
    after: Option<String>,
}

/// An entry.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct View {
    /// Its id.
    id: String,
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// Who: the id of a key, `cli`, or `program` for what this program does by itself.
    actor: String,
    /// What was done: `request` is a use of a key.
    action: &'static str,
    /// To what: an id, where there is one.
    object: Option<String>,
    /// From which address; null on the command line.
    address: Option<String>,
    /// The request that asked for it: the `X-Request-Id` of its answer.
    request_id: Option<String>,
    /// Of a `request`: its method.
    method: Option<String>,
    /// Of a `request`: its route, as it is documented.
    route: Option<String>,
    /// Of a `request`: the status of its answer; null where the client closed its connection before
    /// the answer began.
    status: Option<u16>,
    /// What the object was, without secrets.
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    /// What it is now, without secrets.
    #[schema(value_type = Option<Object>)]
    after: Option<Value>,
}

/// List the audit log
///
/// Every administrative act and every use of a key, newest first. A use is written a moment after its
/// answer. With `Accept: text/csv` the page is CSV, and its next page is told of by the header `Link`
/// alone.
#[utoipa::path(
    get, path = "/audit-log", operation_id = "listAuditLog", tag = "Audit log",
    params(Params),
    responses((status = 200, description = "A page of entries.", content(
        (PageOf<View> = "application/json"),
        (String = "text/csv"),
    ))),
    security(("api_key" = ["admin"])),
)]
async fn list(
    State(api): State<Api>,
    caller: Caller<Administer>,
    asked: Asked,
    headers: HeaderMap,
    Query(params): Query<Params>,
) -> Result<Response> {
    let filter = params.filter()?;
    let filters = [
        ("actor", params.actor.as_deref()),
        ("address", params.address.as_deref()),
        ("action", params.action.as_deref()),
        ("since", params.since.as_deref()),
        ("until", params.until.as_deref()),
    ];
    let part = Part {
        limit: params.limit.clone(),
        after: params.after.clone(),
    };
    let listing = Listing::new(&api, asked, caller.workspace(), part, &filters)?;
    let page = api
        .store()
        .audit_log(caller.workspace(), &filter, listing.request()?)
        .await?;
    if accept::choose(&headers, &FORMS)? == Form::Json {
        return listing.answer(&page, |entry| entry.id, View::new);
    }
    let (rows, cursor) = listing.fit(
        &page,
        |entry| entry.id,
        |entry| line(&View::new(entry).cells()),
    )?;
    let body = line(&COLUMNS.map(str::to_owned))? + &rows.concat();
    Ok(listing.respond(
        "text/csv; charset=utf-8; header=present",
        body,
        cursor.as_deref(),
    ))
}

impl Params {
    fn filter(&self) -> Result<AuditFilter> {
        let address = self.address.as_deref().map(str::parse).transpose();
        Ok(AuditFilter {
            actor: query::field("actor", self.actor.as_deref())?,
            address: address.map_err(|_| Problem::parameter("address", "must be an IP address"))?,
            since: query::time("since", self.since.as_deref())?,
            until: query::time("until", self.until.as_deref())?,
            action: query::field("action", self.action.as_deref())?,
        })
    }
}

impl View {
    fn new(entry: &AuditEntry) -> Self {
        let request = entry.request.as_ref();
        Self {
            id: entry.id.to_string(),
            at: timestamp(entry.at()),
            actor: entry.actor.to_string(),
            action: entry.action.as_str(),
            object: entry.object.clone(),
            address: entry.address.map(|address| address.to_string()),
            request_id: entry.request_id.clone(),
            method: request.map(|request| request.method.clone()),
            route: request.map(|request| request.route.clone()),
            status: request.and_then(|request| request.status),
            before: entry.before.clone(),
            after: entry.after.clone(),
        }
    }

    fn cells(self) -> [String; 12] {
        let json = |value: Option<Value>| value.map(|value| value.to_string());
        [
            Some(self.id),
            Some(self.at),
            Some(self.actor),
            Some(self.action.to_owned()),
            self.object,
            self.address,
            self.request_id,
            self.method,
            self.route,
            self.status.map(|status| status.to_string()),
            json(self.before),
            json(self.after),
        ]
        .map(|cell| guarded(&cell.unwrap_or_default()).into_owned())
    }
}

/// A line of CSV (RFC 4180).
fn line(cells: &[String]) -> Result<String> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    let written = writer.write_record(cells).is_ok();
    let bytes = writer.into_inner().unwrap_or_default();
    match String::from_utf8(bytes) {
        Ok(line) if written => Ok(line),
        _ => Err(Problem::new(ProblemType::Internal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_quoted_where_it_must_be_and_never_a_formula() {
        let cells = ["=1+1", "a,b", "say \"hi\"", "plain"].map(|cell| guarded(cell).into_owned());
        assert_eq!(
            line(&cells).unwrap(),
            "'=1+1,\"a,b\",\"say \"\"hi\"\"\",plain\r\n"
        );
    }
}

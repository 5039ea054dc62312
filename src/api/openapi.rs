//! The OpenAPI 3.1 document, made from the handlers.
//!
//! Each handler says what is its own; what all have alike (the problems, the headers of limits) is
//! added here, by rules, so that no handler can forget it.

use axum::middleware::map_response;
use serde_json::json;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, Header, OpenApi as Document, PathItem, Ref, RefOr, Response,
};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;

use super::etag::kept_privately;
use super::problem::{Fault, ProblemDocument};
use super::problem_type::ProblemType;
use super::{Api, resources, webhooks};

/// The name of the security scheme, in the handlers' descriptions too.
const SCHEME: &str = "api_key";

/// What is refused where the resource stands elsewhere, beside writes that may be repeated.
const STATEFUL: [&str; 2] = ["replayDelivery", "cancelReplay"];

/// What the document says beside its paths.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Report Forge API",
        description = include_str!("openapi.md"),
        license(name = "MIT OR Apache-2.0"),
    ),
    servers(
        (url = "/", description = "This deployment"),
        (url = "/report-forge", description = "The same, under its other name"),
    ),
    tags(
        (name = "Subscriptions", description = "Where webhooks go, and which."),
        (name = "Deliveries", description = "What was and is delivered, and every attempt."),
        (name = "Replays", description = "Sending again, or sooner, because somebody says so."),
        (name = "Events", description = "What webhooks tell of."),
        (name = "Workspace", description = "The workspace of the key, and who belongs to it."),
        (name = "Projects", description = "The projects of the workspace."),
        (name = "Blueprints", description = "Report structures: sections of typed fields, and the outputs on offer."),
        (name = "Editions", description = "What each reporting cycle has made of a blueprint."),
        (name = "Outputs", description = "What editions are presented in."),
        (name = "API keys", description = "Who may ask for what. Needs `admin`."),
        (name = "Audit log", description = "Who did what. Needs `admin`."),
    ),
    components(schemas(ProblemDocument, Fault)),
    modifiers(&Security),
)]
struct Base;

/// Keys, as OpenAPI has it.
struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("rfk_…")
            .description(Some(
                "An API key. The scopes that an operation needs stand beside it; `admin` has them all.",
            ));
        document
            .components
            .get_or_insert_default()
            .add_security_scheme(SCHEME, SecurityScheme::Http(scheme.build()));
    }
}

/// All resources, each with its description.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .merge(resources::api_keys::routes())
        .merge(resources::audit_log::routes())
        .merge(resources::subscriptions::routes())
        .merge(resources::deliveries::routes())
        .merge(resources::stats::routes())
        .merge(resources::replays::routes())
        .merge(resources::events::routes())
        .merge(resources::writes::routes())
        .merge(resources::outputs::writes())
        .merge(polled())
}

/// What clients come for again and again.
fn polled() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .merge(resources::feed::routes())
        .merge(resources::workspace::routes())
        .merge(resources::projects::routes())
        .merge(resources::blueprints::routes())
        .merge(resources::editions::routes())
        .merge(resources::sections::routes())
        .merge(resources::rows::routes())
        .merge(resources::outputs::routes())
        .layer(map_response(kept_privately))
}

/// The whole document of these resources.
pub fn describe(resources: Document) -> Document {
    let mut document = Base::openapi().nest("/v1", resources);
    document.webhooks = Some(webhooks::describe());
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            complete(operation);
        }
    }
    let components = document.components.get_or_insert_default();
    for kind in ProblemType::ALL {
        let status = kind.status().as_u16();
        components
            .responses
            .entry(name(status))
            .or_insert_with(|| RefOr::T(problem(status)));
    }
    document
}

/// The document of this program.
pub fn document() -> Document {
    describe(routes().into_openapi())
}

/// The document as JSON.
pub fn write(document: &Document) -> String {
    // Names and texts: writing them does not fail, and a test reads what was written.
    document.to_pretty_json().unwrap_or_default()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.patch,
        &mut item.delete,
    ]
    .into_iter()
    .filter_map(Option::as_mut)
}

/// Adds what every operation has.
fn complete(operation: &mut Operation) {
    let parameters = operation.parameters.as_deref().unwrap_or_default();
    let has = |place: &ParameterIn, name: Option<&str>| {
        parameters.iter().any(|parameter| match parameter {
            RefOr::T(given) => {
                given.parameter_in == *place && name.is_none_or(|name| given.name == name)
            }
            RefOr::Ref(_) => false,
        })
    };
    let mut statuses = vec![401, 403, 429, 500, 503];
    if has(&ParameterIn::Query, None)
        || has(&ParameterIn::Header, None)
        || operation.request_body.is_some()
    {
        statuses.push(400);
    }
    if has(&ParameterIn::Path, None) {
        statuses.push(404);
    }
    if has(&ParameterIn::Query, Some("wait")) {
        statuses.push(410);
    }
    if has(&ParameterIn::Header, Some("If-Match")) {
        statuses.push(412);
    }
    if has(&ParameterIn::Header, Some("Idempotency-Key")) {
        statuses.extend([409, 422]);
    }
    if operation
        .operation_id
        .as_deref()
        .is_some_and(|id| STATEFUL.contains(&id))
    {
        statuses.push(409);
    }
    if operation.request_body.is_some() {
        statuses.extend([408, 413, 415, 422]);
    }
    if has(&ParameterIn::Header, Some("Range")) {
        // A file is of the type that it is of.
        statuses.extend([409, 416]);
    } else if is_negotiated(operation) {
        statuses.push(406);
    }
    let is_list = has(&ParameterIn::Query, Some("after"));
    let responses = &mut operation.responses.responses;
    if let Some(RefOr::T(page)) = responses.get_mut("200").filter(|_| is_list) {
        let link = text("`rel=\"next\"`: the next page, where there is one (RFC 8288).");
        page.headers.insert("Link".to_owned(), RefOr::T(link));
    }
    for response in responses.values_mut() {
        if let RefOr::T(response) = response {
            let headers = headers(true).into_iter();
            response
                .headers
                .extend(headers.map(|(name, header)| (name, RefOr::T(header))));
        }
    }
    for status in statuses {
        responses
            .entry(status.to_string())
            .or_insert_with(|| RefOr::Ref(Ref::from_response_name(name(status))));
    }
}

/// Whether it refuses types that it has not.
fn is_negotiated(operation: &Operation) -> bool {
    match operation.responses.responses.get("200") {
        Some(RefOr::T(answer)) => answer.content.len() > 1,
        _ => false,
    }
}

fn name(status: u16) -> String {
    format!("Problem{status}")
}

/// The problems of one status.
fn problem(status: u16) -> Response {
    let kinds = ProblemType::ALL
        .into_iter()
        .filter(|kind| kind.status().as_u16() == status);
    let example = kinds.clone().next().map(|kind| {
        json!({
            "type": format!("/problems/{}", kind.slug()),
            "title": kind.title(),
            "status": status,
            "detail": kind.detail(),
        })
    });
    let listed: Vec<String> = kinds
        .map(|kind| format!("[`{0}`](/problems/{0}): {1}", kind.slug(), kind.title()))
        .collect();
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .example(example);
    let mut response = ResponseBuilder::new()
        .description(listed.join("; "))
        .content("application/problem+json", content.build());
    // Whoever has no valid key has no limits to be told of.
    for (name, header) in headers(status != 401) {
        response = response.header(name, header);
    }
    if matches!(status, 429 | 503) {
        response = response.header("Retry-After", number("Seconds to wait."));
    }
    if matches!(status, 401 | 403) {
        response = response.header("WWW-Authenticate", text("RFC 6750."));
    }
    response.build()
}

fn headers(limits: bool) -> Vec<(String, Header)> {
    let mut headers = vec![(
        "X-Request-Id",
        text("Names the request in the logs and the audit log."),
    )];
    if limits {
        headers.extend([
            (
                "X-RateLimit-Limit",
                number("Requests that the window with the fewest left allows."),
            ),
            ("X-RateLimit-Remaining", number("Requests left in it.")),
            (
                "X-RateLimit-Reset",
                number("When it ends, in unix seconds."),
            ),
            (
                "RateLimit",
                text("The same (draft-ietf-httpapi-ratelimit-headers)."),
            ),
            ("RateLimit-Policy", text("Both windows, in seconds.")),
        ]);
    }
    let owned = |(name, header): (&str, Header)| (name.to_owned(), header);
    headers.into_iter().map(owned).collect()
}

fn text(description: &str) -> Header {
    header(Type::String, description)
}

fn number(description: &str) -> Header {
    header(Type::Integer, description)
}

fn header(kind: Type, description: &str) -> Header {
    HeaderBuilder::new()
        .schema(Some(
            ObjectBuilder::new().schema_type(SchemaType::Type(kind)),
        ))
        .description(Some(description))
        .build()
}

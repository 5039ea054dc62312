//! `POST /v1/editions`

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::receipt::{Answer, keep};
use super::terms::{RepeatHeader, Terms};
use super::writer::{TRIES, Writer, restless};
use crate::api::auth::Caller;
use crate::api::auth::caller::WriteEditions;
use crate::api::body::JsonBody;
use crate::api::page::Asked;
use crate::api::problem::ProblemDocument;
use crate::api::resources::editions::View;
use crate::api::resources::fields::Faults;
use crate::api::{Api, Problem, Result};
use crate::domain::ids::{BlueprintId, EditionId, OutputId};
use crate::store::{BlueprintRecord, EditionRecord, NewEdition};

/// The route, for its idempotency keys.
const ROUTE: &str = "POST /v1/editions";

/// The longest name or period, in characters: that of the core's.
const MAX_LINE_CHARS: usize = 500;

/// The route's.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(create))
}

/// An edition that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewEdition, example = json!({"blueprint_id": "bp_1", "period": "2026-Q2"}))]
#[serde(deny_unknown_fields)]
pub(super) struct NewOne {
    /// What it is to be an edition of.
    #[schema(
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$",
        example = "bp_1"
    )]
    blueprint_id: String,
    /// Its name; null, or left out, for that of the blueprint with the period.
    #[schema(
        min_length = 1,
        max_length = 500,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    )]
    name: Option<String>,
    /// The reporting period, in your own words.
    #[schema(
        min_length = 1,
        max_length = 500,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$",
        example = "2026-Q2"
    )]
    period: Option<String>,
}

/// Create an edition
///
/// In `draft`, with empty sections, and an output of each kind that the blueprint offers. Report Forge
/// adopts its id. A blueprint that the key cannot see is answered as one that does not exist (404).
#[utoipa::path(
    post, path = "/editions", operation_id = "createEdition", tag = "Editions",
    request_body = NewOne,
    params(RepeatHeader),
    responses(
        (status = 201, description = "Created.", body = View, headers(
            ("Location" = String, description = "Where it is."),
            ("ETag" = String, description = "Its version, for `If-Match`, and what tells this answer from others of it."),
        )),
        (status = 404, description = "[`not-found`](/problems/not-found): no such blueprint.",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["write:editions"])),
)]
async fn create(
    State(api): State<Api>,
    caller: Caller<WriteEditions>,
    asked: Asked,
    terms: Terms,
    body: JsonBody<NewOne>,
) -> Result<Response> {
    let wanted = Wanted::read(body.value)?;
    let writer = Writer::new(api, &caller, terms, ROUTE, &[&body.fingerprint]);
    let answer = writer.carry_out(move |writer| async move { made(&writer, &wanted).await });
    let answer = answer.await?;
    let location = asked.below(&answer.edition);
    Ok((
        StatusCode::CREATED,
        [(LOCATION, location)],
        answer.respond(),
    )
        .into_response())
}

async fn made(writer: &Writer, wanted: &Wanted) -> Result<Answer> {
    let api = &writer.api;
    for _ in 0..TRIES {
        let found = api
            .store()
            .blueprint(&writer.reach, &wanted.blueprint)
            .await?;
        let blueprint = found.ok_or_else(Problem::not_found)?;
        let new = wanted.edition(api, &blueprint);
        let view = |record: &EditionRecord| keep(record, &View::new(record));
        let write = writer.write(blueprint.version, &view);
        let written = api.store().create_edition(&new, &write).await?;
        if let Some(answer) = Answer::of(written)? {
            return Ok(answer);
        }
    }
    Err(restless())
}

/// What is asked for, read value by value.
struct Wanted {
    blueprint: BlueprintId,
    name: Option<String>,
    period: Option<String>,
}

impl Wanted {
    fn read(sent: NewOne) -> Result<Self> {
        let mut faults = Faults::default();
        let blueprint = BlueprintId::new(&sent.blueprint_id)
            .map_err(|error| faults.add("/blueprint_id", error.to_string()));
        for (pointer, line) in [("/name", &sent.name), ("/period", &sent.period)] {
            if line.as_deref().is_some_and(|line| !is_line(line)) {
                let rule = format!(
                    "must be 1 to {MAX_LINE_CHARS} characters, none of them a control character"
                );
                faults.add(pointer, rule);
            }
        }
        match blueprint {
            Ok(blueprint) => faults.none().map(|()| Self {
                blueprint,
                name: sent.name,
                period: sent.period,
            }),
            Err(()) => Err(faults.problem()),
        }
    }

    /// The edition, with ids of ours.
    fn edition(&self, api: &Api, of: &BlueprintRecord) -> NewEdition {
        let now = api.clock().now();
        let offers = of.blueprint.outputs.iter();
        NewEdition {
            id: EditionId::ours(now, api.entropy().bytes()),
            blueprint: self.blueprint.clone(),
            name: self
                .name
                .clone()
                .unwrap_or_else(|| self.default_name(&of.blueprint.name)),
            period: self.period.clone(),
            outputs: offers
                .map(|_| OutputId::ours(now, api.entropy().bytes()))
                .collect(),
        }
    }

    fn default_name(&self, blueprint: &str) -> String {
        let whole = match &self.period {
            Some(period) => format!("{blueprint}, {period}"),
            None => blueprint.to_owned(),
        };
        whole.chars().take(MAX_LINE_CHARS).collect()
    }
}

fn is_line(text: &str) -> bool {
    (1..=MAX_LINE_CHARS).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

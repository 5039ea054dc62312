//! `POST /v1/outputs/{id}/generate`

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::View;
use crate::api::auth::Caller;
use crate::api::auth::caller::WriteOutputs;
use crate::api::body::OptionalBody;
use crate::api::idempotency::IdempotencyKey;
use crate::api::path::Id;
use crate::api::problem_type::ProblemType;
use crate::api::resources::editions::as_json;
use crate::api::resources::fields::CorePath;
use crate::api::resources::writes::RepeatHeader;
use crate::api::{Api, Problem, Result};
use crate::domain::file::output_url;
use crate::domain::ids::OutputId;
use crate::store::{OutputAsk, OutputAsked, OutputRecord};

/// The route, for its idempotency keys.
const ROUTE: &str = "POST /v1/outputs/{id}/generate";

/// The route's.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(generate))
}

/// How an output is to be made: there is nothing to choose.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(example = json!({}))]
#[serde(deny_unknown_fields)]
struct Generation {}

/// Generate an output
///
/// Of an edition that is `approved` or `closed`. It is made in the background: read it again until it is
/// `generated` (or `failed`), or wait for the webhook `output.generated`. One that is under way already
/// is answered the same, and stays as it is; the file that there was stays until there is another.
#[utoipa::path(
    post, path = "/outputs/{id}/generate", operation_id = "generateOutput", tag = "Outputs",
    request_body = Option<Generation>,
    params(CorePath, RepeatHeader),
    responses((status = 202, description = "It is queued, or under way.", body = View, headers(
        ("Location" = String, description = "Where it is."),
    ))),
    security(("api_key" = ["write:outputs"])),
)]
async fn generate(
    State(api): State<Api>,
    caller: Caller<WriteOutputs>,
    Id(id): Id<OutputId>,
    key: IdempotencyKey,
    _nothing: OptionalBody<Generation>,
) -> Result<Response> {
    let reach = caller.reach();
    let Some(outputs) = api.outputs() else {
        let found = api.store().output(&reach, &id).await?;
        found.ok_or_else(Problem::not_found)?;
        let detail = "This deployment has no place for files: it makes no outputs.";
        return Err(Problem::new(ProblemType::OutputNotMadeHere).detail(detail));
    };
    // The route's keys are shared by all outputs.
    let once = key.once(caller.key(), ROUTE, Sha256::digest(id.as_str()).into());
    let answer = |record: &OutputRecord| {
        // Texts and numbers: writing them cannot fail.
        serde_json::to_string(&View::new(&api, record)).unwrap_or_default()
    };
    let ask = OutputAsk {
        reach: &reach,
        once: once.as_ref(),
        core_timeout: outputs.core_timeout,
        answer: &answer,
        event: api.entropy().id(api.clock().now()),
    };
    let body = match api.store().ask_output(&id, &ask).await? {
        OutputAsked::Done(answer) => answer,
        OutputAsked::NotFound => return Err(Problem::not_found()),
        OutputAsked::NotReady(status) => {
            let detail = format!(
                "The edition is `{status}`: outputs are made of `approved` and `closed` ones only."
            );
            return Err(Problem::new(ProblemType::EditionNotApproved).detail(detail));
        }
        OutputAsked::NotMadeHere(format) => {
            let detail = format!(
                "`{format}` is made by Report Forge only, which this deployment does not ask for files."
            );
            return Err(Problem::new(ProblemType::OutputNotMadeHere).detail(detail));
        }
        OutputAsked::Conflicting => return Err(Problem::new(ProblemType::IdempotencyKeyReused)),
        OutputAsked::Running => return Err(Problem::new(ProblemType::IdempotencyKeyInUse)),
    };
    let location = output_url(api.settings().public_url.as_ref(), &id);
    Ok((StatusCode::ACCEPTED, [(LOCATION, location)], as_json(body)).into_response())
}

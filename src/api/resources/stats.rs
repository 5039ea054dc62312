//! What was attempted in all of the workspace, as far as the key reaches; and how statistics are asked for.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::auth::Caller;
use crate::api::auth::caller::ReadWebhooks;
use crate::api::query::{self, Query};
use crate::api::{Api, Problem, Result};
use crate::store::stats::view::PastView;
use crate::store::{Resolution, stats};

/// The shortest window that can be asked for, in seconds.
const SHORTEST: u64 = 60;

/// The longest: as far back as hours can be asked for.
const LONGEST: u64 = 34_560_000;

/// A day, unless it is said.
const USUAL: Duration = Duration::from_hours(24);

/// The route.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(workspace_stats))
}

/// How far back, and in which steps.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// How many seconds to look back: a day unless it is said, 400 days at most.
    #[param(value_type = Option<u32>, minimum = 60, maximum = 34_560_000, example = 3_600)]
    window: Option<String>,
    /// Lists what was counted by the minute or by the hour, in `series`. Of minutes the last 9,600 at
    /// most are told of, whatever the window.
    #[param(example = "hour", pattern = r"^(minute|hour)$")]
    resolution: Option<String>,
}

impl Params {
    /// The steps only where they are asked for.
    pub fn read(&self) -> Result<(Duration, Option<Resolution>)> {
        let steps = query::parsed("resolution", self.resolution.as_deref())?;
        match self.window.as_deref().map(str::parse) {
            None => Ok((USUAL, steps)),
            Some(Ok(seconds)) if (SHORTEST..=LONGEST).contains(&seconds) => {
                Ok((Duration::from_secs(seconds), steps))
            }
            Some(_) => {
                let rule = format!("must be {SHORTEST} to {LONGEST} seconds");
                Err(Problem::parameter("window", rule))
            }
        }
    }
}

/// See what was delivered
///
/// What was attempted of late and came of it, for all subscriptions together that the key sees: in all, and
/// by the minute or by the hour where that is asked for. How much can be added up is bounded: with many
/// subscriptions a long window is refused.
#[utoipa::path(
    get, path = "/stats", operation_id = "getStats", tag = "Deliveries",
    params(Params),
    responses((status = 200, description = "The numbers.", body = PastView)),
    security(("api_key" = ["read:webhooks"])),
)]
async fn workspace_stats(
    State(api): State<Api>,
    caller: Caller<ReadWebhooks>,
    Query(params): Query<Params>,
) -> Result<Json<PastView>> {
    let (window, steps) = params.read()?;
    let past = stats::workspace(api.store(), &caller.reach(), window, steps).await?;
    let past = past.ok_or_else(|| too_much(steps))?;
    Ok(Json(PastView::new(&past, steps)))
}

/// More than the store adds up at once.
fn too_much(steps: Option<Resolution>) -> Problem {
    let way_out = match steps {
        Some(Resolution::Minute) => "a shorter one, or for hours (`resolution=hour`)",
        Some(Resolution::Hour) | None => "a shorter one",
    };
    let rule = format!("is too long for as many subscriptions as there are: ask for {way_out}");
    Problem::parameter("window", rule)
}

//! How it goes with a subscription.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::view::CircuitView;
use crate::api::auth::Caller;
use crate::api::auth::caller::ReadWebhooks;
use crate::api::path::Id;
use crate::api::query::{self, Query};
use crate::api::resources::fields;
use crate::api::{Api, Problem, Result};
use crate::domain::ids::SubscriptionId;
use crate::domain::latency::Latency;
use crate::domain::payload::timestamp;
use crate::store::{Counts, Point, Resolution, SubscriptionStats, Tally, Window};

/// The shortest window that can be asked for, in seconds.
const SHORTEST: u64 = 60;

/// The longest: as far back as hours can be asked for.
const LONGEST: u64 = 34_560_000;

/// A day, unless it is said.
const USUAL: Duration = Duration::from_hours(24);

/// Up to here minutes are counted where only hours would be kept for longer.
const BY_MINUTE: Duration = Duration::from_hours(48);

/// The route.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(stats))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Params {
    /// How many seconds to look back: a day unless it is said, 400 days at most.
    #[param(value_type = Option<u32>, minimum = 60, maximum = 34_560_000, example = 3_600)]
    window: Option<String>,
    /// Lists what was counted by the minute or by the hour, in `series`. Of minutes the last 9,600 at
    /// most are told of, whatever the window.
    #[param(example = "hour", pattern = r"^(minute|hour)$")]
    resolution: Option<String>,
}

impl Params {
    fn window(&self, resolution: Option<Resolution>) -> Result<Window> {
        let length = match self.window.as_deref().map(str::parse) {
            None => USUAL,
            Some(Ok(seconds)) if (SHORTEST..=LONGEST).contains(&seconds) => {
                Duration::from_secs(seconds)
            }
            Some(_) => {
                let rule = format!("must be {SHORTEST} to {LONGEST} seconds");
                return Err(Problem::parameter("window", rule));
            }
        };
        let usual = if length <= BY_MINUTE {
            Resolution::Minute
        } else {
            Resolution::Hour
        };
        Ok(Window::new(length, resolution.unwrap_or(usual)))
    }
}

/// How it goes with a subscription.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SubscriptionStats)]
pub struct View {
    /// Whether its receiver is left alone for a while.
    circuit: CircuitView,
    /// Deliveries that wait for their time.
    pending: Count,
    /// Deliveries that are under way.
    in_flight: Count,
    /// For how many seconds the oldest due delivery has been waiting.
    oldest_due_seconds: Option<u64>,
    /// From when on attempts are counted, and the deliveries that they ended: the beginning of the window
    /// in whole minutes or hours, or later where no numbers are kept of its beginning.
    #[schema(format = DateTime)]
    since: String,
    #[serde(flatten)]
    counts: CountsView,
    /// What was counted in each minute or hour, the oldest first, where `resolution` asks for it. Those
    /// in which nothing was attempted are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    series: Option<Vec<PointView>>,
}

/// What was attempted, by when the attempts began. Tests are not counted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryCounts)]
pub struct CountsView {
    /// Deliveries that the receiver took.
    succeeded: u64,
    /// Deliveries that were given up.
    failed: u64,
    /// Attempts: the three that follow together.
    attempts: u64,
    /// Attempts that the receiver took.
    attempts_succeeded: u64,
    /// Attempts that it did not take, with another to follow.
    attempts_retried: u64,
    /// Attempts that it did not take, with none to follow.
    attempts_failed: u64,
    /// How long attempts took; null where there were none.
    latency: Option<LatencyView>,
}

/// How long attempts took, in milliseconds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Latency)]
#[expect(
    clippy::struct_field_names,
    reason = "names that say their unit, as they are served"
)]
pub struct LatencyView {
    /// In the mean.
    mean_ms: u64,
    /// Half of them took no longer. The percentiles are estimated from a histogram with bounds at 5, 10,
    /// 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000 and 30000 ms; what took longer counts as 30000.
    p50_ms: u64,
    /// Of a hundred 95 took no longer.
    p95_ms: u64,
    /// Of a hundred 99 took no longer.
    p99_ms: u64,
}

/// What was attempted in one minute or hour.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StatsPoint)]
pub struct PointView {
    /// When it began.
    #[schema(format = DateTime)]
    start: String,
    #[serde(flatten)]
    counts: CountsView,
}

/// A number that is counted up to a bound.
#[derive(Debug, Serialize, ToSchema)]
pub struct Count {
    /// How many.
    count: u64,
    /// Whether that is all of them; otherwise there may be more.
    exact: bool,
}

/// See how a subscription goes
///
/// What waits for it, and what was attempted of late and came of it: in all, and by the minute or by the
/// hour where that is asked for.
#[utoipa::path(
    get, path = "/subscriptions/{id}/stats", operation_id = "getSubscriptionStats",
    tag = "Subscriptions",
    params(fields::SubscriptionPath, Params),
    responses((status = 200, description = "Its numbers.", body = View)),
    security(("api_key" = ["read:webhooks"])),
)]
async fn stats(
    State(api): State<Api>,
    caller: Caller<ReadWebhooks>,
    Id(id): Id<SubscriptionId>,
    Query(params): Query<Params>,
) -> Result<Json<View>> {
    let resolution = query::parsed("resolution", params.resolution.as_deref())?;
    let window = params.window(resolution)?;
    let reach = caller.reach();
    let found = api.store().subscription(&reach, id).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    let stats = api.store().subscription_stats(&reach, id, window).await?;
    let stats = stats.ok_or_else(Problem::not_found)?;
    let circuit = CircuitView::new(&found.circuit, api.clock().now());
    let series = resolution.map(|_| stats.past.points.iter().map(PointView::new).collect());
    Ok(Json(View::new(&stats, circuit, series)))
}

impl View {
    fn new(
        stats: &SubscriptionStats,
        circuit: CircuitView,
        series: Option<Vec<PointView>>,
    ) -> Self {
        Self {
            circuit,
            pending: stats.pending.into(),
            in_flight: stats.in_flight.into(),
            oldest_due_seconds: stats.oldest_due.map(|age| age.as_secs()),
            since: timestamp(stats.past.since),
            counts: CountsView::new(&stats.past.total()),
            series,
        }
    }
}

impl PointView {
    fn new(point: &Point) -> Self {
        Self {
            start: timestamp(point.start),
            counts: CountsView::new(&point.counts),
        }
    }
}

impl CountsView {
    fn new(counts: &Counts) -> Self {
        Self {
            succeeded: counts.succeeded,
            failed: counts.failed,
            attempts: counts.attempts.total(),
            attempts_succeeded: counts.attempts.succeeded,
            attempts_retried: counts.attempts.retried,
            attempts_failed: counts.attempts.failed,
            latency: LatencyView::new(&counts.latency),
        }
    }
}

impl LatencyView {
    fn new(latency: &Latency) -> Option<Self> {
        Some(Self {
            mean_ms: latency.mean_ms()?,
            p50_ms: latency.percentile_ms(50)?,
            p95_ms: latency.percentile_ms(95)?,
            p99_ms: latency.percentile_ms(99)?,
        })
    }
}

impl Count {
    /// So many, and whether that is all.
    pub(super) fn of(count: u64, exact: bool) -> Self {
        Self { count, exact }
    }
}

impl From<Tally> for Count {
    fn from(tally: Tally) -> Self {
        Self {
            count: tally.counted(),
            exact: matches!(tally, Tally::Exactly(_)),
        }
    }
}

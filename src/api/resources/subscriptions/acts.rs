//! What is done with a subscription: a new secret, a look at how it goes.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::view::{CircuitView, WithSecret};
use super::with_secret;
use crate::api::auth::Caller;
use crate::api::auth::caller::{ReadWebhooks, WriteWebhooks};
use crate::api::body::OptionalBody;
use crate::api::etag::Precondition;
use crate::api::path::Id;
use crate::api::resources::deliveries::AttemptView;
use crate::api::resources::fields::{self, Faults, PreconditionHeader};
use crate::api::{Api, Problem, Result};
use crate::domain::ids::SubscriptionId;
use crate::domain::payload::timestamp;
use crate::domain::secret::{MAX_OVERLAP, SigningSecret};
use crate::store::{RECENTLY, Rotation, SubscriptionStats, Tally};

/// How long the old secret signs beside the new one, unless it is said.
const OVERLAP: Duration = Duration::from_hours(24);

/// The routes of what is done with one.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(rotate_secret))
        .routes(routes!(test))
        .routes(routes!(stats))
}

/// How the secret is to be replaced.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRotation {
    /// For how many seconds the old secret signs beside the new one: a day unless it is said, at most
    /// seven.
    #[schema(minimum = 0, maximum = 604_800, example = 86_400)]
    overlap_seconds: Option<u64>,
    /// The new secret, if you bring one; one is made otherwise.
    #[schema(min_length = 16, max_length = 128)]
    secret: Option<String>,
}

/// How it goes with a subscription.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SubscriptionStats)]
pub struct StatsView {
    /// Whether its receiver is left alone for a while.
    circuit: CircuitView,
    /// Deliveries that wait for their time.
    pending: Count,
    /// Deliveries that are under way.
    in_flight: Count,
    /// For how many seconds the oldest due delivery has been waiting.
    oldest_due_seconds: Option<u64>,
    /// From when on the deliveries below are counted, by their creation: a day ago, or, where more
    /// than 10,000 were made since, the creation of the oldest one counted.
    #[schema(format = DateTime)]
    since: String,
    /// Made since then, and taken by the receiver.
    succeeded: u64,
    /// Made since then, and given up.
    failed: u64,
    /// Made since then, and cancelled.
    cancelled: u64,
    /// The attempts that these three took.
    attempts: u64,
}

/// A number that is counted up to a bound.
#[derive(Debug, Serialize, ToSchema)]
pub struct Count {
    /// How many.
    count: u64,
    /// Whether that is all of them; otherwise there may be more.
    exact: bool,
}

/// Give a subscription a new secret
///
/// It signs at once, and is shown once, in this answer. The old one signs beside it for the overlap:
/// `webhook-signature` then has an entry for each.
#[utoipa::path(
    post, path = "/subscriptions/{id}/rotate-secret", operation_id = "rotateSubscriptionSecret",
    tag = "Subscriptions",
    request_body(content = Option<SecretRotation>),
    params(fields::SubscriptionPath, PreconditionHeader),
    responses((
        status = 200, description = "The subscription. `secret` is shown this once.",
        body = WithSecret, headers(("ETag" = String, description = "Its version.")),
    )),
    security(("api_key" = ["write:webhooks"])),
)]
async fn rotate_secret(
    State(api): State<Api>,
    caller: Caller<WriteWebhooks>,
    Id(id): Id<SubscriptionId>,
    headers: HeaderMap,
    OptionalBody(asked): OptionalBody<SecretRotation>,
) -> Result<Response> {
    let reach = caller.reach();
    let precondition = Precondition::of(&headers)?;
    let found = api.store().subscription(&reach, id).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    let version = precondition.bound(found.version)?;
    let format = found.spec.format;
    let mut faults = Faults::default();
    let overlap = asked.overlap_seconds.map_or(OVERLAP, Duration::from_secs);
    if overlap > MAX_OVERLAP {
        faults.add("/overlap_seconds", "must be at most 604800 (7 days)");
    }
    let brought = asked
        .secret
        .as_deref()
        .map(|text| SigningSecret::bring(text, format));
    let brought = brought.and_then(|secret| faults.check(secret));
    faults.none()?;
    let rotation = Rotation {
        secret_id: api.entropy().id(api.clock().now()),
        secret: brought.unwrap_or_else(|| SigningSecret::generate(api.entropy().bytes())),
        overlap,
    };
    let act = caller.act(&api);
    let rotated = api
        .store()
        .rotate_secret(&reach, id, version, &rotation, &act)
        .await?;
    let rotated = rotated.ok_or_else(Problem::not_found)?;
    Ok(with_secret(&rotated, &rotation.secret, api.clock().now()))
}

/// What came of a test.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TestResult)]
pub struct TestView {
    /// The `ping` that was sent: its `webhook-id`.
    #[schema(example = "evt_01h455vb4pex5vsknk084sn02q")]
    event_id: String,
    /// Its delivery, which is in the log like any other.
    #[schema(example = "dlv_01h455vb4pex5vsknk084sn02q")]
    delivery_id: String,
    /// What the attempt met.
    attempt: AttemptView,
}

/// Test a subscription
///
/// Sends a signed event of type `ping` at once, whatever the subscription asks for and whether or not
/// it is disabled, and answers with the attempt, also where that failed. It is not tried again.
#[utoipa::path(
    post, path = "/subscriptions/{id}/test", operation_id = "testSubscription",
    tag = "Subscriptions",
    params(fields::SubscriptionPath),
    responses((status = 200, description = "It was sent.", body = TestView)),
    security(("api_key" = ["write:webhooks"])),
)]
async fn test(
    State(api): State<Api>,
    caller: Caller<WriteWebhooks>,
    Id(id): Id<SubscriptionId>,
) -> Result<Json<TestView>> {
    let target = api.store().target(&caller.reach(), id).await?;
    let target = target.ok_or_else(Problem::not_found)?;
    let sent = api.tester().send(target).await?;
    Ok(Json(TestView {
        event_id: sent.event.to_string(),
        delivery_id: sent.delivery.to_string(),
        attempt: AttemptView::new(&sent.attempt),
    }))
}

/// See how a subscription goes
///
/// What waits for it, and what became of its deliveries of the last day.
#[utoipa::path(
    get, path = "/subscriptions/{id}/stats", operation_id = "getSubscriptionStats",
    tag = "Subscriptions",
    params(fields::SubscriptionPath),
    responses((status = 200, description = "Its numbers.", body = StatsView)),
    security(("api_key" = ["read:webhooks"])),
)]
async fn stats(
    State(api): State<Api>,
    caller: Caller<ReadWebhooks>,
    Id(id): Id<SubscriptionId>,
) -> Result<Json<StatsView>> {
    let reach = caller.reach();
    let found = api.store().subscription(&reach, id).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    let stats = api.store().subscription_stats(&reach, id, RECENTLY).await?;
    let stats = stats.ok_or_else(Problem::not_found)?;
    let circuit = CircuitView::new(&found.circuit, api.clock().now());
    Ok(Json(StatsView::new(&stats, circuit)))
}

impl StatsView {
    fn new(stats: &SubscriptionStats, circuit: CircuitView) -> Self {
        Self {
            circuit,
            pending: stats.pending.into(),
            in_flight: stats.in_flight.into(),
            oldest_due_seconds: stats.oldest_due.map(|age| age.as_secs()),
            since: timestamp(stats.since),
            succeeded: stats.succeeded,
            failed: stats.failed,
            cancelled: stats.cancelled,
            attempts: stats.attempts,
        }
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

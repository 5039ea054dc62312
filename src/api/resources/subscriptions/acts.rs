//! What is done with a subscription: a new secret, a test.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::view::WithSecret;
use super::with_secret;
use crate::api::auth::Caller;
use crate::api::auth::caller::WriteWebhooks;
use crate::api::body::OptionalBody;
use crate::api::etag::Precondition;
use crate::api::path::Id;
use crate::api::resources::deliveries::AttemptView;
use crate::api::resources::fields::{self, Faults, PreconditionHeader};
use crate::api::{Api, Problem, Result};
use crate::domain::ids::SubscriptionId;
use crate::domain::secret::{MAX_OVERLAP, SigningSecret};
use crate::store::Rotation;

/// How long the old secret signs beside the new one, unless it is said.
const OVERLAP: Duration = Duration::from_hours(24);

/// The routes of what is done with one.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(rotate_secret))
        .routes(routes!(test))
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

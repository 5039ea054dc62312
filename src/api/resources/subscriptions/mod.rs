//! `/v1/subscriptions`: register, list, show, change, delete; what is done with one is in
//! [`acts`], and how it goes with it in [`stats`].

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use tokio::time::timeout;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::fields::{self, PreconditionHeader};
use crate::api::auth::Caller;
use crate::api::auth::caller::{ReadWebhooks, WriteWebhooks};
use crate::api::body::JsonBody;
use crate::api::etag::{Known, Precondition};
use crate::api::idempotency::{IdempotencyKey, created};
use crate::api::page::{Asked, Listing, PageOf, Part};
use crate::api::path::Id;
use crate::api::query::Query;
use crate::api::{Api, Problem, Result};
use crate::domain::api_key::Scope;
use crate::domain::ids::SubscriptionId;
use crate::domain::reach::Reach;
use crate::domain::secret::SigningSecret;
use crate::domain::subscription::{Subscription, SubscriptionStatus};
use crate::store::replays::missed;
use crate::store::stats::view::Count;
use crate::store::{NewSubscription, StoreError, Window};

pub mod acts;
mod asked;
pub mod stats;
mod view;

use asked::{Change, NewOne};
pub use view::{Changed, CircuitView, MissedView, View, WithSecret};

/// The route of the creating call, for its idempotency keys.
const CREATE: &str = "POST /v1/subscriptions";

/// Who enables one is not kept waiting for longer to be told what it missed.
const COUNTING: Duration = Duration::from_secs(5);

/// How often a change without a precondition is made anew when another comes in between.
const TRIES: usize = 5;

/// The resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(show, change, delete))
        .merge(acts::routes())
        .merge(stats::routes())
}

/// Register a subscription
///
/// It is active at once. Its signing secret is shown once, in this answer. Needs `read:editions` too,
/// since it hands that data out. A key that is restricted to projects registers for its own only: for
/// all of them, where `project_ids` is left out.
#[utoipa::path(
    post, path = "/subscriptions", operation_id = "createSubscription", tag = "Subscriptions",
    request_body = NewOne,
    params(fields::IdempotencyHeader),
    responses((
        status = 201, description = "Registered. `secret` is shown this once.", body = WithSecret,
        headers(
            ("Location" = String, description = "Where it is."),
            ("ETag" = String, description = "Its version, for `If-Match` and `If-None-Match`."),
        ),
    )),
    security(("api_key" = ["write:webhooks", "read:editions"])),
)]
async fn create(
    State(api): State<Api>,
    caller: Caller<WriteWebhooks>,
    asked: Asked,
    idempotency: IdempotencyKey,
    body: JsonBody<NewOne>,
) -> Result<Response> {
    caller.must_have(Scope::ReadEditions)?;
    let (spec, secret) = body.value.read(&caller.reach())?;
    let secret = secret.unwrap_or_else(|| SigningSecret::generate(api.entropy().bytes()));
    api.client().check_target(&spec.url).await?;
    let now = api.clock().now();
    let new = NewSubscription {
        id: api.entropy().id(now),
        workspace: caller.workspace().clone(),
        spec,
        secret_id: api.entropy().id(now),
        secret,
    };
    let once = idempotency.once(caller.key(), CREATE, body.fingerprint);
    let act = caller.act(&api);
    let made = api
        .store()
        .create_subscription(&new, &act, once.as_ref())
        .await?;
    let made = created(made)?;
    let location = asked.below(&made.id.to_string());
    let answer = with_secret(&made, &new.secret, now);
    Ok((StatusCode::CREATED, [(LOCATION, location)], answer).into_response())
}

/// A subscription and a new secret of its, shown this once.
fn with_secret(
    subscription: &Subscription,
    secret: &SigningSecret,
    now: DateTime<Utc>,
) -> Response {
    let answer = WithSecret {
        view: View::new(subscription, now),
        secret: secret.expose().to_owned(),
    };
    let uncached = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    view::tag(subscription, now).on((uncached, Json(answer)))
}

/// List subscriptions
///
/// Newest first.
#[utoipa::path(
    get, path = "/subscriptions", operation_id = "listSubscriptions", tag = "Subscriptions",
    params(Part),
    responses((status = 200, description = "A page of subscriptions.", body = PageOf<View>)),
    security(("api_key" = ["read:webhooks"])),
)]
async fn list(
    State(api): State<Api>,
    caller: Caller<ReadWebhooks>,
    asked: Asked,
    Query(part): Query<Part>,
) -> Result<Response> {
    let listing = Listing::new(&api, asked, caller.workspace(), part, &[])?;
    let page = api
        .store()
        .subscriptions(&caller.reach(), listing.request()?)
        .await?;
    let now = api.clock().now();
    listing.answer(
        &page,
        |found: &Subscription| found.id,
        |found| View::new(found, now),
    )
}

/// Show a subscription
#[utoipa::path(
    get, path = "/subscriptions/{id}", operation_id = "getSubscription", tag = "Subscriptions",
    params(fields::SubscriptionPath, fields::KnownHeader),
    responses(
        (status = 200, description = "The subscription.", body = View, headers(("ETag" = String, description = "Its version."))),
        (status = 304, description = "It is as `If-None-Match` says."),
    ),
    security(("api_key" = ["read:webhooks"])),
)]
async fn show(
    State(api): State<Api>,
    caller: Caller<ReadWebhooks>,
    Id(id): Id<SubscriptionId>,
    headers: HeaderMap,
) -> Result<Response> {
    let found = api.store().subscription(&caller.reach(), id).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    let now = api.clock().now();
    let answer = Json(View::new(&found, now));
    Ok(Known::of(&headers).or(view::tag(&found, now), answer))
}

/// Change a subscription
///
/// What is left out stays as it is; null sets a value back to its default (RFC 7396). Sending it
/// elsewhere or something else (`url`, `event_types`, `project_ids`) needs `read:editions` too. With
/// `If-Match` it is changed only if nobody else has changed it meanwhile. Where that serves it again, the
/// answer tells how much waits (`pending`), and how much it `missed`, with the replay that sends that; either
/// is left out where it could not be counted in time.
#[utoipa::path(
    patch, path = "/subscriptions/{id}", operation_id = "updateSubscription", tag = "Subscriptions",
    request_body = Change,
    params(fields::SubscriptionPath, PreconditionHeader),
    responses((
        status = 200, description = "What it is now.", body = Changed, headers(("ETag" = String, description = "Its version.")),
    )),
    security(("api_key" = ["write:webhooks"])),
)]
async fn change(
    State(api): State<Api>,
    caller: Caller<WriteWebhooks>,
    Id(id): Id<SubscriptionId>,
    headers: HeaderMap,
    body: JsonBody<Change>,
) -> Result<Response> {
    let precondition = Precondition::of(&headers)?;
    let reach = caller.reach();
    let mut tries = 0;
    loop {
        let found = api.store().subscription(&reach, id).await?;
        let found = found.ok_or_else(Problem::not_found)?;
        precondition.allows(found.version)?;
        let (spec, status) = body.value.apply(&found, &reach)?;
        if asked::retargets(&found.spec, &spec) {
            caller.must_have(Scope::ReadEditions)?;
        }
        if spec.url != found.spec.url {
            api.client().check_target(&spec.url).await?;
        }
        let act = caller.act(&api);
        let changed = api
            .store()
            .update_subscription(&reach, id, found.version, &spec, &status, &act)
            .await;
        match changed {
            // Somebody was faster. Who named no version wants the change made on whatever is there.
            Err(StoreError::Stale) if precondition == Precondition::None && tries < TRIES => {
                tries += 1;
            }
            changed => {
                let changed = changed?.ok_or_else(Problem::not_found)?;
                let now = api.clock().now();
                let missed = missed(api.store(), &reach, &found, &changed, api.clock());
                let pending = pending_again(&api, &reach, &found, &changed);
                let answer = Changed {
                    view: View::new(&changed, now),
                    pending: beside(id, pending).await,
                    missed: beside(id, missed)
                        .await
                        .map(|missed| MissedView::new(id, &missed)),
                };
                return Ok(view::tag(&changed, now).on(Json(answer)));
            }
        }
    }
}

/// What is told beside a change that is made: it stays made where this cannot be counted, or not in time.
async fn beside<T>(
    id: SubscriptionId,
    counting: impl Future<Output = std::result::Result<Option<T>, StoreError>>,
) -> Option<T> {
    match timeout(COUNTING, counting).await {
        Ok(Ok(counted)) => counted,
        Ok(Err(error)) => {
            tracing::warn!(subscription = %id, %error, "what it missed could not be counted");
            None
        }
        Err(_) => {
            tracing::warn!(subscription = %id, "what it missed could not be counted in time");
            None
        }
    }
}

/// How many deliveries wait for a subscription that is served again.
async fn pending_again(
    api: &Api,
    reach: &Reach,
    before: &Subscription,
    after: &Subscription,
) -> std::result::Result<Option<Count>, StoreError> {
    let is_back = before.status != after.status && after.status == SubscriptionStatus::Active;
    if !is_back {
        return Ok(None);
    }
    let stats = api
        .store()
        .subscription_stats(reach, after.id, Window::NOW)
        .await?;
    Ok(stats.map(|stats| stats.pending.into()))
}

/// Delete a subscription
///
/// What still waits for it is cancelled. What was delivered stays in the log.
#[utoipa::path(
    delete, path = "/subscriptions/{id}", operation_id = "deleteSubscription", tag = "Subscriptions",
    params(fields::SubscriptionPath, PreconditionHeader),
    responses((status = 204, description = "It is deleted.")),
    security(("api_key" = ["write:webhooks"])),
)]
async fn delete(
    State(api): State<Api>,
    caller: Caller<WriteWebhooks>,
    Id(id): Id<SubscriptionId>,
    headers: HeaderMap,
) -> Result<StatusCode> {
    let reach = caller.reach();
    let precondition = Precondition::of(&headers)?;
    let found = api.store().subscription(&reach, id).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    let version = precondition.bound(found.version)?;
    let act = caller.act(&api);
    if api
        .store()
        .delete_subscription(&reach, id, version, &act)
        .await?
    {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found())
    }
}

/// A restricted key asks for projects that are not its own.
fn beyond_reach() -> Problem {
    Problem::value(
        "/project_ids",
        "must be within the projects that the key is restricted to",
    )
}

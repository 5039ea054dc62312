//! `/v1/replays` and `/v1/deliveries/{id}/replay`: sending again what was sent, or was to be.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::deliveries;
use super::fields::Faults;
use crate::api::auth::Caller;
use crate::api::auth::caller::{ReadWebhooks, WriteWebhooks};
use crate::api::body::JsonBody;
use crate::api::idempotency::IdempotencyKey;
use crate::api::page::{Asked, Listing, PageOf, Part};
use crate::api::path::Id;
use crate::api::problem_type::ProblemType;
use crate::api::query::Query;
use crate::api::{Api, Problem, Result};
use crate::domain::ids::{DeliveryId, ReplayId};
use crate::domain::reach::Reach;
use crate::domain::replay::Refusal;
use crate::domain::selection::Selection;
use crate::store::replays::count_for;
use crate::store::{Cancelled, Creation, NewReplay, ReplayRecord};

mod asked;
mod view;

use asked::{NewOne, OnceHeader};
use view::{CountView, View};

/// The route of the creating call, for its idempotency keys.
const CREATE: &str = "POST /v1/replays";

/// The route of a single delivery's.
const REPLAY: &str = "POST /v1/deliveries/{id}/replay";

/// A dry run counts for about so long, and then says that there may be more.
const COUNTING: Duration = Duration::from_secs(3);

/// The resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(replay_delivery))
        .routes(routes!(create, list))
        .routes(routes!(show))
        .routes(routes!(cancel))
}

/// Replay a delivery
///
/// It is sent again, or sooner, under the same `webhook-id` with a new timestamp and signature. One that
/// had `failed` is `pending` again, with a fresh schedule. One that is `pending` is sent now; if that
/// fails, it waits for its time as before. One that had `succeeded` gets one more attempt, and stays so
/// whatever comes of it. Others are refused, with the reason. It is sent even while the subscription's
/// circuit is open.
#[utoipa::path(
    post, path = "/deliveries/{id}/replay", operation_id = "replayDelivery", tag = "Replays",
    params(
        ("id" = String, Path, description = "The delivery (`dlv_…`).", pattern = "^dlv_[0-7][0-9a-hjkmnp-tv-z]{25}$"),
        OnceHeader,
    ),
    responses((status = 202, description = "It is sent as soon as there is room.", body = deliveries::View)),
    security(("api_key" = ["write:webhooks"])),
)]
async fn replay_delivery(
    State(api): State<Api>,
    caller: Caller<WriteWebhooks>,
    Id(id): Id<DeliveryId>,
    idempotency: IdempotencyKey,
) -> Result<(StatusCode, Json<deliveries::View>)> {
    let reach = caller.reach();
    let act = caller.act(&api);
    // There is no body: what is asked for is the delivery.
    let asked_for = Sha256::digest(id.to_string()).into();
    let store = api.store();
    let answer = match idempotency.once(caller.key(), REPLAY, asked_for) {
        None => {
            let answer = store.replay_delivery(&reach, id, &act).await?;
            answer.map(Creation::Created)
        }
        Some(once) => store.replay_delivery_once(&reach, id, &act, &once).await?,
    };
    match answer.ok_or_else(Problem::not_found)? {
        Creation::Created(Ok(_)) => {
            api.intake().something_is_due();
            api.store().announce();
        }
        // What was asked for before is under way, or done.
        Creation::Created(Err(Refusal::AlreadyReplaying)) | Creation::Repeated { .. } => {}
        Creation::Created(Err(refusal)) => return Err(Problem::not_replayable(refusal)),
        Creation::Conflicting => return Err(Problem::new(ProblemType::IdempotencyKeyReused)),
    }
    let found = api.store().delivery(&reach, id).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    Ok((StatusCode::ACCEPTED, Json(deliveries::View::new(&found))))
}

/// Replay many deliveries
///
/// Those of one event (`event_id`), or those that a `filter` selects; with `subscription_id`, those to
/// one subscription only. One that is named with an event gets it though it was not there when the event
/// came, if it asks for such events. With `dry_run` they are counted, for about three seconds at most, and nothing
/// is done. Otherwise they are counted and then sent in the background, oldest first, at `rate` a second
/// at most, so that what is live goes first. What cannot be replayed is skipped, and counted by the
/// reason. While a subscription's circuit is open, its replays of many wait like all its deliveries.
#[utoipa::path(
    post, path = "/replays", operation_id = "createReplay", tag = "Replays",
    request_body = NewOne,
    params(OnceHeader),
    responses(
        (status = 200, description = "With `dry_run`: how many are selected.", body = CountView),
        (
            status = 201, description = "It is begun.", body = View,
            headers(("Location" = String, description = "Where it is.")),
        ),
    ),
    security(("api_key" = ["write:webhooks"])),
)]
async fn create(
    State(api): State<Api>,
    caller: Caller<WriteWebhooks>,
    asked: Asked,
    idempotency: IdempotencyKey,
    body: JsonBody<NewOne>,
) -> Result<Response> {
    let reach = caller.reach();
    let (selection, rate) = body.value.read()?;
    let once = idempotency.once(caller.key(), CREATE, body.fingerprint);
    let is_repeat = match &once {
        Some(once) => api.store().is_repeat(&reach.workspace, once).await?,
        None => false,
    };
    if !is_repeat || body.value.is_dry_run() {
        check(&api, &reach, &selection).await?;
    }
    let now = api.clock().now();
    if body.value.is_dry_run() {
        let patience = (api.clock(), COUNTING);
        let count = count_for(api.store(), &reach, &selection, now, patience).await?;
        return Ok(Json(CountView::new(&count)).into_response());
    }
    let new = NewReplay {
        id: api.entropy().id(now),
        selection,
        rate,
    };
    let act = caller.act(&api);
    let created = api
        .store()
        .create_replay(&reach, &new, &act, once.as_ref())
        .await?;
    let record = match created {
        None => return Err(Problem::new(ProblemType::TooManyReplays)),
        Some(Creation::Created(record)) => record,
        Some(Creation::Repeated { id }) => made_before(&api, &reach, &id).await?,
        Some(Creation::Conflicting) => {
            return Err(Problem::new(ProblemType::IdempotencyKeyReused));
        }
    };
    let location = asked.below(&record.id.to_string());
    let answer = Json(View::new(&record));
    Ok((StatusCode::CREATED, [(LOCATION, location)], answer).into_response())
}

/// What an earlier call with the same key made, as it is now: nothing in it is shown only once.
async fn made_before(api: &Api, reach: &Reach, id: &str) -> Result<ReplayRecord> {
    let id: ReplayId = id.parse().map_err(|_| Problem::not_found())?;
    let found = api.store().replay(reach, id).await?;
    found.ok_or_else(Problem::not_found)
}

/// Whether the event and the subscription that a selection names are there, for this caller.
async fn check(api: &Api, reach: &Reach, selection: &Selection) -> Result<()> {
    let mut faults = Faults::default();
    if let Some(id) = selection.event_id
        && api.store().event(reach, id).await?.is_none()
    {
        faults.add("/event_id", "is no event that this key can see");
    }
    if let Some(id) = selection.subscription_id
        && api.store().subscription(reach, id).await?.is_none()
    {
        faults.add(
            "/subscription_id",
            "is no subscription that this key can see",
        );
    }
    faults.none()
}

/// List replays
///
/// Newest first.
#[utoipa::path(
    get, path = "/replays", operation_id = "listReplays", tag = "Replays",
    params(Part),
    responses((status = 200, description = "A page of replays.", body = PageOf<View>)),
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
        .replays(&caller.reach(), listing.request()?)
        .await?;
    listing.answer(&page, |found: &ReplayRecord| found.id, View::new)
}

/// Show a replay
///
/// How far it is.
#[utoipa::path(
    get, path = "/replays/{id}", operation_id = "getReplay", tag = "Replays",
    params(("id" = String, Path, description = "The replay (`rpl_…`).", pattern = "^rpl_[0-7][0-9a-hjkmnp-tv-z]{25}$")),
    responses((status = 200, description = "The replay.", body = View)),
    security(("api_key" = ["read:webhooks"])),
)]
async fn show(
    State(api): State<Api>,
    caller: Caller<ReadWebhooks>,
    Id(id): Id<ReplayId>,
) -> Result<Json<View>> {
    let found = api.store().replay(&caller.reach(), id).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    Ok(Json(View::new(&found)))
}

/// Cancel a replay
///
/// Nothing more is sent. What waits to be sent is put back as it was; what is being sent at this moment
/// ends by itself.
#[utoipa::path(
    post, path = "/replays/{id}/cancel", operation_id = "cancelReplay", tag = "Replays",
    params(("id" = String, Path, description = "The replay (`rpl_…`).", pattern = "^rpl_[0-7][0-9a-hjkmnp-tv-z]{25}$")),
    responses((status = 200, description = "The replay, cancelled.", body = View)),
    security(("api_key" = ["write:webhooks"])),
)]
async fn cancel(
    State(api): State<Api>,
    caller: Caller<WriteWebhooks>,
    Id(id): Id<ReplayId>,
) -> Result<Json<View>> {
    let act = caller.act(&api);
    let cancelled = api.store().cancel_replay(&caller.reach(), id, &act).await?;
    match cancelled.ok_or_else(Problem::not_found)? {
        Cancelled::Done(record) => Ok(Json(View::new(&record))),
        Cancelled::TooLate => Err(Problem::new(ProblemType::ReplayDone)),
    }
}

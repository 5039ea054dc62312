//! `/v1/deliveries`: what was and is delivered, and every attempt.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::fields;
use crate::api::auth::Caller;
use crate::api::auth::caller::ReadWebhooks;
use crate::api::page::{Asked, Listing, PageOf, Part};
use crate::api::path::Id;
use crate::api::query::{self, Query};
use crate::api::{Api, Problem, Result};
use crate::domain::attempt::ErrorClass;
use crate::domain::ids::DeliveryId;
use crate::domain::payload::timestamp;
use crate::store::{AttemptRecord, DeliveryFilter, DeliveryRecord};

/// The resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(attempts))
}

/// Which deliveries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Params {
    /// To this subscription only.
    #[param(
        example = "sub_01h455vb4pex5vsknk084sn02q",
        pattern = "^sub_[0-7][0-9a-hjkmnp-tv-z]{25}$"
    )]
    subscription_id: Option<String>,
    /// Of this event only.
    #[param(
        example = "evt_01h455vb4pex5vsknk084sn02q",
        pattern = "^evt_[0-7][0-9a-hjkmnp-tv-z]{25}$"
    )]
    event_id: Option<String>,
    /// Of events of this type only.
    #[param(
        example = "edition.submitted",
        pattern = r"^[a-z0-9_]+(\.[a-z0-9_]+)*$",
        max_length = 255
    )]
    r#type: Option<String>,
    /// Of events about this edition only.
    #[param(
        example = "ed_123",
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    )]
    edition_id: Option<String>,
    /// In this state only.
    #[param(inline, schema_with = fields::states_schema)]
    state: Option<String>,
    /// Made at this instant or later (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<String>,
    /// Made before this instant (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<String>,
    /// At most so many items.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 500)]
    limit: Option<String>,
    /// Behind this cursor: `next_cursor` of the page before.
    after: Option<String>,
}

/// A delivery: one event on its way to one subscription.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub struct View {
    /// Its id.
    #[schema(example = "dlv_01h455vb4pex5vsknk084sn02q")]
    id: String,
    /// The event.
    event_id: String,
    /// The event's type.
    #[schema(example = "edition.submitted")]
    r#type: String,
    /// The project that the event is about.
    project_id: Option<String>,
    /// The edition that the event is about.
    edition_id: Option<String>,
    /// Where it goes.
    subscription_id: String,
    /// Where it stands.
    #[schema(schema_with = fields::states_schema)]
    state: &'static str,
    /// Attempts so far.
    attempt_count: u32,
    /// When its event came.
    #[schema(format = DateTime)]
    created_at: String,
    /// When the next attempt is due, while it is pending; null while it waits for an earlier one of its
    /// edition (`ordering`).
    #[schema(format = DateTime)]
    due_at: Option<String>,
    /// When it reached its final state.
    #[schema(format = DateTime)]
    settled_at: Option<String>,
}

/// A delivery with its attempts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryWithAttempts)]
pub struct WithAttempts {
    #[serde(flatten)]
    view: View,
    /// The first attempts, oldest first, at most 50.
    attempts: Vec<AttemptView>,
    /// Send as `after` to `/deliveries/{id}/attempts` for the next ones; null where these are all.
    attempts_next_cursor: Option<String>,
}

/// One try.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
pub struct AttemptView {
    /// Its number among the leases of the delivery; one that lost its lease counts too.
    number: i32,
    /// When it began.
    #[schema(format = DateTime)]
    at: String,
    /// How long it took, to the end of what was read, in milliseconds.
    duration_ms: u64,
    /// What set it off: `schedule`, `replay` or `test`.
    trigger: &'static str,
    /// Whether the receiver took it.
    succeeded: bool,
    /// The answer's status, where there was an answer.
    status: Option<u16>,
    /// Why it failed.
    error: Option<ErrorName>,
    /// Whether another process had taken the delivery over meanwhile: it counted for nothing.
    lease_lost: bool,
    /// The answer's headers, in order.
    response_headers: Vec<(String, String)>,
    /// The beginning of the answer's body, at most 16 KiB.
    response_excerpt: String,
}

/// Why an attempt failed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(example = "timeout")]
pub struct ErrorName(&'static str);

/// List deliveries
///
/// Newest first. **A page may hold fewer than `limit` items, even none, while there are more**: a look
/// for a type, an edition or a state goes over a bounded number of deliveries at a time. Go on until
/// `next_cursor` is null.
#[utoipa::path(
    get, path = "/deliveries", operation_id = "listDeliveries", tag = "Deliveries",
    params(Params),
    responses((status = 200, description = "A page of deliveries.", body = PageOf<View>)),
    security(("api_key" = ["read:webhooks"])),
)]
async fn list(
    State(api): State<Api>,
    caller: Caller<ReadWebhooks>,
    asked: Asked,
    Query(params): Query<Params>,
) -> Result<Response> {
    let filter = params.filter()?;
    let filters = [
        ("subscription_id", params.subscription_id.as_deref()),
        ("event_id", params.event_id.as_deref()),
        ("type", params.r#type.as_deref()),
        ("edition_id", params.edition_id.as_deref()),
        ("state", params.state.as_deref()),
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
        .deliveries(&caller.reach(), &filter, listing.request()?)
        .await?;
    listing.answer(&page, |found: &DeliveryRecord| found.id, View::new)
}

/// Show a delivery
///
/// With its attempts.
#[utoipa::path(
    get, path = "/deliveries/{id}", operation_id = "getDelivery", tag = "Deliveries",
    params(("id" = String, Path, description = "The delivery (`dlv_…`).", pattern = "^dlv_[0-7][0-9a-hjkmnp-tv-z]{25}$")),
    responses((status = 200, description = "The delivery.", body = WithAttempts)),
    security(("api_key" = ["read:webhooks"])),
)]
async fn show(
    State(api): State<Api>,
    caller: Caller<ReadWebhooks>,
    asked: Asked,
    Id(id): Id<DeliveryId>,
) -> Result<Json<WithAttempts>> {
    let reach = caller.reach();
    let found = api.store().delivery(&reach, id).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    let listing = Listing::new(
        &api,
        asked.child("attempts"),
        caller.workspace(),
        Part::default(),
        &[],
    )?;
    let page = api.store().attempts(&reach, id, listing.request()?).await?;
    Ok(Json(WithAttempts {
        view: View::new(&found),
        attempts: page.items.iter().map(AttemptView::new).collect(),
        attempts_next_cursor: listing.cursor(page.next.as_ref()),
    }))
}

/// List the attempts of a delivery
///
/// Oldest first.
#[utoipa::path(
    get, path = "/deliveries/{id}/attempts", operation_id = "listAttempts", tag = "Deliveries",
    params(("id" = String, Path, description = "The delivery (`dlv_…`).", pattern = "^dlv_[0-7][0-9a-hjkmnp-tv-z]{25}$"), Part),
    responses((status = 200, description = "A page of attempts.", body = PageOf<AttemptView>)),
    security(("api_key" = ["read:webhooks"])),
)]
async fn attempts(
    State(api): State<Api>,
    caller: Caller<ReadWebhooks>,
    asked: Asked,
    Id(id): Id<DeliveryId>,
    Query(part): Query<Part>,
) -> Result<Response> {
    let reach = caller.reach();
    let listing = Listing::new(&api, asked, caller.workspace(), part, &[])?;
    let found = api.store().delivery(&reach, id).await?;
    found.ok_or_else(Problem::not_found)?;
    let page = api.store().attempts(&reach, id, listing.request()?).await?;
    listing.answer(
        &page,
        |attempt: &AttemptRecord| attempt.epoch,
        AttemptView::new,
    )
}

impl Params {
    fn filter(&self) -> Result<DeliveryFilter> {
        Ok(DeliveryFilter {
            subscription: query::id(
                "subscription_id",
                self.subscription_id.as_deref(),
                "sub_01h455vb4pex5vsknk084sn02q",
            )?,
            event: query::id(
                "event_id",
                self.event_id.as_deref(),
                "evt_01h455vb4pex5vsknk084sn02q",
            )?,
            event_type: query::made(
                "type",
                self.r#type.as_deref(),
                crate::domain::filter::EventType::new,
            )?,
            edition: query::made(
                "edition_id",
                self.edition_id.as_deref(),
                crate::domain::ids::EditionId::new,
            )?,
            state: query::parsed("state", self.state.as_deref())?,
            since: query::time("since", self.since.as_deref())?,
            until: query::time("until", self.until.as_deref())?,
        })
    }
}

impl View {
    /// As clients see it.
    pub fn new(found: &DeliveryRecord) -> Self {
        Self {
            id: found.id.to_string(),
            event_id: found.event_id.to_string(),
            r#type: found.event_type.to_string(),
            project_id: found.project.as_ref().map(ToString::to_string),
            edition_id: found.edition.as_ref().map(ToString::to_string),
            subscription_id: found.subscription_id.to_string(),
            state: found.state.as_str(),
            attempt_count: found.attempts,
            created_at: timestamp(found.created_at),
            due_at: found.due_at.map(timestamp),
            settled_at: found.settled_at.map(timestamp),
        }
    }
}

impl AttemptView {
    /// As it is kept.
    pub fn new(record: &AttemptRecord) -> Self {
        let attempt = &record.attempt;
        Self {
            number: record.epoch,
            at: timestamp(attempt.at),
            duration_ms: u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
            trigger: attempt.trigger.as_str(),
            succeeded: attempt.succeeded(),
            status: attempt.status,
            error: attempt
                .error
                .map(|class: ErrorClass| ErrorName(class.as_str())),
            lease_lost: record.lease_lost,
            response_headers: attempt.response_headers.clone(),
            response_excerpt: attempt.response_excerpt.clone(),
        }
    }
}

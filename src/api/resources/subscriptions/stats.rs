//! How it goes with a subscription.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::view::CircuitView;
use crate::api::auth::Caller;
use crate::api::auth::caller::ReadWebhooks;
use crate::api::path::Id;
use crate::api::query::Query;
use crate::api::resources::fields;
use crate::api::resources::stats::Params;
use crate::api::{Api, Problem, Result};
use crate::domain::ids::SubscriptionId;
use crate::store::Window;
use crate::store::stats::view::{PastView, WaitingView};

/// The route.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(stats))
}

/// How it goes with a subscription.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SubscriptionStats)]
pub struct View {
    /// Whether its receiver is left alone for a while.
    circuit: CircuitView,
    #[serde(flatten)]
    waiting: WaitingView,
    #[serde(flatten)]
    past: PastView,
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
    let (length, steps) = params.read()?;
    let window = Window::looking_back(length, steps);
    let reach = caller.reach();
    let found = api.store().subscription(&reach, id).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    let stats = api.store().subscription_stats(&reach, id, window).await?;
    let stats = stats.ok_or_else(Problem::not_found)?;
    Ok(Json(View {
        circuit: CircuitView::new(&found.circuit, api.clock().now()),
        waiting: WaitingView::new(&stats),
        past: PastView::new(&stats.past, steps),
    }))
}

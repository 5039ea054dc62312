//! `/v1/events/{id}`: an event alone.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::auth::Caller;
use crate::api::auth::caller::ReadEditions;
use crate::api::path::Id;
use crate::api::{Api, Problem, Result};
use crate::domain::api_key::Scope;
use crate::domain::ids::EventId;
use crate::domain::payload::timestamp;
use crate::store::{EventRecord, StoreError};

/// The resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(show))
}

/// An event: what a webhook tells of.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct View {
    /// Its id, the `webhook-id` of its deliveries.
    #[schema(example = "evt_01h455vb4pex5vsknk084sn02q")]
    id: String,
    /// What happened.
    #[schema(example = "edition.submitted")]
    r#type: String,
    /// When it happened.
    #[schema(format = DateTime)]
    timestamp: String,
    /// The project it is about.
    project_id: Option<String>,
    /// The edition it is about.
    edition_id: Option<String>,
    /// When it was accepted here.
    #[schema(format = DateTime)]
    accepted_at: String,
    /// Who told of it: the envelope's `source`.
    source: String,
    /// What it was called there: the envelope's `id`.
    source_id: String,
    /// What it says, as it was written.
    #[schema(value_type = Value)]
    data: Box<RawValue>,
}

/// Show an event
///
/// An operational one (`delivery.failed`, `subscription.*`) tells of receivers, and needs `read:webhooks` too.
#[utoipa::path(
    get, path = "/events/{id}", operation_id = "getEvent", tag = "Events",
    params(("id" = String, Path, description = "The event (`evt_…`).", pattern = "^evt_[0-7][0-9a-hjkmnp-tv-z]{25}$")),
    responses((status = 200, description = "The event.", body = View)),
    security(("api_key" = ["read:editions"])),
)]
async fn show(
    State(api): State<Api>,
    caller: Caller<ReadEditions>,
    Id(id): Id<EventId>,
) -> Result<Json<View>> {
    let found = api.store().event(&caller.reach(), id).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    if found.event_type.is_operational() {
        caller.must_have(Scope::ReadWebhooks)?;
    }
    Ok(Json(View::new(found)?))
}

impl View {
    fn new(found: EventRecord) -> Result<Self> {
        // It was JSON when it was accepted.
        let data = RawValue::from_string(found.data).map_err(StoreError::corrupt)?;
        Ok(Self {
            id: found.id.to_string(),
            r#type: found.event_type.to_string(),
            timestamp: timestamp(found.occurred_at),
            project_id: found.project.map(|id| id.to_string()),
            edition_id: found.edition.map(|id| id.to_string()),
            accepted_at: timestamp(found.accepted_at),
            source: found.source,
            source_id: found.external_id,
            data,
        })
    }
}

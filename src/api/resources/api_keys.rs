//! `/v1/api-keys`: make, list, show, revoke.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::fields::{self, Faults};
use crate::api::auth::Caller;
use crate::api::auth::caller::Administer;
use crate::api::body::{JsonBody, Object};
use crate::api::idempotency::{IdempotencyKey, created};
use crate::api::page::{Asked, Listing, PageOf, Part};
use crate::api::path::Id;
use crate::api::query::Query;
use crate::api::{Api, Problem, Result};
use crate::domain::api_key::{ApiKey, ApiKeySpec, KeyLimits, Scope};
use crate::domain::ids::ApiKeyId;
use crate::domain::key_text::KeyText;
use crate::domain::payload::timestamp;
use crate::store::NewApiKey;

/// The route of the creating call, for its idempotency keys.
const CREATE: &str = "POST /v1/api-keys";

/// The resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(show, revoke))
}

/// A key that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// A name for people.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$",
        example = "ERP import"
    )]
    name: String,
    /// What it may do. The scopes of a key never change.
    #[schema(schema_with = fields::scopes_schema)]
    scopes: Vec<Scope>,
    /// When it ends (RFC 3339); null, or left out, for never.
    #[schema(format = DateTime, example = "2027-05-01T00:00:00Z")]
    expires_at: Option<String>,
    /// Only these projects; null, or left out, for the whole workspace.
    #[schema(min_items = 1, max_items = 100, schema_with = fields::project_ids_schema)]
    project_ids: Option<Vec<String>>,
    /// Limits of its own, in place of the deployment's.
    #[schema(value_type = Option<Limits>)]
    limits: Option<Object<Limits>>,
}

/// What a key may ask for; null is the deployment's own limit.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests in 60 s.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4_294_967_295_u64)]
    per_minute: Option<std::num::NonZeroU32>,
    /// Requests in 3,600 s.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4_294_967_295_u64)]
    per_hour: Option<std::num::NonZeroU32>,
    /// Requests at once, in each replica.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4_294_967_295_u64)]
    concurrent: Option<std::num::NonZeroU32>,
}

/// A key as it is shown: everything but its text.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub struct View {
    /// Its id.
    #[schema(example = "key_01h455vb4pex5vsknk084sn02q")]
    id: String,
    /// A name for people.
    name: String,
    /// What it may do.
    #[schema(schema_with = fields::scopes_schema)]
    scopes: BTreeSet<Scope>,
    /// Only these projects; null for the whole workspace.
    project_ids: Option<Vec<String>>,
    /// Limits of its own; null is the deployment's.
    limits: Limits,
    /// `active`, `expired` or `revoked`.
    status: &'static str,
    /// When it ends; null for never.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Who made it: a key's id, or `cli`.
    created_by: String,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was taken back.
    #[schema(format = DateTime)]
    revoked_at: Option<String>,
    /// When it was used last, as far as the audit log has been written.
    #[schema(format = DateTime)]
    last_used_at: Option<String>,
}

/// A new key, shown with its text for the only time.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedApiKey)]
pub struct CreatedView {
    #[serde(flatten)]
    view: View,
    /// Its text, for `Authorization: Bearer`. It is kept nowhere: only its SHA-256 is.
    #[schema(example = "rfk_01h455vb4pex5vsknk084sn02q_…")]
    key: String,
}

/// Make a key
///
/// Its text is shown once, in this answer.
#[utoipa::path(
    post, path = "/api-keys", operation_id = "createApiKey", tag = "API keys",
    request_body = NewKey,
    params(fields::IdempotencyHeader),
    responses((
        status = 201, description = "Made. `key` is shown this once.", body = CreatedView,
        headers(("Location" = String, description = "Where it is.")),
    )),
    security(("api_key" = ["admin"])),
)]
async fn create(
    State(api): State<Api>,
    caller: Caller<Administer>,
    asked: Asked,
    idempotency: IdempotencyKey,
    body: JsonBody<NewKey>,
) -> Result<Response> {
    let now = api.clock().now();
    let text = KeyText::generate(api.entropy().id(now), api.entropy().bytes());
    let new = NewApiKey {
        id: text.id(),
        workspace: caller.workspace().clone(),
        spec: body.value.spec(now)?,
        digest: text.digest(),
    };
    let once = idempotency.once(caller.key(), CREATE, body.fingerprint);
    let act = caller.act(&api);
    let made = api
        .store()
        .create_api_key(&new, &act, once.as_ref())
        .await?;
    let made = created(made)?;
    let answer = CreatedView {
        view: View::new(&made, now),
        key: text.expose().to_owned(),
    };
    let headers = [
        (LOCATION, asked.below(&made.id.to_string())),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((StatusCode::CREATED, headers, Json(answer)).into_response())
}

/// List keys
///
/// Newest first, those too that ended or were revoked.
#[utoipa::path(
    get, path = "/api-keys", operation_id = "listApiKeys", tag = "API keys",
    params(Part),
    responses((status = 200, description = "A page of keys.", body = PageOf<View>)),
    security(("api_key" = ["admin"])),
)]
async fn list(
    State(api): State<Api>,
    caller: Caller<Administer>,
    asked: Asked,
    Query(part): Query<Part>,
) -> Result<Response> {
    let listing = Listing::new(&api, asked, caller.workspace(), part, &[])?;
    let page = api
        .store()
        .api_keys(caller.workspace(), listing.request()?)
        .await?;
    let now = api.clock().now();
    listing.answer(&page, |key: &ApiKey| key.id, |key| View::new(key, now))
}

/// Show a key
#[utoipa::path(
    get, path = "/api-keys/{id}", operation_id = "getApiKey", tag = "API keys",
    params(("id" = String, Path, description = "The key (`key_…`).", pattern = "^key_[0-7][0-9a-hjkmnp-tv-z]{25}$")),
    responses((status = 200, description = "The key, without its text.", body = View)),
    security(("api_key" = ["admin"])),
)]
async fn show(
    State(api): State<Api>,
    caller: Caller<Administer>,
    Id(id): Id<ApiKeyId>,
) -> Result<Json<View>> {
    let found = api.store().api_key(caller.workspace(), id).await?;
    let key = found.ok_or_else(Problem::not_found)?;
    Ok(Json(View::new(&key, api.clock().now())))
}

/// Revoke a key
///
/// It is refused from the next request on, by every replica, for good. It stays in the list. Nothing
/// happens to one that is revoked already.
#[utoipa::path(
    delete, path = "/api-keys/{id}", operation_id = "revokeApiKey", tag = "API keys",
    params(("id" = String, Path, description = "The key (`key_…`).", pattern = "^key_[0-7][0-9a-hjkmnp-tv-z]{25}$")),
    responses((status = 204, description = "It is revoked.")),
    security(("api_key" = ["admin"])),
)]
async fn revoke(
    State(api): State<Api>,
    caller: Caller<Administer>,
    Id(id): Id<ApiKeyId>,
) -> Result<StatusCode> {
    let act = caller.act(&api);
    let revoked = api
        .store()
        .revoke_api_key(caller.workspace(), id, &act)
        .await?;
    revoked
        .map(|_| StatusCode::NO_CONTENT)
        .ok_or_else(Problem::not_found)
}

impl NewKey {
    /// What is asked for, checked value by value.
    fn spec(self, now: DateTime<Utc>) -> Result<ApiKeySpec> {
        let mut faults = Faults::default();
        let spec = ApiKeySpec {
            name: self.name,
            scopes: self.scopes.into_iter().collect(),
            project_ids: faults.projects("/project_ids", self.project_ids.as_deref()),
            expires_at: faults.time("/expires_at", self.expires_at.as_deref()),
            limits: self.limits.unwrap_or_default().0.into(),
        };
        faults.check(spec.check(now));
        faults.none()?;
        Ok(spec)
    }
}

impl From<Limits> for KeyLimits {
    fn from(limits: Limits) -> Self {
        Self {
            per_minute: limits.per_minute,
            per_hour: limits.per_hour,
            concurrent: limits.concurrent,
        }
    }
}

impl View {
    fn new(key: &ApiKey, now: DateTime<Utc>) -> Self {
        let spec = &key.spec;
        Self {
            id: key.id.to_string(),
            name: spec.name.clone(),
            scopes: spec.scopes.clone(),
            project_ids: fields::projects(spec.project_ids.as_deref()),
            limits: Limits {
                per_minute: spec.limits.per_minute,
                per_hour: spec.limits.per_hour,
                concurrent: spec.limits.concurrent,
            },
            status: key.status(now).as_str(),
            expires_at: spec.expires_at.map(timestamp),
            created_by: key.created_by.clone(),
            created_at: timestamp(key.created_at),
            revoked_at: key.revoked_at.map(timestamp),
            last_used_at: key.last_used_at.map(timestamp),
        }
    }
}

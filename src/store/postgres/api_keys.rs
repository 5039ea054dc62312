//! API keys. Their use is counted in `usage`.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::audit::tell;
use super::errors::{from_sqlx, reading, retrying};
use super::idempotency::remember;
use super::rows::{limit, optional_nonzero, parse, project_names};
use super::{PostgresStore, Result, commit};
use crate::domain::api_key::{ApiKey, ApiKeySpec, KeyLimits, Scope};
use crate::domain::audit::{Act, Action};
use crate::domain::ids::{ApiKeyId, WorkspaceId};
use crate::domain::key_text::KeyDigest;
use crate::domain::rate::{RateLimits, RateUsage};
use crate::store::{Admitted, ApiKeys, Creation, Idempotency, NewApiKey, Page, PageRequest};

/// The columns of [`ApiKeyRow`].
macro_rules! api_key_columns {
    () => {
        "id, workspace, name, scopes, project_ids, per_minute, per_hour, concurrent, created_by,
                created_at, expires_at, revoked_at, last_used_at"
    };
}
pub(super) use api_key_columns;

#[async_trait]
impl ApiKeys for PostgresStore {
    async fn create_api_key(
        &self,
        new: &NewApiKey,
        act: &Act,
        once: Option<&Idempotency>,
    ) -> Result<Creation<ApiKey>> {
        retrying(|| self.create_key_once(new, act, once)).await
    }

    async fn api_keys(
        &self,
        workspace: &WorkspaceId,
        page: PageRequest<ApiKeyId>,
    ) -> Result<Page<ApiKey, ApiKeyId>> {
        let rows: Vec<ApiKeyRow> = reading(async {
            sqlx::query_as(concat!(
                "-- postgres::api_keys::api_keys
                select ",
                api_key_columns!(),
                "
                from api_key
                where workspace = $1 and ($2::uuid is null or id < $2)
                order by id desc
                limit $3",
            ))
            .bind(workspace.as_str())
            .bind(page.after.map(|id| id.uuid()))
            .bind(limit(page.limit.saturating_add(1)))
            .fetch_all(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        let items = rows
            .into_iter()
            .map(ApiKeyRow::into_key)
            .collect::<Result<_>>()?;
        Ok(Page::of(items, page.limit, |key: &ApiKey| key.id))
    }

    async fn api_key(&self, workspace: &WorkspaceId, id: ApiKeyId) -> Result<Option<ApiKey>> {
        let row: Option<ApiKeyRow> = reading(async {
            sqlx::query_as(concat!(
                "-- postgres::api_keys::api_key
                select ",
                api_key_columns!(),
                "
                from api_key
                where workspace = $1 and id = $2",
            ))
            .bind(workspace.as_str())
            .bind(id.uuid())
            .fetch_optional(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        row.map(ApiKeyRow::into_key).transpose()
    }

    async fn revoke_api_key(
        &self,
        workspace: &WorkspaceId,
        id: ApiKeyId,
        act: &Act,
    ) -> Result<Option<ApiKey>> {
        retrying(|| self.revoke_once(workspace, id, act)).await
    }

    async fn admit(
        &self,
        id: ApiKeyId,
        digest: &KeyDigest,
        defaults: RateLimits,
    ) -> Result<Option<Admitted>> {
        retrying(|| self.admit_once(id, digest, defaults)).await
    }

    async fn has_api_keys(&self) -> Result<bool> {
        reading(async {
            sqlx::query_scalar(
                "-- postgres::api_keys::has_api_keys
                select exists (select from api_key)",
            )
            .fetch_one(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await
    }

    async fn give_back(&self, id: ApiKeyId, usage: RateUsage) -> Result<()> {
        // Once: a second try after an ambiguous failure could give back twice.
        self.give_back_once(id, usage).await
    }
}

impl PostgresStore {
    async fn create_key_once(
        &self,
        new: &NewApiKey,
        act: &Act,
        once: Option<&Idempotency>,
    ) -> Result<Creation<ApiKey>> {
        let spec = &new.spec;
        let of = |limit: Option<NonZeroU32>| limit.map(|limit| i64::from(limit.get()));
        let mut tx = self.begin().await?;
        let object = new.id.to_string();
        if let Some(known) = remember(&mut tx, &new.workspace, once, &object).await? {
            return Ok(known);
        }
        let row: ApiKeyRow = sqlx::query_as(concat!(
            "-- postgres::api_keys::create_key_once
            insert into api_key (
                id, workspace, name, digest, scopes, project_ids, per_minute, per_hour, concurrent,
                created_by, expires_at
            )
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
            returning ",
            api_key_columns!(),
        ))
        .bind(new.id.uuid())
        .bind(new.workspace.as_str())
        .bind(&spec.name)
        .bind(new.digest.0.as_slice())
        .bind(scope_names(&spec.scopes))
        .bind(spec.project_ids.as_deref().map(project_names))
        .bind(of(spec.limits.per_minute))
        .bind(of(spec.limits.per_hour))
        .bind(of(spec.limits.concurrent))
        .bind(act.actor.to_string())
        .bind(new.expires_at())
        .fetch_one(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        let created = row.into_key()?;
        tell(&mut tx, act.made(Action::KeyCreated, &created)).await?;
        commit(tx).await?;
        Ok(Creation::Created(created))
    }

    async fn revoke_once(
        &self,
        workspace: &WorkspaceId,
        id: ApiKeyId,
        act: &Act,
    ) -> Result<Option<ApiKey>> {
        let mut tx = self.begin().await?;
        // Locked before it is judged: of two that revoke at once, the second sees the first's work.
        let row: Option<ApiKeyRow> = sqlx::query_as(concat!(
            "-- postgres::api_keys::revoke_once (look)
            select ",
            api_key_columns!(),
            "
            from api_key
            where workspace = $1 and id = $2
            for no key update",
        ))
        .bind(workspace.as_str())
        .bind(id.uuid())
        .fetch_optional(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        let before = match row.map(ApiKeyRow::into_key).transpose()? {
            Some(key) if key.revoked_at.is_none() => key,
            unchanged => return Ok(unchanged),
        };
        let row: ApiKeyRow = sqlx::query_as(concat!(
            "-- postgres::api_keys::revoke_once (revoke)
            update api_key
            set revoked_at = now()
            where workspace = $1 and id = $2
            returning ",
            api_key_columns!(),
        ))
        .bind(workspace.as_str())
        .bind(id.uuid())
        .fetch_one(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        let revoked = row.into_key()?;
        tell(&mut tx, act.changed(Action::KeyRevoked, &before, &revoked)).await?;
        commit(tx).await?;
        Ok(Some(revoked))
    }
}

fn scope_names(scopes: &BTreeSet<Scope>) -> Vec<&'static str> {
    scopes.iter().map(|scope| scope.as_str()).collect()
}

#[derive(FromRow)]
pub(super) struct ApiKeyRow {
    id: Uuid,
    workspace: String,
    name: String,
    scopes: Vec<String>,
    project_ids: Option<Vec<String>>,
    per_minute: Option<i64>,
    per_hour: Option<i64>,
    concurrent: Option<i64>,
    created_by: String,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
}

impl ApiKeyRow {
    pub(super) fn into_key(self) -> Result<ApiKey> {
        let scopes = self
            .scopes
            .iter()
            .map(|text| parse("api_key.scopes", text))
            .collect::<Result<_>>()?;
        let project_ids = self
            .project_ids
            .map(|texts| {
                texts
                    .iter()
                    .map(|text| parse("api_key.project_ids", text))
                    .collect::<Result<_>>()
            })
            .transpose()?;
        Ok(ApiKey {
            id: ApiKeyId::from_uuid(self.id),
            workspace: parse("api_key.workspace", &self.workspace)?,
            spec: ApiKeySpec {
                name: self.name,
                scopes,
                project_ids,
                expires_at: self.expires_at,
                limits: KeyLimits {
                    per_minute: optional_nonzero("api_key.per_minute", self.per_minute)?,
                    per_hour: optional_nonzero("api_key.per_hour", self.per_hour)?,
                    concurrent: optional_nonzero("api_key.concurrent", self.concurrent)?,
                },
            },
            created_by: self.created_by,
            created_at: self.created_at,
            revoked_at: self.revoked_at,
            last_used_at: self.last_used_at,
        })
    }
}

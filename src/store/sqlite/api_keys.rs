//! API keys, and who may use them.

use std::num::NonZeroU32;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::audit::tell;
use super::error::store_error;
use super::idempotency::remember;
use super::rows::{
    count, get, id, list, millis, optional_nonzero, optional_time, parsed, read_list, time,
};
use crate::domain::api_key::{ApiKey, ApiKeySpec, KeyLimits, KeyStatus};
use crate::domain::audit::{Act, Action};
use crate::domain::ids::{ApiKeyId, WorkspaceId};
use crate::domain::key_text::KeyDigest;
use crate::domain::rate::{RateLimits, RateUsage};
use crate::store::{
    Admitted, ApiKeys, Creation, Idempotency, NewApiKey, Page, PageRequest, Result, StoreError,
};

#[async_trait]
impl ApiKeys for SqliteStore {
    async fn create_api_key(
        &self,
        new: &NewApiKey,
        act: &Act,
        once: Option<&Idempotency>,
    ) -> Result<Creation<ApiKey>> {
        let mut transaction = self.write().await?;
        let now = self.clock.now();
        let object = new.id.to_string();
        let known = remember(&mut transaction, &new.workspace, once, &object, now).await?;
        if let Some(known) = known {
            return Ok(known);
        }
        let created = ApiKey {
            id: new.id,
            workspace: new.workspace.clone(),
            spec: ApiKeySpec {
                expires_at: new.expires_at(),
                ..new.spec.clone()
            },
            created_by: act.actor.to_string(),
            created_at: now,
            revoked_at: None,
            last_used_at: None,
        };
        insert(&mut transaction, &created, &new.digest).await?;
        tell(&mut transaction, act.made(Action::KeyCreated, &created)).await?;
        self.commit(transaction).await?;
        Ok(Creation::Created(created))
    }

    async fn api_keys(
        &self,
        workspace: &WorkspaceId,
        page: PageRequest<ApiKeyId>,
    ) -> Result<Page<ApiKey, ApiKeyId>> {
        let rows = sqlx::query(
            "-- sqlite::api_keys::api_keys
            select id, workspace, name, scopes, project_ids, per_minute, per_hour, concurrent,
                created_by, created_at, expires_at, revoked_at, last_used_at
            from api_key
            where workspace = ?1 and (?2 is null or id < ?2)
            order by id desc
            limit ?3",
        )
        .bind(workspace.as_str())
        .bind(page.after.map(|id| id.uuid()))
        .bind(count(page.limit.saturating_add(1)))
        .fetch_all(&self.readers)
        .await
        .map_err(store_error)?;
        let items = rows.iter().map(from_row).collect::<Result<_>>()?;
        Ok(Page::of(items, page.limit, |key: &ApiKey| key.id))
    }

    async fn api_key(&self, workspace: &WorkspaceId, id: ApiKeyId) -> Result<Option<ApiKey>> {
        let mut reader = self.readers.acquire().await.map_err(store_error)?;
        find(&mut reader, workspace, id).await
    }

    async fn revoke_api_key(
        &self,
        workspace: &WorkspaceId,
        id: ApiKeyId,
        act: &Act,
    ) -> Result<Option<ApiKey>> {
        let mut transaction = self.write().await?;
        let before = match find(&mut transaction, workspace, id).await? {
            Some(key) if key.revoked_at.is_none() => key,
            unchanged => return Ok(unchanged),
        };
        let revoked = ApiKey {
            revoked_at: Some(self.clock.now()),
            ..before.clone()
        };
        sqlx::query(
            "-- sqlite::api_keys::revoke_api_key
            update api_key set revoked_at = ?3 where workspace = ?1 and id = ?2",
        )
        .bind(workspace.as_str())
        .bind(id.uuid())
        .bind(revoked.revoked_at.map(millis))
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        let entry = act.changed(Action::KeyRevoked, &before, &revoked);
        tell(&mut transaction, entry).await?;
        self.commit(transaction).await?;
        Ok(Some(revoked))
    }

    async fn admit(
        &self,
        id: ApiKeyId,
        digest: &KeyDigest,
        defaults: RateLimits,
    ) -> Result<Option<Admitted>> {
        let row = sqlx::query(
            "-- sqlite::api_keys::admit
            select id, workspace, name, digest, scopes, project_ids, per_minute, per_hour,
                concurrent, created_by, created_at, expires_at, revoked_at, last_used_at
            from api_key
            where id = ?1",
        )
        .bind(id.uuid())
        .fetch_optional(&self.readers)
        .await
        .map_err(store_error)?;
        let kept = row.as_ref().map(kept_digest).transpose()?;
        let Some(row) = row.filter(|_| digest.proves(kept.as_ref())) else {
            return Ok(None);
        };
        let key = from_row(&row)?;
        let now = self.clock.now();
        if key.status(now) != KeyStatus::Active {
            return Ok(None);
        }
        let (usage, allowed) = self.usage.count(id, now, key.spec.limits.rate(defaults));
        Ok(Some(Admitted {
            key,
            usage,
            allowed,
            at: now,
        }))
    }

    async fn has_api_keys(&self) -> Result<bool> {
        sqlx::query_scalar(
            "-- sqlite::api_keys::has_api_keys
            select exists (select 1 from api_key)",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(store_error)
    }

    async fn give_back(&self, id: ApiKeyId, usage: RateUsage) -> Result<()> {
        self.usage.give_back(id, usage);
        Ok(())
    }
}

async fn find(
    connection: &mut SqliteConnection,
    workspace: &WorkspaceId,
    id: ApiKeyId,
) -> Result<Option<ApiKey>> {
    sqlx::query(
        "-- sqlite::api_keys::find
        select id, workspace, name, scopes, project_ids, per_minute, per_hour, concurrent,
            created_by, created_at, expires_at, revoked_at, last_used_at
        from api_key
        where workspace = ?1 and id = ?2",
    )
    .bind(workspace.as_str())
    .bind(id.uuid())
    .fetch_optional(connection)
    .await
    .map_err(store_error)?
    .as_ref()
    .map(from_row)
    .transpose()
}

async fn insert(
    transaction: &mut SqliteConnection,
    new: &ApiKey,
    digest: &KeyDigest,
) -> Result<()> {
    let limits = new.spec.limits;
    sqlx::query(
        "-- sqlite::api_keys::insert
        insert into api_key (id, workspace, name, digest, scopes, project_ids, per_minute, per_hour,
            concurrent, created_by, created_at, expires_at)
        values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )
    .bind(new.id.uuid())
    .bind(new.workspace.as_str())
    .bind(&new.spec.name)
    .bind(digest.0.as_slice())
    .bind(list(&new.spec.scopes)?)
    .bind(new.spec.project_ids.as_ref().map(list).transpose()?)
    .bind(limits.per_minute.map(NonZeroU32::get))
    .bind(limits.per_hour.map(NonZeroU32::get))
    .bind(limits.concurrent.map(NonZeroU32::get))
    .bind(&new.created_by)
    .bind(millis(new.created_at))
    .bind(new.spec.expires_at.map(millis))
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}

fn kept_digest(row: &SqliteRow) -> Result<KeyDigest> {
    get::<&[u8]>(row, "digest")?
        .try_into()
        .map(KeyDigest)
        .map_err(|_| StoreError::corrupt("api_key.digest: not of 32 bytes"))
}

fn from_row(row: &SqliteRow) -> Result<ApiKey> {
    Ok(ApiKey {
        id: id(row, "id")?,
        workspace: parsed(row, "workspace")?,
        spec: ApiKeySpec {
            name: get(row, "name")?,
            scopes: read_list(get(row, "scopes")?)?,
            project_ids: get::<Option<&str>>(row, "project_ids")?
                .map(read_list)
                .transpose()?,
            expires_at: optional_time(row, "expires_at")?,
            limits: KeyLimits {
                per_minute: optional_nonzero(row, "per_minute")?,
                per_hour: optional_nonzero(row, "per_hour")?,
                concurrent: optional_nonzero(row, "concurrent")?,
            },
        },
        created_by: get(row, "created_by")?,
        created_at: time(row, "created_at")?,
        revoked_at: optional_time(row, "revoked_at")?,
        last_used_at: optional_time(row, "last_used_at")?,
    })
}

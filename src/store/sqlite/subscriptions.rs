//! Subscriptions and their secrets.

use std::num::NonZeroU32;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::error::store_error;
use super::rows::{
    count, duration_millis, get, id, list, millis, optional_nonzero, parsed, read_list, time,
};
use super::targets::{raise_generation, secret_context};
use crate::domain::ids::{SecretId, SubscriptionId, WorkspaceId};
use crate::domain::retry::RetrySchedule;
use crate::domain::subscription::{Subscription, SubscriptionSpec, SubscriptionStatus, TargetUrl};
use crate::store::{
    NewSubscription, Page, PageRequest, Result, Rotation, StoreError, Subscriptions,
};

#[async_trait]
impl Subscriptions for SqliteStore {
    async fn create_subscription(&self, new: &NewSubscription) -> Result<Subscription> {
        let sealed = self.vault.seal(
            &secret_context(new.secret_id),
            new.secret.expose().as_bytes(),
        )?;
        let mut transaction = self.write().await?;
        let now = self.clock.now();
        let created = Subscription {
            id: new.id,
            workspace: new.workspace.clone(),
            spec: new.spec.clone(),
            status: SubscriptionStatus::Active,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        insert(&mut transaction, &created).await?;
        insert_secret(&mut transaction, &created, new.secret_id, sealed, now).await?;
        self.commit(transaction).await?;
        Ok(created)
    }

    async fn subscription(
        &self,
        workspace: &WorkspaceId,
        id: SubscriptionId,
    ) -> Result<Option<Subscription>> {
        let mut reader = self.readers.acquire().await.map_err(store_error)?;
        find(&mut reader, workspace, id).await
    }

    async fn subscriptions(
        &self,
        workspace: &WorkspaceId,
        page: PageRequest<SubscriptionId>,
    ) -> Result<Page<Subscription, SubscriptionId>> {
        let rows = sqlx::query(
            "-- sqlite::subscriptions::subscriptions
            select id, workspace, status, disabled_reason, version, url, description, event_types,
                project_ids, format, max_concurrency, retry_schedule_ms, created_at, updated_at
            from subscription
            where workspace = ?1 and status <> 'deleted' and (?2 is null or id < ?2)
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
        Ok(Page::of(
            items,
            page.limit,
            |subscription: &Subscription| subscription.id,
        ))
    }

    async fn update_subscription(
        &self,
        workspace: &WorkspaceId,
        id: SubscriptionId,
        version: i64,
        spec: &SubscriptionSpec,
        status: &SubscriptionStatus,
    ) -> Result<Option<Subscription>> {
        let mut transaction = self.write().await?;
        let Some(found) = find(&mut transaction, workspace, id).await? else {
            return Ok(None);
        };
        if found.version != version {
            return Err(StoreError::Stale);
        }
        let updated = Subscription {
            spec: spec.clone(),
            status: status.clone(),
            version: version + 1,
            updated_at: self.clock.now(),
            ..found
        };
        update(&mut transaction, &updated).await?;
        self.commit(transaction).await?;
        Ok(Some(updated))
    }

    async fn rotate_secret(
        &self,
        workspace: &WorkspaceId,
        id: SubscriptionId,
        rotation: &Rotation,
    ) -> Result<Option<Subscription>> {
        let sealed = self.vault.seal(
            &secret_context(rotation.secret_id),
            rotation.secret.expose().as_bytes(),
        )?;
        let mut transaction = self.write().await?;
        let Some(found) = find(&mut transaction, workspace, id).await? else {
            return Ok(None);
        };
        let now = self.clock.now();
        let rotated = Subscription {
            version: found.version + 1,
            updated_at: now,
            ..found
        };
        update(&mut transaction, &rotated).await?;
        end_secrets(&mut transaction, &rotated, now, rotation.overlap).await?;
        insert_secret(&mut transaction, &rotated, rotation.secret_id, sealed, now).await?;
        self.commit(transaction).await?;
        Ok(Some(rotated))
    }

    async fn delete_subscription(
        &self,
        workspace: &WorkspaceId,
        id: SubscriptionId,
    ) -> Result<bool> {
        let mut transaction = self.write().await?;
        if find(&mut transaction, workspace, id).await?.is_none() {
            return Ok(false);
        }
        let generation = raise_generation(&mut transaction).await?;
        sqlx::query(
            "-- sqlite::subscriptions::delete_subscription
            update subscription
            set status = 'deleted', disabled_reason = null, version = version + 1,
                generation = ?3, updated_at = ?4, deleted_at = ?4
            where workspace = ?1 and id = ?2",
        )
        .bind(workspace.as_str())
        .bind(id.uuid())
        .bind(generation)
        .bind(millis(self.clock.now()))
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        sqlx::query(
            "-- sqlite::subscriptions::delete_subscription
            delete from subscription_secret where workspace = ?1 and subscription_id = ?2",
        )
        .bind(workspace.as_str())
        .bind(id.uuid())
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        self.commit(transaction).await?;
        Ok(true)
    }
}

async fn find(
    connection: &mut SqliteConnection,
    workspace: &WorkspaceId,
    id: SubscriptionId,
) -> Result<Option<Subscription>> {
    sqlx::query(
        "-- sqlite::subscriptions::find
        select id, workspace, status, disabled_reason, version, url, description, event_types,
            project_ids, format, max_concurrency, retry_schedule_ms, created_at, updated_at
        from subscription
        where workspace = ?1 and id = ?2 and status <> 'deleted'",
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

async fn insert(transaction: &mut SqliteConnection, new: &Subscription) -> Result<()> {
    let generation = raise_generation(transaction).await?;
    sqlx::query(
        "-- sqlite::subscriptions::insert
        insert into subscription (id, workspace, status, version, generation, url, description,
            event_types, project_ids, format, max_concurrency, retry_schedule_ms, created_at, updated_at)
        values (?1, ?2, 'active', ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12)",
    )
    .bind(new.id.uuid())
    .bind(new.workspace.as_str())
    .bind(new.version)
    .bind(generation)
    .bind(new.spec.url.to_string())
    .bind(&new.spec.description)
    .bind(list(&new.spec.event_types)?)
    .bind(new.spec.project_ids.as_ref().map(list).transpose()?)
    .bind(new.spec.format.as_str())
    .bind(new.spec.max_concurrency.map(NonZeroU32::get))
    .bind(new.spec.retry_schedule.as_ref().map(schedule).transpose()?)
    .bind(millis(new.created_at))
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}

async fn update(transaction: &mut SqliteConnection, changed: &Subscription) -> Result<()> {
    let generation = raise_generation(transaction).await?;
    sqlx::query(
        "-- sqlite::subscriptions::update
        update subscription
        set status = ?3, disabled_reason = ?4, version = ?5, generation = ?6, url = ?7,
            description = ?8, event_types = ?9, project_ids = ?10, format = ?11,
            max_concurrency = ?12, retry_schedule_ms = ?13, updated_at = ?14
        where workspace = ?1 and id = ?2",
    )
    .bind(changed.workspace.as_str())
    .bind(changed.id.uuid())
    .bind(changed.status.as_str())
    .bind(changed.status.reason())
    .bind(changed.version)
    .bind(generation)
    .bind(changed.spec.url.to_string())
    .bind(&changed.spec.description)
    .bind(list(&changed.spec.event_types)?)
    .bind(changed.spec.project_ids.as_ref().map(list).transpose()?)
    .bind(changed.spec.format.as_str())
    .bind(changed.spec.max_concurrency.map(NonZeroU32::get))
    .bind(
        changed
            .spec
            .retry_schedule
            .as_ref()
            .map(schedule)
            .transpose()?,
    )
    .bind(millis(changed.updated_at))
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}

async fn insert_secret(
    transaction: &mut SqliteConnection,
    subscription: &Subscription,
    id: SecretId,
    sealed: Vec<u8>,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query(
        "-- sqlite::subscriptions::insert_secret
        insert into subscription_secret (id, workspace, subscription_id, sealed, created_at)
        values (?1, ?2, ?3, ?4, ?5)",
    )
    .bind(id.uuid())
    .bind(subscription.workspace.as_str())
    .bind(subscription.id.uuid())
    .bind(sealed)
    .bind(millis(now))
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}

/// Lets the secrets that there are sign until the end of an overlap, or of their own if that is
/// earlier; removes those that sign no more.
async fn end_secrets(
    transaction: &mut SqliteConnection,
    subscription: &Subscription,
    now: DateTime<Utc>,
    overlap: Duration,
) -> Result<()> {
    let end = millis(now).saturating_add(duration_millis(overlap));
    sqlx::query(
        "-- sqlite::subscriptions::end_secrets (overlap)
        update subscription_secret
        set expires_at = min(?3, coalesce(expires_at, ?3))
        where workspace = ?1 and subscription_id = ?2",
    )
    .bind(subscription.workspace.as_str())
    .bind(subscription.id.uuid())
    .bind(end)
    .execute(&mut *transaction)
    .await
    .map_err(store_error)?;
    sqlx::query(
        "-- sqlite::subscriptions::end_secrets (over)
        delete from subscription_secret
        where workspace = ?1 and subscription_id = ?2 and expires_at <= ?3",
    )
    .bind(subscription.workspace.as_str())
    .bind(subscription.id.uuid())
    .bind(millis(now))
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}

/// Disables it because its receiver answered `410 Gone`; nothing happens to one that is not active.
pub(super) async fn disable_gone(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    id: SubscriptionId,
    now: i64,
) -> Result<()> {
    let generation = raise_generation(transaction).await?;
    sqlx::query(
        "-- sqlite::subscriptions::disable_gone
        update subscription
        set status = 'disabled', disabled_reason = 'the receiver answered 410 Gone',
            version = version + 1, generation = ?3, updated_at = ?4
        where workspace = ?1 and id = ?2 and status = 'active'",
    )
    .bind(workspace.as_str())
    .bind(id.uuid())
    .bind(generation)
    .bind(now)
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}

/// A row of `subscription` that is not deleted.
pub(super) fn from_row(row: &SqliteRow) -> Result<Subscription> {
    let status = match get::<Option<String>>(row, "disabled_reason")? {
        Some(reason) => SubscriptionStatus::Disabled { reason },
        None => SubscriptionStatus::Active,
    };
    Ok(Subscription {
        id: id(row, "id")?,
        workspace: parsed(row, "workspace")?,
        spec: SubscriptionSpec {
            url: TargetUrl::new(get(row, "url")?).map_err(StoreError::corrupt)?,
            description: get(row, "description")?,
            event_types: read_list(get(row, "event_types")?)?,
            project_ids: get::<Option<&str>>(row, "project_ids")?
                .map(read_list)
                .transpose()?,
            format: parsed(row, "format")?,
            max_concurrency: optional_nonzero(row, "max_concurrency")?,
            retry_schedule: get::<Option<&str>>(row, "retry_schedule_ms")?
                .map(read_schedule)
                .transpose()?,
        },
        status,
        version: get(row, "version")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

fn schedule(schedule: &RetrySchedule) -> Result<String> {
    let delays: Vec<i64> = schedule
        .delays()
        .iter()
        .copied()
        .map(duration_millis)
        .collect();
    list(&delays)
}

fn read_schedule(text: &str) -> Result<RetrySchedule> {
    let delays: Vec<u64> = read_list(text)?;
    RetrySchedule::new(delays.into_iter().map(Duration::from_millis).collect())
        .map_err(StoreError::corrupt)
}

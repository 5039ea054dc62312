//! The statements that register and change subscriptions. Each raises the generation.

use std::num::NonZeroU32;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::SqliteConnection;

use super::circuits;
use super::error::store_error;
use super::rows::{duration_millis, list, millis};
use super::targets::raise_generation;
use crate::domain::ids::SecretId;
use crate::domain::retry::RetrySchedule;
use crate::domain::subscription::Subscription;
use crate::store::operational::Disabled;
use crate::store::vault::Vault;
use crate::store::{Result, headers};

/// Adds a subscription.
pub(super) async fn insert(
    transaction: &mut SqliteConnection,
    vault: &Vault,
    new: &Subscription,
) -> Result<()> {
    let generation = raise_generation(transaction).await?;
    sqlx::query(
        "-- sqlite::changes::insert
        insert into subscription (id, workspace, status, version, generation, url, description,
            event_types, project_ids, format, headers, max_concurrency, retry_schedule_ms, created_at,
            updated_at, rate_limit, ordering)
        values (?1, ?2, 'active', ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?13, ?14, ?15)",
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
    .bind(headers::seal(vault, new.id, &new.spec.headers)?)
    .bind(new.spec.max_concurrency.map(NonZeroU32::get))
    .bind(new.spec.retry_schedule.as_ref().map(schedule).transpose()?)
    .bind(millis(new.created_at))
    .bind(new.spec.rate_limit.map(NonZeroU32::get))
    .bind(new.spec.ordering.as_str())
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}

/// Writes a subscription as it is now.
pub(super) async fn update(
    transaction: &mut SqliteConnection,
    vault: &Vault,
    changed: &Subscription,
) -> Result<()> {
    let generation = raise_generation(transaction).await?;
    sqlx::query(
        "-- sqlite::changes::update
        update subscription
        set status = ?3, disabled_reason = ?4, version = ?5, generation = ?6, url = ?7,
            description = ?8, event_types = ?9, project_ids = ?10, format = ?11,
            headers = ?12, max_concurrency = ?13, retry_schedule_ms = ?14, updated_at = ?15,
            rate_limit = ?16, missing_since = ?17, ordering = ?18
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
    .bind(headers::seal(vault, changed.id, &changed.spec.headers)?)
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
    .bind(changed.spec.rate_limit.map(NonZeroU32::get))
    .bind(changed.missing_since.map(millis))
    .bind(changed.spec.ordering.as_str())
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}

/// Marks a subscription as deleted, so that others learn of it, and removes its secrets.
pub(super) async fn delete(
    transaction: &mut SqliteConnection,
    gone: &Subscription,
    now: DateTime<Utc>,
) -> Result<()> {
    circuits::forget(transaction, &[gone.id]).await?;
    let generation = raise_generation(transaction).await?;
    sqlx::query(
        "-- sqlite::changes::delete (subscription)
        update subscription
        set status = 'deleted', disabled_reason = null, missing_since = null, headers = null, version = version + 1,
            generation = ?3, updated_at = ?4, deleted_at = ?4
        where workspace = ?1 and id = ?2",
    )
    .bind(gone.workspace.as_str())
    .bind(gone.id.uuid())
    .bind(generation)
    .bind(millis(now))
    .execute(&mut *transaction)
    .await
    .map_err(store_error)?;
    sqlx::query(
        "-- sqlite::changes::delete (secrets)
        delete from subscription_secret where workspace = ?1 and subscription_id = ?2",
    )
    .bind(gone.workspace.as_str())
    .bind(gone.id.uuid())
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}

/// Adds a secret.
pub(super) async fn insert_secret(
    transaction: &mut SqliteConnection,
    subscription: &Subscription,
    id: SecretId,
    sealed: Vec<u8>,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query(
        "-- sqlite::changes::insert_secret
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
pub(super) async fn end_secrets(
    transaction: &mut SqliteConnection,
    subscription: &Subscription,
    now: DateTime<Utc>,
    overlap: Duration,
) -> Result<()> {
    let end = millis(now).saturating_add(duration_millis(overlap));
    sqlx::query(
        "-- sqlite::changes::end_secrets (overlap)
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
        "-- sqlite::changes::end_secrets (over)
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

/// Disables one for what its receiver did; nothing happens to one that is not active, or was changed
/// since. Answers whether it was.
pub(super) async fn disable(
    transaction: &mut SqliteConnection,
    one: &Disabled,
    now: i64,
) -> Result<bool> {
    circuits::forget(transaction, &[one.id]).await?;
    let generation = raise_generation(transaction).await?;
    let disabled = sqlx::query(
        "-- sqlite::changes::disable
        update subscription
        set status = 'disabled', disabled_reason = ?5, version = version + 1, generation = ?3,
            updated_at = ?4, missing_since = ?6
        where workspace = ?1 and id = ?2 and status = 'active' and version = ?7",
    )
    .bind(one.workspace.as_str())
    .bind(one.id.uuid())
    .bind(generation)
    .bind(now)
    .bind(&one.reason)
    .bind(millis(one.missing_since))
    .bind(one.version)
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(disabled.rows_affected() > 0)
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

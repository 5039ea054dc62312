//! Registering subscriptions. Every change raises the generation first, so that changes commit in
//! the order of their generations.

use async_trait::async_trait;
use sqlx::{PgConnection, PgTransaction};
use uuid::Uuid;

use super::errors::{from_sqlx, reading, retrying};
use super::rows::{SubscriptionRow, interval, limit, secret_context, subscription_columns};
use super::{PostgresStore, Result, StoreError, commit};
use crate::domain::ids::{ProjectId, SecretId, SubscriptionId, WorkspaceId};
use crate::domain::subscription::{Subscription, SubscriptionSpec, SubscriptionStatus};
use crate::store::{NewSubscription, Page, PageRequest, Rotation, Subscriptions};

/// Why a subscription is disabled whose receiver answered so.
const GONE_REASON: &str = "the receiver answered 410 Gone";

#[async_trait]
impl Subscriptions for PostgresStore {
    async fn create_subscription(&self, new: &NewSubscription) -> Result<Subscription> {
        retrying(|| self.create_once(new)).await
    }

    async fn subscription(
        &self,
        workspace: &WorkspaceId,
        id: SubscriptionId,
    ) -> Result<Option<Subscription>> {
        let row: Option<SubscriptionRow> = reading(async {
            sqlx::query_as(concat!(
                "-- postgres::subscriptions::subscription
                select ",
                subscription_columns!(),
                "
                from subscription
                where workspace = $1 and id = $2 and status <> 'deleted'",
            ))
            .bind(workspace.as_str())
            .bind(id.uuid())
            .fetch_optional(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        row.map(SubscriptionRow::into_subscription).transpose()
    }

    async fn subscriptions(
        &self,
        workspace: &WorkspaceId,
        page: PageRequest<SubscriptionId>,
    ) -> Result<Page<Subscription, SubscriptionId>> {
        let rows: Vec<SubscriptionRow> = reading(async {
            sqlx::query_as(concat!(
                "-- postgres::subscriptions::subscriptions
                select ",
                subscription_columns!(),
                "
                from subscription
                where workspace = $1 and status <> 'deleted' and ($2::uuid is null or id < $2)
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
            .map(SubscriptionRow::into_subscription)
            .collect::<Result<_>>()?;
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
        retrying(|| self.update_once(workspace, id, version, spec, status)).await
    }

    async fn rotate_secret(
        &self,
        workspace: &WorkspaceId,
        id: SubscriptionId,
        rotation: &Rotation,
    ) -> Result<Option<Subscription>> {
        retrying(|| self.rotate_once(workspace, id, rotation)).await
    }

    async fn delete_subscription(
        &self,
        workspace: &WorkspaceId,
        id: SubscriptionId,
    ) -> Result<bool> {
        retrying(|| self.delete_once(workspace, id)).await
    }
}

/// A specification as columns.
struct SpecColumns<'a> {
    url: &'a str,
    description: &'a str,
    event_types: Vec<String>,
    project_ids: Option<Vec<&'a str>>,
    format: &'static str,
    max_concurrency: Option<i64>,
    retry_schedule_ms: Option<Vec<i64>>,
}

impl<'a> SpecColumns<'a> {
    fn of(spec: &'a SubscriptionSpec) -> Self {
        Self {
            url: spec.url.as_url().as_str(),
            description: &spec.description,
            event_types: spec.event_types.iter().map(ToString::to_string).collect(),
            project_ids: spec
                .project_ids
                .as_ref()
                .map(|ids| ids.iter().map(ProjectId::as_str).collect()),
            format: spec.format.as_str(),
            max_concurrency: spec.max_concurrency.map(|count| i64::from(count.get())),
            retry_schedule_ms: spec.retry_schedule.as_ref().map(|schedule| {
                schedule
                    .delays()
                    .iter()
                    .map(|delay| i64::try_from(delay.as_millis()).unwrap_or(i64::MAX))
                    .collect()
            }),
        }
    }
}

impl PostgresStore {
    async fn create_once(&self, new: &NewSubscription) -> Result<Subscription> {
        let columns = SpecColumns::of(&new.spec);
        let sealed = self.vault.seal(
            &secret_context(new.secret_id),
            new.secret.expose().as_bytes(),
        )?;
        let mut tx = self.begin().await?;
        let generation = raise_generation(&mut tx).await?;
        let row: SubscriptionRow = sqlx::query_as(concat!(
            "-- postgres::subscriptions::create_once (subscription)
            insert into subscription (
                id, workspace, generation, url, description, event_types, project_ids, format,
                max_concurrency, retry_schedule_ms
            )
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
            returning ",
            subscription_columns!(),
        ))
        .bind(new.id.uuid())
        .bind(new.workspace.as_str())
        .bind(generation)
        .bind(columns.url)
        .bind(columns.description)
        .bind(columns.event_types)
        .bind(columns.project_ids)
        .bind(columns.format)
        .bind(columns.max_concurrency)
        .bind(columns.retry_schedule_ms)
        .fetch_one(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        insert_secret(&mut tx, &new.workspace, new.id, new.secret_id, sealed).await?;
        commit(tx).await?;
        row.into_subscription()
    }

    async fn rotate_once(
        &self,
        workspace: &WorkspaceId,
        id: SubscriptionId,
        rotation: &Rotation,
    ) -> Result<Option<Subscription>> {
        let sealed = self.vault.seal(
            &secret_context(rotation.secret_id),
            rotation.secret.expose().as_bytes(),
        )?;
        let mut tx = self.begin().await?;
        let generation = raise_generation(&mut tx).await?;
        let row: Option<SubscriptionRow> = sqlx::query_as(concat!(
            "-- postgres::subscriptions::rotate_once (subscription)
            update subscription
            set generation = $3, version = version + 1, updated_at = now()
            where workspace = $1 and id = $2 and status <> 'deleted'
            returning ",
            subscription_columns!(),
        ))
        .bind(workspace.as_str())
        .bind(id.uuid())
        .bind(generation)
        .fetch_optional(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        let Some(row) = row else {
            return Ok(None);
        };
        sqlx::query(
            "-- postgres::subscriptions::rotate_once (overlap)
            update subscription_secret
            set expires_at = least(date_trunc('milliseconds', now()) + $3::interval, expires_at)
            where workspace = $1 and subscription_id = $2",
        )
        .bind(workspace.as_str())
        .bind(id.uuid())
        .bind(interval(rotation.overlap))
        .execute(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        sqlx::query(
            "-- postgres::subscriptions::rotate_once (over)
            delete from subscription_secret
            where workspace = $1 and subscription_id = $2 and expires_at <= now()",
        )
        .bind(workspace.as_str())
        .bind(id.uuid())
        .execute(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        insert_secret(&mut tx, workspace, id, rotation.secret_id, sealed).await?;
        commit(tx).await?;
        row.into_subscription().map(Some)
    }

    async fn update_once(
        &self,
        workspace: &WorkspaceId,
        id: SubscriptionId,
        version: i64,
        spec: &SubscriptionSpec,
        status: &SubscriptionStatus,
    ) -> Result<Option<Subscription>> {
        let columns = SpecColumns::of(spec);
        let mut tx = self.begin().await?;
        let generation = raise_generation(&mut tx).await?;
        let row: Option<SubscriptionRow> = sqlx::query_as(concat!(
            "-- postgres::subscriptions::update_once
            update subscription
            set generation = $4, version = version + 1, updated_at = now(),
                url = $5, description = $6, event_types = $7, project_ids = $8, format = $9,
                max_concurrency = $10, retry_schedule_ms = $11, status = $12, disabled_reason = $13
            where workspace = $1 and id = $2 and version = $3 and status <> 'deleted'
            returning ",
            subscription_columns!(),
        ))
        .bind(workspace.as_str())
        .bind(id.uuid())
        .bind(version)
        .bind(generation)
        .bind(columns.url)
        .bind(columns.description)
        .bind(columns.event_types)
        .bind(columns.project_ids)
        .bind(columns.format)
        .bind(columns.max_concurrency)
        .bind(columns.retry_schedule_ms)
        .bind(status.as_str())
        .bind(status.reason())
        .fetch_optional(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        if let Some(row) = row {
            commit(tx).await?;
            return row.into_subscription().map(Some);
        }
        if exists(&mut tx, workspace, id).await? {
            Err(StoreError::Stale)
        } else {
            Ok(None)
        }
    }

    async fn delete_once(&self, workspace: &WorkspaceId, id: SubscriptionId) -> Result<bool> {
        let mut tx = self.begin().await?;
        let generation = raise_generation(&mut tx).await?;
        let deleted = sqlx::query(
            "-- postgres::subscriptions::delete_once (subscription)
            update subscription
            set generation = $3, version = version + 1, updated_at = now(), deleted_at = now(),
                status = 'deleted', disabled_reason = null
            where workspace = $1 and id = $2 and status <> 'deleted'",
        )
        .bind(workspace.as_str())
        .bind(id.uuid())
        .bind(generation)
        .execute(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        if deleted.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query(
            "-- postgres::subscriptions::delete_once (secrets)
            delete from subscription_secret
            where workspace = $1 and subscription_id = $2",
        )
        .bind(workspace.as_str())
        .bind(id.uuid())
        .execute(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        commit(tx).await?;
        Ok(true)
    }
}

async fn insert_secret(
    tx: &mut PgTransaction<'_>,
    workspace: &WorkspaceId,
    subscription: SubscriptionId,
    id: SecretId,
    sealed: Vec<u8>,
) -> Result<()> {
    sqlx::query(
        "-- postgres::subscriptions::insert_secret
        insert into subscription_secret (id, subscription_id, workspace, sealed)
        values ($1, $2, $3, $4)",
    )
    .bind(id.uuid())
    .bind(subscription.uuid())
    .bind(workspace.as_str())
    .bind(sealed)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

/// The next generation. Its row stays locked to the end of the transaction.
async fn raise_generation(tx: &mut PgTransaction<'_>) -> Result<i64> {
    sqlx::query_scalar(
        "-- postgres::subscriptions::raise_generation
        update subscription_generation
        set generation = generation + 1
        returning generation",
    )
    .fetch_one(&mut **tx)
    .await
    .map_err(from_sqlx)
}

async fn exists(
    connection: &mut PgConnection,
    workspace: &WorkspaceId,
    id: SubscriptionId,
) -> Result<bool> {
    sqlx::query_scalar(
        "-- postgres::subscriptions::exists
        select exists (
            select from subscription
            where workspace = $1 and id = $2 and status <> 'deleted'
        )",
    )
    .bind(workspace.as_str())
    .bind(id.uuid())
    .fetch_one(connection)
    .await
    .map_err(from_sqlx)
}

/// Disables the subscriptions whose receivers said that they are gone; one that an admin disabled
/// or deleted meanwhile stays as the admin left it.
pub(super) async fn disable_gone(
    tx: &mut PgTransaction<'_>,
    subscriptions: &[(Uuid, String)],
) -> Result<()> {
    let (ids, workspaces): (Vec<Uuid>, Vec<&str>) = subscriptions
        .iter()
        .map(|(id, workspace)| (*id, workspace.as_str()))
        .unzip();
    let generation = raise_generation(tx).await?;
    sqlx::query(
        "-- postgres::subscriptions::disable_gone
        update subscription s
        set generation = $3, version = version + 1, updated_at = now(),
            status = 'disabled', disabled_reason = $4
        from unnest($1::uuid[], $2::text[]) as gone (id, workspace)
        where s.id = gone.id and s.workspace = gone.workspace and s.status = 'active'",
    )
    .bind(ids)
    .bind(workspaces)
    .bind(generation)
    .bind(GONE_REASON)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

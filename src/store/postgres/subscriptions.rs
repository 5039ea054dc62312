//! Subscriptions as clients read them. Changing them is in `changes`.

use async_trait::async_trait;

use super::errors::{from_sqlx, reading, retrying};
use super::rows::{SubscriptionRow, limit, project_names, subscription_columns};
use super::{PostgresStore, Result, StoreError};
use crate::domain::audit::Act;
use crate::domain::ids::SubscriptionId;
use crate::domain::reach::Reach;
use crate::domain::subscription::{Subscription, SubscriptionSpec, SubscriptionStatus};
use crate::store::targets::Target;
use crate::store::{
    Creation, Idempotency, NewSubscription, Page, PageRequest, Rotation, Subscriptions,
};

#[async_trait]
impl Subscriptions for PostgresStore {
    async fn create_subscription(
        &self,
        new: &NewSubscription,
        act: &Act,
        once: Option<&Idempotency>,
    ) -> Result<Creation<Subscription>> {
        retrying(|| self.create_once(new, act, once)).await
    }

    async fn subscription(
        &self,
        reach: &Reach,
        id: SubscriptionId,
    ) -> Result<Option<Subscription>> {
        let row: Option<SubscriptionRow> = reading(async {
            sqlx::query_as(concat!(
                "-- postgres::subscriptions::subscription
                select ",
                subscription_columns!(),
                "
                from subscription
                where workspace = $1 and id = $2 and status <> 'deleted'
                  and ($3::text[] is null or project_ids <@ $3)",
            ))
            .bind(reach.workspace.as_str())
            .bind(id.uuid())
            .bind(reach.projects.as_deref().map(project_names))
            .fetch_optional(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        row.map(|row| row.into_subscription(&self.vault))
            .transpose()
    }

    async fn subscriptions(
        &self,
        reach: &Reach,
        page: PageRequest<SubscriptionId>,
    ) -> Result<Page<Subscription, SubscriptionId>> {
        let rows: Vec<SubscriptionRow> = reading(async {
            sqlx::query_as(concat!(
                "-- postgres::subscriptions::subscriptions
                select ",
                subscription_columns!(),
                "
                from subscription
                where workspace = $1 and status <> 'deleted'
                  and ($2::text[] is null or project_ids <@ $2)
                  and ($3::uuid is null or id < $3)
                order by id desc
                limit $4",
            ))
            .bind(reach.workspace.as_str())
            .bind(reach.projects.as_deref().map(project_names))
            .bind(page.after.map(|id| id.uuid()))
            .bind(limit(page.limit.saturating_add(1)))
            .fetch_all(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        let items = rows
            .into_iter()
            .map(|row| row.into_subscription(&self.vault))
            .collect::<Result<_>>()?;
        Ok(Page::of(
            items,
            page.limit,
            |subscription: &Subscription| subscription.id,
        ))
    }

    async fn target(&self, reach: &Reach, id: SubscriptionId) -> Result<Option<Target>> {
        reading(self.read_target(reach, id)).await
    }

    async fn update_subscription(
        &self,
        reach: &Reach,
        id: SubscriptionId,
        version: i64,
        spec: &SubscriptionSpec,
        status: &SubscriptionStatus,
        act: &Act,
    ) -> Result<Option<Subscription>> {
        let updated = retrying(|| self.update_once(reach, id, version, spec, status, act)).await?;
        // What this process sends from now on is sent as it is now.
        self.refresh_targets().await;
        Ok(updated)
    }

    async fn rotate_secret(
        &self,
        reach: &Reach,
        id: SubscriptionId,
        version: Option<i64>,
        rotation: &Rotation,
        act: &Act,
    ) -> Result<Option<Subscription>> {
        let rotated = retrying(|| self.rotate_once(reach, id, version, rotation, act)).await?;
        self.refresh_targets().await;
        Ok(rotated)
    }

    async fn delete_subscription(
        &self,
        reach: &Reach,
        id: SubscriptionId,
        version: Option<i64>,
        act: &Act,
    ) -> Result<bool> {
        let is_deleted = retrying(|| self.delete_once(reach, id, version, act)).await?;
        self.refresh_targets().await;
        Ok(is_deleted)
    }
}

impl PostgresStore {
    async fn read_target(&self, reach: &Reach, id: SubscriptionId) -> Result<Option<Target>> {
        // Both statements see one state: a subscription that is deleted in between keeps its secrets.
        let mut tx = self.read().await?;
        let row: Option<SubscriptionRow> = sqlx::query_as(concat!(
            "-- postgres::subscriptions::read_target
            select ",
            subscription_columns!(),
            "
            from subscription
            where workspace = $1 and id = $2 and status <> 'deleted'
              and ($3::text[] is null or project_ids <@ $3)",
        ))
        .bind(reach.workspace.as_str())
        .bind(id.uuid())
        .bind(reach.projects.as_deref().map(project_names))
        .fetch_optional(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        let Some(row) = row else {
            return Ok(None);
        };
        let mut keys = self.live_keys(&mut tx, &[row.id]).await?;
        let keys = keys
            .remove(&row.id)
            .unwrap_or_else(|| Err(StoreError::corrupt("no signing secret")))?;
        let subscription = row.into_subscription(&self.vault)?;
        Ok(Some(Target { subscription, keys }))
    }
}

//! How it goes with a subscription, and what was attempted in all of a workspace.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::error::store_error;
use super::rows::{count, get, millis, projects, subscription_within, unsigned};
use super::{SqliteStore, rollups};
use crate::domain::ids::SubscriptionId;
use crate::domain::reach::Reach;
use crate::store::stats::{MAX_COUNTED, Series, Stats, SubscriptionStats, Window, are_few};
use crate::store::{Result, StoreError, Tally};

#[async_trait]
impl Stats for SqliteStore {
    async fn subscription_stats(
        &self,
        reach: &Reach,
        id: SubscriptionId,
        window: Window,
    ) -> Result<Option<SubscriptionStats>> {
        let now = self.clock.now();
        let mut transaction = self.read().await?;
        if !in_reach(&mut transaction, reach, id).await? {
            return Ok(None);
        }
        let own = Own { reach, id };
        let waiting = waiting(&mut transaction, &own, millis(now)).await?;
        let past = rollups::series(&mut transaction, (reach, Some(id)), window, now).await?;
        let cut = get(&waiting, "cut")?;
        Ok(Some(SubscriptionStats {
            pending: Tally::of(unsigned(&waiting, "pending")?, cut),
            in_flight: Tally::of(unsigned(&waiting, "in_flight")?, cut),
            oldest_due: get::<Option<i64>>(&waiting, "oldest")?
                .and_then(|oldest| u64::try_from(millis(now) - oldest).ok())
                .map(Duration::from_millis),
            past,
        }))
    }

    async fn workspace_series(&self, reach: &Reach, window: Window) -> Result<Option<Series>> {
        let mut transaction = self.read().await?;
        if !are_few(window, number_in_reach(&mut transaction, reach).await?) {
            return Ok(None);
        }
        let now = self.clock.now();
        let series = rollups::series(&mut transaction, (reach, None), window, now).await?;
        Ok(Some(series))
    }
}

/// The subscription that is asked about.
struct Own<'a> {
    reach: &'a Reach,
    id: SubscriptionId,
}

async fn in_reach(
    transaction: &mut SqliteConnection,
    reach: &Reach,
    id: SubscriptionId,
) -> Result<bool> {
    let found = sqlx::query(concat!(
        "-- sqlite::stats::in_reach
        select 1
        from subscription
        where workspace = ?1 and id = ?2 and status <> 'deleted'
            and (?3 is null or (",
        subscription_within!("?3"),
        "))"
    ))
    .bind(reach.workspace.as_str())
    .bind(id.uuid())
    .bind(projects(reach)?)
    .fetch_optional(transaction)
    .await
    .map_err(store_error)?;
    Ok(found.is_some())
}

async fn number_in_reach(transaction: &mut SqliteConnection, reach: &Reach) -> Result<u64> {
    let number: i64 = sqlx::query_scalar(concat!(
        "-- sqlite::stats::number_in_reach
        select count(*)
        from subscription
        where workspace = ?1 and status <> 'deleted'
            and (?2 is null or (",
        subscription_within!("?2"),
        "))"
    ))
    .bind(reach.workspace.as_str())
    .bind(projects(reach)?)
    .fetch_one(transaction)
    .await
    .map_err(store_error)?;
    u64::try_from(number).map_err(StoreError::corrupt)
}

/// Walks the index of what is due, in each lane from the first that is due and from the first that is
/// not, each so far and no further.
async fn waiting(transaction: &mut SqliteConnection, own: &Own<'_>, now: i64) -> Result<SqliteRow> {
    sqlx::query(
        "-- sqlite::stats::waiting
        with
        fresh_due as (
            select owner, visible_at from delivery_queue
            where subscription_id = ?1 and workspace = ?2 and lane = 0 and visible_at <= ?3
            order by visible_at limit ?4
        ),
        fresh_later as (
            select owner, visible_at from delivery_queue
            where subscription_id = ?1 and workspace = ?2 and lane = 0 and visible_at > ?3
            order by visible_at limit ?4
        ),
        retry_due as (
            select owner, visible_at from delivery_queue
            where subscription_id = ?1 and workspace = ?2 and lane = 1 and visible_at <= ?3
            order by visible_at limit ?4
        ),
        retry_later as (
            select owner, visible_at from delivery_queue
            where subscription_id = ?1 and workspace = ?2 and lane = 1 and visible_at > ?3
            order by visible_at limit ?4
        ),
        replay_due as (
            select owner, visible_at from delivery_queue
            where subscription_id = ?1 and workspace = ?2 and lane = 2 and visible_at <= ?3
            order by visible_at limit ?4
        ),
        replay_later as (
            select owner, visible_at from delivery_queue
            where subscription_id = ?1 and workspace = ?2 and lane = 2 and visible_at > ?3
            order by visible_at limit ?4
        ),
        look (number, owner, visible_at) as (
            select 1, owner, visible_at from fresh_due
            union all
            select 2, owner, visible_at from fresh_later
            union all
            select 3, owner, visible_at from retry_due
            union all
            select 4, owner, visible_at from retry_later
            union all
            select 5, owner, visible_at from replay_due
            union all
            select 6, owner, visible_at from replay_later
        ),
        looks as (
            select count(*) as rows, count(*) filter (where owner is null) as pending,
                count(*) filter (where owner is not null) as in_flight,
                min(visible_at) filter (where owner is null and visible_at <= ?3) as oldest
            from look
            group by number
        )
        select coalesce(sum(pending), 0) as pending, coalesce(sum(in_flight), 0) as in_flight,
            coalesce(max(rows) = ?4, false) as cut, min(oldest) as oldest
        from looks",
    )
    .bind(own.id.uuid())
    .bind(own.reach.workspace.as_str())
    .bind(now)
    .bind(count(MAX_COUNTED))
    .fetch_one(transaction)
    .await
    .map_err(store_error)
}

//! Rollups: what settles appended is folded into them, and the old ones go.

use async_trait::async_trait;

use super::super::SqliteStore;
use super::super::error::store_error;
use super::super::rows::{count, millis, to_time};
use crate::store::Result;
use crate::store::lease::Lease;
use crate::store::retention::{Kept, Swept};
use crate::store::rollups::{Resolution, Rollups, count_columns};

#[async_trait]
impl Rollups for SqliteStore {
    /// What is taken away is what was added: nobody else writes meanwhile.
    async fn fold_rollups(&self, held: &Lease, limit: usize) -> Result<Option<usize>> {
        if last_delta(&self.readers, limit).await?.is_none() {
            return Ok(self.nothing_to_do(held).await?.map(|_| 0));
        }
        let Some(mut transaction) = self.write_as(held).await? else {
            return Ok(None);
        };
        let Some(last) = last_delta(&mut *transaction, limit).await? else {
            return Ok(Some(0));
        };
        sqlx::query(concat!(
            "-- sqlite::retention::fold_rollups
            insert or fail into rollup (subscription_id, resolution, start, workspace, ",
            count_columns!(names),
            ")
            select subscription_id, kept.resolution, minute - minute % kept.length, min(workspace), ",
            count_columns!(sums),
            "
            from rollup_delta
            cross join (
                select 'minute' as resolution, 60000 as length
                union all
                select 'hour', 3600000
            ) as kept
            where rollup_delta.rowid <= ?1
            group by 1, 2, 3
            on conflict (subscription_id, resolution, start) do update
            set ",
            count_columns!(added)
        ))
        .bind(last)
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        let taken = sqlx::query(
            "-- sqlite::retention::fold_rollups (take)
            delete from rollup_delta where rowid <= ?1",
        )
        .bind(last)
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        self.commit(transaction).await?;
        Ok(Some(
            usize::try_from(taken.rows_affected()).unwrap_or(usize::MAX),
        ))
    }
}

/// Up to which delta a step goes; `None` if there is none.
async fn last_delta(executor: impl sqlx::SqliteExecutor<'_>, limit: usize) -> Result<Option<i64>> {
    sqlx::query_scalar(
        "-- sqlite::retention::last_delta
        select max(number)
        from (select rowid as number from rollup_delta order by rowid limit ?1)",
    )
    .bind(count(limit))
    .fetch_one(executor)
    .await
    .map_err(store_error)
}

impl SqliteStore {
    /// In the order of their age. Where they begin then is told with it.
    pub(super) async fn sweep_rollups(
        &self,
        held: &Lease,
        resolution: Resolution,
        before: i64,
        limit: usize,
    ) -> Result<Option<Swept>> {
        let before = millis(resolution.start(to_time(before)?));
        let old = sqlx::query(
            "-- sqlite::retention::sweep_rollups (look)
            select 1 from rollup where resolution = ?1 and start < ?2 limit 1",
        )
        .bind(resolution.as_str())
        .bind(before)
        .fetch_optional(&self.readers)
        .await
        .map_err(store_error)?;
        if old.is_none() {
            return self.nothing_to_do(held).await;
        }
        let Some(mut transaction) = self.write_as(held).await? else {
            return Ok(None);
        };
        let done = sqlx::query(
            "-- sqlite::retention::sweep_rollups
            delete from rollup
            where (subscription_id, resolution, start) in (
                select subscription_id, resolution, start
                from rollup
                where resolution = ?1 and start < ?2
                order by start
                limit ?3
            )",
        )
        .bind(resolution.as_str())
        .bind(before)
        .bind(count(limit))
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        sqlx::query(
            "-- sqlite::retention::sweep_rollups (floor)
            update rollup_floor set since = ?2 where resolution = ?1 and since < ?2",
        )
        .bind(resolution.as_str())
        .bind(before)
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        self.commit(transaction).await?;
        Ok(Some(Swept::of(Kept::Rollup, done.rows_affected(), limit)))
    }

    /// Of subscriptions that were deleted, one after the other.
    pub(super) async fn sweep_orphaned_rollups(
        &self,
        held: &Lease,
        limit: usize,
    ) -> Result<Option<Swept>> {
        let orphan = sqlx::query(
            "-- sqlite::retention::sweep_orphaned_rollups (look)
            select 1
            from subscription
            cross join rollup
            where subscription.status = 'deleted' and rollup.subscription_id = subscription.id
            limit 1",
        )
        .fetch_optional(&self.readers)
        .await
        .map_err(store_error)?;
        if orphan.is_none() {
            return self.nothing_to_do(held).await;
        }
        let Some(mut transaction) = self.write_as(held).await? else {
            return Ok(None);
        };
        let done = sqlx::query(
            "-- sqlite::retention::sweep_orphaned_rollups
            delete from rollup
            where (subscription_id, resolution, start) in (
                select rollup.subscription_id, rollup.resolution, rollup.start
                from subscription
                cross join rollup
                where subscription.status = 'deleted'
                    and rollup.subscription_id = subscription.id
                limit ?1
            )",
        )
        .bind(count(limit))
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        self.commit(transaction).await?;
        Ok(Some(Swept::of(Kept::Rollup, done.rows_affected(), limit)))
    }
}

//! Rollups: what settles appended is folded into them, and the old ones go.

use std::time::Duration;

use async_trait::async_trait;

use super::super::errors::{from_sqlx, retrying};
use super::super::rows::limit as rows;
use super::super::{PostgresStore, Result, StoreError, commit};
use super::{Turn, counted};
use crate::store::lease::Lease;
use crate::store::retention::{Kept, Swept};
use crate::store::rollups::{Resolution, Rollups, count_columns};

#[async_trait]
impl Rollups for PostgresStore {
    async fn fold_rollups(&self, held: &Lease, limit: usize) -> Result<Option<usize>> {
        retrying(|| self.fold(held, limit)).await
    }
}

impl PostgresStore {
    /// One statement: what is taken out of the deltas is what is added. Should a leader of before still
    /// be at it, neither waits for what the other has taken.
    async fn fold(&self, held: &Lease, limit: usize) -> Result<Option<usize>> {
        let Some(Turn { mut tx, .. }) = self.turn(held, Duration::ZERO).await? else {
            return Ok(None);
        };
        let folded: i64 = sqlx::query_scalar(concat!(
            "-- postgres::retention::fold
            with next as materialized (
                select ctid as found_at from rollup_delta limit $1 for update skip locked
            ), taken as (
                delete from rollup_delta
                where ctid = any(array(select found_at from next))
                returning workspace, subscription_id, minute, ",
            count_columns!(names),
            "
            ), folded as (
                insert into rollup (subscription_id, resolution, start, workspace, ",
            count_columns!(names),
            ")
                select
                    taken.subscription_id, kept.resolution,
                    date_trunc(kept.resolution, taken.minute, 'UTC'), min(taken.workspace), ",
            count_columns!(sums),
            "
                from taken
                cross join (values ('minute'), ('hour')) as kept (resolution)
                group by 1, 2, 3
                order by 1, 2, 3
                on conflict on constraint rollup_pk do update
                set ",
            count_columns!(added),
            "
            )
            select count(*) from taken"
        ))
        .bind(rows(limit))
        .fetch_one(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        commit(tx).await?;
        usize::try_from(folded)
            .map(Some)
            .map_err(StoreError::corrupt)
    }

    /// In the order of their age. Where they begin then is told with it.
    pub(super) async fn sweep_rollups(
        &self,
        held: &Lease,
        resolution: Resolution,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>> {
        let Some(Turn { mut tx, before }) = self.turn(held, age).await? else {
            return Ok(None);
        };
        let removed: i64 = sqlx::query_scalar(
            "-- postgres::retention::sweep_rollups
            with old as materialized (
                select ctid as found_at
                from rollup
                where resolution = $1 and start < $2
                order by start
                limit $3
            ), gone as (
                delete from rollup where ctid = any(array(select found_at from old)) returning 1
            ), raised as (
                update rollup_floor
                set since = $2
                where resolution = $1 and since < $2 and exists (select from old)
            )
            select count(*) from gone",
        )
        .bind(resolution.as_str())
        .bind(resolution.start(before))
        .bind(rows(limit))
        .fetch_one(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        commit(tx).await?;
        Ok(Some(Swept::of(Kept::Rollup, counted(removed), limit)))
    }

    /// Of subscriptions that were deleted, one after the other.
    pub(super) async fn sweep_orphaned_rollups(
        &self,
        held: &Lease,
        limit: usize,
    ) -> Result<Option<Swept>> {
        let Some(Turn { mut tx, .. }) = self.turn(held, Duration::ZERO).await? else {
            return Ok(None);
        };
        let done = sqlx::query(
            "-- postgres::retention::sweep_orphaned_rollups
            delete from rollup
            where ctid = any(array(
                select own.found_at
                from subscription s
                cross join lateral (
                    select r.ctid as found_at
                    from rollup r
                    where r.subscription_id = s.id
                    limit $1
                ) as own
                where s.status = 'deleted'
                limit $1
            ))",
        )
        .bind(rows(limit))
        .execute(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        commit(tx).await?;
        Ok(Some(Swept::of(Kept::Rollup, done.rows_affected(), limit)))
    }
}

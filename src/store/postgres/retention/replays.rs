//! Replays of many that ended.

use std::time::Duration;

use super::super::errors::from_sqlx;
use super::super::rows::limit as rows;
use super::super::{PostgresStore, Result, commit};
use super::Turn;
use crate::domain::ids::first_at;
use crate::store::lease::Lease;
use crate::store::retention::{Kept, Swept};

impl PostgresStore {
    /// The walk goes from one workspace to the next in a seek each, and from its oldest on: what began
    /// before then and did not end before then is little.
    pub(super) async fn sweep_replays(
        &self,
        held: &Lease,
        age: Duration,
        limit: usize,
    ) -> Result<Option<Swept>> {
        let Some(Turn { mut tx, before }) = self.turn(held, age).await? else {
            return Ok(None);
        };
        let done = sqlx::query(
            "-- postgres::retention::sweep_replays
            with recursive had (workspace) as (
                (select workspace from replay order by workspace limit 1)
                union all
                select (
                    select replay.workspace
                    from replay
                    where replay.workspace > had.workspace
                    order by replay.workspace
                    limit 1
                )
                from had
                where had.workspace is not null
            ), old as materialized (
                select ended.found_at
                from had
                cross join lateral (
                    select ctid as found_at
                    from replay
                    where replay.workspace = had.workspace and id < $1 and finished_at < $2
                    order by id
                    limit $3
                ) as ended
                limit $3
            )
            delete from replay where ctid = any(array(select found_at from old))",
        )
        .bind(first_at(before))
        .bind(before)
        .bind(rows(limit))
        .execute(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        commit(tx).await?;
        Ok(Some(Swept::of(Kept::Replay, done.rows_affected(), limit)))
    }
}

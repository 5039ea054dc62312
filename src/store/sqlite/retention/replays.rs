//! Replays of many that ended.

use uuid::Uuid;

use super::super::SqliteStore;
use super::super::bulk::{self, Bulk};
use super::super::error::store_error;
use super::super::rows::{count, get, to_time};
use crate::domain::ids::first_at;
use crate::store::Result;
use crate::store::lease::Lease;
use crate::store::retention::{Kept, Swept};

impl SqliteStore {
    /// See [`crate::store::Retention::remove_replays`].
    pub(super) async fn sweep_replays(
        &self,
        held: &Lease,
        before: i64,
        limit: usize,
    ) -> Result<Option<Swept>> {
        static DELETE: Bulk = Bulk::new(
            "-- sqlite::retention::sweep_replays
            delete from replay where (workspace, id) in (values ",
            "(?, ?)",
            ")",
        );
        let old = self.ended_replays(before, limit).await?;
        if old.is_empty() {
            return self.nothing_to_do(held).await;
        }
        let Some(mut transaction) = self.write_as(held).await? else {
            return Ok(None);
        };
        let statements = DELETE.statements(
            &old,
            |it, (workspace, id)| it.bind(workspace.clone()).bind(*id),
            |rest| rest,
        );
        let removed = bulk::execute(&mut transaction, statements).await?;
        self.commit(transaction).await?;
        Ok(Some(Swept::of(Kept::Replay, removed as u64, limit)))
    }

    /// The walk goes from one workspace to the next in a seek each, and from its oldest on: what began
    /// before then and did not end before then is little.
    async fn ended_replays(&self, before: i64, limit: usize) -> Result<Vec<(String, Uuid)>> {
        let rows = sqlx::query(
            "-- sqlite::retention::ended_replays
            with recursive had (workspace) as (
                select min(workspace) from replay
                union all
                select (
                    select min(replay.workspace)
                    from replay
                    where replay.workspace > had.workspace
                )
                from had
                where had.workspace is not null
            )
            select replay.workspace, replay.id
            from had
            cross join replay
            where replay.workspace = had.workspace and replay.id < ?1 and replay.finished_at < ?2
            limit ?3",
        )
        .bind(first_at(to_time(before)?))
        .bind(before)
        .bind(count(limit))
        .fetch_all(&self.readers)
        .await
        .map_err(store_error)?;
        rows.iter()
            .map(|row| Ok((get(row, "workspace")?, get(row, "id")?)))
            .collect()
    }
}

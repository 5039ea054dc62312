//! Replays of many: the steps by which a runner takes them forward. A step locks the replay's row
//! first, and after that waits for gates only (what else another transaction holds is passed over).
//! Settles lock it before gates too, and after the rows of the queue, so that they never stand in a
//! circle with it.

use std::collections::HashMap;

use sqlx::PgTransaction;
use uuid::Uuid;

use super::bulk_replay::{ReplayRow, json, read, replay_columns};
use super::errors::{expect_rows, from_sqlx};
use super::requeue::Requeue;
use super::rows::limit;
use super::{PostgresStore, Result, StoreError, backfill, commit, withdraw};
use crate::domain::ids::{DeliveryId, EventId, ReplayId, SubscriptionId};
use crate::domain::replay::Refusal;
use crate::domain::selection::{ReplayState, Skipped};
use crate::store::replays::{Cursor, Running, account};
use crate::store::{PageRequest, Standing};

impl PostgresStore {
    pub(super) async fn unfinished(&self, page: PageRequest<ReplayId>) -> Result<Vec<Running>> {
        let rows: Vec<ReplayRow> = sqlx::query_as(concat!(
            "-- postgres::bulk_steps::unfinished
            select ",
            replay_columns!(),
            "
            from replay
            where finished_at is null and ($2::uuid is null or id > $2)
            order by id
            limit $1",
        ))
        .bind(limit(page.limit))
        .bind(page.after.map(|id| id.uuid()))
        .fetch_all(&self.pool)
        .await
        .map_err(from_sqlx)?;
        rows.into_iter()
            .map(|row| {
                Ok(Running {
                    cursor: read(&row.cursor)?,
                    record: row.into_record()?,
                })
            })
            .collect()
    }

    pub(super) async fn in_queue_of(&self, id: ReplayId) -> Result<HashMap<SubscriptionId, usize>> {
        let rows: Vec<(Uuid, i64)> = sqlx::query_as(
            "-- postgres::bulk_steps::in_queue_of
            select subscription_id, count(*)
            from delivery_queue
            where replay_id = $1
            group by subscription_id",
        )
        .bind(id.uuid())
        .fetch_all(&self.pool)
        .await
        .map_err(from_sqlx)?;
        rows.into_iter()
            .map(|(subscription, count)| {
                let count = usize::try_from(count).map_err(StoreError::corrupt)?;
                Ok((SubscriptionId::from_uuid(subscription), count))
            })
            .collect()
    }

    pub(super) async fn note_count(
        &self,
        running: &Running,
        counted: u64,
        next: &Cursor,
    ) -> Result<Standing> {
        let (state, next) = match next {
            Cursor::End => (ReplayState::Running, &Cursor::START),
            next => (ReplayState::Pending, next),
        };
        let noted = sqlx::query(
            "-- postgres::bulk_steps::note_count
            update replay
            set total = total + $4, state = $5, cursor = $6
            where workspace = $1 and id = $2 and state = 'pending' and cursor = $3",
        )
        .bind(running.record.reach.workspace.as_str())
        .bind(running.record.id.uuid())
        .bind(json(&running.cursor)?)
        .bind(i64::try_from(counted).map_err(StoreError::corrupt)?)
        .bind(state.as_str())
        .bind(json(next)?)
        .execute(&self.pool)
        .await
        .map_err(from_sqlx)?;
        Ok(standing(noted.rows_affected()))
    }

    pub(super) async fn advance(
        &self,
        running: &Running,
        deliveries: &[DeliveryId],
        events: &[EventId],
        next: &Cursor,
    ) -> Result<Standing> {
        let record = &running.record;
        let requeue = Requeue {
            workspace: &record.reach.workspace,
            bulk: Some(record.id),
        };
        let mut tx = self.begin().await?;
        let Some(mut skipped) = hold(&mut tx, running).await? else {
            return Ok(Standing::Deposed);
        };
        let mut queued = 0;
        for answer in requeue.run(&mut tx, deliveries).await? {
            match answer {
                Ok(_) => queued += 1,
                Err(reason) => skipped.add(reason, 1),
            }
        }
        if let Some(subscription) = record.selection.subscription_id {
            match backfill::make(&mut tx, &requeue, subscription, events).await? {
                Ok(made) => {
                    queued += made;
                    // Removed, or made by another replay, since they were looked for.
                    let gone = (events.len() as u64).saturating_sub(made);
                    skipped.add(Refusal::NoLongerSelected, gone);
                }
                Err(reason) => skipped.add(reason, events.len() as u64),
            }
        }
        let moved = sqlx::query(
            "-- postgres::bulk_steps::advance
            update replay
            set cursor = $3, queued = queued + $4, skipped = $5
            where workspace = $1 and id = $2",
        )
        .bind(record.reach.workspace.as_str())
        .bind(record.id.uuid())
        .bind(json(next)?)
        .bind(i64::try_from(queued).map_err(StoreError::corrupt)?)
        .bind(json(&skipped)?)
        .execute(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        expect_rows("replay", 1, moved.rows_affected())?;
        commit(tx).await?;
        Ok(Standing::Leads)
    }

    pub(super) async fn finish_replay(&self, running: &Running) -> Result<()> {
        let record = &running.record;
        let workspace = record.reach.workspace.as_str();
        match record.state {
            ReplayState::Cancelled => {}
            ReplayState::Running if running.cursor == Cursor::End => {}
            _ => return Ok(()),
        }
        let mut tx = self.begin().await?;
        let row: Option<ReplayRow> = sqlx::query_as(concat!(
            "-- postgres::bulk_steps::finish_replay (look)
            select ",
            replay_columns!(),
            "
            from replay
            where workspace = $1 and id = $2 and finished_at is null
            for no key update",
        ))
        .bind(workspace)
        .bind(record.id.uuid())
        .fetch_optional(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        let Some(row) = row else {
            return Ok(());
        };
        let now = row.into_record()?;
        if now.state != record.state {
            return Ok(());
        }
        let withdrawn = match now.state {
            ReplayState::Cancelled => withdraw::unsent(&mut tx, record).await?,
            _ => 0,
        };
        // Looked at behind the lock: what a settle took out it has counted by now.
        let is_through = in_queue(&mut tx, record.id).await? == 0;
        // It is looked at in every turn, and what it waits for can take days.
        if !is_through && withdrawn == 0 {
            return Ok(());
        }
        let mut queued = now
            .queued
            .saturating_sub(u64::try_from(withdrawn).unwrap_or(0));
        let mut skipped = now.skipped;
        if is_through {
            let sent = now.done + now.failed;
            skipped.add(Refusal::SubscriptionDeleted, queued.saturating_sub(sent));
            queued = sent;
            account(&mut skipped, now.state, now.total, sent);
        }
        let state = match now.state {
            ReplayState::Running if is_through => ReplayState::Done,
            state => state,
        };
        sqlx::query(
            "-- postgres::bulk_steps::finish_replay
            update replay
            set state = $3, queued = $4, skipped = $5, finished_at = case when $6 then now() end
            where workspace = $1 and id = $2",
        )
        .bind(workspace)
        .bind(record.id.uuid())
        .bind(state.as_str())
        .bind(i64::try_from(queued).map_err(StoreError::corrupt)?)
        .bind(json(&skipped)?)
        .bind(is_through)
        .execute(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        commit(tx).await
    }
}

fn standing(changed: u64) -> Standing {
    match changed {
        0 => Standing::Deposed,
        _ => Standing::Leads,
    }
}

/// Locks a replay that still stands where it was found, and answers what it has skipped; `None` where it
/// does not. A step that went on without the lock would take what another one holds for in flight, and
/// skip it.
async fn hold(tx: &mut PgTransaction<'_>, running: &Running) -> Result<Option<Skipped>> {
    let held: Option<(String,)> = sqlx::query_as(
        "-- postgres::bulk_steps::hold
        select skipped
        from replay
        where workspace = $1 and id = $2 and state = 'running' and cursor = $3
        for no key update",
    )
    .bind(running.record.reach.workspace.as_str())
    .bind(running.record.id.uuid())
    .bind(json(&running.cursor)?)
    .fetch_optional(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    held.map(|(skipped,)| read(&skipped)).transpose()
}

async fn in_queue(tx: &mut PgTransaction<'_>, id: ReplayId) -> Result<i64> {
    sqlx::query_scalar(
        "-- postgres::bulk_steps::in_queue
        select count(*) from delivery_queue where replay_id = $1",
    )
    .bind(id.uuid())
    .fetch_one(&mut **tx)
    .await
    .map_err(from_sqlx)
}

//! Replays of many: the steps by which a runner takes them forward.

use std::collections::HashMap;

use sqlx::SqliteConnection;

use super::bulk_replay::{find, in_queue, record};
use super::error::store_error;
use super::requeue::Requeue;
use super::rows::{self, count, get, list, millis, read_list, unsigned};
use super::{SqliteStore, backfill, withdraw};
use crate::domain::ids::{DeliveryId, EventId, ReplayId, SubscriptionId};
use crate::domain::replay::Refusal;
use crate::domain::selection::{ReplayState, Skipped};
use crate::store::replays::{Cursor, Running, account};
use crate::store::{PageRequest, Result, Standing, StoreError};

impl SqliteStore {
    pub(super) async fn unfinished(&self, page: PageRequest<ReplayId>) -> Result<Vec<Running>> {
        let rows = sqlx::query(
            "-- sqlite::bulk_steps::unfinished
            select id, workspace, selection, projects, rate, state, total, queued, done, failed,
                skipped, created_by, created_at, finished_at, cursor
            from replay
            where finished_at is null and (?2 is null or id > ?2)
            order by id
            limit ?1",
        )
        .bind(count(page.limit))
        .bind(page.after.map(|id| id.uuid()))
        .fetch_all(&self.readers)
        .await
        .map_err(store_error)?;
        rows.iter()
            .map(|row| {
                Ok(Running {
                    record: record(row)?,
                    cursor: read_list(get(row, "cursor")?)?,
                })
            })
            .collect()
    }

    pub(super) async fn in_queue_of(&self, id: ReplayId) -> Result<HashMap<SubscriptionId, usize>> {
        let rows = sqlx::query(
            "-- sqlite::bulk_steps::in_queue_of
            select subscription_id, count(*) as deliveries
            from delivery_queue
            where replay_id = ?1
            group by subscription_id",
        )
        .bind(id.uuid())
        .fetch_all(&self.readers)
        .await
        .map_err(store_error)?;
        rows.iter()
            .map(|row| {
                Ok((
                    rows::id(row, "subscription_id")?,
                    unsigned(row, "deliveries")?,
                ))
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
        let mut transaction = self.write().await?;
        let changed = sqlx::query(
            "-- sqlite::bulk_steps::note_count
            update replay
            set total = total + ?1, state = ?2, cursor = ?3
            where workspace = ?4 and id = ?5 and state = 'pending' and cursor = ?6",
        )
        .bind(i64::try_from(counted).map_err(StoreError::corrupt)?)
        .bind(state.as_str())
        .bind(list(next)?)
        .bind(running.record.reach.workspace.as_str())
        .bind(running.record.id.uuid())
        .bind(list(&running.cursor)?)
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?
        .rows_affected();
        self.commit(transaction).await?;
        Ok(standing(changed))
    }

    pub(super) async fn advance(
        &self,
        running: &Running,
        deliveries: &[DeliveryId],
        events: &[EventId],
        next: &Cursor,
    ) -> Result<Standing> {
        let record = &running.record;
        let mut transaction = self.write().await?;
        let Some(mut skipped) = stands(&mut transaction, running).await? else {
            return Ok(Standing::Deposed);
        };
        let requeue = Requeue {
            workspace: &record.reach.workspace,
            bulk: Some(record.id),
            now: millis(self.clock.now()),
        };
        let mut queued = 0;
        for answer in requeue.run(&mut transaction, deliveries).await? {
            match answer {
                Ok(_) => queued += 1,
                Err(reason) => skipped.add(reason, 1),
            }
        }
        if let Some(subscription) = record.selection.subscription_id {
            match backfill::make(&mut transaction, &requeue, subscription, events).await? {
                Ok(made) => {
                    queued += made;
                    // Removed, or made by another replay, since they were looked for.
                    let gone =
                        (events.len() as u64).saturating_sub(u64::try_from(made).unwrap_or(0));
                    skipped.add(Refusal::NoLongerSelected, gone);
                }
                Err(reason) => skipped.add(reason, events.len() as u64),
            }
        }
        sqlx::query(
            "-- sqlite::bulk_steps::advance
            update replay
            set cursor = ?1, queued = queued + ?2, skipped = ?3
            where workspace = ?4 and id = ?5",
        )
        .bind(list(next)?)
        .bind(queued)
        .bind(list(&skipped)?)
        .bind(record.reach.workspace.as_str())
        .bind(record.id.uuid())
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        self.commit(transaction).await?;
        Ok(Standing::Leads)
    }

    pub(super) async fn finish_replay(&self, running: &Running) -> Result<()> {
        let (reach, id) = (&running.record.reach, running.record.id);
        let mut transaction = self.write().await?;
        let Some(record) = find(&mut transaction, reach, id).await? else {
            return Ok(());
        };
        if record.finished_at.is_some() {
            return Ok(());
        }
        let (mut queued, mut skipped) = (record.queued, record.skipped.clone());
        let mut withdrawn = 0;
        if record.state == ReplayState::Cancelled {
            withdrawn =
                withdraw::unsent(&mut transaction, &record, millis(self.clock.now())).await?;
            queued = queued.saturating_sub(u64::try_from(withdrawn).unwrap_or(0));
        } else if running.cursor != Cursor::End {
            return Ok(());
        }
        let is_through = in_queue(&mut transaction, id).await? == 0;
        // It is looked at in every turn, and what it waits for can take days.
        if !is_through && withdrawn == 0 {
            return Ok(());
        }
        let state = match record.state {
            ReplayState::Running if is_through => ReplayState::Done,
            state => state,
        };
        if is_through {
            let sent = record.done + record.failed;
            let taken = queued.saturating_sub(sent);
            skipped.add(Refusal::SubscriptionDeleted, taken);
            queued = sent;
            account(&mut skipped, record.state, record.total, sent);
        }
        sqlx::query(
            "-- sqlite::bulk_steps::finish_replay
            update replay
            set state = ?1, queued = ?2, skipped = ?3, finished_at = ?4
            where workspace = ?5 and id = ?6",
        )
        .bind(state.as_str())
        .bind(i64::try_from(queued).map_err(StoreError::corrupt)?)
        .bind(list(&skipped)?)
        .bind(is_through.then(|| millis(self.clock.now())))
        .bind(reach.workspace.as_str())
        .bind(id.uuid())
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        self.commit(transaction).await
    }
}

fn standing(changed: u64) -> Standing {
    match changed {
        0 => Standing::Deposed,
        _ => Standing::Leads,
    }
}

/// What a replay has skipped, if it still stands where it was found.
async fn stands(transaction: &mut SqliteConnection, running: &Running) -> Result<Option<Skipped>> {
    let row = sqlx::query(
        "-- sqlite::bulk_steps::stands
        select skipped
        from replay
        where workspace = ?1 and id = ?2 and state = 'running' and cursor = ?3",
    )
    .bind(running.record.reach.workspace.as_str())
    .bind(running.record.id.uuid())
    .bind(list(&running.cursor)?)
    .fetch_optional(transaction)
    .await
    .map_err(store_error)?;
    row.map(|row| read_list(get(&row, "skipped")?)).transpose()
}

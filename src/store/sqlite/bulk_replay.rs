//! Replays of many: their rows. What a runner does with them is in `bulk_steps`.

use chrono::SubsecRound;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::audit::tell;
use super::error::store_error;
use super::idempotency::remember;
use super::rows::{
    count, get, id, list, millis, optional_time, parsed, projects, read_list, time, unsigned,
};
use super::{SqliteStore, withdraw};
use crate::domain::audit::{Act, Action};
use crate::domain::ids::{ProjectId, ReplayId};
use crate::domain::reach::Reach;
use crate::domain::selection::{ReplayState, Skipped};
use crate::store::replays::{Cancelled, Cursor, MAX_UNFINISHED, NewReplay, ReplayRecord};
use crate::store::{Creation, Idempotency, Page, PageRequest, Result, StoreError};

impl SqliteStore {
    pub(super) async fn begin_replay(
        &self,
        reach: &Reach,
        new: &NewReplay,
        act: &Act,
        once: Option<&Idempotency>,
    ) -> Result<Option<Creation<ReplayRecord>>> {
        let mut transaction = self.write().await?;
        let now = self.clock.now();
        let object = new.id.to_string();
        let known = remember(&mut transaction, &reach.workspace, once, &object, now).await?;
        if let Some(known) = known {
            return Ok(Some(known));
        }
        if under_way(&mut transaction, reach).await? >= MAX_UNFINISHED {
            return Ok(None);
        }
        let record = ReplayRecord {
            id: new.id,
            reach: reach.clone(),
            selection: new.selection.clone(),
            rate: new.rate,
            state: ReplayState::Pending,
            total: 0,
            queued: 0,
            done: 0,
            failed: 0,
            skipped: Skipped::default(),
            created_by: act.actor,
            // As it is kept: to the millisecond.
            created_at: now.trunc_subsecs(3),
            finished_at: None,
        };
        insert(&mut transaction, &record).await?;
        tell(&mut transaction, act.made(Action::ReplayCreated, &record)).await?;
        self.commit(transaction).await?;
        Ok(Some(Creation::Created(record)))
    }

    pub(super) async fn list_replays(
        &self,
        reach: &Reach,
        page: PageRequest<ReplayId>,
    ) -> Result<Page<ReplayRecord, ReplayId>> {
        let rows = sqlx::query(
            "-- sqlite::bulk_replay::list_replays
            select id, workspace, selection, projects, rate, state, total, queued, done, failed,
                skipped, created_by, created_at, finished_at
            from replay
            where workspace = ?1
                and (?2 is null or (projects is not null and not exists (
                    select 1 from json_each(projects) as own
                    where own.value not in (select value from json_each(?2))
                )))
                and (?3 is null or id < ?3)
            order by id desc
            limit ?4",
        )
        .bind(reach.workspace.as_str())
        .bind(projects(reach)?)
        .bind(page.after.map(|id| id.uuid()))
        .bind(count(page.limit.saturating_add(1)))
        .fetch_all(&self.readers)
        .await
        .map_err(store_error)?;
        let items = rows.iter().map(record).collect::<Result<_>>()?;
        Ok(Page::of(items, page.limit, |record: &ReplayRecord| {
            record.id
        }))
    }

    pub(super) async fn end_replay(
        &self,
        reach: &Reach,
        id: ReplayId,
        act: &Act,
    ) -> Result<Option<Cancelled>> {
        let mut transaction = self.write().await?;
        let Some(before) = find(&mut transaction, reach, id).await? else {
            return Ok(None);
        };
        match before.state {
            ReplayState::Done => return Ok(Some(Cancelled::TooLate)),
            ReplayState::Cancelled => return Ok(Some(Cancelled::Done(Box::new(before)))),
            ReplayState::Pending | ReplayState::Running => {}
        }
        let withdrawn =
            withdraw::unsent(&mut transaction, &before, millis(self.clock.now())).await?;
        let left = in_queue(&mut transaction, id).await?;
        let now = millis(self.clock.now());
        sqlx::query(
            "-- sqlite::bulk_replay::end_replay
            update replay
            set state = 'cancelled', queued = queued - ?1, finished_at = ?2
            where workspace = ?3 and id = ?4",
        )
        .bind(withdrawn)
        .bind((left == 0).then_some(now))
        .bind(reach.workspace.as_str())
        .bind(id.uuid())
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        let after = find(&mut transaction, reach, id).await?;
        let after = after.ok_or_else(|| StoreError::corrupt("a replay is gone"))?;
        let entry = act.changed(Action::ReplayCancelled, &before, &after);
        tell(&mut transaction, entry).await?;
        self.commit(transaction).await?;
        Ok(Some(Cancelled::Done(Box::new(after))))
    }
}

async fn under_way(transaction: &mut SqliteConnection, reach: &Reach) -> Result<usize> {
    let row = sqlx::query(
        "-- sqlite::bulk_replay::under_way
        select count(*) as unfinished from replay where workspace = ?1 and finished_at is null",
    )
    .bind(reach.workspace.as_str())
    .fetch_one(transaction)
    .await
    .map_err(store_error)?;
    unsigned(&row, "unfinished")
}

pub(super) async fn in_queue(transaction: &mut SqliteConnection, id: ReplayId) -> Result<i64> {
    sqlx::query_scalar(
        "-- sqlite::bulk_replay::in_queue
        select count(*) from delivery_queue where replay_id = ?1",
    )
    .bind(id.uuid())
    .fetch_one(transaction)
    .await
    .map_err(store_error)
}

async fn insert(transaction: &mut SqliteConnection, new: &ReplayRecord) -> Result<()> {
    sqlx::query(
        "-- sqlite::bulk_replay::insert
        insert into replay (workspace, id, selection, projects, rate, state, cursor, created_by,
            created_at)
        values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )
    .bind(new.reach.workspace.as_str())
    .bind(new.id.uuid())
    .bind(list(&new.selection)?)
    .bind(projects(&new.reach)?)
    .bind(new.rate)
    .bind(new.state.as_str())
    .bind(list(&Cursor::START)?)
    .bind(new.created_by.to_string())
    .bind(millis(new.created_at))
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}

pub(super) async fn find(
    connection: &mut SqliteConnection,
    reach: &Reach,
    id: ReplayId,
) -> Result<Option<ReplayRecord>> {
    sqlx::query(
        "-- sqlite::bulk_replay::find
        select id, workspace, selection, projects, rate, state, total, queued, done, failed, skipped,
            created_by, created_at, finished_at
        from replay
        where workspace = ?1 and id = ?2
            and (?3 is null or (projects is not null and not exists (
                select 1 from json_each(projects) as own
                where own.value not in (select value from json_each(?3))
            )))",
    )
    .bind(reach.workspace.as_str())
    .bind(id.uuid())
    .bind(projects(reach)?)
    .fetch_optional(connection)
    .await
    .map_err(store_error)?
    .as_ref()
    .map(record)
    .transpose()
}

pub(super) fn record(row: &SqliteRow) -> Result<ReplayRecord> {
    let projects: Option<Vec<ProjectId>> = get::<Option<&str>>(row, "projects")?
        .map(read_list)
        .transpose()?;
    Ok(ReplayRecord {
        id: id(row, "id")?,
        reach: Reach {
            workspace: parsed(row, "workspace")?,
            projects,
        },
        selection: read_list(get(row, "selection")?)?,
        rate: unsigned(row, "rate")?,
        state: parsed(row, "state")?,
        total: unsigned(row, "total")?,
        queued: unsigned(row, "queued")?,
        done: unsigned(row, "done")?,
        failed: unsigned(row, "failed")?,
        skipped: read_list(get(row, "skipped")?)?,
        created_by: parsed(row, "created_by")?,
        created_at: time(row, "created_at")?,
        finished_at: optional_time(row, "finished_at")?,
    })
}

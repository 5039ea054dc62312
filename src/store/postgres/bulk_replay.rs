//! Replays of many: their rows. A step locks the replay's row first, and after that waits for nobody
//! (what another transaction holds is passed over), so that settles, which lock it last, never stand in
//! a circle with it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::{FromRow, PgConnection, PgTransaction};
use uuid::Uuid;

use super::audit::tell;
use super::errors::{expect_rows, from_sqlx};
use super::idempotency::remember;
use super::requeue::Requeue;
use super::rows::{limit, parse, projects};
use super::{PostgresStore, Result, StoreError, backfill, commit, withdraw};
use crate::domain::audit::{Act, Action, Actor};
use crate::domain::ids::{DeliveryId, EventId, ProjectId, ReplayId};
use crate::domain::reach::Reach;
use crate::domain::replay::Refusal;
use crate::domain::selection::{ReplayState, Skipped};
use crate::store::replays::{
    Cancelled, Cursor, MAX_IN_QUEUE, MAX_UNFINISHED, NewReplay, ReplayRecord, Running,
};
use crate::store::{Creation, Idempotency, Page, PageRequest, Standing};

/// The columns of [`ReplayRow`].
macro_rules! replay_columns {
    () => {
        "id, workspace, selection, projects, rate, state, cursor, total, queued, done, failed,
                skipped, created_by, created_at, finished_at"
    };
}

impl PostgresStore {
    pub(super) async fn begin_replay(
        &self,
        reach: &Reach,
        new: &NewReplay,
        act: &Act,
        once: Option<&Idempotency>,
    ) -> Result<Option<Creation<ReplayRecord>>> {
        let mut tx = self.begin().await?;
        let object = new.id.to_string();
        if let Some(known) = remember(&mut tx, &reach.workspace, once, &object).await? {
            return Ok(Some(known));
        }
        if under_way(&mut tx, reach).await? >= limit(MAX_UNFINISHED) {
            return Ok(None);
        }
        let row: ReplayRow = sqlx::query_as(concat!(
            "-- postgres::bulk_replay::begin_replay
            insert into replay (workspace, id, selection, projects, rate, state, cursor, created_by)
            values ($1, $2, $3, $4, $5, 'pending', $6, $7)
            returning ",
            replay_columns!(),
        ))
        .bind(reach.workspace.as_str())
        .bind(new.id.uuid())
        .bind(json(&new.selection)?)
        .bind(projects(reach))
        .bind(i64::from(new.rate))
        .bind(json(&Cursor::START)?)
        .bind(act.actor.to_string())
        .fetch_one(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        let record = row.into_record()?;
        tell(&mut tx, act.made(Action::ReplayCreated, &record)).await?;
        commit(tx).await?;
        Ok(Some(Creation::Created(record)))
    }

    pub(super) async fn list_replays(
        &self,
        reach: &Reach,
        page: PageRequest<ReplayId>,
    ) -> Result<Page<ReplayRecord, ReplayId>> {
        let rows: Vec<ReplayRow> = sqlx::query_as(concat!(
            "-- postgres::bulk_replay::list_replays
            select ",
            replay_columns!(),
            "
            from replay
            where workspace = $1
              and ($2::text[] is null or projects <@ $2)
              and ($3::uuid is null or id < $3)
            order by id desc
            limit $4",
        ))
        .bind(reach.workspace.as_str())
        .bind(projects(reach))
        .bind(page.after.map(|id| id.uuid()))
        .bind(limit(page.limit.saturating_add(1)))
        .fetch_all(&self.pool)
        .await
        .map_err(from_sqlx)?;
        let items = rows
            .into_iter()
            .map(ReplayRow::into_record)
            .collect::<Result<_>>()?;
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
        let mut tx = self.begin().await?;
        let Some(before) = find(&mut tx, reach, id).await? else {
            return Ok(None);
        };
        match before.state {
            ReplayState::Done => return Ok(Some(Cancelled::TooLate)),
            ReplayState::Cancelled => return Ok(Some(Cancelled::Done(Box::new(before)))),
            ReplayState::Pending | ReplayState::Running => {}
        }
        let withdrawn = withdraw::unsent(&mut tx, &before).await?;
        // What a step that is not committed yet puts into the queue is taken out when it settles: so
        // it is not finished here.
        let row: Option<ReplayRow> = sqlx::query_as(concat!(
            "-- postgres::bulk_replay::end_replay
            update replay
            set state = 'cancelled', queued = queued - $3
            where workspace = $1 and id = $2 and state in ('pending', 'running')
            returning ",
            replay_columns!(),
        ))
        .bind(reach.workspace.as_str())
        .bind(id.uuid())
        .bind(withdrawn)
        .fetch_optional(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        let Some(row) = row else {
            // Another call, or the end, was first: it is looked at again.
            let first = std::io::Error::other("the replay ended meanwhile");
            return Err(StoreError::Unavailable(sqlx::Error::Io(first)));
        };
        let after = row.into_record()?;
        let entry = act.changed(Action::ReplayCancelled, &before, &after);
        tell(&mut tx, entry).await?;
        commit(tx).await?;
        Ok(Some(Cancelled::Done(Box::new(after))))
    }

    pub(super) async fn unfinished(&self, most: usize) -> Result<Vec<Running>> {
        #[derive(FromRow)]
        struct RunningRow {
            #[sqlx(flatten)]
            replay: ReplayRow,
            in_queue: i64,
        }
        let rows: Vec<RunningRow> = sqlx::query_as(concat!(
            "-- postgres::bulk_replay::unfinished
            select ",
            replay_columns!(),
            ",
                (
                    select count(*)
                    from (
                        select from delivery_queue q where q.replay_id = replay.id limit $2
                    ) as queued
                ) as in_queue
            from replay
            where finished_at is null
            order by id
            limit $1",
        ))
        .bind(limit(most))
        .bind(limit(MAX_IN_QUEUE))
        .fetch_all(&self.pool)
        .await
        .map_err(from_sqlx)?;
        rows.into_iter()
            .map(|row| {
                Ok(Running {
                    cursor: read(&row.replay.cursor)?,
                    record: row.replay.into_record()?,
                    in_queue: usize::try_from(row.in_queue).map_err(StoreError::corrupt)?,
                })
            })
            .collect()
    }

    pub(super) async fn note_count(
        &self,
        running: &Running,
        counted: u64,
        next: Cursor,
    ) -> Result<Standing> {
        let (state, next) = match next {
            Cursor::End => (ReplayState::Running, Cursor::START),
            next => (ReplayState::Pending, next),
        };
        let noted = sqlx::query(
            "-- postgres::bulk_replay::note_count
            update replay
            set total = total + $4, state = $5, cursor = $6
            where workspace = $1 and id = $2 and state = 'pending' and cursor = $3",
        )
        .bind(running.record.reach.workspace.as_str())
        .bind(running.record.id.uuid())
        .bind(json(&running.cursor)?)
        .bind(i64::try_from(counted).map_err(StoreError::corrupt)?)
        .bind(state.as_str())
        .bind(json(&next)?)
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
        next: Cursor,
    ) -> Result<Standing> {
        let record = &running.record;
        let requeue = Requeue {
            workspace: &record.reach.workspace,
            bulk: Some(record.id),
        };
        let mut tx = self.begin().await?;
        if !hold(&mut tx, running).await? {
            return Ok(Standing::Deposed);
        }
        let mut skipped = record.skipped.clone();
        let mut queued = 0;
        for answer in requeue.run(&mut tx, deliveries).await? {
            match answer {
                Ok(_) => queued += 1,
                Err(reason) => skipped.add(reason, 1),
            }
        }
        if let Some(subscription) = record.selection.subscription_id {
            match backfill::make(&mut tx, &requeue, subscription, events).await? {
                Ok(made) => queued += made,
                Err(reason) => skipped.add(reason, events.len() as u64),
            }
        }
        let moved = sqlx::query(
            "-- postgres::bulk_replay::advance
            update replay
            set cursor = $3, queued = queued + $4, skipped = $5
            where workspace = $1 and id = $2",
        )
        .bind(record.reach.workspace.as_str())
        .bind(record.id.uuid())
        .bind(json(&next)?)
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
        let mut tx = self.begin().await?;
        let withdrawn = match record.state {
            ReplayState::Cancelled => withdraw::unsent(&mut tx, record).await?,
            ReplayState::Running if running.cursor == Cursor::End => 0,
            _ => return Ok(()),
        };
        let row: Option<ReplayRow> = sqlx::query_as(concat!(
            "-- postgres::bulk_replay::finish_replay (look)
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
        // Looked at behind the lock: what a settle took out it has counted by now.
        let is_through = in_queue(&mut tx, record.id).await? == 0;
        let mut queued = now
            .queued
            .saturating_sub(u64::try_from(withdrawn).unwrap_or(0));
        let mut skipped = now.skipped;
        if is_through {
            let sent = now.done + now.failed;
            skipped.add(Refusal::SubscriptionDeleted, queued.saturating_sub(sent));
            queued = sent;
        }
        let state = match now.state {
            ReplayState::Running if is_through => ReplayState::Done,
            state => state,
        };
        sqlx::query(
            "-- postgres::bulk_replay::finish_replay
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

/// Locks a replay that still stands where it was found; `false` where it does not. A step that went on
/// without the lock would take what another one holds for in flight, and skip it.
async fn hold(tx: &mut PgTransaction<'_>, running: &Running) -> Result<bool> {
    let held = sqlx::query(
        "-- postgres::bulk_replay::hold
        select
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
    Ok(held.is_some())
}

async fn under_way(tx: &mut PgTransaction<'_>, reach: &Reach) -> Result<i64> {
    sqlx::query_scalar(
        "-- postgres::bulk_replay::under_way
        select count(*) from replay where workspace = $1 and finished_at is null",
    )
    .bind(reach.workspace.as_str())
    .fetch_one(&mut **tx)
    .await
    .map_err(from_sqlx)
}

async fn in_queue(tx: &mut PgTransaction<'_>, id: ReplayId) -> Result<i64> {
    sqlx::query_scalar(
        "-- postgres::bulk_replay::in_queue
        select count(*) from delivery_queue where replay_id = $1",
    )
    .bind(id.uuid())
    .fetch_one(&mut **tx)
    .await
    .map_err(from_sqlx)
}

pub(super) async fn find(
    connection: &mut PgConnection,
    reach: &Reach,
    id: ReplayId,
) -> Result<Option<ReplayRecord>> {
    let row: Option<ReplayRow> = sqlx::query_as(concat!(
        "-- postgres::bulk_replay::find
        select ",
        replay_columns!(),
        "
        from replay
        where workspace = $1 and id = $2 and ($3::text[] is null or projects <@ $3)",
    ))
    .bind(reach.workspace.as_str())
    .bind(id.uuid())
    .bind(projects(reach))
    .fetch_optional(connection)
    .await
    .map_err(from_sqlx)?;
    row.map(ReplayRow::into_record).transpose()
}

#[derive(FromRow)]
struct ReplayRow {
    id: Uuid,
    workspace: String,
    selection: String,
    projects: Option<Vec<String>>,
    rate: i64,
    state: String,
    cursor: String,
    total: i64,
    queued: i64,
    done: i64,
    failed: i64,
    skipped: String,
    created_by: String,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

impl ReplayRow {
    fn into_record(self) -> Result<ReplayRecord> {
        let projects: Option<Vec<ProjectId>> = self
            .projects
            .map(|projects| {
                let projects = projects.iter();
                projects
                    .map(|text| parse("replay.projects", text))
                    .collect()
            })
            .transpose()?;
        let skipped: Skipped = read(&self.skipped)?;
        Ok(ReplayRecord {
            id: ReplayId::from_uuid(self.id),
            reach: Reach {
                workspace: parse("replay.workspace", &self.workspace)?,
                projects,
            },
            selection: read(&self.selection)?,
            rate: u32::try_from(self.rate).map_err(StoreError::corrupt)?,
            state: parse("replay.state", &self.state)?,
            total: number(self.total)?,
            queued: number(self.queued)?,
            done: number(self.done)?,
            failed: number(self.failed)?,
            skipped,
            created_by: parse::<Actor>("replay.created_by", &self.created_by)?,
            created_at: self.created_at,
            finished_at: self.finished_at,
        })
    }
}

fn number(value: i64) -> Result<u64> {
    u64::try_from(value).map_err(StoreError::corrupt)
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(StoreError::corrupt)
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(StoreError::corrupt)
}

//! Replays of many: their rows. What a runner does with them is in `bulk_steps`.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::{FromRow, PgConnection, PgTransaction};
use uuid::Uuid;

use super::audit::tell;
use super::errors::from_sqlx;
use super::idempotency::remember;
use super::rows::{limit, parse, projects};
use super::{PostgresStore, Result, StoreError, commit, withdraw};
use crate::domain::audit::{Act, Action, Actor};
use crate::domain::ids::{ProjectId, ReplayId};
use crate::domain::reach::Reach;
use crate::domain::selection::{ReplayState, Skipped};
use crate::store::replays::{Cancelled, Cursor, MAX_UNFINISHED, NewReplay, ReplayRecord};
use crate::store::{Creation, Idempotency, Page, PageRequest};

/// The advisory locks of workspaces' beginning replays: hashes of their ids are beside it.
const BEGIN_LOCK: i32 = 0x7265_706c;

/// The columns of [`ReplayRow`].
macro_rules! replay_columns {
    () => {
        "id, workspace, selection, projects, rate, state, cursor, total, queued, done, failed,
                skipped, created_by, created_at, finished_at"
    };
}
pub(super) use replay_columns;

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
        take_turn(&mut tx, reach).await?;
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
        // Before its deliveries, as its steps do it. What another process has in hand of it is taken
        // out when it settles: so it is not finished here.
        sqlx::query(
            "-- postgres::bulk_replay::end_replay (hold)
            select from replay where workspace = $1 and id = $2 for no key update",
        )
        .bind(reach.workspace.as_str())
        .bind(id.uuid())
        .execute(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        let withdrawn = withdraw::unsent(&mut tx, &before).await?;
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
}

/// Waits for others of this workspace that begin one, so that each counts what the one before began.
async fn take_turn(tx: &mut PgTransaction<'_>, reach: &Reach) -> Result<()> {
    sqlx::query(
        "-- postgres::bulk_replay::take_turn
        select pg_advisory_xact_lock($1, hashtext($2))",
    )
    .bind(BEGIN_LOCK)
    .bind(reach.workspace.as_str())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
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
pub(super) struct ReplayRow {
    id: Uuid,
    workspace: String,
    selection: String,
    projects: Option<Vec<String>>,
    rate: i64,
    state: String,
    pub(super) cursor: String,
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
    pub(super) fn into_record(self) -> Result<ReplayRecord> {
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

pub(super) fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(StoreError::corrupt)
}

pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(StoreError::corrupt)
}

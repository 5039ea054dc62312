//! Projects that come back after they were deleted. What belongs to them was hidden meanwhile: what
//! changed of it by then changes once more, for those who ask for what changed since they last looked.

use chrono::{DateTime, Utc};
use sqlx::PgTransaction;
use sqlx::postgres::PgBindIterExt;

use super::Result;
use super::errors::from_sqlx;
use super::rows::interval;
use super::snapshots::News;
use crate::store::snapshots::LONGEST_WRITE;

/// A project that comes back with this transaction.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Returned {
    workspace: String,
    project: String,
    /// When it was deleted.
    since: DateTime<Utc>,
}

/// Those of these projects that come back, held to the end of the transaction.
pub(super) async fn returning(
    tx: &mut PgTransaction<'_>,
    news: &[&News<'_>],
) -> Result<Vec<Returned>> {
    let back = || news.iter().filter(|news| !news.is_deletion());
    if back().next().is_none() {
        return Ok(Vec::new());
    }
    sqlx::query_as(
        "-- postgres::returns::returning
        select told.workspace, told.id as project, known.deleted_at as since
        from (
            select
                unnest($1::text[]) as workspace,
                unnest($2::text[]) as id,
                unnest($3::bigint[]) as version
        ) as told
        cross join lateral (
            select deleted_at
            from project
            where workspace = told.workspace and id = told.id
              and deleted_at is not null and version < told.version
            limit 1
            for update
        ) as known",
    )
    .bind(back().map(|news| news.workspace()).bind_iter())
    .bind(back().map(|news| news.id()).bind_iter())
    .bind(back().map(|news| news.version()).bind_iter())
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)
}

/// The editions that changed while these projects were away: workspaces and ids.
pub(super) async fn changed_meanwhile(
    tx: &mut PgTransaction<'_>,
    returned: &[Returned],
) -> Result<Vec<(String, String)>> {
    if returned.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query_as(
        "-- postgres::returns::changed_meanwhile
        select back.workspace, changed.id
        from (
            select
                unnest($1::text[]) as workspace,
                unnest($2::text[]) as project,
                unnest($3::timestamptz[]) as since
        ) as back
        cross join lateral (
            select id
            from edition
            where workspace = back.workspace and project = back.project
              and version is not null and deleted_at is null
              and changed_at >= back.since - $4::interval
            order by changed_at, id
        ) as changed",
    )
    .bind(
        returned
            .iter()
            .map(|back| back.workspace.as_str())
            .bind_iter(),
    )
    .bind(
        returned
            .iter()
            .map(|back| back.project.as_str())
            .bind_iter(),
    )
    .bind(returned.iter().map(|back| back.since).bind_iter())
    .bind(interval(LONGEST_WRITE))
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)
}

/// Changes them, all of which are held. Those that others changed since they were looked for are
/// there by now, since the clock is ours: whoever holds one still changes it after us.
pub(super) async fn tell(tx: &mut PgTransaction<'_>, returned: &[Returned]) -> Result<()> {
    if returned.is_empty() {
        return Ok(());
    }
    let now: DateTime<Utc> = sqlx::query_scalar(
        "-- postgres::returns::tell (clock)
        update edition_clock
        set last = greatest(last + interval '1 millisecond', clock_timestamp())
        returning last",
    )
    .fetch_one(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    for back in returned {
        sqlx::query(
            "-- postgres::returns::tell
            update edition
            set changed_at = $4, revision = revision + 1
            where workspace = $1 and id = any(array(
                select id
                from edition
                where workspace = $1 and project = $2
                  and version is not null and deleted_at is null
                  and changed_at >= $3 - $5::interval
                order by changed_at, id
                for update skip locked
            ))",
        )
        .bind(&back.workspace)
        .bind(&back.project)
        .bind(back.since)
        .bind(now)
        .bind(interval(LONGEST_WRITE))
        .execute(&mut **tx)
        .await
        .map_err(from_sqlx)?;
    }
    Ok(())
}

//! What webhook events change in the read model, in their accept's transaction.
//!
//! What is told is remembered before the events are written, since that waits for other accepts, in
//! the order of the keys; by the same statement, where nothing else is locked between. What can be seen of it gets its time behind them: the clock of editions comes
//! last, for as short as can be, and an accept of which nothing can be seen does not wait for it.

use sqlx::postgres::{PgArguments, PgBindIterExt};
use sqlx::query::QueryAs;
use sqlx::{PgTransaction, Postgres};

use super::Result;
use super::answers::answered;
use super::errors::from_sqlx;
use crate::domain::edition::EditionStatus;
use crate::store::projection::{Made, MovedEditions, Moves};

/// Editions, by workspace and id, in which what is told can be seen.
pub(super) type Shown = Vec<(String, String)>;

/// Remembers what is told and holds those rows, in the order of their keys, to the end of the
/// transaction; also those that knew of something later. Answers what is to be [shown](show).
pub(super) async fn remember(tx: &mut PgTransaction<'_>, moves: &Moves<'_>) -> Result<Shown> {
    let shown = if moves.editions.is_empty() {
        Shown::new()
    } else {
        remember_editions(tx, &moves.editions).await?
    };
    if !moves.outputs.is_empty() {
        remember_outputs(tx, moves).await?;
    }
    Ok(shown)
}

/// Holds the rows of editions, which are given in the order of their keys. What has none gets one that
/// no reader sees. (`where false` changes nothing; what would have been changed is locked all the
/// same.)
pub(super) async fn hold_editions(
    tx: &mut PgTransaction<'_>,
    editions: &[(&str, &str)],
) -> Result<()> {
    sqlx::query(
        "-- postgres::projection::hold_editions
        insert into edition (workspace, id, revision, changed_at)
        select unnest($1::text[]), unnest($2::text[]), 0, to_timestamp(0)
        on conflict on constraint edition_pk do update
        set revision = edition.revision
        where false",
    )
    .bind(editions.iter().map(|(workspace, _)| *workspace).bind_iter())
    .bind(editions.iter().map(|(_, id)| *id).bind_iter())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

/// Writes what is told of editions, the first five of a statement's values ([`bind_editions`]), and holds
/// their rows in the order given. What an edition's newest snapshot states later than the event does hides
/// it; and what has no snapshot no reader sees.
macro_rules! remembered {
    () => {
        "remembered as (
            insert into edition (workspace, id, revision, changed_at, told_status, told_at, told_by)
            select
                unnest($1::text[]), unnest($2::text[]), 0, to_timestamp(0), unnest($3::text[]),
                unnest($4::timestamptz[]), unnest($5::text[])
            on conflict on constraint edition_pk do update
            set told_status = excluded.told_status,
                told_at = excluded.told_at,
                told_by = excluded.told_by
            where edition.told_at is null
               or (excluded.told_at, excluded.told_by, excluded.told_status)
                   > (edition.told_at, edition.told_by, edition.told_status)
            returning workspace, id, told_at > stated_at as is_shown
        )"
    };
}
pub(super) use remembered;

/// The values of `remembered!`.
pub(super) fn bind_editions<'q, Row>(
    statement: QueryAs<'q, Postgres, Row, PgArguments>,
    editions: &'q MovedEditions<'_>,
) -> QueryAs<'q, Postgres, Row, PgArguments> {
    let told = || editions.values();
    statement
        .bind(
            editions
                .keys()
                .map(|(workspace, _)| workspace.as_str())
                .bind_iter(),
        )
        .bind(editions.keys().map(|(_, id)| id.as_str()).bind_iter())
        .bind(
            told()
                .map(|told| told.status.as_ref().map(EditionStatus::as_str))
                .bind_iter(),
        )
        .bind(told().map(|told| told.at).bind_iter())
        .bind(told().map(|told| told.by).bind_iter())
}

async fn remember_editions(
    tx: &mut PgTransaction<'_>,
    editions: &MovedEditions<'_>,
) -> Result<Shown> {
    let statement = sqlx::query_as(concat!(
        "-- postgres::projection::remember_editions
        with ",
        remembered!(),
        "
        select workspace, id from remembered where is_shown order by workspace, id",
    ));
    bind_editions(statement, editions)
        .fetch_all(&mut **tx)
        .await
        .map_err(from_sqlx)
}

/// Raises the revisions of what is shown, and moves it to the end of the changes; all of it is held.
/// The clock is the last thing that a transaction waits for.
pub(super) async fn show(tx: &mut PgTransaction<'_>, shown: &Shown) -> Result<()> {
    if shown.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "-- postgres::projection::show
        with tick as (
            update edition_clock
            set last = greatest(last + interval '1 millisecond', clock_timestamp())
            returning last
        )
        insert into edition (workspace, id, revision, changed_at)
        select shown.workspace, shown.id, 0, tick.last
        from tick
        cross join (select unnest($1::text[]) as workspace, unnest($2::text[]) as id) as shown
        on conflict on constraint edition_pk do update
        set revision = edition.revision + 1, changed_at = excluded.changed_at",
    )
    .bind(
        shown
            .iter()
            .map(|(workspace, _)| workspace.as_str())
            .bind_iter(),
    )
    .bind(shown.iter().map(|(_, id)| id.as_str()).bind_iter())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

async fn remember_outputs(tx: &mut PgTransaction<'_>, moves: &Moves<'_>) -> Result<()> {
    let told = || moves.outputs.values();
    sqlx::query(
        "-- postgres::projection::remember_outputs
        insert into output (workspace, id, revision, told_at, told_by)
        select
            unnest($1::text[]), unnest($2::text[]), 0, unnest($3::timestamptz[]),
            unnest($4::text[])
        on conflict on constraint output_pk do update
        set told_at = excluded.told_at,
            told_by = excluded.told_by,
            revision = output.revision
                + case when excluded.told_at > output.stated_at then 1 else 0 end
        where output.told_at is null
           or (excluded.told_at, excluded.told_by) > (output.told_at, output.told_by)",
    )
    .bind(
        moves
            .outputs
            .keys()
            .map(|(workspace, _)| workspace.as_str())
            .bind_iter(),
    )
    .bind(moves.outputs.keys().map(|(_, id)| id.as_str()).bind_iter())
    .bind(told().map(|told| told.at).bind_iter())
    .bind(told().map(|told| told.by).bind_iter())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

/// Makes the jobs that take files of the core's: not of those that were taken already, unless they were
/// asked for again. Their outputs are held, so that nobody else is at their jobs. Answers how many were
/// made.
pub(super) async fn fetch(tx: &mut PgTransaction<'_>, moves: &Moves<'_>) -> Result<u64> {
    let made: Vec<_> = moves.files().collect();
    if made.is_empty() {
        return Ok(0);
    }
    let jobs = sqlx::query(
        "-- postgres::projection::fetch
        insert into output_job (workspace, output, task, url, visible_at, epoch, tries)
        select made.workspace, made.id, 'fetch', made.url, clock_timestamp(), 0, 0
        from (
            select
                unnest($1::text[]) as workspace,
                unnest($2::text[]) as id,
                unnest($3::timestamptz[]) as at,
                unnest($4::text[]) as by,
                unnest($5::text[]) as url
        ) as made
        cross join lateral (
            select 1
            from output
            where output.workspace = made.workspace
              and output.id = made.id
              -- As it is kept: in whole milliseconds.
              and output.told_at = made.at::timestamptz(3)
              and output.told_by = made.by
              and output.deleted_at is null
              and coalesce(output.format, '') not in ('csv', 'xlsx')
            limit 1
        ) as latest
        where not exists (
                  select 1
                  from output_file file
                  where file.workspace = made.workspace
                    and file.output = made.id
                    and file.url = made.url
              )
           or exists (
                  select 1
                  from output_job asked
                  where asked.workspace = made.workspace
                    and asked.output = made.id
                    and asked.task = 'ask'
              )
        on conflict on constraint output_job_pk do update
        set task = excluded.task,
            url = excluded.url,
            visible_at = excluded.visible_at,
            owner = null,
            epoch = output_job.epoch + 1,
            tries = 0,
            looks = 0
        where output_job.url is distinct from excluded.url",
    )
    .bind(made.iter().map(|made| made.workspace.as_str()).bind_iter())
    .bind(made.iter().map(|made| made.id.as_str()).bind_iter())
    .bind(made.iter().map(|made| made.told.at).bind_iter())
    .bind(made.iter().map(|made| made.told.by).bind_iter())
    .bind(made.iter().map(|made| made.url).bind_iter())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    confirm_files(tx, &made).await?;
    queue_outputs(tx, &made).await?;
    Ok(jobs.rows_affected())
}

/// Leaves these files with the core: that it made them is all that there is to know.
pub(super) async fn leave(tx: &mut PgTransaction<'_>, moves: &Moves<'_>) -> Result<()> {
    let made = moves.files();
    answered(
        tx,
        made.map(|made| (made.workspace.as_str(), made.id.as_str())),
    )
    .await
}

/// A file that was taken already is the one that is told of now.
async fn confirm_files(tx: &mut PgTransaction<'_>, made: &[Made<'_>]) -> Result<()> {
    sqlx::query(
        "-- postgres::projection::confirm_files
        update output_file
        set generated_at = greatest(output_file.generated_at, made.at)
        from (
            select
                unnest($1::text[]) as workspace,
                unnest($2::text[]) as id,
                unnest($3::timestamptz[]) as at,
                unnest($4::text[]) as url
        ) as made
        where output_file.workspace = made.workspace
          and output_file.output = made.id
          and output_file.url = made.url",
    )
    .bind(made.iter().map(|made| made.workspace.as_str()).bind_iter())
    .bind(made.iter().map(|made| made.id.as_str()).bind_iter())
    .bind(made.iter().map(|made| made.told.at).bind_iter())
    .bind(made.iter().map(|made| made.url).bind_iter())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

/// Until the file is here, it is under way.
async fn queue_outputs(tx: &mut PgTransaction<'_>, made: &[Made<'_>]) -> Result<()> {
    sqlx::query(
        "-- postgres::projection::queue_outputs
        update output
        set stated_status = case when job.tries = 0 then 'queued' else 'generating' end,
            stated_at = greatest(output.stated_at, output.told_at),
            failure = null,
            revision = output.revision + 1
        from (
            select
                unnest($1::text[]) as workspace,
                unnest($2::text[]) as id,
                unnest($3::text[]) as url
        ) as made
        cross join lateral (
            select tries
            from output_job
            where output_job.workspace = made.workspace
              and output_job.output = made.id
              and output_job.url = made.url
            limit 1
        ) as job
        where output.workspace = made.workspace
          and output.id = made.id
          and output.version is not null",
    )
    .bind(made.iter().map(|made| made.workspace.as_str()).bind_iter())
    .bind(made.iter().map(|made| made.id.as_str()).bind_iter())
    .bind(made.iter().map(|made| made.url).bind_iter())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

//! What webhook events change in the read model, in their accept's transaction.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::SqliteConnection;

use super::bulk::{self, Bulk};
use super::rows::{millis, parsed};
use super::snapshots::tick;
use crate::domain::edition::EditionStatus;
use crate::domain::ids::ProjectId;
use crate::domain::payload::Payload;
use crate::store::Result;
use crate::store::projection::{EditionOf, Moves, attributed, unattributed};

/// The events, those that say no project with that of their edition where it is known; `None` where
/// there is nothing to add.
pub(super) async fn attribute(
    transaction: &mut SqliteConnection,
    events: &[Arc<Payload>],
) -> Result<Option<Vec<Arc<Payload>>>> {
    static SELECT: Bulk = Bulk::new(
        "-- sqlite::projection::attribute
        select workspace, id, project
        from edition
        where project is not null and (workspace, id) in (values ",
        "(?, ?)",
        ")",
    );
    let asked = unattributed(events);
    if asked.is_empty() {
        return Ok(None);
    }
    let statements = SELECT.statements(
        &asked,
        |statement, (workspace, id)| statement.bind(workspace.to_shared()).bind(id.to_shared()),
        |statement| statement,
    );
    let rows = bulk::fetch(transaction, statements).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let known: HashMap<EditionOf, ProjectId> = rows
        .iter()
        .map(|row| {
            let edition = (parsed(row, "workspace")?, parsed(row, "id")?);
            Ok((edition, parsed(row, "project")?))
        })
        .collect::<Result<_>>()?;
    Ok(Some(attributed(events, &known)))
}

/// Writes what the events move, if they move anything.
pub(super) async fn write(
    transaction: &mut SqliteConnection,
    moves: &Moves<'_>,
    now: i64,
) -> Result<()> {
    if moves.is_empty() {
        return Ok(());
    }
    write_editions(transaction, moves, now).await?;
    write_outputs(transaction, moves).await
}

/// A revision is raised only by what can be seen: an event that is not later than what the snapshot
/// states is remembered, and that is all.
async fn write_editions(
    transaction: &mut SqliteConnection,
    moves: &Moves<'_>,
    now: i64,
) -> Result<()> {
    static UPSERT: Bulk = Bulk::new(
        "-- sqlite::projection::write_editions
        with told (workspace, id, status, at, source) as (values ",
        "(?, ?, ?, ?, ?)",
        ")
        insert into edition (workspace, id, revision, changed_at, told_status, told_at, told_by)
        select workspace, id, 1, ?, status, at, source from told where id is not null
        on conflict (workspace, id) do update
        set told_status = excluded.told_status,
            told_at = excluded.told_at,
            told_by = excluded.told_by,
            revision = revision + coalesce(excluded.told_at > stated_at, 0),
            changed_at = case
                when excluded.told_at > stated_at then excluded.changed_at
                else changed_at
            end
        where told_at is null
            or (excluded.told_at, excluded.told_by, excluded.told_status)
                > (told_at, told_by, told_status)",
    );
    if moves.editions.is_empty() {
        return Ok(());
    }
    let changed_at = tick(transaction, now).await?;
    let rows: Vec<_> = moves.editions.iter().collect();
    let statements = UPSERT.statements(
        &rows,
        |statement, ((workspace, id), told)| {
            statement
                .bind(workspace.to_shared())
                .bind(id.to_shared())
                .bind(told.status.as_ref().map(EditionStatus::as_str))
                .bind(millis(told.at))
                .bind(told.by)
        },
        |statement| statement.bind(changed_at),
    );
    bulk::execute(transaction, statements).await?;
    Ok(())
}

async fn write_outputs(transaction: &mut SqliteConnection, moves: &Moves<'_>) -> Result<()> {
    static UPSERT: Bulk = Bulk::new(
        "-- sqlite::projection::write_outputs
        with told (workspace, id, at, source) as (values ",
        "(?, ?, ?, ?)",
        ")
        insert into output (workspace, id, revision, told_at, told_by)
        select workspace, id, 1, at, source from told where id is not null
        on conflict (workspace, id) do update
        set told_at = excluded.told_at,
            told_by = excluded.told_by,
            revision = revision + coalesce(excluded.told_at > stated_at, 0)
        where told_at is null
            or (excluded.told_at, excluded.told_by) > (told_at, told_by)",
    );
    let rows: Vec<_> = moves.outputs.iter().collect();
    let statements = UPSERT.statements(
        &rows,
        |statement, ((workspace, id), told)| {
            statement
                .bind(workspace.to_shared())
                .bind(id.to_shared())
                .bind(millis(told.at))
                .bind(told.by)
        },
        |statement| statement,
    );
    bulk::execute(transaction, statements).await?;
    Ok(())
}

/// Makes the jobs that take files of the core's: not of those that were taken already, unless they were
/// asked for again. Answers how many were made.
pub(super) async fn fetch(
    transaction: &mut SqliteConnection,
    moves: &Moves<'_>,
    now: i64,
) -> Result<usize> {
    static INSERT: Bulk = Bulk::new(
        "-- sqlite::projection::fetch (jobs)
        with made (workspace, id, at, source, url) as (values ",
        "(?, ?, ?, ?, ?)",
        ")
        insert into output_job (workspace, output, task, url, visible_at, epoch, tries)
        select made.workspace, made.id, 'fetch', made.url, ?, 0, 0
        from made
        join output on output.workspace = made.workspace and output.id = made.id
        where output.told_at = made.at and output.told_by = made.source
            and output.deleted_at is null and coalesce(output.format, '') not in ('csv', 'xlsx')
            and (
                not exists (
                    select 1
                    from output_file as file
                    where file.workspace = made.workspace and file.output = made.id
                        and file.url = made.url
                )
                or exists (
                    select 1
                    from output_job as asked
                    where asked.workspace = made.workspace and asked.output = made.id
                        and asked.task = 'ask'
                )
            )
        on conflict (workspace, output) do update
        set task = excluded.task, url = excluded.url, visible_at = excluded.visible_at,
            owner = null, epoch = epoch + 1, tries = 0
        where url is not excluded.url",
    );
    // Until the file is here, it is under way.
    static UPDATE: Bulk = Bulk::new(
        "-- sqlite::projection::fetch (outputs)
        with made (workspace, id, url) as (values ",
        "(?, ?, ?)",
        ")
        update output
        set stated_status = iif(job.tries = 0, 'queued', 'generating'),
            stated_at = max(stated_at, told_at),
            failure = null,
            revision = revision + 1
        from made
        join output_job as job
            on job.workspace = made.workspace and job.output = made.id and job.url = made.url
        where output.workspace = made.workspace and output.id = made.id
            and output.version is not null",
    );
    // A file that was taken already is the one that is told of now.
    static CONFIRM: Bulk = Bulk::new(
        "-- sqlite::projection::fetch (files)
        with made (workspace, id, at, url) as (values ",
        "(?, ?, ?, ?)",
        ")
        update output_file
        set generated_at = max(generated_at, made.at)
        from made
        where output_file.workspace = made.workspace and output_file.output = made.id
            and output_file.url = made.url",
    );
    let made: Vec<_> = moves.files().collect();
    if made.is_empty() {
        return Ok(0);
    }
    let statements = INSERT.statements(
        &made,
        |statement, made| {
            statement
                .bind(made.workspace.to_shared())
                .bind(made.id.to_shared())
                .bind(millis(made.told.at))
                .bind(made.told.by.to_owned())
                .bind(made.url.to_owned())
        },
        |statement| statement.bind(now),
    );
    let jobs = bulk::execute(transaction, statements).await?;
    let statements = UPDATE.statements(
        &made,
        |statement, made| {
            statement
                .bind(made.workspace.to_shared())
                .bind(made.id.to_shared())
                .bind(made.url.to_owned())
        },
        |statement| statement,
    );
    bulk::execute(transaction, statements).await?;
    let statements = CONFIRM.statements(
        &made,
        |statement, made| {
            statement
                .bind(made.workspace.to_shared())
                .bind(made.id.to_shared())
                .bind(millis(made.told.at))
                .bind(made.url.to_owned())
        },
        |statement| statement,
    );
    bulk::execute(transaction, statements).await?;
    Ok(jobs)
}

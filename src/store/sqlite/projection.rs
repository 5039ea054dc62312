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

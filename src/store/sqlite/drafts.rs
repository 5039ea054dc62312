//! The heads of editions, as clients' writes make and change them.

use sqlx::SqliteConnection;

use super::bulk::{self, Bulk};
use super::contents;
use super::error::store_error;
use super::rows::{get, millis, to_time};
use super::snapshots::tick;
use crate::domain::blueprint::Blueprint;
use crate::domain::edition::Edition;
use crate::domain::ids::{OutputId, WorkspaceId};
use crate::domain::output::OutputStatus;
use crate::store::content::Content;
use crate::store::{EditionRecord, Result};

/// Adds an edition that holds nothing yet, and its outputs. It is there from [`raise`] on.
pub(super) async fn insert(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    edition: &Edition,
    blueprint: &Blueprint,
    outputs: &[OutputId],
) -> Result<()> {
    sqlx::query(
        "-- sqlite::drafts::insert
        insert into edition (workspace, id, version, revision, changed_at, project, blueprint,
            name, period, created_at, stated_status, stated_at)
        values (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7, ?8, ?4, ?9, ?10)",
    )
    .bind(workspace.as_str())
    .bind(edition.id.as_str())
    .bind(edition.version)
    .bind(millis(edition.created_at))
    .bind(edition.project.as_str())
    .bind(edition.blueprint.as_str())
    .bind(edition.name.as_str())
    .bind(edition.period.as_deref())
    .bind(edition.status.as_str())
    .bind(millis(edition.status_changed_at))
    .execute(&mut *transaction)
    .await
    .map_err(store_error)?;
    let empty = Content::empty(blueprint);
    contents::write(transaction, workspace, &edition.id, &empty).await?;
    insert_outputs(transaction, workspace, edition, blueprint, outputs).await
}

/// One for each that the blueprint offers.
async fn insert_outputs(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    edition: &Edition,
    blueprint: &Blueprint,
    outputs: &[OutputId],
) -> Result<()> {
    static INSERT: Bulk = Bulk::new(
        "-- sqlite::drafts::insert_outputs
        with fresh (id, name, format) as (values ",
        "(?, ?, ?)",
        ")
        insert into output (workspace, id, version, revision, edition, name, format,
            stated_status, stated_at)
        select ?, id, 1, 1, ?, name, format, ?, ? from fresh where id is not null",
    );
    let offers: Vec<_> = outputs.iter().zip(&blueprint.outputs).collect();
    let statements = INSERT.statements(
        &offers,
        |statement, (id, offer)| {
            statement
                .bind(id.to_shared())
                .bind(offer.name.as_str())
                .bind(offer.format.as_str())
        },
        |statement| {
            statement
                .bind(workspace.to_shared())
                .bind(edition.id.to_shared())
                .bind(OutputStatus::NotGenerated.as_str())
                .bind(millis(edition.created_at))
        },
    );
    bulk::execute(transaction, statements).await?;
    Ok(())
}

/// States the status, as a snapshot does.
pub(super) async fn state(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    edition: &Edition,
) -> Result<()> {
    sqlx::query(
        "-- sqlite::drafts::state
        update edition
        set stated_status = ?3, stated_at = ?4
        where workspace = ?1 and id = ?2",
    )
    .bind(workspace.as_str())
    .bind(edition.id.as_str())
    .bind(edition.status.as_str())
    .bind(millis(edition.status_changed_at))
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}

/// Gives the edition its new version, and the time of this transaction's changes.
pub(super) async fn raise(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    edition: Edition,
    now: i64,
) -> Result<EditionRecord> {
    let changed_at = tick(transaction, now).await?;
    let row = sqlx::query(
        "-- sqlite::drafts::raise
        update edition
        set version = ?3, revision = revision + 1, changed_at = ?4
        where workspace = ?1 and id = ?2
        returning revision",
    )
    .bind(workspace.as_str())
    .bind(edition.id.as_str())
    .bind(edition.version)
    .bind(changed_at)
    .fetch_one(transaction)
    .await
    .map_err(store_error)?;
    Ok(EditionRecord {
        edition: Edition {
            updated_at: to_time(changed_at)?,
            ..edition
        },
        revision: get(&row, "revision")?,
    })
}

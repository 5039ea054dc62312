//! The heads of editions, as clients' writes make and change them.

use chrono::{DateTime, Utc};
use sqlx::PgTransaction;
use sqlx::postgres::PgBindIterExt;

use super::Result;
use super::contents::{self, Holder};
use super::errors::{expect_rows, from_sqlx};
use crate::domain::blueprint::Blueprint;
use crate::domain::edition::Edition;
use crate::domain::ids::{OutputId, WorkspaceId};
use crate::domain::output::OutputStatus;
use crate::store::EditionRecord;
use crate::store::content::Content;

/// What time it is, in whole milliseconds.
pub(super) async fn now(tx: &mut PgTransaction<'_>) -> Result<DateTime<Utc>> {
    sqlx::query_scalar(
        "-- postgres::drafts::now
        select date_trunc('milliseconds', clock_timestamp())",
    )
    .fetch_one(&mut **tx)
    .await
    .map_err(from_sqlx)
}

/// Adds an edition that holds nothing yet, and its outputs. It is there from [`raise`] on.
pub(super) async fn insert(
    tx: &mut PgTransaction<'_>,
    workspace: &WorkspaceId,
    edition: &Edition,
    blueprint: &Blueprint,
    outputs: &[OutputId],
) -> Result<()> {
    sqlx::query(
        "-- postgres::drafts::insert
        insert into edition (
            workspace, id, version, revision, changed_at, project, blueprint, name, period,
            created_at, stated_status, stated_at
        )
        values ($1, $2, $3, 0, $4, $5, $6, $7, $8, $4, $9, $10)",
    )
    .bind(workspace.as_str())
    .bind(edition.id.as_str())
    .bind(edition.version)
    .bind(edition.created_at)
    .bind(edition.project.as_str())
    .bind(edition.blueprint.as_str())
    .bind(edition.name.as_str())
    .bind(edition.period.as_deref())
    .bind(edition.status.as_str())
    .bind(edition.status_changed_at)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    let holder = Holder {
        workspace,
        edition: &edition.id,
    };
    contents::write(tx, holder, &Content::empty(blueprint)).await?;
    insert_outputs(tx, holder, edition.created_at, blueprint, outputs).await
}

/// One for each that the blueprint offers.
async fn insert_outputs(
    tx: &mut PgTransaction<'_>,
    holder: Holder<'_>,
    now: DateTime<Utc>,
    blueprint: &Blueprint,
    outputs: &[OutputId],
) -> Result<()> {
    let offers = || outputs.iter().zip(&blueprint.outputs);
    sqlx::query(
        "-- postgres::drafts::insert_outputs
        insert into output (
            workspace, id, version, revision, edition, name, format, stated_status, stated_at
        )
        select
            $1, unnest($2::text[]), 1, 1, $3, unnest($4::text[]), unnest($5::text[]), $6, $7",
    )
    .bind(holder.workspace.as_str())
    .bind(offers().map(|(id, _)| id.as_str()).bind_iter())
    .bind(holder.edition.as_str())
    .bind(offers().map(|(_, offer)| offer.name.as_str()).bind_iter())
    .bind(offers().map(|(_, offer)| offer.format.as_str()).bind_iter())
    .bind(OutputStatus::NotGenerated.as_str())
    .bind(now)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

/// States the status, as a snapshot does.
pub(super) async fn state(
    tx: &mut PgTransaction<'_>,
    workspace: &WorkspaceId,
    edition: &Edition,
) -> Result<()> {
    let stated = sqlx::query(
        "-- postgres::drafts::state
        update edition
        set stated_status = $3, stated_at = $4
        where workspace = $1 and id = $2",
    )
    .bind(workspace.as_str())
    .bind(edition.id.as_str())
    .bind(edition.status.as_str())
    .bind(edition.status_changed_at)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    expect_rows("edition", 1, stated.rows_affected())
}

/// Gives the edition its new version, and the time of this transaction's changes: from here on it
/// holds the clock of editions, for which all other writers of them wait.
pub(super) async fn raise(
    tx: &mut PgTransaction<'_>,
    workspace: &WorkspaceId,
    edition: Edition,
) -> Result<EditionRecord> {
    let (revision, updated_at): (i64, DateTime<Utc>) = sqlx::query_as(
        "-- postgres::drafts::raise
        with tick as (
            update edition_clock
            set last = greatest(last + interval '1 millisecond', clock_timestamp())
            returning last
        )
        update edition
        set version = $3, revision = edition.revision + 1, changed_at = tick.last
        from tick
        where workspace = $1 and id = $2
        returning edition.revision, edition.changed_at",
    )
    .bind(workspace.as_str())
    .bind(edition.id.as_str())
    .bind(edition.version)
    .fetch_one(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(EditionRecord {
        edition: Edition {
            updated_at,
            ..edition
        },
        revision,
    })
}

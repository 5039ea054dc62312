//! What the sections of an edition hold, as they are written.

use std::collections::HashMap;

use sqlx::SqliteConnection;

use super::bulk::{self, Bulk};
use super::error::store_error;
use super::rows::{get, list};
use super::sections::Place;
use crate::domain::edition::Row;
use crate::domain::ids::{EditionId, WorkspaceId};
use crate::store::Result;
use crate::store::content::{Content, Held};

/// Puts this in the place of all that the edition held. Sections whose rows are the same are not
/// written again.
pub(super) async fn replace(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    edition: &EditionId,
    content: &Content<'_>,
) -> Result<()> {
    let digests = digests(transaction, workspace, edition).await?;
    let (kept, changed): (Vec<_>, Vec<_>) = content
        .sections()
        .iter()
        .partition(|section| section.is_kept(&digests));
    let kept: Vec<_> = kept.iter().map(|section| section.name).collect();
    forget(transaction, workspace, edition, &kept).await?;
    write_sections(transaction, workspace, edition, content.sections()).await?;
    for section in changed {
        let place = Place {
            workspace,
            edition,
            section: section.name,
        };
        let rows: Vec<_> = (1..).zip(section.rows()).collect();
        write_rows(transaction, place, &rows).await?;
    }
    Ok(())
}

/// Leaves the edition with nothing.
pub(super) async fn delete(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    edition: &EditionId,
) -> Result<()> {
    forget(transaction, workspace, edition, &[]).await
}

/// What the rows of its sections are recognised by.
async fn digests(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    edition: &EditionId,
) -> Result<HashMap<String, Vec<u8>>> {
    let rows = sqlx::query(
        "-- sqlite::contents::digests
        select name, digest
        from edition_section
        where workspace = ?1 and edition = ?2 and digest is not null",
    )
    .bind(workspace.as_str())
    .bind(edition.as_str())
    .fetch_all(transaction)
    .await
    .map_err(store_error)?;
    rows.iter()
        .map(|row| Ok((get(row, "name")?, get(row, "digest")?)))
        .collect()
}

/// Deletes its sections, and the rows of all but those that are kept.
async fn forget(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    edition: &EditionId,
    kept: &[&str],
) -> Result<()> {
    sqlx::query(
        "-- sqlite::contents::forget (sections)
        delete from edition_section where workspace = ?1 and edition = ?2",
    )
    .bind(workspace.as_str())
    .bind(edition.as_str())
    .execute(&mut *transaction)
    .await
    .map_err(store_error)?;
    sqlx::query(
        "-- sqlite::contents::forget (rows)
        delete from edition_row
        where workspace = ?1 and edition = ?2
            and section not in (select value from json_each(?3))",
    )
    .bind(workspace.as_str())
    .bind(edition.as_str())
    .bind(list(&kept)?)
    .execute(&mut *transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}

/// Writes its sections, none of which is there.
pub(super) async fn write(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    edition: &EditionId,
    content: &Content<'_>,
) -> Result<()> {
    write_sections(transaction, workspace, edition, content.sections()).await
}

async fn write_sections(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    edition: &EditionId,
    sections: &[Held<'_>],
) -> Result<()> {
    static INSERT: Bulk = Bulk::new(
        "-- sqlite::contents::write_sections
        with fresh (name, ord, content, digest) as (values ",
        "(?, ?, ?, ?)",
        ")
        insert into edition_section (workspace, edition, name, ord, content, digest)
        select ?, ?, name, ord, content, digest from fresh where name is not null",
    );
    let mut ord = 0_i64;
    let statements = INSERT.statements(
        sections,
        |statement, section| {
            ord += 1;
            statement
                .bind(section.name)
                .bind(ord)
                .bind(section.values())
                .bind(section.digest().map(<[u8]>::to_vec))
        },
        |statement| {
            statement
                .bind(workspace.to_shared())
                .bind(edition.to_shared())
        },
    );
    bulk::execute(transaction, statements).await?;
    Ok(())
}

/// Writes rows at their places, in their order, so that they come to lie beside one another.
pub(super) async fn write_rows(
    transaction: &mut SqliteConnection,
    place: Place<'_>,
    rows: &[(i64, &Row)],
) -> Result<()> {
    static INSERT: Bulk = Bulk::new(
        "-- sqlite::contents::write_rows
        with fresh (ord, id, content) as (values ",
        "(?, ?, ?)",
        ")
        insert or fail into edition_row (workspace, edition, section, ord, id, content)
        select ?, ?, ?, ord, id, content from fresh where id is not null",
    );
    let statements = INSERT.statements(
        rows,
        |statement, (ord, row)| {
            statement
                .bind(*ord)
                .bind(row.id.to_shared())
                .bind(row.values.as_str())
        },
        |statement| {
            statement
                .bind(place.workspace.to_shared())
                .bind(place.edition.to_shared())
                .bind(place.section)
        },
    );
    bulk::execute(transaction, statements).await?;
    Ok(())
}

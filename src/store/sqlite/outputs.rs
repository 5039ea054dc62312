//! Finding outputs. They are seen where their edition is.

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::error::store_error;
use super::heads::edition_is_seen;
use super::rows::{count, get, optional_time, parsed, projects, time, unsigned};
use crate::domain::ids::{EditionId, OutputId, WorkspaceId};
use crate::domain::output::{Output, OutputFile, OutputFormat, OutputStatus};
use crate::domain::reach::Reach;
use crate::store::{OutputRecord, Page, PageRequest, Result, StoreError};

/// The outputs of an edition that is seen.
pub(super) async fn list(
    connection: &mut SqliteConnection,
    workspace: &WorkspaceId,
    edition: &EditionId,
    page: PageRequest<OutputId>,
) -> Result<Page<OutputRecord, OutputId>> {
    let rows = sqlx::query(
        "-- sqlite::outputs::list
        select output.id, output.edition, edition.project, output.name, output.format,
            output.status, output.size, output.sha256, output.generated_at, output.failure,
            output.version, output.revision, output.stated_at,
            iif(output.told_at > output.stated_at, output.told_at, null) as made_at
        from output
        join edition on edition.workspace = output.workspace and edition.id = output.edition
        where output.workspace = ?1 and output.edition = ?2 and output.id > ?3
            and output.version is not null and output.deleted_at is null
        order by output.id
        limit ?4",
    )
    .bind(workspace.as_str())
    .bind(edition.as_str())
    // No id is empty.
    .bind(page.after.as_ref().map_or("", OutputId::as_str))
    .bind(count(page.limit.saturating_add(1)))
    .fetch_all(connection)
    .await
    .map_err(store_error)?;
    let items = rows.iter().map(record).collect::<Result<_>>()?;
    Ok(Page::of(items, page.limit, |record: &OutputRecord| {
        record.output.id.clone()
    }))
}

/// The output, if its edition is seen and in reach.
pub(super) async fn one(
    connection: &mut SqliteConnection,
    reach: &Reach,
    id: &OutputId,
) -> Result<Option<OutputRecord>> {
    let row = sqlx::query(concat!(
        "-- sqlite::outputs::one
        select output.id, output.edition, edition.project, output.name, output.format,
            output.status, output.size, output.sha256, output.generated_at, output.failure,
            output.version, output.revision, output.stated_at,
            iif(output.told_at > output.stated_at, output.told_at, null) as made_at
        from output
        join edition on edition.workspace = output.workspace and edition.id = output.edition
        where output.workspace = ?1 and output.id = ?2
            and output.version is not null and output.deleted_at is null
            and (?3 is null or edition.project in (select value from json_each(?3)))
            and ",
        edition_is_seen!()
    ))
    .bind(reach.workspace.as_str())
    .bind(id.as_str())
    .bind(projects(reach)?)
    .fetch_optional(connection)
    .await
    .map_err(store_error)?;
    row.as_ref().map(record).transpose()
}

/// What the snapshot stated, unless an event told of a later file: of that one nothing is known yet.
fn record(row: &SqliteRow) -> Result<OutputRecord> {
    let (format, status): (&str, &str) = (get(row, "format")?, get(row, "status")?);
    let made_at = optional_time(row, "made_at")?;
    Ok(OutputRecord {
        output: Output {
            id: parsed(row, "id")?,
            edition: parsed(row, "edition")?,
            project: parsed(row, "project")?,
            name: get(row, "name")?,
            format: OutputFormat::parse(format)
                .ok_or_else(|| StoreError::corrupt(format!("output.format: {format}")))?,
            status: OutputStatus::parse(status)
                .ok_or_else(|| StoreError::corrupt(format!("output.status: {status}")))?,
            file: match made_at {
                Some(_) => None,
                None => file(row)?,
            },
            failure: match made_at {
                Some(_) => None,
                None => get(row, "failure")?,
            },
            version: get(row, "version")?,
            updated_at: match made_at {
                Some(made_at) => made_at,
                None => time(row, "stated_at")?,
            },
        },
        revision: get(row, "revision")?,
    })
}

fn file(row: &SqliteRow) -> Result<Option<OutputFile>> {
    let Some(generated_at) = optional_time(row, "generated_at")? else {
        return Ok(None);
    };
    Ok(Some(OutputFile {
        size: unsigned(row, "size")?,
        sha256: get(row, "sha256")?,
        generated_at,
    }))
}

//! Finding outputs. They are seen where their edition is.

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::error::store_error;
use super::heads::edition_is_seen;
use super::rows::{count, get, optional_time, parsed, projects, time, unsigned};
use crate::domain::file::FileKey;
use crate::domain::ids::{EditionId, OutputId, WorkspaceId};
use crate::domain::output::{Output, OutputFile, OutputFormat, OutputStatus};
use crate::domain::reach::Reach;
use crate::store::output_jobs::shown;
use crate::store::{OutputRecord, Page, PageRequest, Result, StoreError};

/// The columns of a [`record`].
macro_rules! output_columns {
    () => {
        "output.id, output.edition, edition.project, output.name, output.format, output.status,
            output.size, output.sha256, output.generated_at, output.failure, output.version,
            output.revision, output.stated_at, file.key, file.size as kept_size,
            file.sha256 as kept_sha256, file.generated_at as kept_at,
            iif(output.told_at > output.stated_at, output.told_at, null) as made_at"
    };
}

/// The outputs of an edition that is seen.
pub(super) async fn list(
    connection: &mut SqliteConnection,
    workspace: &WorkspaceId,
    edition: &EditionId,
    page: PageRequest<OutputId>,
) -> Result<Page<OutputRecord, OutputId>> {
    let rows = sqlx::query(concat!(
        "-- sqlite::outputs::list
        select ",
        output_columns!(),
        "
        from output
        join edition on edition.workspace = output.workspace and edition.id = output.edition
        left join output_file as file
            on file.workspace = output.workspace and file.output = output.id
        where output.workspace = ?1 and output.edition = ?2 and output.id > ?3
            and output.version is not null and output.deleted_at is null
        order by output.id
        limit ?4",
    ))
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
        select ",
        output_columns!(),
        "
        from output
        join edition on edition.workspace = output.workspace and edition.id = output.edition
        left join output_file as file
            on file.workspace = output.workspace and file.output = output.id
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

/// What was stated, unless an event told of a later file: of that one nothing is known yet.
fn record(row: &SqliteRow) -> Result<OutputRecord> {
    let (format, status): (&str, &str) = (get(row, "format")?, get(row, "status")?);
    let format = OutputFormat::parse(format)
        .ok_or_else(|| StoreError::corrupt(format!("output.format: {format}")))?;
    let made_at = optional_time(row, "made_at")?;
    let stated = file(row, ["size", "sha256", "generated_at"])?;
    let (kept, file) = shown(&format, kept(row)?, stated, made_at);
    Ok(OutputRecord {
        output: Output {
            id: parsed(row, "id")?,
            edition: parsed(row, "edition")?,
            project: parsed(row, "project")?,
            name: get(row, "name")?,
            format,
            status: OutputStatus::parse(status)
                .ok_or_else(|| StoreError::corrupt(format!("output.status: {status}")))?,
            file,
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
        kept,
        revision: get(row, "revision")?,
    })
}

/// The file that is kept here.
fn kept(row: &SqliteRow) -> Result<Option<(FileKey, OutputFile)>> {
    let file = file(row, ["kept_size", "kept_sha256", "kept_at"])?;
    let key = get::<Option<&str>>(row, "key")?.map(file_key).transpose()?;
    Ok(key.zip(file))
}

/// A key as it is kept.
pub(super) fn file_key(text: &str) -> Result<FileKey> {
    FileKey::parse(text).ok_or_else(|| StoreError::corrupt(format!("output_file.key: {text}")))
}

fn file(row: &SqliteRow, [size, sha256, at]: [&str; 3]) -> Result<Option<OutputFile>> {
    let Some(generated_at) = optional_time(row, at)? else {
        return Ok(None);
    };
    Ok(Some(OutputFile {
        size: unsigned(row, size)?,
        sha256: get(row, sha256)?,
        generated_at,
    }))
}

//! Finding outputs. They are seen where their edition is.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, PgExecutor, PgTransaction};

use super::Result;
use super::errors::from_sqlx;
use super::heads::edition_is_seen;
use super::rows::{limit, parse, projects};
use crate::domain::file::FileKey;
use crate::domain::ids::OutputId;
use crate::domain::output::{Output, OutputFile, OutputFormat, OutputStatus};
use crate::domain::reach::Reach;
use crate::store::output_jobs::shown;
use crate::store::{EditionRecord, OutputRecord, Page, PageRequest, StoreError};

/// The columns of [`OutputRow`].
macro_rules! output_columns {
    () => {
        "output.id, output.edition, output.name, output.format, output.status, output.size,
            output.sha256, output.generated_at, output.failure, output.version, output.revision,
            output.stated_at, file.key, file.size as kept_size, file.sha256 as kept_sha256,
            file.generated_at as kept_at,
            case when output.told_at > output.stated_at then output.told_at end as made_at"
    };
}

/// The outputs of an edition that is seen.
pub(super) async fn list(
    connection: &mut PgConnection,
    reach: &Reach,
    seen: &EditionRecord,
    page: PageRequest<OutputId>,
) -> Result<Page<OutputRecord, OutputId>> {
    let rows: Vec<OutputRow> = sqlx::query_as(concat!(
        "-- postgres::outputs::list
        select $5 as project, ",
        output_columns!(),
        "
        from output
        left join output_file as file
               on file.workspace = output.workspace and file.output = output.id
        where output.workspace = $1
          and output.edition = $2
          and output.version is not null
          and output.deleted_at is null
          and ($3::text is null or output.id > $3)
        order by output.id
        limit $4",
    ))
    .bind(reach.workspace.as_str())
    .bind(seen.edition.id.as_str())
    .bind(page.after.as_ref().map(OutputId::as_str))
    .bind(limit(page.limit.saturating_add(1)))
    .bind(seen.edition.project.as_str())
    .fetch_all(connection)
    .await
    .map_err(from_sqlx)?;
    let items = rows
        .into_iter()
        .map(OutputRow::into_record)
        .collect::<Result<_>>()?;
    Ok(Page::of(items, page.limit, |record: &OutputRecord| {
        record.output.id.clone()
    }))
}

/// The output, if its edition is seen and in reach.
pub(super) async fn one(
    executor: impl PgExecutor<'_>,
    reach: &Reach,
    id: &OutputId,
) -> Result<Option<OutputRecord>> {
    let row: Option<OutputRow> = sqlx::query_as(concat!(
        "-- postgres::outputs::one
        select edition.project, ",
        output_columns!(),
        "
        from output
        cross join lateral (
            select edition.project
            from edition
            where edition.workspace = output.workspace
              and edition.id = output.edition
              and ($3::text[] is null or edition.project = any($3))
              and ",
        edition_is_seen!(),
        "
            limit 1
        ) as edition
        left join output_file as file
               on file.workspace = output.workspace and file.output = output.id
        where output.workspace = $1
          and output.id = $2
          and output.version is not null
          and output.deleted_at is null"
    ))
    .bind(reach.workspace.as_str())
    .bind(id.as_str())
    .bind(projects(reach))
    .fetch_optional(executor)
    .await
    .map_err(from_sqlx)?;
    row.map(OutputRow::into_record).transpose()
}

/// The same, held to the end of the transaction. What is read is read once it is held: a statement that
/// waits for a row would join it with what other tables held before.
pub(super) async fn hold(
    tx: &mut PgTransaction<'_>,
    reach: &Reach,
    id: &OutputId,
) -> Result<Option<OutputRecord>> {
    sqlx::query(
        "-- postgres::outputs::hold
        select 1 from output where workspace = $1 and id = $2 for update",
    )
    .bind(reach.workspace.as_str())
    .bind(id.as_str())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    one(&mut **tx, reach, id).await
}

/// A key as it is kept.
pub(super) fn file_key(text: &str) -> Result<FileKey> {
    FileKey::parse(text).ok_or_else(|| StoreError::Corrupt(format!("output_file.key: {text}")))
}

#[derive(FromRow)]
struct OutputRow {
    id: String,
    edition: String,
    project: String,
    name: String,
    format: String,
    status: String,
    size: Option<i64>,
    sha256: Option<String>,
    generated_at: Option<DateTime<Utc>>,
    failure: Option<String>,
    version: i64,
    revision: i64,
    stated_at: DateTime<Utc>,
    key: Option<String>,
    kept_size: Option<i64>,
    kept_sha256: Option<String>,
    kept_at: Option<DateTime<Utc>>,
    /// When an event that is later than the snapshot says that it was made.
    made_at: Option<DateTime<Utc>>,
}

impl OutputRow {
    /// What was stated, unless an event told of a later file: of that one nothing is known yet.
    fn into_record(self) -> Result<OutputRecord> {
        let format = OutputFormat::parse(&self.format)
            .ok_or_else(|| StoreError::Corrupt(format!("output.format: {}", self.format)))?;
        let key = self.key.as_deref().map(file_key).transpose()?;
        let kept = key.zip(file(self.kept_size, self.kept_sha256, self.kept_at)?);
        let stated = file(self.size, self.sha256, self.generated_at)?;
        let (kept, file) = shown(&format, kept, stated, self.made_at);
        Ok(OutputRecord {
            output: Output {
                id: parse("output.id", &self.id)?,
                edition: parse("output.edition", &self.edition)?,
                project: parse("edition.project", &self.project)?,
                name: self.name,
                format,
                status: OutputStatus::parse(&self.status).ok_or_else(|| {
                    StoreError::Corrupt(format!("output.status: {}", self.status))
                })?,
                file,
                failure: self.failure.filter(|_| self.made_at.is_none()),
                version: self.version,
                updated_at: self.made_at.unwrap_or(self.stated_at),
            },
            kept,
            revision: self.revision,
        })
    }
}

fn file(
    size: Option<i64>,
    sha256: Option<String>,
    generated_at: Option<DateTime<Utc>>,
) -> Result<Option<OutputFile>> {
    let (Some(size), Some(sha256), Some(generated_at)) = (size, sha256, generated_at) else {
        return Ok(None);
    };
    Ok(Some(OutputFile {
        size: u64::try_from(size).map_err(StoreError::corrupt)?,
        sha256,
        generated_at,
    }))
}

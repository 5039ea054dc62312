//! Which files outputs have.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::SqliteConnection;

use super::SqliteStore;
use super::error::store_error;
use super::output_jobs::withdraw;
use super::outputs::file_key;
use super::rows::{get, list, millis, parsed, to_time};
use crate::domain::file::{Deployment, FileKey, KeptFile};
use crate::domain::ids::WorkspaceId;
use crate::domain::output::Output;
use crate::store::{FileReferences, JobOutcome, OutputJob, OutputTask, Result, StoreError};

#[async_trait]
impl FileReferences for SqliteStore {
    async fn deployment(&self) -> Result<Deployment> {
        let id: String = sqlx::query_scalar(
            "-- sqlite::output_files::deployment
            select id from deployment",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(store_error)?;
        Deployment::parse(&id).ok_or_else(|| StoreError::corrupt(format!("deployment.id: {id}")))
    }

    async fn unreferenced(&self, keys: &[FileKey]) -> Result<Vec<FileKey>> {
        let keys: Vec<&str> = keys.iter().map(FileKey::as_str).collect();
        let keys = list(&keys)?;
        let mut transaction = self.write().await?;
        forget_deleted(&mut transaction, &keys, to_time(millis(self.clock.now()))?).await?;
        let rows = sqlx::query(
            "-- sqlite::output_files::unreferenced
            select asked.value as key
            from json_each(?1) as asked
            where not exists (select 1 from output_file where output_file.key = asked.value)",
        )
        .bind(&keys)
        .fetch_all(&mut *transaction)
        .await
        .map_err(store_error)?;
        self.commit(transaction).await?;
        rows.iter().map(|row| file_key(get(row, "key")?)).collect()
    }
}

/// Takes these files from outputs that were deleted, by themselves or with their edition: whoever asked
/// may delete them from now on, and should an output come back, it has none and can be made again.
async fn forget_deleted(
    transaction: &mut SqliteConnection,
    keys: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    let rows = sqlx::query(
        "-- sqlite::output_files::forget_deleted
        delete from output_file
        where key in (select value from json_each(?1))
            and exists (
                select 1
                from output
                join edition on edition.workspace = output.workspace
                    and edition.id = output.edition
                where output.workspace = output_file.workspace and output.id = output_file.output
                    and (output.deleted_at is not null or edition.deleted_at is not null)
            )
        returning workspace, output",
    )
    .bind(keys)
    .fetch_all(&mut *transaction)
    .await
    .map_err(store_error)?;
    for row in &rows {
        let workspace: WorkspaceId = parsed(row, "workspace")?;
        withdraw(transaction, &workspace, &parsed(row, "output")?, now).await?;
    }
    Ok(())
}

/// The key of the file that the output has.
pub(super) async fn key_of(
    transaction: &mut SqliteConnection,
    job: &OutputJob,
) -> Result<Option<FileKey>> {
    let row = sqlx::query(
        "-- sqlite::output_files::key_of
        select key from output_file where workspace = ?1 and output = ?2",
    )
    .bind(job.workspace.as_str())
    .bind(job.output.id.as_str())
    .fetch_optional(transaction)
    .await
    .map_err(store_error)?;
    row.map(|row| file_key(get(&row, "key")?)).transpose()
}

/// Makes the file the output's; answers with the one that it had.
pub(super) async fn write_file(
    transaction: &mut SqliteConnection,
    job: &OutputJob,
    outcome: &JobOutcome<'_>,
    made: &Output,
    file: &KeptFile,
) -> Result<Option<FileKey>> {
    let before = key_of(transaction, job).await?;
    let url = match &job.task {
        OutputTask::Fetch { url } => Some(url.as_str()),
        OutputTask::Render | OutputTask::GiveUp => None,
    };
    sqlx::query(
        "-- sqlite::output_files::write_file
        insert into output_file (workspace, output, key, size, sha256, generated_at,
            edition_version, url)
        values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
        on conflict (workspace, output) do update
        set key = excluded.key,
            size = excluded.size,
            sha256 = excluded.sha256,
            generated_at = excluded.generated_at,
            edition_version = excluded.edition_version,
            url = excluded.url",
    )
    .bind(job.workspace.as_str())
    .bind(job.output.id.as_str())
    .bind(file.key.as_str())
    .bind(i64::try_from(file.size).map_err(StoreError::corrupt)?)
    .bind(&file.sha256)
    .bind(millis(made.updated_at))
    .bind(outcome.version())
    .bind(url)
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(before)
}

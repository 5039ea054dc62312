//! Which files outputs have.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::SqliteStore;
use super::error::store_error;
use super::outputs::file_key;
use super::rows::{get, list, millis};
use crate::domain::file::{FileKey, KeptFile};
use crate::domain::output::Output;
use crate::store::{FileReferences, JobOutcome, OutputJob, OutputTask, Result, StoreError};

#[async_trait]
impl FileReferences for SqliteStore {
    async fn unreferenced(&self, keys: &[FileKey]) -> Result<Vec<FileKey>> {
        let keys: Vec<&str> = keys.iter().map(FileKey::as_str).collect();
        let rows = sqlx::query(
            "-- sqlite::output_files::unreferenced
            select asked.value as key
            from json_each(?1) as asked
            where not exists (
                select 1
                from output_file as file
                join output on output.workspace = file.workspace and output.id = file.output
                join edition on edition.workspace = file.workspace and edition.id = output.edition
                where file.key = asked.value
                    and output.deleted_at is null and edition.deleted_at is null
            )",
        )
        .bind(list(&keys)?)
        .fetch_all(&self.readers)
        .await
        .map_err(store_error)?;
        rows.iter().map(|row| file_key(get(row, "key")?)).collect()
    }
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

//! Which files outputs have.

use async_trait::async_trait;
use sqlx::PgTransaction;
use sqlx::postgres::PgBindIterExt;

use super::errors::{from_sqlx, reading};
use super::outputs::file_key;
use super::{PostgresStore, Result, StoreError};
use crate::domain::file::{FileKey, KeptFile};
use crate::domain::output::Output;
use crate::store::{FileReferences, JobOutcome, OutputJob, OutputTask};

#[async_trait]
impl FileReferences for PostgresStore {
    async fn unreferenced(&self, keys: &[FileKey]) -> Result<Vec<FileKey>> {
        let found: Vec<String> = reading(async {
            sqlx::query_scalar(
                "-- postgres::output_files::unreferenced
                select asked.key
                from unnest($1::text[]) as asked (key)
                where not exists (
                    select 1
                    from output_file file
                    join output on output.workspace = file.workspace and output.id = file.output
                    join edition
                      on edition.workspace = file.workspace and edition.id = output.edition
                    where file.key = asked.key
                      and output.deleted_at is null
                      and edition.deleted_at is null
                )",
            )
            .bind(keys.iter().map(FileKey::as_str).bind_iter())
            .fetch_all(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        found.iter().map(|key| file_key(key)).collect()
    }
}

/// The key of the file that the output has.
pub(super) async fn key_of(tx: &mut PgTransaction<'_>, job: &OutputJob) -> Result<Option<FileKey>> {
    let key: Option<String> = sqlx::query_scalar(
        "-- postgres::output_files::key_of
        select key from output_file where workspace = $1 and output = $2",
    )
    .bind(job.workspace.as_str())
    .bind(job.output.id.as_str())
    .fetch_optional(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    key.as_deref().map(file_key).transpose()
}

/// Makes the file the output's; answers with the one that it had.
pub(super) async fn write_file(
    tx: &mut PgTransaction<'_>,
    job: &OutputJob,
    outcome: &JobOutcome<'_>,
    made: &Output,
    file: &KeptFile,
) -> Result<Option<FileKey>> {
    let before = key_of(tx, job).await?;
    let url = match &job.task {
        OutputTask::Fetch { url } => Some(url.as_str()),
        OutputTask::Render | OutputTask::GiveUp => None,
    };
    sqlx::query(
        "-- postgres::output_files::write_file
        insert into output_file (
            workspace, output, key, size, sha256, generated_at, edition_version, url
        )
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        on conflict on constraint output_file_pk do update
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
    .bind(made.updated_at)
    .bind(outcome.version())
    .bind(url)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(before)
}

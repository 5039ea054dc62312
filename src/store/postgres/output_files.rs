//! Which files outputs have.

use async_trait::async_trait;
use sqlx::PgTransaction;
use sqlx::postgres::PgBindIterExt;

use super::errors::{from_sqlx, reading, retrying};
use super::output_jobs::withdraw;
use super::outputs::file_key;
use super::rows::parse;
use super::{PostgresStore, Result, StoreError, commit};
use crate::domain::file::{Deployment, FileKey, KeptFile};
use crate::domain::ids::WorkspaceId;
use crate::domain::output::Output;
use crate::store::{FileReferences, JobOutcome, OutputJob, OutputTask};

#[async_trait]
impl FileReferences for PostgresStore {
    async fn deployment(&self) -> Result<Deployment> {
        let id: String = reading(async {
            sqlx::query_scalar(
                "-- postgres::output_files::deployment
                select id from deployment",
            )
            .fetch_one(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        Deployment::parse(&id).ok_or_else(|| StoreError::corrupt(format!("deployment.id: {id}")))
    }

    async fn unreferenced(&self, keys: &[FileKey]) -> Result<Vec<FileKey>> {
        retrying(|| async {
            let mut tx = self.begin().await?;
            for (workspace, id) in hold_deleted(&mut tx, keys).await? {
                let workspace = parse("output.workspace", &workspace)?;
                forget(&mut tx, &workspace, &id, keys).await?;
            }
            let found: Vec<String> = sqlx::query_scalar(
                "-- postgres::output_files::unreferenced
                select asked.key
                from unnest($1::text[]) as asked (key)
                where not exists (select 1 from output_file where output_file.key = asked.key)",
            )
            .bind(keys.iter().map(FileKey::as_str).bind_iter())
            .fetch_all(&mut *tx)
            .await
            .map_err(from_sqlx)?;
            commit(tx).await?;
            found.iter().map(|key| file_key(key)).collect()
        })
        .await
    }
}

/// Holds the outputs that have one of these files and were deleted, by themselves or with their edition.
async fn hold_deleted(
    tx: &mut PgTransaction<'_>,
    keys: &[FileKey],
) -> Result<Vec<(String, String)>> {
    sqlx::query_as(
        "-- postgres::output_files::hold_deleted
        select output.workspace, output.id
        from output_file file
        join output on output.workspace = file.workspace and output.id = file.output
        join edition on edition.workspace = output.workspace and edition.id = output.edition
        where file.key = any($1::text[])
          and (output.deleted_at is not null or edition.deleted_at is not null)
        order by output.workspace, output.id
        for update of output",
    )
    .bind(keys.iter().map(FileKey::as_str).bind_iter())
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)
}

/// Takes its file from a deleted output, which is held: whoever asked may delete it from now on, and
/// should the output come back, it has none and can be made again.
async fn forget(
    tx: &mut PgTransaction<'_>,
    workspace: &WorkspaceId,
    id: &str,
    keys: &[FileKey],
) -> Result<()> {
    let forgotten = sqlx::query(
        "-- postgres::output_files::forget
        delete from output_file
        where workspace = $1 and output = $2 and key = any($3::text[])",
    )
    .bind(workspace.as_str())
    .bind(id)
    .bind(keys.iter().map(FileKey::as_str).bind_iter())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    match forgotten.rows_affected() {
        0 => Ok(()),
        _ => withdraw(tx, workspace, id).await,
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

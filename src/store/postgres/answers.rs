//! What the core was asked for and has answered: its newest word of how it ended, by a snapshot or by an
//! event, whatever its clock says.

use sqlx::PgTransaction;
use sqlx::postgres::PgBindIterExt;

use super::Result;
use super::errors::from_sqlx;

/// Ends what was asked of the core for these outputs, whose rows are held. Where the file that is kept
/// was taken from is forgotten: the answer may lead there again, and to another file.
pub(super) async fn answered(
    tx: &mut PgTransaction<'_>,
    outputs: impl Iterator<Item = (&str, &str)>,
) -> Result<()> {
    let (workspaces, ids): (Vec<&str>, Vec<&str>) = outputs.unzip();
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "-- postgres::answers::answered
        with ended as (
            delete from output_job
            using (select unnest($1::text[]) as workspace, unnest($2::text[]) as id) as told
            where output_job.workspace = told.workspace
              and output_job.output = told.id
              and output_job.task = 'ask'
            returning output_job.workspace, output_job.output
        )
        update output_file
        set url = null
        from ended
        where output_file.workspace = ended.workspace and output_file.output = ended.output",
    )
    .bind(workspaces.into_iter().bind_iter())
    .bind(ids.into_iter().bind_iter())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

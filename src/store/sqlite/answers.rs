//! What the core was asked for and has answered: its newest word of how it ended, by a snapshot or by an
//! event, whatever its clock says.

use sqlx::SqliteConnection;

use super::error::store_error;
use crate::domain::ids::{OutputId, WorkspaceId};
use crate::store::Result;

/// Ends what was asked of the core for this output. Where the file that is kept was taken from is
/// forgotten: the answer may lead there again, and to another file.
pub(super) async fn answered(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    id: &OutputId,
) -> Result<()> {
    let ended = sqlx::query(
        "-- sqlite::answers::answered (jobs)
        delete from output_job where workspace = ?1 and output = ?2 and task = 'ask'",
    )
    .bind(workspace.as_str())
    .bind(id.as_str())
    .execute(&mut *transaction)
    .await
    .map_err(store_error)?;
    if ended.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query(
        "-- sqlite::answers::answered (files)
        update output_file set url = null where workspace = ?1 and output = ?2",
    )
    .bind(workspace.as_str())
    .bind(id.as_str())
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}

//! Taking what a replay put into the queue out again, as it was.

use sqlx::PgTransaction;
use uuid::Uuid;

use super::errors::{expect_rows, from_sqlx};
use super::{Result, StoreError};
use crate::store::replays::ReplayRecord;

/// Takes out what of a replay nobody is sending; answers how many deliveries that were. What another
/// transaction has in hand at this moment is left.
pub(super) async fn unsent(tx: &mut PgTransaction<'_>, replay: &ReplayRecord) -> Result<i64> {
    let rows: Vec<(Uuid, String)> = sqlx::query_as(
        "-- postgres::withdraw::unsent
        select delivery_id, replayed
        from delivery_queue
        where replay_id = $2 and workspace = $1 and owner is null
        order by delivery_id
        for update skip locked",
    )
    .bind(replay.reach.workspace.as_str())
    .bind(replay.id.uuid())
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    let of = |was: &str| -> Vec<Uuid> {
        let rows = rows.iter().filter(|(_, replayed)| replayed == was);
        rows.map(|(id, _)| *id).collect()
    };
    resume(tx, of("pending")).await?;
    fail(tx, of("failed")).await?;
    forget(tx, of("succeeded")).await?;
    forget(tx, of("unmade")).await?;
    i64::try_from(rows.len()).map_err(StoreError::corrupt)
}

async fn resume(tx: &mut PgTransaction<'_>, ids: Vec<Uuid>) -> Result<()> {
    let resumed = sqlx::query(
        "-- postgres::withdraw::resume
        update delivery_queue
        set lane = case when attempts = base then 0 else 1 end,
            visible_at = former_at,
            replayed = null,
            former_at = null,
            replay_id = null
        where delivery_id = any($1)",
    )
    .bind(&ids)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    expect_rows("delivery_queue", ids.len(), resumed.rows_affected())
}

async fn fail(tx: &mut PgTransaction<'_>, ids: Vec<Uuid>) -> Result<()> {
    let failed = sqlx::query(
        "-- postgres::withdraw::fail
        with taken as (
            delete from delivery_queue
            where delivery_id = any($1)
            returning
                delivery_id, event_id, subscription_id, former_at, epoch, attempts, workspace
        )
        insert into delivery (
            id, event_id, subscription_id, settled_at, epoch, attempts, state, workspace
        )
        select
            delivery_id, event_id, subscription_id, former_at, epoch, attempts, 'failed', workspace
        from taken",
    )
    .bind(&ids)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    expect_rows("delivery", ids.len(), failed.rows_affected())
}

/// What is in history, or was never made. A lease that was given back unsent is noted, so that its
/// token is never given again.
async fn forget(tx: &mut PgTransaction<'_>, ids: Vec<Uuid>) -> Result<()> {
    sqlx::query(
        "-- postgres::withdraw::forget
        with taken as (
            delete from delivery_queue
            where delivery_id = any($1)
            returning delivery_id, epoch, workspace
        )
        update delivery d
        set epoch = taken.epoch
        from taken
        where d.workspace = taken.workspace and d.id = taken.delivery_id",
    )
    .bind(&ids)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

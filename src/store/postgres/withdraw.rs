//! Taking what a replay put into the queue out again, as it was.

use sqlx::PgTransaction;
use uuid::Uuid;

use super::errors::{expect_rows, from_sqlx};
use super::rows::parse;
use super::{Result, StoreError, gates};
use crate::domain::ids::SubscriptionId;
use crate::store::gates::{Crowd, Gate};
use crate::store::replays::ReplayRecord;

/// Takes out what of a replay nobody is sending; answers how many deliveries that were. What another
/// transaction has in hand at this moment is left.
///
/// The replay's row is held by whoever asks for it, so that nothing more comes meanwhile. Gates are held
/// before their deliveries: whoever holds a gate may want the next of them.
pub(super) async fn unsent(tx: &mut PgTransaction<'_>, replay: &ReplayRecord) -> Result<i64> {
    let mut leaving = gates_of(tx, replay).await?;
    gates::hold(tx, &leaving).await?;
    let rows: Vec<(Uuid, String, Uuid, Option<String>)> = sqlx::query_as(
        "-- postgres::withdraw::unsent
        select delivery_id, replayed, subscription_id, gate
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
        let rows = rows.iter().filter(|(_, replayed, ..)| replayed == was);
        rows.map(|(id, ..)| *id).collect()
    };
    resume(tx, of("pending")).await?;
    fail(tx, of("failed")).await?;
    forget(tx, of("succeeded")).await?;
    forget(tx, of("unmade")).await?;
    for (_, replayed, subscription, gate) in &rows {
        if let Some(edition) = gate
            && replayed != "pending"
        {
            leaving.add(gate_at(replay, *subscription, edition)?);
        }
    }
    gates::leave(tx, &leaving).await?;
    i64::try_from(rows.len()).map_err(StoreError::corrupt)
}

/// The gates at which there is anything of a replay; nobody leaves them yet.
async fn gates_of(tx: &mut PgTransaction<'_>, replay: &ReplayRecord) -> Result<Crowd> {
    let rows: Vec<(Uuid, String)> = sqlx::query_as(
        "-- postgres::withdraw::gates_of
        select distinct subscription_id, gate
        from delivery_queue
        where replay_id = $2 and workspace = $1 and gate is not null",
    )
    .bind(replay.reach.workspace.as_str())
    .bind(replay.id.uuid())
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    let mut crowd = Crowd::default();
    for (subscription, edition) in rows {
        crowd.add_many(gate_at(replay, subscription, &edition)?, 0);
    }
    Ok(crowd)
}

fn gate_at(replay: &ReplayRecord, subscription: Uuid, edition: &str) -> Result<Gate> {
    Ok(Gate {
        subscription: SubscriptionId::from_uuid(subscription),
        edition: parse("delivery_queue.gate", edition)?,
        workspace: replay.reach.workspace.clone(),
    })
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

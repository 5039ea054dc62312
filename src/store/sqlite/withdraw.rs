//! Taking what a replay put into the queue out again, as it was.

use sqlx::SqliteConnection;

use super::bulk::Statement;
use super::error::store_error;
use super::gates;
use super::rows::{get, id, parsed};
use crate::store::Result;
use crate::store::gates::{Crowd, Gate};
use crate::store::replays::ReplayRecord;

/// Takes out what of a replay nobody is sending; answers how many deliveries that were.
pub(super) async fn unsent(
    transaction: &mut SqliteConnection,
    replay: &ReplayRecord,
    now: i64,
) -> Result<i64> {
    let leaving = leaving(transaction, replay).await?;
    let resumed = run(
        transaction,
        replay,
        "-- sqlite::withdraw::unsent (pending)
        update delivery_queue
        set lane = iif(attempts = base, 0, 1), visible_at = former_at, replayed = null,
            former_at = null, replay_id = null
        where workspace = ?1 and replay_id = ?2 and owner is null and replayed = 'pending'",
    )
    .await?;
    run(
        transaction,
        replay,
        "-- sqlite::withdraw::unsent (failed)
        insert into delivery (workspace, id, event_id, subscription_id, state, attempts, epoch,
            settled_at)
        select workspace, delivery_id, event_id, subscription_id, 'failed', attempts, epoch, former_at
        from delivery_queue
        where workspace = ?1 and replay_id = ?2 and owner is null and replayed = 'failed'",
    )
    .await?;
    run(
        transaction,
        replay,
        "-- sqlite::withdraw::unsent (succeeded)
        update delivery
        set epoch = queued.epoch
        from delivery_queue as queued
        where queued.workspace = ?1 and queued.replay_id = ?2 and queued.owner is null
            and queued.replayed = 'succeeded'
            and delivery.workspace = queued.workspace and delivery.id = queued.delivery_id",
    )
    .await?;
    let removed = run(
        transaction,
        replay,
        "-- sqlite::withdraw::unsent (remove)
        delete from delivery_queue where workspace = ?1 and replay_id = ?2 and owner is null",
    )
    .await?;
    gates::leave(transaction, &leaving, now).await?;
    Ok(i64::try_from(resumed + removed).unwrap_or(i64::MAX))
}

/// Those who leave their gates with it.
async fn leaving(transaction: &mut SqliteConnection, replay: &ReplayRecord) -> Result<Crowd> {
    let rows = sqlx::query(
        "-- sqlite::withdraw::leaving
        select subscription_id, gate, count(*) as number
        from delivery_queue
        where workspace = ?1 and replay_id = ?2 and owner is null and replayed <> 'pending'
            and gate is not null
        group by subscription_id, gate",
    )
    .bind(replay.reach.workspace.as_str())
    .bind(replay.id.uuid())
    .fetch_all(transaction)
    .await
    .map_err(store_error)?;
    let mut crowd = Crowd::default();
    for row in &rows {
        let gate = Gate {
            subscription: id(row, "subscription_id")?,
            edition: parsed(row, "gate")?,
            workspace: replay.reach.workspace.clone(),
        };
        crowd.add_many(gate, get(row, "number")?);
    }
    Ok(crowd)
}

async fn run(
    transaction: &mut SqliteConnection,
    replay: &ReplayRecord,
    statement: &'static str,
) -> Result<u64> {
    let statement: Statement = sqlx::query(statement)
        .bind(replay.reach.workspace.to_shared())
        .bind(replay.id.uuid());
    let done = statement.execute(transaction).await.map_err(store_error)?;
    Ok(done.rows_affected())
}

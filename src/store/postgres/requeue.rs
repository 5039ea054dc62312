//! Putting deliveries into the queue again: what a replay does to each.

use std::collections::HashMap;

use sqlx::PgTransaction;
use uuid::Uuid;

use super::errors::{expect_rows, from_sqlx};
use super::rows::{lane_number, parse};
use super::{Result, StoreError};
use crate::domain::delivery::{DeliveryState, Lane};
use crate::domain::ids::{DeliveryId, ReplayId, WorkspaceId};
use crate::domain::replay::{Refusal, Was};
use crate::store::replays::{Place, Requeued, Taker, judge};

/// Deliveries of one workspace that are to be replayed at once.
pub(super) struct Requeue<'a> {
    pub(super) workspace: &'a WorkspaceId,
    pub(super) bulk: Option<ReplayId>,
}

impl Requeue<'_> {
    /// Replays each of these that can be; answers in their order.
    ///
    /// It waits for nobody: a row that another transaction holds is being sent, settled or replayed at
    /// this moment, and counts as in flight. So whatever else is locked, there is no circle.
    pub(super) async fn run(
        &self,
        tx: &mut PgTransaction<'_>,
        ids: &[DeliveryId],
    ) -> Result<Vec<Requeued>> {
        let asked: Vec<Uuid> = ids.iter().map(DeliveryId::uuid).collect();
        let mut found = self.hold_queued(tx, &asked).await?;
        let elsewhere: Vec<Uuid> = asked
            .iter()
            .copied()
            .filter(|id| !found.contains_key(id))
            .collect();
        if !elsewhere.is_empty() {
            found.extend(self.hold_settled(tx, &elsewhere).await?);
        }
        let answers: Vec<Requeued> = asked
            .iter()
            .map(|id| found.get(id).copied().unwrap_or(Err(Refusal::InFlight)))
            .collect();
        let of = |wanted: Was| -> Vec<Uuid> {
            let chosen = asked.iter().zip(&answers);
            let chosen = chosen.filter(|(_, answer)| **answer == Ok(wanted));
            chosen.map(|(id, _)| *id).collect()
        };
        self.send_now(tx, of(Was::Pending)).await?;
        self.restart(tx, of(Was::Failed)).await?;
        self.repeat(tx, of(Was::Succeeded)).await?;
        Ok(answers)
    }

    async fn hold_queued(
        &self,
        tx: &mut PgTransaction<'_>,
        ids: &[Uuid],
    ) -> Result<HashMap<Uuid, Requeued>> {
        let rows: Vec<(Uuid, bool, bool, Option<String>)> = sqlx::query_as(
            "-- postgres::requeue::hold_queued
            select q.delivery_id, q.owner is not null, q.replayed is not null, s.status
            from delivery_queue q
            left join subscription s on s.id = q.subscription_id and s.workspace = q.workspace
            where q.workspace = $1 and q.delivery_id = any($2)
            order by q.delivery_id
            for update of q skip locked",
        )
        .bind(self.workspace.as_str())
        .bind(ids)
        .fetch_all(&mut **tx)
        .await
        .map_err(from_sqlx)?;
        let found = rows.into_iter().map(|(id, leased, replaying, status)| {
            let place = Place::Queue { leased, replaying };
            (id, judge(place, Taker::of(status.as_deref())))
        });
        Ok(found.collect())
    }

    async fn hold_settled(
        &self,
        tx: &mut PgTransaction<'_>,
        ids: &[Uuid],
    ) -> Result<HashMap<Uuid, Requeued>> {
        let rows: Vec<(Uuid, String, Option<String>, bool)> = sqlx::query_as(
            "-- postgres::requeue::hold_settled
            select
                d.id, d.state, s.status,
                exists (select from event e where e.id = d.event_id and e.workspace = d.workspace)
            from delivery d
            left join subscription s on s.id = d.subscription_id and s.workspace = d.workspace
            where d.workspace = $1
              and d.id = any($2)
              -- What is sent once more is in both, and held by somebody.
              and not exists (select from delivery_queue q where q.delivery_id = d.id)
            order by d.id
            for update of d skip locked",
        )
        .bind(self.workspace.as_str())
        .bind(ids)
        .fetch_all(&mut **tx)
        .await
        .map_err(from_sqlx)?;
        rows.into_iter()
            .map(|(id, state, status, event_is_kept)| {
                let place = Place::History {
                    state: parse::<DeliveryState>("delivery.state", &state)?,
                    event_is_kept,
                };
                Ok((id, judge(place, Taker::of(status.as_deref()))))
            })
            .collect()
    }

    async fn send_now(&self, tx: &mut PgTransaction<'_>, ids: Vec<Uuid>) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let sent = sqlx::query(
            "-- postgres::requeue::send_now
            update delivery_queue
            set lane = $1,
                former_at = visible_at,
                visible_at = clock_timestamp(),
                replayed = 'pending',
                replay_id = $2
            where delivery_id = any($3)",
        )
        .bind(lane_number(Lane::Replay))
        .bind(self.bulk.map(|id| id.uuid()))
        .bind(&ids)
        .execute(&mut **tx)
        .await
        .map_err(from_sqlx)?;
        expect_rows("delivery_queue", ids.len(), sent.rows_affected())
    }

    /// From history back into the queue, with a schedule that begins anew.
    async fn restart(&self, tx: &mut PgTransaction<'_>, ids: Vec<Uuid>) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let moved = sqlx::query(
            "-- postgres::requeue::restart
            with failed as (
                delete from delivery
                where workspace = $1 and id = any($2)
                returning id, event_id, subscription_id, epoch, attempts, settled_at
            )
            insert into delivery_queue (
                delivery_id, event_id, workspace, subscription_id, lane, visible_at, epoch, attempts,
                lost_leases, bytes, base, replayed, former_at, replay_id
            )
            select
                failed.id, failed.event_id, $1, failed.subscription_id, $3, clock_timestamp(),
                failed.epoch, failed.attempts, 0, octet_length(event.body), failed.attempts,
                'failed', failed.settled_at, $4
            from failed
            join event on event.id = failed.event_id and event.workspace = $1
            order by failed.id",
        )
        .bind(self.workspace.as_str())
        .bind(&ids)
        .bind(lane_number(Lane::Replay))
        .bind(self.bulk.map(|id| id.uuid()))
        .execute(&mut **tx)
        .await
        .map_err(from_sqlx)?;
        moved_all(&ids, moved.rows_affected())
    }

    /// One attempt more of what stays in history.
    async fn repeat(&self, tx: &mut PgTransaction<'_>, ids: Vec<Uuid>) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let copied = sqlx::query(
            "-- postgres::requeue::repeat
            insert into delivery_queue (
                delivery_id, event_id, workspace, subscription_id, lane, visible_at, epoch, attempts,
                lost_leases, bytes, base, replayed, replay_id
            )
            select
                d.id, d.event_id, d.workspace, d.subscription_id, $3, clock_timestamp(), d.epoch,
                d.attempts, 0, octet_length(event.body), d.attempts, 'succeeded', $4
            from delivery d
            join event on event.id = d.event_id and event.workspace = d.workspace
            where d.workspace = $1 and d.id = any($2)
            order by d.id",
        )
        .bind(self.workspace.as_str())
        .bind(&ids)
        .bind(lane_number(Lane::Replay))
        .bind(self.bulk.map(|id| id.uuid()))
        .execute(&mut **tx)
        .await
        .map_err(from_sqlx)?;
        moved_all(&ids, copied.rows_affected())
    }
}

/// An event that was removed since it was looked for takes the whole step back: it is done again, and
/// finds that.
fn moved_all(ids: &[Uuid], moved: u64) -> Result<()> {
    if usize::try_from(moved).ok() == Some(ids.len()) {
        return Ok(());
    }
    let gone = std::io::Error::other("an event was removed while it was being replayed");
    Err(StoreError::Unavailable(sqlx::Error::Io(gone)))
}

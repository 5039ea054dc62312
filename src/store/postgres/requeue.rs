//! Putting deliveries into the queue again: what a replay does to each.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgTransaction};
use uuid::Uuid;

use super::errors::{expect_rows, from_sqlx};
use super::rows::{lane_number, parse};
use super::{Result, gates};
use crate::domain::delivery::{DeliveryState, Lane};
use crate::domain::filter::EventType;
use crate::domain::ids::{DeliveryId, EditionId, EventId, ReplayId, SubscriptionId, WorkspaceId};
use crate::domain::replay::{Refusal, Was};
use crate::store::gates::{Comer, Gate, Place, arrival};
use crate::store::replays::{Place as Found, Requeued, Taker, judge};

/// Deliveries of one workspace that are to be replayed at once.
pub(super) struct Requeue<'a> {
    pub(super) workspace: &'a WorkspaceId,
    pub(super) bulk: Option<ReplayId>,
}

impl Requeue<'_> {
    /// Replays each of these that can be; answers in their order.
    ///
    /// It waits for gates, and for retention, which waits for no replay: a row that another transaction
    /// holds is being sent, settled or replayed at this moment, and counts as in flight. What is leased
    /// counts so without a look, and is not locked: its settle does not wait as long as this one waits for
    /// gates. Nor is what waits its turn at a gate, since a settle that holds the gate may want it. So
    /// whatever else is locked, there is no circle.
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
            self.hold_events(tx, &elsewhere).await?;
            found.extend(self.hold_settled(tx, &elsewhere).await?);
            for id in self.removed(tx, &elsewhere).await? {
                found.insert(id, Err(Refusal::EventRemoved));
            }
            found.extend(self.blocked(tx, &elsewhere).await?);
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
        let (failed, succeeded) = (of(Was::Failed), of(Was::Succeeded));
        let places = self.line_up(tx, &failed, &succeeded).await?;
        self.restart(tx, failed, &places).await?;
        self.repeat(tx, succeeded, &places).await?;
        Ok(answers)
    }

    /// Brings those that go by order to the tails of their gates, in the order of their events.
    async fn line_up(
        &self,
        tx: &mut PgTransaction<'_>,
        failed: &[Uuid],
        succeeded: &[Uuid],
    ) -> Result<HashMap<Uuid, (EditionId, Place)>> {
        if failed.is_empty() && succeeded.is_empty() {
            return Ok(HashMap::new());
        }
        let mut rows: Vec<ComerRow> = sqlx::query_as(
            "-- postgres::requeue::line_up
            select d.id, d.event_id, d.subscription_id, event.edition, event.type, event.occurred_at
            from delivery d
            join subscription s
                on s.id = d.subscription_id and s.workspace = d.workspace and s.ordering = 'edition'
            join event on event.id = d.event_id and event.workspace = d.workspace
            where d.workspace = $1
              and d.id = any($2)
              and event.edition is not null",
        )
        .bind(self.workspace.as_str())
        .bind([failed, succeeded].concat())
        .fetch_all(&mut **tx)
        .await
        .map_err(from_sqlx)?;
        rows.sort_by_key(|row| arrival(EventId::from_uuid(row.event_id), row.occurred_at));
        let comers = rows
            .into_iter()
            .filter_map(|row| row.into_comer(self.workspace).transpose());
        gates::line_up(tx, comers.collect::<Result<_>>()?).await
    }

    /// Those that wait for their time, or to be claimed.
    async fn hold_queued(
        &self,
        tx: &mut PgTransaction<'_>,
        ids: &[Uuid],
    ) -> Result<HashMap<Uuid, Requeued>> {
        let rows: Vec<(Uuid, bool, Option<String>)> = sqlx::query_as(
            "-- postgres::requeue::hold_queued
            select q.delivery_id, q.replayed is not null, s.status
            from delivery_queue q
            left join subscription s on s.id = q.subscription_id and s.workspace = q.workspace
            where q.workspace = $1
              and q.delivery_id = any($2)
              and q.visible_at < 'infinity'
              and q.owner is null
            order by q.delivery_id
            for update of q skip locked",
        )
        .bind(self.workspace.as_str())
        .bind(ids)
        .fetch_all(&mut **tx)
        .await
        .map_err(from_sqlx)?;
        let found = rows.into_iter().map(|(id, replaying, status)| {
            let found_at = Found::Queue {
                leased: false,
                replaying,
            };
            (id, judge(found_at, Taker::of(status.as_deref())))
        });
        Ok(found.collect())
    }

    /// Those that wait their turn.
    async fn blocked(
        &self,
        tx: &mut PgTransaction<'_>,
        ids: &[Uuid],
    ) -> Result<HashMap<Uuid, Requeued>> {
        let rows: Vec<(Uuid, bool, Option<String>)> = sqlx::query_as(
            "-- postgres::requeue::blocked
            select q.delivery_id, q.replayed is not null, s.status
            from delivery_queue q
            left join subscription s on s.id = q.subscription_id and s.workspace = q.workspace
            where q.workspace = $1 and q.delivery_id = any($2) and q.visible_at = 'infinity'",
        )
        .bind(self.workspace.as_str())
        .bind(ids)
        .fetch_all(&mut **tx)
        .await
        .map_err(from_sqlx)?;
        let found = rows.into_iter().map(|(id, replaying, status)| {
            let found_at = Found::Blocked { replaying };
            (id, judge(found_at, Taker::of(status.as_deref())))
        });
        Ok(found.collect())
    }

    /// Keeps the events of what was settled where they are, to the end: retention removes none that a
    /// delivery begins of here. Before the deliveries, as retention does it, and in the order of ids.
    async fn hold_events(&self, tx: &mut PgTransaction<'_>, ids: &[Uuid]) -> Result<()> {
        sqlx::query(
            "-- postgres::requeue::hold_events
            select
            from event
            where id = any(array(
                select d.event_id from delivery d where d.workspace = $1 and d.id = any($2)
            )) and workspace = $1
            order by id
            for key share",
        )
        .bind(self.workspace.as_str())
        .bind(ids)
        .execute(&mut **tx)
        .await
        .map_err(from_sqlx)?;
        Ok(())
    }

    /// Those that are nowhere any more: they went with their events.
    async fn removed(&self, tx: &mut PgTransaction<'_>, ids: &[Uuid]) -> Result<Vec<Uuid>> {
        sqlx::query_scalar(
            "-- postgres::requeue::removed
            select asked.id
            from unnest($2::uuid[]) as asked (id)
            where not exists (
                select from delivery_queue q where q.delivery_id = asked.id and q.workspace = $1
            ) and not exists (
                select from delivery d where d.workspace = $1 and d.id = asked.id
            )",
        )
        .bind(self.workspace.as_str())
        .bind(ids)
        .fetch_all(&mut **tx)
        .await
        .map_err(from_sqlx)
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
                let found_at = Found::History {
                    state: parse::<DeliveryState>("delivery.state", &state)?,
                    event_is_kept,
                };
                Ok((id, judge(found_at, Taker::of(status.as_deref()))))
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
    async fn restart(
        &self,
        tx: &mut PgTransaction<'_>,
        ids: Vec<Uuid>,
        places: &HashMap<Uuid, (EditionId, Place)>,
    ) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let columns = gates::Columns::of(&ids, places);
        let moved = sqlx::query(
            "-- postgres::requeue::restart
            with failed as (
                delete from delivery
                where workspace = $1 and id = any($2)
                returning id, event_id, subscription_id, epoch, attempts, settled_at
            )
            insert into delivery_queue (
                delivery_id, event_id, workspace, subscription_id, lane, visible_at, epoch, attempts,
                lost_leases, bytes, base, replayed, former_at, replay_id, gate, ord
            )
            select
                failed.id, failed.event_id, $1, failed.subscription_id, $3,
                case when at.waits then 'infinity' else clock_timestamp() end,
                failed.epoch, failed.attempts, 0, octet_length(event.body), failed.attempts,
                'failed', failed.settled_at, $4, at.gate, at.ord
            from failed
            join unnest($2, $5::text[], $6::bigint[], $7::boolean[]) as at (id, gate, ord, waits)
                on at.id = failed.id
            join event on event.id = failed.event_id and event.workspace = $1
            order by failed.id",
        )
        .bind(self.workspace.as_str())
        .bind(&ids)
        .bind(lane_number(Lane::Replay))
        .bind(self.bulk.map(|id| id.uuid()))
        .bind(columns.gates)
        .bind(columns.ords)
        .bind(columns.waits)
        .execute(&mut **tx)
        .await
        .map_err(from_sqlx)?;
        expect_rows("delivery_queue", ids.len(), moved.rows_affected())
    }

    /// One attempt more of what stays in history.
    async fn repeat(
        &self,
        tx: &mut PgTransaction<'_>,
        ids: Vec<Uuid>,
        places: &HashMap<Uuid, (EditionId, Place)>,
    ) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let columns = gates::Columns::of(&ids, places);
        let copied = sqlx::query(
            "-- postgres::requeue::repeat
            insert into delivery_queue (
                delivery_id, event_id, workspace, subscription_id, lane, visible_at, epoch, attempts,
                lost_leases, bytes, base, replayed, replay_id, gate, ord
            )
            select
                d.id, d.event_id, d.workspace, d.subscription_id, $3,
                case when at.waits then 'infinity' else clock_timestamp() end, d.epoch,
                d.attempts, 0, octet_length(event.body), d.attempts, 'succeeded', $4, at.gate,
                at.ord
            from unnest($2, $5::text[], $6::bigint[], $7::boolean[]) as at (id, gate, ord, waits)
            join delivery d on d.id = at.id
            join event on event.id = d.event_id and event.workspace = d.workspace
            where d.workspace = $1
            order by d.id",
        )
        .bind(self.workspace.as_str())
        .bind(&ids)
        .bind(lane_number(Lane::Replay))
        .bind(self.bulk.map(|id| id.uuid()))
        .bind(columns.gates)
        .bind(columns.ords)
        .bind(columns.waits)
        .execute(&mut **tx)
        .await
        .map_err(from_sqlx)?;
        expect_rows("delivery_queue", ids.len(), copied.rows_affected())
    }
}

/// A delivery of an ordered subscription, in history.
#[derive(FromRow)]
struct ComerRow {
    id: Uuid,
    event_id: Uuid,
    subscription_id: Uuid,
    edition: String,
    r#type: String,
    occurred_at: DateTime<Utc>,
}

impl ComerRow {
    /// `None` for one that waits for nobody.
    fn into_comer(self, workspace: &WorkspaceId) -> Result<Option<Comer>> {
        let event_type: EventType = parse("event.type", &self.r#type)?;
        if event_type.is_operational() {
            return Ok(None);
        }
        Ok(Some(Comer {
            delivery: DeliveryId::from_uuid(self.id),
            gate: Gate {
                subscription: SubscriptionId::from_uuid(self.subscription_id),
                edition: parse("event.edition", &self.edition)?,
                workspace: workspace.clone(),
            },
        }))
    }
}

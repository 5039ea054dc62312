//! Deliveries of events that came before their subscription asked for them.

use sqlx::PgTransaction;
use uuid::Uuid;

use super::errors::{from_sqlx, reading};
use super::requeue::Requeue;
use super::rows::lane_number;
use super::{PostgresStore, Result};
use crate::domain::delivery::Lane;
use crate::domain::ids::{EventId, SubscriptionId, WorkspaceId};
use crate::domain::replay::Refusal;
use crate::store::identity::delivery_id;
use crate::store::replays::Taker;

impl PostgresStore {
    pub(super) async fn without_delivery(
        &self,
        workspace: &WorkspaceId,
        subscription: SubscriptionId,
        events: &[EventId],
    ) -> Result<Vec<EventId>> {
        let (deliveries, events) = pairs(subscription, events);
        let found: Vec<Uuid> = reading(async {
            sqlx::query_scalar(
                "-- postgres::backfill::without_delivery
                select asked.event_id
                from unnest($2::uuid[], $3::uuid[]) as asked (delivery_id, event_id)
                where not exists (
                    select from delivery_queue q
                    where q.delivery_id = asked.delivery_id and q.workspace = $1
                ) and not exists (
                    select from delivery d
                    where d.workspace = $1 and d.id = asked.delivery_id
                )
                order by asked.event_id",
            )
            .bind(workspace.as_str())
            .bind(deliveries)
            .bind(events)
            .fetch_all(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        Ok(found.into_iter().map(EventId::from_uuid).collect())
    }
}

/// Makes the deliveries of these events that are not there yet; how many, or why none.
pub(super) async fn make(
    tx: &mut PgTransaction<'_>,
    requeue: &Requeue<'_>,
    subscription: SubscriptionId,
    events: &[EventId],
) -> Result<std::result::Result<u64, Refusal>> {
    if events.is_empty() {
        return Ok(Ok(0));
    }
    let status: Option<String> = sqlx::query_scalar(
        "-- postgres::backfill::make (subscription)
        select status from subscription where workspace = $1 and id = $2",
    )
    .bind(requeue.workspace.as_str())
    .bind(subscription.uuid())
    .fetch_optional(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    if let Err(refusal) = Taker::of(status.as_deref()).takes() {
        return Ok(Err(refusal));
    }
    let (deliveries, events) = pairs(subscription, events);
    let made = sqlx::query(
        "-- postgres::backfill::make
        insert into delivery_queue (
            delivery_id, event_id, workspace, subscription_id, lane, visible_at, epoch, attempts,
            lost_leases, bytes, base, replayed, replay_id
        )
        select
            asked.delivery_id, event.id, event.workspace, $4, $5, clock_timestamp(), 0, 0, 0,
            octet_length(event.body), 0, 'unmade', $6
        from unnest($2::uuid[], $3::uuid[]) as asked (delivery_id, event_id)
        join event on event.id = asked.event_id and event.workspace = $1
        where not exists (
            select from delivery_queue q where q.delivery_id = asked.delivery_id
        ) and not exists (
            select from delivery d where d.workspace = $1 and d.id = asked.delivery_id
        )
        order by asked.delivery_id
        on conflict do nothing",
    )
    .bind(requeue.workspace.as_str())
    .bind(deliveries)
    .bind(events)
    .bind(subscription.uuid())
    .bind(lane_number(Lane::Replay))
    .bind(requeue.bulk.map(|id| id.uuid()))
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(Ok(made.rows_affected()))
}

/// Each event beside the delivery that it would have.
fn pairs(subscription: SubscriptionId, events: &[EventId]) -> (Vec<Uuid>, Vec<Uuid>) {
    events
        .iter()
        .map(|event| (delivery_id(*event, subscription).uuid(), event.uuid()))
        .unzip()
}
